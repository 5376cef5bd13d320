"""The deduplicate command on files of several formats, here and on Ray."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.cleaning.deduplicate import deduplicate
from fdd_ray.cli import main
from fdd_ray.curation.duplicates import DuplicateSettings
from fdd_ray.problems import SourceSettings

ANN = "Ann has 3 apples and buys 4 more of them. How many apples does Ann have now?"


def _write(path: Path, rows: Sequence[Any]) -> str:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def _row(question: str, answer: str = "7") -> dict[str, str]:
    return {"question": question, "answer": answer}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["deduplicate", *arguments, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_every_row_is_kept_or_dropped_with_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = _write(
        tmp_path / "new.jsonl",
        [_row(ANN.upper()), _row("Something else, with 12 nuts?"), "no json", _row(ANN.replace("3", "5"), "9")],
    )
    more = _write(tmp_path / "more.jsonl.gz", [_row("something else with 12 nuts"), _row(ANN.replace("3", "three"))])
    pool = _write(tmp_path / "pool.jsonl", [_row(ANN)])
    kept, evidence = tmp_path / "kept.jsonl", tmp_path / "evidence.jsonl"
    told = _run(
        capsys, new, more, "--against", pool, "--per-template", "2", "--output", str(kept), "--evidence", str(evidence)
    )
    assert told == {
        "rows": 6,
        "kept": 2,
        "dropped": {"exact_duplicate": 1, "duplicate": 1, "near_duplicate": 1},
        "drop_rate": 0.6,
        "unreadable": {"not_json": 1},
        "against": 1,
        "settings": {"per_template": 2, "similarity": 0.8},
    }
    found = {row["reason"]: row for row in _lines(evidence)}
    assert found["exact_duplicate"]["question"] == ANN.upper()
    assert found["near_duplicate"]["source"] == f"{more}:2"
    assert found["near_duplicate"]["similarity"] == 1.0
    assert {found[reason]["like_question"] for reason in ("exact_duplicate", "near_duplicate")} == {ANN}
    ids = {row["id"] for row in _lines(kept)}
    assert found["duplicate"]["like_id"] in ids and found["duplicate"]["id"] not in ids
    assert _run(capsys, str(kept))["kept"] == 2, "what was kept can be read again and is clean"


def test_the_order_of_files_and_rows_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [_row(ANN.replace("3", str(i % 7 + 2)).replace("Ann", name)) for i, name in enumerate(["Ann", "Eve"] * 12)]
    first, second = _write(tmp_path / "1.jsonl", rows[:9]), _write(tmp_path / "2.jsonl", rows[9:])
    other = _write(tmp_path / "3.jsonl", rows[::-1])
    kept = []
    for number, paths in enumerate([[first, second], [second, first], [other]]):
        output = tmp_path / f"kept-{number}.jsonl"
        told = _run(capsys, *paths, "--per-template", "3", "--output", str(output))
        assert told["rows"] == 24 and 0 < told["kept"] < 24
        kept.append({row["id"] for row in _lines(output)})
    assert kept[0] == kept[1] == kept[2]


def test_the_table_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deduplicate", _write(tmp_path / "a.jsonl", [_row(ANN), _row(ANN), "{"]), "--similarity", "off"]) == 0
    printed = capsys.readouterr()
    assert "   3     1        1           1     50.00%" in printed.out
    assert "exact_duplicate     1" in printed.out and "a.jsonl:3: not_json" in printed.err


@pytest.mark.parametrize(
    ("arguments", "code", "seen"),
    [
        (["none.jsonl"], 3, "none.jsonl"),
        (["empty.jsonl"], 3, "no usable problem"),
        (["a.jsonl", "--output", "a.jsonl"], 4, "a.jsonl is read"),
        (["a.jsonl", "--similarity", "0.4"], 2, "0.4"),
        (["a.jsonl", "--per-template", "0"], 2, "from 1 on"),
    ],
)
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, seen: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "a.jsonl", [_row(ANN)])
    _write(tmp_path / "empty.jsonl", ["{}"])
    try:
        ended = main(["deduplicate", *arguments])
    except SystemExit as error:
        ended = int(error.code or 0)
    assert ended == code
    assert seen in capsys.readouterr().err


def test_the_training_problems_of_gsm8k(gsm8k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evidence = tmp_path / "evidence.jsonl"
    told = _run(capsys, str(gsm8k / "gsm8k_train.jsonl"), "--evidence", str(evidence))
    assert (told["rows"], told["kept"], told["dropped"]) == (7473, 7472, {"near_duplicate": 1})
    (dropped,) = _lines(evidence)
    assert dropped["question"].removeprefix("Amanda") == dropped["like_question"].removeprefix("Josie")
    held = _run(capsys, str(gsm8k / "gsm8k_test.jsonl"), "--against", str(gsm8k / "gsm8k_train.jsonl"))
    assert (held["kept"], held["dropped"]) == (1319, {})


@pytest.mark.cluster
@pytest.mark.slow
def test_many_rows_go_through_ray(ray_local: None, tmp_path: Path) -> None:
    rows = [_row(ANN.replace("3", str(i % 7 + 2)).replace("Ann", name)) for i, name in enumerate(["Ann", "Eve"] * 12)]
    source = SourceSettings("jsonl", _write(tmp_path / "a.jsonl", rows))
    settings = DuplicateSettings(per_template=3)
    here = deduplicate([source], [source], settings, str(tmp_path / "here"))
    on_ray = deduplicate([source], [source], settings, str(tmp_path / "ray"), few_rows=10)
    assert here.dropped == on_ray.dropped == {"exact_duplicate": 24}
    assert list(here.evidence_rows()) == list(on_ray.evidence_rows())
