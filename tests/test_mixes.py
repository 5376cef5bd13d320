"""Whole rounds whose distillation set holds more than the teacher's rationales of one kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fdd_ray.errors import ExperimentError
from fdd_ray.experiment import load_experiment
from fdd_ray.launch import TINY_EXPERIMENT, run_experiment
from fdd_ray.records import Attempt, Curated, Example, Request, from_table, schema_of
from fdd_ray.report.status import read_status
from fdd_ray.store import files

SMALL = [
    "rounds=1", "pool.size=60", "feedback.new_problems=30", "feedback.complex_share=null", "teacher.replicas=1",
    "teacher.engine=simulated", "benchmarks.in_distribution.size=20", "benchmarks.out_of_distribution.size=10",
]  # fmt: skip


def _rows(path: str, row_type: type) -> list[Any]:
    return from_table(files.read_tables([path], schema_of(row_type)), row_type)


def _parts(folder: str, row_type: type) -> list[Any]:
    names = [name for name in files.list_names(folder, ".parquet") if name.startswith("part-")]
    return from_table(files.read_tables([f"{folder}/{name}" for name in names], schema_of(row_type)), row_type)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_round_with_bands_and_the_students_own_rationales(ray_local: None, tmp_path: Path) -> None:
    bands = (
        "feedback.bands=[{name: never, at_least: 0, ask: similar, share: 0.4},"
        " {name: sometimes, at_least: 0.01, ask: similar}, {name: always, at_least: 1, ask: complex}]"
    )
    directory = run_experiment(
        TINY_EXPERIMENT,
        [*SMALL, f"storage={tmp_path}", bands, "score.attempts=4", "score.temperature=0.8", "mix.own_rationales=2",
         "mix.own_share=0.3"],
    )  # fmt: skip
    rates = {
        row.problem_id: row.pass_rate for row in _parts(f"{directory}/round-00/score", Attempt) if row.subject == "pool"
    }
    requests = _rows(f"{directory}/round-01/split/requests.parquet", Request)
    assert {request.band for request in requests} >= {"never", "sometimes"}
    for request in requests:
        rate = rates[request.parent_id]
        assert request.band == ("never" if rate == 0 else "sometimes" if rate < 1 else "always")
        assert request.origin == ("complex" if rate == 1 else "similar")
    kept = [row.band for row in _parts(f"{directory}/round-01/curate", Curated) if row.outcome == "kept"]
    assert kept.count("never") == 12 and len(kept) == 30

    right = {
        (row.problem_id, completion.text.strip())
        for row in _parts(f"{directory}/round-00/score", Attempt)
        for completion in row.completions
        if row.subject == "pool" and completion.verdict == "right"
    }
    examples = _rows(f"{directory}/round-01/finetune/examples.parquet", Example)
    own = [example for example in examples if example.author == "student"]
    assert {(example.problem_id, example.rationale) for example in own} <= right
    assert len(own) <= 0.3 * len(examples)
    teachers = {(example.problem_id, example.rationale) for example in examples if example.author == "teacher"}
    assert not {(example.problem_id, example.rationale) for example in own} & teachers
    assert read_status(directory)["rounds"][1]["distillation_set"] == len(examples)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_round_with_both_kinds(ray_local: None, tmp_path: Path) -> None:
    directory = run_experiment(
        TINY_EXPERIMENT,
        [*SMALL, f"storage={tmp_path}", "mix.both_kinds=true", "synthesise.second_solutions=2",
         "feedback.ask_share=3"],
    )  # fmt: skip
    for round in (0, 1):
        examples = _rows(f"{directory}/round-0{round}/finetune/examples.parquet", Example)
        kinds = {(example.problem_id, example.kind) for example in examples}
        both = {id for id, kind in kinds if kind == "chain"} & {id for id, kind in kinds if kind == "program"}
        assert len(both) > 0.8 * len({id for id, _ in kinds})
        assert all(("####" in example.rationale) == (example.kind == "chain") for example in examples)
    kept = [row for row in _parts(f"{directory}/round-01/curate", Curated) if row.outcome == "kept"]
    assert kept and all(row.rationales and row.second for row in kept)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mix.both_kinds=true"], "synthesise.second_solutions"),
        (
            ["mix.both_kinds=true", "synthesise.second_solutions=1", "kind=chain", "rationales=from_dataset"],
            "mix.both_kinds needs a teacher",
        ),
        (
            ["feedback.complex_share=null", "feedback.bands=[{name: a, at_least: 0, ask: similar},"
             " {name: b, at_least: 0.5, ask: similar}, {name: c, at_least: 1, ask: complex}]"],
            "raise score.attempts",
        ),
        (
            ["feedback.complex_share=null", "feedback.bands=[{name: a, at_least: 0, ask: bridge}]"],
            "feedback.bands needs the prompt bridge.txt",
        ),
    ],
)  # fmt: skip
def test_mixes_that_cannot_be_made_are_refused_at_once(overrides: list[str], message: str) -> None:
    with pytest.raises(ExperimentError, match=message.replace(".", r"\.")):
        load_experiment(TINY_EXPERIMENT, overrides)
