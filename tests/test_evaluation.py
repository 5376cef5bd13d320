"""Evaluating models on their own: settings, files of completions, and real models on Ray and at an endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.cli import main
from fdd_ray.errors import ExperimentError, StoreError
from fdd_ray.evaluation import evaluation_settings
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.problems import SourceSettings
from fdd_ray.records import Attempt, Completion, to_table
from fdd_ray.report.completions import completion_rows, read_former, write_completions
from fdd_ray.report.status import read_status
from fdd_ray.stages.score import POOL, Task
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Manifest, Run, StageFolder, StageResult
from tests.engines.endpoint import MODEL, tiny_endpoint

__all__ = ["tiny_endpoint"]
TINY = {"t": SourceSettings("tiny", split="test", size=20, seed=2)}


def test_an_experiment_gives_benchmarks_prompts_and_engine_but_no_pool_or_teacher(tmp_path: Path) -> None:
    """A pool and a teacher that are not there do not matter."""
    sets = [f"storage={tmp_path}", "teacher.model=/no/such/teacher", "pool={format: jsonl, path: /no/such.jsonl}"]
    found = evaluation_settings("tiny://teacher", experiment=TINY_EXPERIMENT, overrides=[*sets, "seed=7"])
    assert (found.student.model, found.prompts, found.kind, found.seed) == ("tiny://teacher", "tiny", "program", 7)
    assert set(found.benchmarks) == {"in_distribution", "out_of_distribution"}
    assert found.student.kv_cache_mib == 128 and found.score.max_tokens == 100


def test_what_is_given_on_the_command_line_wins() -> None:
    found = evaluation_settings(
        "tiny://teacher", experiment=TINY_EXPERIMENT, benchmarks=TINY, kind="chain", prompts="default", majority=8
    )
    assert (set(found.benchmarks), found.kind, found.prompts, found.score.majority) == ({"t"}, "chain", "default", 8)
    assert found.score.max_tokens == 100, "the rest is the experiment's"


def test_an_endpoint_may_be_evaluated_with_and_without_an_experiment() -> None:
    """Though a run's student cannot be one; what is set of the student is then said of the endpoint."""
    url = "https://api.example.com/v1"
    sets = ["student.requests_per_minute=30", "seed=3"]
    found = evaluation_settings(
        "big-model:2", experiment=TINY_EXPERIMENT, endpoint=url, api_key_env="SOME_KEY", overrides=sets
    )
    assert (found.student.endpoint, found.student.api_key_env) == (url, "SOME_KEY")
    assert (found.student.requests_per_minute, found.seed) == (30, 3)
    plain = evaluation_settings("big-model:2", endpoint=url, benchmarks=TINY)
    assert plain.student.api_key_env is None and plain.student.model == "big-model:2"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give --benchmark NAME=FILE or --experiment"),
        ({"benchmarks": TINY, "majority": 1}, r"score\.majority is 1"),
        ({"benchmarks": TINY, "api_key_env": "KEY_X"}, "--api-key-env is of use with --endpoint only"),
        ({"benchmarks": {POOL: TINY["t"]}}, r"benchmarks\.pool cannot be called that"),
        ({"benchmarks": TINY, "endpoint": "api.example.com"}, "endpoint is not a URL"),
        ({"benchmarks": TINY, "prompts": "none"}, "there is no prompt set 'none'"),
        ({"benchmarks": TINY, "overrides": ["rounds=1"]}, "rounds is not a setting"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        evaluation_settings("tiny://student", **given)


def test_a_model_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "/no/model", "--experiment", str(TINY_EXPERIMENT)]) == ExperimentError.exit_code
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["evaluate", "tiny://student"]) == ExperimentError.exit_code


def test_an_output_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o.jsonl").write_text("mine\n")
    command = [
        "evaluate",
        "tiny://student",
        "--experiment",
        str(TINY_EXPERIMENT),
        "--output",
        str(tmp_path / "o.jsonl"),
    ]
    assert main(command) == StoreError.exit_code
    assert "exists; name another file, or give --force" in capsys.readouterr().err
    assert (tmp_path / "o.jsonl").read_text() == "mine\n"


def _scored(directory: Path, round: int | None, rate: float) -> Manifest:
    """A finished score stage: two benchmark problems, and one of the pool, which is no one's business."""

    def work(folder: StageFolder) -> StageResult:
        said = Completion('"} \n{"x\u2028', "7", "right", "stop", 3)
        rows = [
            Attempt(f"t-{s}{n}", f"p-{n}", s, "Q\n?", "7", "chain", "kept", "", rate, (said,), 1, 3, (said, said), True)
            for s, n in (("b", 2), ("b", 1), (POOL, 3))
        ]
        folder.write("part-x.parquet", to_table(rows, Attempt))
        tasks = [Task(row.id, row.problem_id, row.subject, "Q", "7", 4) for row in rows]
        folder.write("tasks.parquet", to_table(tasks, Task))
        return StageResult(Counts(3, 3), ("part-x.parquet",), summary={"accuracy": {}})

    run = Run(str(directory))
    files.write_bytes(f"{directory}/experiment.yaml", b"name: x\n")
    return run.once("score", round, {}, work)


