"""The golden tiny round: the whole algorithm on real vLLM, Ray Data, Ray Train and DeepSpeed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.cli import main
from fdd_ray.errors import StageError, StoreError
from fdd_ray.launch import TINY_EXPERIMENT, run_experiment
from fdd_ray.records import Attempt, Curated, Example, Problem, Taught, from_table, schema_of
from fdd_ray.report.status import read_status
from fdd_ray.store import files
from fdd_ray.store.ledger import read_ledger

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SMALL = [
    "rounds=1",
    "pool.size=200",
    "feedback.new_problems=150",
    "benchmarks.in_distribution.size=150",
    "benchmarks.out_of_distribution.size=30",
    "teacher.replicas=1",
]


@pytest.fixture(scope="module")
def golden(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A finished run of one round, and its overrides."""
    overrides = [*SMALL, f"storage={tmp_path_factory.mktemp('runs')}"]
    return run_experiment(TINY_EXPERIMENT, overrides), overrides


def _rows(directory: str, where: str, row_type: type) -> list[Any]:
    names = [name for name in files.list_names(f"{directory}/{where}", ".parquet") if name.startswith("part-")]
    return from_table(files.read_tables([f"{directory}/{where}/{n}" for n in names], schema_of(row_type)), row_type)


def test_the_student_gets_better(golden: tuple[str, list[str]]) -> None:
    status = read_status(golden[0])
    base = status["base"]["accuracy"]["in_distribution"]
    first, last = (entry["accuracy"]["in_distribution"] for entry in status["rounds"])
    assert base["n"] == first["n"] == last["n"] == 150
    assert last["value"] > base["value"] + 0.1
    assert last["low"] > base["value"]


def test_every_row_of_every_stage_is_accounted_for(golden: tuple[str, list[str]]) -> None:
    status = read_status(golden[0])
    assert all(stage["done"] for stage in status["stages"])
    for stage in status["stages"]:
        counts = stage["counts"]
        assert counts["rows"] == counts["kept"] + sum(counts["rejected"].values()) + counts["failed"], stage
    entry = status["rounds"][1]
    assert entry["easy"] + entry["hard"] == 200
    assert entry["easy"] > 0 and entry["hard"] > 0
    assert entry["kept"] > 100 and entry["failed"] == 0


