from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from fdd_ray.report.status import read_status
from fdd_ray.report.table import accuracy_table, align, details, rounds_table
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult

ACCURACY = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 40}


def _run(tmp_path: Path) -> str:
    run = Run(str(tmp_path))
    files.write_bytes(str(tmp_path / "experiment.yaml"), b"name: x\n")

    def done(counts: Counts, **summary: object) -> object:
        return lambda folder: StageResult(counts, (), {"teacher": {"prompt": 3, "completion": 4}}, summary)

    score = {
        "accuracy": {"bench": ACCURACY, "pool": {**ACCURACY, "value": 0.5}},
        "by_steps": {"bench": {"2": ACCURACY}, "pool": {"1": ACCURACY}},
        "majority": {"k": 4, "accuracy": {"bench": ACCURACY}},
    }
    run.once("score", None, {}, done(Counts(40, 40), accuracy={"bench": {**ACCURACY, "value": 0.1}}))  # type: ignore[arg-type]
    read = {"rows": 12, "kept": 10, "rejected": {"not_json": 2}, "failed": 0}
    run.once("problems", 0, {}, done(Counts(16, 14, {"not_json": 2}), pool=read))  # type: ignore[arg-type]
    run.once("rationales", 0, {}, done(Counts(10, 7, {"wrong_answer": 2}, 1)))  # type: ignore[arg-type]
    run.once("finetune", 0, {}, done(Counts(7, 7)))  # type: ignore[arg-type]
    run.once("score", 0, {}, done(Counts(50, 50), **score))  # type: ignore[arg-type]
    run.once("split", 1, {}, done(Counts(10, 10), easy=4, hard=6))  # type: ignore[arg-type]

    def killed(folder: StageFolder) -> StageResult:
        folder.write("part-x.parquet", pa.table({"id": [str(number) for number in range(5)]}))
        raise RuntimeError

    try:
        run.once("synthesise", 1, {}, killed)
    except RuntimeError:
        return str(tmp_path)
    raise AssertionError


def test_status_tells_rounds_base_and_stages(tmp_path: Path) -> None:
    status = read_status(_run(tmp_path))
    assert status["base"] == {"accuracy": {"bench": {**ACCURACY, "value": 0.1}}, "by_steps": {}, "majority": {}}
    assert status["rounds"][0] == {
        "round": 0,
        "easy": None,
        "hard": None,
        "policy": None,
        "asked": 10,
        "kept": 7,
        "rejected": {"wrong_answer": 2},
        "failed": 1,
        "distillation_set": 7,
        "accuracy": {"bench": ACCURACY},
        "by_steps": {"bench": {"2": ACCURACY}},
        "majority": {"k": 4, "accuracy": {"bench": ACCURACY}},
        "pool": {**ACCURACY, "value": 0.5},
        "pool_read": {"rows": 12, "kept": 10, "rejected": {"not_json": 2}, "failed": 0},
    }
    begun = status["rounds"][1]
    assert (begun["easy"], begun["hard"], begun["kept"], begun["accuracy"]) == (4, 6, None, {})
    assert [(s["stage"], s["round"], s["done"]) for s in status["stages"]] == [
        ("score", None, True),
        ("problems", 0, True),
        ("rationales", 0, True),
        ("finetune", 0, True),
        ("score", 0, True),
        ("split", 1, True),
        ("synthesise", 1, False),
    ]
    assert status["stages"][-1]["rows_written"] == 5
    assert [s["path"].removeprefix(str(tmp_path)) for s in status["stages"][:2]] == [
        "/base/score",
        "/round-00/problems",
    ]


def test_tables_show_it(tmp_path: Path) -> None:
    status = read_status(_run(tmp_path))
    lines = rounds_table(status).splitlines()
    assert lines[0].split("  ")[-1].strip() == "bench % [95 %]"
    assert lines[2].endswith("10.0 [20.0, 30.0]")
    assert lines[3].split() == ["0", "7", "2", "1", "7", "25.0", "[20.0,", "30.0]"]
    text = details(status)
    assert "pool: 12 rows of its files = 10 kept + 2 rejected + 0 failed\n    not_json       2   16.7 %" in text
    assert "round 0: 10 seed problems = 7 kept + 2 rejected + 1 failed\n    wrong_answer       2   20.0 %" in text
    assert "unfinished" in text


def test_accuracy_table() -> None:
    assert accuracy_table({"b": ACCURACY}).splitlines()[-1].split() == ["b", "25.0", "[20.0,", "30.0]", "40"]


def test_align() -> None:
    assert align([["a", "bb"], ["ccc", "d"]]) == "  a  bb\n---  --\nccc   d"