def test_completions_are_written_whole_and_read_back(tmp_path: Path) -> None:
    manifest = _scored(tmp_path / "run", None, 0.5)
    write_completions(str(tmp_path / "o.jsonl"), manifest)
    lines = (tmp_path / "o.jsonl").read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines[:-1]]
    assert rows == list(completion_rows(manifest)) and [row["problem_id"] for row in rows] == ["p-1", "p-2"]
    assert rows[0]["completions"][0]["text"] == '"} \n{"x\u2028' and len(rows[0]["sampled"]) == 2
    assert rows[0]["steps"] == 4 and rows[0]["majority"] is True
    former = read_former(str(tmp_path / "o.jsonl"))
    assert {name: dict(found) for name, found in former.items()} == {"b": {"p-1": ("7", 0.5), "p-2": ("7", 0.5)}}
    assert former == read_former(str(tmp_path / "run")) == read_former(str(tmp_path / "run" / "base" / "score"))


def test_the_last_scored_round_of_a_run_counts(tmp_path: Path) -> None:
    for round, rate in ((2, 0.75), (None, 0.0), (0, 0.25)):
        _scored(tmp_path, round, rate)
    assert read_former(str(tmp_path))["b"]["p-1"].pass_rate == 0.75
    assert read_former(str(tmp_path / "round-00" / "score"))["b"]["p-1"].pass_rate == 0.25


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "not json", '{"benchmark": "b", "problem_id": "p", "gold": "1", "pass_rate": 2}', "[" * 9999,
     '{"benchmark": "b", "problem_id": "p", "gold": 1, "pass_rate": 1}'],
)  # fmt: skip
def test_a_file_of_something_else_is_no_former_evaluation(text: str, tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_text(text)
    with pytest.raises(StoreError, match="that fdd-ray evaluate --output wrote"):
        read_former(str(tmp_path / "o.jsonl"))
    with pytest.raises(StoreError, match="there is nothing at"):
        read_former(str(tmp_path / "none.jsonl"))


def _evaluate(model: str, tmp_path: Path, *more: str) -> list[str]:
    sets = [f"storage={tmp_path}", "benchmarks={test: {format: tiny, split: test, size: 40, seed: 2}}",
            "score.max_tokens=100", "flow.cpus_per_map_actor=0.1", "student.cpus_per_replica=0.25"]  # fmt: skip
    command = ["evaluate", model, "--prompts", "tiny", "--json", *more]
    return [*command, *(part for text in sets for part in ("--set", text))]


@pytest.mark.cluster
@pytest.mark.slow
def test_models_are_evaluated_kept_and_compared(
    ray_local: None, tiny_endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The student here, the teacher here, and the same teacher at an endpoint: which says the same, word for word."""
    student, teacher, served = (str(tmp_path / name) for name in ("student.jsonl", "teacher.jsonl", "served.jsonl"))
    kv = ("--set", "student.kv_cache_mib=128")
    assert main(_evaluate("tiny://student", tmp_path, *kv, "--output", student, "--majority", "4")) == 0
    base = json.loads(capsys.readouterr().out)
    assert base["majority"]["k"] == 4 and base["majority"]["accuracy"]["test"]["n"] == 40
    assert {steps: found["n"] for steps, found in base["by_steps"]["test"].items()} == dict.fromkeys("12345", 8)
    rows = [json.loads(line) for line in Path(student).read_text().splitlines()]
    assert [(len(row["completions"]), len(row["sampled"])) for row in rows] == [(1, 4)] * 40
    assert sum(row["pass_rate"] for row in rows) / 40 == pytest.approx(base["accuracy"]["test"]["value"])
    assert sum(row["majority"] for row in rows) / 40 == pytest.approx(base["majority"]["accuracy"]["test"]["value"])

    assert main(_evaluate("tiny://teacher", tmp_path, *kv, "--output", teacher, "--against", student)) == 0
    better = json.loads(capsys.readouterr().out)
    rise = better["accuracy"]["test"]["value"] - base["accuracy"]["test"]["value"]
    assert rise > 0.5 and better["against"]["test"]["difference"] == pytest.approx(rise, abs=1e-5)
    assert better["against"]["test"]["low"] > 0.3 and better["against"]["test"]["unpaired"] == 0
    assert better["majority"] == {}

    more = ("--endpoint", tiny_endpoint, "--output", served, "--against", teacher)
    assert main(_evaluate(MODEL, tmp_path, *more)[:-2]) == 0  # an endpoint's engines have CPUs of their own
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == better["accuracy"]
    assert (found["against"]["test"]["gained"], found["against"]["test"]["lost"]) == (0, 0)
    said = [[row["completions"][0]["text"] for row in map(json.loads, Path(path).read_text().splitlines())]
            for path in (teacher, served)]  # fmt: skip
    assert said[0] == said[1]

    # Again: it is done, and what is in its directory is an ordinary run for status and --against.
    assert main(_evaluate("tiny://teacher", tmp_path, *kv, "--against", better["directory"])) == 0
    again = capsys.readouterr()
    assert "score of the base: done before, skipped" in again.err
    assert json.loads(again.out)["against"]["test"]["difference"] == 0
    assert read_status(better["directory"])["base"]["accuracy"] == better["accuracy"]
    assert not list(Path(better["directory"]).rglob("pool*.parquet")), "no pool was loaded"