def test_the_report_accounts_for_each_round_by_reason(
    golden: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the report says of each round is what lies on disk, row by row, and adds up to what was asked."""
    directory = golden[0]
    assert main(["report", directory]) == 0
    report = capsys.readouterr().out
    requests = files.count_rows(f"{directory}/round-01/split/requests.parquet")
    rounds: list[tuple[str, list[Any], int]] = [
        ("seed problems", _rows(directory, "round-00/rationales", Taught), 200),
        ("new problems asked for", _rows(directory, "round-01/curate", Curated), requests),
    ]
    for number, (what, rows, asked) in enumerate(rounds):
        outcomes = Counter(row.outcome for row in rows)
        assert sum(outcomes.values()) == asked
        account = f"{outcomes['kept']} kept + {outcomes['rejected']} rejected + {outcomes['failed']} failed"
        assert f"round {number}: {asked} {what} = {account}" in report
        for reason, count in Counter(row.reason for row in rows if row.outcome == "rejected").items():
            assert f"    {reason} " in report and f" {count:>6}  {100 * count / asked:5.1f} %" in report


def test_rows_flow_from_stage_to_stage_by_id(golden: tuple[str, list[str]]) -> None:
    directory = golden[0]
    pool = from_table(files.read_tables([f"{directory}/round-00/problems/pool.parquet"], schema_of(Problem)), Problem)
    taught = _rows(directory, "round-00/rationales", Taught)
    curated = _rows(directory, "round-01/curate", Curated)
    attempts = _rows(directory, "round-01/score", Attempt)
    examples = from_table(
        files.read_tables([f"{directory}/round-01/finetune/examples.parquet"], schema_of(Example)), Example
    )
    assert Counter(row.id for row in taught) == Counter(problem.id for problem in pool)
    accepted = {row.problem_id for row in curated if row.outcome == "kept"}
    assert {row.parent_id for row in curated} <= {problem.id for problem in pool}
    assert Counter(row.origin for row in curated).keys() == {"complex", "similar"}
    assert {row.problem_id for row in attempts if row.subject == "pool"} == {p.id for p in pool} | accepted
    assert {example.problem_id for example in examples} == {r.id for r in taught if r.outcome == "kept"} | accepted
    held = {row.problem_id for row in attempts if row.subject != "pool"}
    assert not held & {example.problem_id for example in examples}


def test_the_student_is_an_ordinary_hugging_face_model(golden: tuple[str, list[str]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(golden[0], "round-01", "finetune", "student")
    assert (folder / "model.safetensors").is_file()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    question = "Tom has 5 apples. Tom buys 3 more apples. How many apples does Tom have now?"
    messages = [{"role": "user", "content": f"Solve this problem with a Python program:\n{question}"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    reply = tokenizer.decode(
        model.generate(**tokens, max_new_tokens=40, do_sample=False)[0, tokens["input_ids"].shape[1] :]
    )
    assert "answer" in reply


def test_the_same_command_again_does_nothing(golden: tuple[str, list[str]]) -> None:
    """From a fresh process, as a user would: no stage starts, and Ray is not even loaded."""
    directory, overrides = golden
    before = len([event for event in read_ledger(directory) if event["event"] == "stage started"])
    code = (
        "import sys\nfrom fdd_ray.cli import main\ncode = main(sys.argv[1:])\n"
        "print('ray' in sys.modules)\nsys.exit(code)"
    )
    command = [sys.executable, "-c", code, "run", str(TINY_EXPERIMENT)]
    done = subprocess.run(
        [*command, *(part for text in overrides for part in ("--set", text))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert "round 1 score: done before, skipped" in done.stderr
    assert len([event for event in read_ledger(directory) if event["event"] == "stage started"]) == before


def test_more_rounds_may_be_added_but_finished_work_not_changed(golden: tuple[str, list[str]]) -> None:
    directory, overrides = golden
    with pytest.raises(StoreError, match=r"finetune\.epochs: 5 -> 4"):
        run_experiment(TINY_EXPERIMENT, [*overrides, "finetune.epochs=4"])
    assert read_status(directory)["rounds"][-1]["round"] == 1


def test_the_ledger_tells_what_each_stage_waited_for(golden: tuple[str, list[str]]) -> None:
    waited: dict[tuple[int | None, str], set[str]] = {}
    for event in read_ledger(golden[0]):
        if event["event"] == "waited":
            waited.setdefault((event["round"], event["stage"]), set()).add(event["what"])
            assert event["seconds"] >= 0 and event.get("ahead", 0) >= 0
    student, teacher = (
        {f"{role} {what}" for what in ("place", "weights", "engines")} for role in ("student", "teacher")
    )
    assert waited == {
        (None, "score"): {"Ray", *student},
        (0, "rationales"): teacher,
        (0, "finetune"): {"training place"},
        (0, "score"): student,
        (1, "synthesise"): teacher,
        (1, "finetune"): {"training place"},
        (1, "score"): student,
    }


def test_status_and_report_print_the_run(golden: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", golden[0], "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert set(status) == {"rounds", "base", "stages", "driver", "spent"}
    assert main(["report", golden[0]]) == 0
    text = capsys.readouterr().out
    assert "in_distribution % [95 %]" in text and "synthesise" in text


def test_evaluate_scores_any_model_folder(
    golden: tuple[str, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory, overrides = golden
    student = f"{directory}/round-01/finetune/student"
    sets = [part for text in [*overrides, f"storage={tmp_path}"] for part in ("--set", text)]
    assert main(["evaluate", student, "--experiment", str(TINY_EXPERIMENT), "--json", *sets]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"]["in_distribution"] == read_status(directory)["rounds"][1]["accuracy"]["in_distribution"]


def _gsm8k(folder: Path, tmp_path: Path, *more: str) -> list[str]:
    job = Path(__file__).parents[1] / "jobs" / "gsm8k_tiny.yaml"
    sets = [
        f"storage={tmp_path}", f"pool.path={folder}/gsm8k_train.jsonl", "pool.limit=300",
        f"benchmarks.gsm8k.path={folder}/gsm8k_test.jsonl", "benchmarks.gsm8k.limit=60", *more,
    ]  # fmt: skip
    return ["run", str(job), *(part for text in sets for part in ("--set", text))]


def test_real_problems_that_the_tiny_teacher_cannot_solve(
    ray_local: None, gsm8k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_gsm8k(gsm8k, tmp_path)) == StageError.exit_code
    assert "problems have a verified rationale, and teach.min_kept = 32 are needed" in capsys.readouterr().err
    status = read_status(str(tmp_path / "gsm8k_tiny"))
    (entry,) = status["rounds"]
    assert entry["kept"] + sum(entry["rejected"].values()) == 300 and entry["failed"] == 0
    assert entry["kept"] < 32
    assert len(entry["rejected"]) >= 3, "each row says why it was rejected"
    assert all(stage["done"] for stage in status["stages"])


def test_real_problems_with_their_own_solutions(
    ray_local: None, gsm8k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_gsm8k(gsm8k, tmp_path, "rationales=from_dataset", "kind=chain", "rounds=0")) == 0
    (entry,) = read_status(str(tmp_path / "gsm8k_tiny"))["rounds"]
    assert entry["kept"] == 300
    assert 0 < entry["distillation_set"] <= 300
    assert entry["accuracy"]["gsm8k"]["n"] == 60
    assert entry["accuracy"]["gsm8k"]["value"] < 0.2
