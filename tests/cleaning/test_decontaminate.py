"""``fdd-ray decontaminate`` on its own: every row is accounted for, nothing is overwritten by accident."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.cli import main
from fdd_ray.problems import SourceSettings, load_problems

HELD = (
    "A baker fills 12 trays with 24 rolls each before sunrise. By noon the shop has sold 200 rolls to the "
    "school and 35 more to passing hikers. How many rolls are still waiting on the shelves?"
)
SHORT = "Seven red pens cost 14 dollars in all. What does one pen cost?"
# The same with other numbers and a word or two changed.
HELD_CHANGED = HELD.translate(str.maketrans("1234", "5678")).replace("still", "now")
SHORT_CHANGED = "Seven blue pens cost 28 dollars in total. What does one pen cost?"
OTHER = "A farmer has 9 cows and sells 5 of them at the fair. How many cows are left?"


def jsonl(path: Path, *questions: Any) -> str:
    rows = [{"question": q, "answer": "1"} if isinstance(q, str) else q for q in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def held(tmp_path: Path) -> str:
    return jsonl(tmp_path / "held.jsonl", HELD, SHORT)


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    return jsonl(
        tmp_path / "mixed.jsonl",
        OTHER,
        HELD.upper(),
        HELD.replace(".", ";"),
        HELD_CHANGED,
        SHORT_CHANGED,
        {"question": "", "answer": "1"},
        OTHER.lower(),
        {"question": "What?"},
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_is_accounted_for(tmp_path: Path, held: str, mixed: str, capsys: pytest.CaptureFixture[str]) -> None:
    clean, evidence = tmp_path / "out" / "clean.jsonl", tmp_path / "out" / "evidence.jsonl"
    code = main(
        ["decontaminate", mixed, "--against", held, "--output", str(clean), "--evidence", str(evidence), "--json"]
    )
    assert code == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["rows"] == 8
    assert counts["clean"] == 1
    assert counts["removed"] == {"same_problem": 1, "same_text": 1, "ngram": 1, "containment": 1}
    assert counts["repeated"] == 1
    assert counts["unreadable"] == {"empty_question": 1, "missing_column": 1}
    assert counts["benchmarks"] == {"held": {"problems": 2, "unreadable": 0, "removed": 4}}
    assert counts["ngrams_alone"] == {
        "masked": {"8": 3, "10": 3, "13": 3},
        "as_written": {"8": 3, "10": 3, "13": 2},  # at most ten words between changed ones
    }
    assert counts["settings"]["ngram"] == 10

    found, others = rows_of(evidence)[:4], rows_of(evidence)[4:]
    assert len(found) + len(others) + counts["clean"] == counts["rows"], "every row is in one of the two files"
    assert sorted(row["reason"] for row in others) == ["empty_question", "missing_column", "repeated"]
    assert all(row["source"].startswith(mixed) and row["detail"] for row in others)
    assert [row["source"] for row in found] == [f"{mixed}:{line}" for line in (2, 3, 4, 5)]
    assert [row["reason"] for row in found] == ["same_problem", "same_text", "ngram", "containment"]
    assert {row["benchmark"] for row in found} == {"held"}
    assert [row["benchmark_question"] for row in found] == [HELD, HELD, HELD, SHORT]
    assert found[3]["question"] == SHORT_CHANGED
    assert found[3]["span"] == "pens cost # dollars in"
    assert found[2]["measure"] == len(HELD.split()) - 5  # "still waiting on the shelves"

    again = load_problems([SourceSettings("jsonl", str(clean))], seed=0, name="clean")
    assert [problem.question for problem in again.problems] == [OTHER]


def test_tables_are_for_people(held: str, mixed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decontaminate", mixed, "--against", f"bench={held}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["rows", "clean", "removed", "repeated", "unreadable"]
    assert lines[2] == ["8", "1", "4", "1", "2"]
    for wanted in (["ngram", "bench", "1"], ["containment", "bench", "1"], ["missing_column", "1"], ["13", "3", "2"]):
        assert wanted in lines


@pytest.mark.parametrize(
    ("options", "removed"),
    [
        ([], {"same_problem", "same_text", "ngram", "containment"}),
        (["--containment", "off"], {"same_problem", "same_text", "ngram"}),
        (["--ngram", "off", "--containment", "off"], {"same_problem", "same_text"}),
        (["--ngram", "off"], {"same_problem", "same_text", "containment"}),
        (["--ngram", "13", "--containment", "off", "--keep-numbers"], {"same_problem", "same_text"}),
    ],
)
def test_measures_can_be_chosen(
    held: str, mixed: str, options: list[str], removed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decontaminate", mixed, "--against", held, "--json", *options]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert set(counts["removed"]) == removed
    assert counts["rows"] == counts["clean"] + sum(counts["removed"].values()) + counts["repeated"] + sum(
        counts["unreadable"].values()
    )


def test_formats_are_found_out_by_name_and_first_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worked = {"question": HELD, "answer": "12*24 = <<12*24=288>>288\n#### 53"}
    (tmp_path / "gsm.jsonl.gz").write_bytes(gzip.compress(json.dumps(worked).encode()))
    (tmp_path / "multi.json").write_text(json.dumps([{"iIndex": 1, "sQuestion": HELD, "lSolutions": [53.0]}]))
    svamp = {"ID": "c-1", "Body": HELD.rpartition(". ")[0] + ".", "Question": HELD.rpartition(". ")[2], "Answer": 53}
    (tmp_path / "svamp.json").write_text(json.dumps([svamp]))
    (tmp_path / "table.csv").write_text(f'prompt,answer\n"{HELD}",53\n')
    (tmp_path / "asdiv.xml").write_text(
        f"<M><ProblemSet><Problem ID='1'><Body>{svamp['Body']}</Body><Question>{svamp['Question']}</Question>"
        "<Answer>53 (rolls)</Answer></Problem></ProblemSet></M>"
    )
    out = tmp_path / "clean.jsonl"
    benches = [str(tmp_path / name) for name in ("gsm.jsonl.gz", "multi.json", "svamp.json", "asdiv.xml")]
    for bench in benches:
        code = main(["decontaminate", str(tmp_path / "table.csv"), "--columns", "question=prompt", "--against", bench,
                     "--output", str(out), "--json"])  # fmt: skip
        assert code == 0, bench
        counts = json.loads(capsys.readouterr().out)
        assert counts["removed"] == {"same_problem": 1}, bench
        assert list(counts["benchmarks"]) == [Path(bench).name.split(".")[0]]
        assert out.read_text() == ""
        out.unlink()
    # The solution of GSM8K stays with its problem, apart from the answer.
    far = jsonl(tmp_path / "far.jsonl", OTHER)
    assert main(["decontaminate", benches[0], "--against", far, "--output", str(out)]) == 0
    (row,) = rows_of(out)
    assert (row["answer"], row["solution"]) == ("53", "12*24 = 288\n#### 53")


def test_files_are_not_overwritten_unless_told_to(
    tmp_path: Path, held: str, mixed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clean.jsonl"
    out.write_text("precious")
    command = ["decontaminate", mixed, "--against", held]
    assert main([*command, "--output", str(out)]) == 4
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--evidence", str(out)]) == 4
    assert out.read_text() == "precious"
    before = Path(mixed).read_text()
    for target in (mixed, held):
        assert main([*command, "--output", target, "--force"]) == 4
    assert main([*command, "--output", str(out), "--evidence", str(out), "--force"]) == 4
    assert (out.read_text(), Path(mixed).read_text()) == ("precious", before)
    assert main([*command, "--output", str(out), "--force"]) == 0
    assert [row["question"] for row in rows_of(out)] == [OTHER]


def test_what_cannot_be_used_is_named_with_its_exit_code(
    tmp_path: Path, held: str, mixed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    odd = tmp_path / "odd.json"
    odd.write_text("[]")
    (tmp_path / "a").mkdir()
    twin = jsonl(tmp_path / "a" / "held.jsonl", OTHER)
    for arguments, code, message in (
        ([str(tmp_path / "none.jsonl"), "--against", held], 3, "none.jsonl"),
        ([mixed, "--against", str(tmp_path / "none.jsonl")], 3, "none.jsonl"),
        ([str(empty), "--against", held], 3, "has no rows"),
        ([mixed, "--against", f"x={empty}"], 3, "x: "),
        ([str(odd), "--against", held], 3, "give --format"),
        ([mixed, "--against", held, twin], 2, "two benchmarks are called held"),
        ([mixed, "--against", held, "--columns", "question"], 2, "FIELD=COLUMN"),
        ([mixed, "--against", held, "--columns", "qestion=x"], 2, "did you mean question?"),
        ([mixed, "--against", held, "--columns", "question=prompt"], 3, "no usable problem"),
    ):
        assert main(["decontaminate", *arguments]) == code, arguments
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [["--ngram", "3"], ["--ngram", "x"], ["--containment", "0"], ["--containment", "nan"], ["--containment", "x"],
     ["--format", "hub"]],
)  # fmt: skip
def test_bad_options_are_bad_usage(held: str, mixed: str, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["decontaminate", mixed, "--against", held, *wrong])
    assert caught.value.code == 2
    with pytest.raises(SystemExit):
        main(["decontaminate", mixed])


def test_benchmark_rows_that_nothing_was_checked_against_are_told(
    tmp_path: Path, mixed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn.jsonl"
    torn.write_text(json.dumps({"question": HELD, "answer": "53"}) + '\n{"question": "Wh')
    assert main(["decontaminate", mixed, "--against", str(torn), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["benchmarks"]["torn"]["unreadable"] == 1
    assert "nothing was checked against 1 rows" in err
    assert f"{torn}:2: not_json" in err


def test_hostile_rows_do_no_harm(tmp_path: Path, held: str, capsys: pytest.CaptureFixture[str]) -> None:
    evidence = tmp_path / "evidence.jsonl"
    path = jsonl(
        tmp_path / "hostile.jsonl", "x" * 100_000, "\x1b[2J" + HELD, "?!" * 500, "\u202e" + HELD, "word " * 3_999,
        f"Ignore the check. {HELD}\nEnd.",
    )  # fmt: skip
    assert main(["decontaminate", path, "--against", held, "--evidence", str(evidence), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["unreadable"] == {"too_long": 1, "control_characters": 1}
    assert (counts["clean"], counts["rows"]) == (2, 6)
    found = rows_of(evidence)
    assert [row["reason"] for row in found] == ["same_text", "ngram", "too_long", "control_characters"]
    assert all(row.get("span", row.get("detail")).isprintable() for row in found)


def test_the_real_files_give_the_known_counts(gsm8k: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = (str(gsm8k / f"gsm8k_{split}.jsonl") for split in ("train", "test"))
    assert main(["decontaminate", train, "--against", f"gsm8k={test}", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["ngrams_alone"] == {
        "as_written": {"8": 94, "10": 11, "13": 4},
        "masked": {"8": 217, "10": 31, "13": 8},
    }
    assert (counts["rows"], counts["clean"], counts["removed"]) == (7473, 7441, {"ngram": 31, "containment": 1})
