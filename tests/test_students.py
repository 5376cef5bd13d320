"""Whole rounds with students other than the usual: a T5, and one that is trained by adapters."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.engines.base import EngineSettings, Reply, Sampling
from fdd_ray.engines.folders import parameters_of
from fdd_ray.engines.transformers import TransformersEngine
from fdd_ray.launch import TINY_EXPERIMENT, run_experiment
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Attempt, from_table, schema_of
from fdd_ray.report.status import read_status
from fdd_ray.store import files
from fdd_ray.store.manifest import read_manifest
from tests.training.t5 import save_t5

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SMALL = [
    "rounds=1",
    "pool.size=60",
    "feedback.new_problems=30",
    "benchmarks.in_distribution.size=40",
    "benchmarks.out_of_distribution.size=10",
    "teacher.replicas=1",
    "score.max_tokens=60",
    "teach.min_kept=8",
]


def run(tmp_path: Path, *overrides: str) -> tuple[str, dict[str, Any]]:
    directory = run_experiment(TINY_EXPERIMENT, [*SMALL, f"storage={tmp_path}", *overrides])
    status = read_status(directory)
    assert all(stage["done"] for stage in status["stages"])
    for stage in status["stages"]:
        counts = stage["counts"]
        assert counts["rows"] == counts["kept"] + sum(counts["rejected"].values()) + counts["failed"], stage
        assert counts["failed"] == 0, stage
    return directory, status


def trained(directory: str, round: int) -> dict[str, Any]:
    manifest = read_manifest(directory, round, "finetune")
    assert manifest is not None
    return dict(manifest.summary)


def attempts(directory: str, round: int) -> list[Attempt]:
    folder = f"{directory}/round-{round:02d}/score"
    names = [name for name in files.list_names(folder, ".parquet") if name.startswith("part-")]
    return from_table(files.read_tables([f"{folder}/{name}" for name in names], schema_of(Attempt)), Attempt)


def test_a_round_with_a_t5_student(ray_local: None, tmp_path: Path) -> None:
    base = save_t5(tmp_path / "t5")
    directory, status = run(tmp_path, f"student.model={base}", "student.engine=transformers")
    for round in (0, 1):
        summary = trained(directory, round)
        assert summary["loss_first"] > 4.0 and summary["loss_last"] < 0.7 * summary["loss_first"]
        assert summary["trained_parameters"] == summary["parameters"] == parameters_of(Path(base))
    assert trained(directory, 1)["examples"] > trained(directory, 0)["examples"]
    rows = attempts(directory, 1)
    assert {row.outcome for row in rows} == {"kept"}
    assert sum(row.completion_tokens for row in rows) > len(rows)
    # A student that has learnt this little has at least learnt how a program looks.
    assert any("=" in completion.text for row in rows for completion in row.completions)
    entry = status["rounds"][1]
    assert entry["easy"] + entry["hard"] == 60
    assert parameters_of(Path(directory, "round-01", "finetune", "student")) == parameters_of(Path(base))


def test_a_round_with_adapters(ray_local: None, tmp_path: Path) -> None:
    directory, _ = run(tmp_path, "finetune.lora={rank: 8, alpha: 16}", "finetune.learning_rate=5e-3")
    for round in (0, 1):
        summary = trained(directory, round)
        assert summary["loss_last"] < 0.8 * summary["loss_first"]
        assert 0 < summary["trained_parameters"] < summary["parameters"] / 5
    # vLLM has loaded the merged student in place: it says what the exported folder says, and not what the base says.
    rows = [row for row in attempts(directory, 1) if row.subject == "in_distribution"][:24]
    scored = [row.completions[0].text for row in rows]
    questions = [row.question for row in rows]
    student = said(f"{directory}/round-01/finetune/student", questions)
    assert sum(a == b for a, b in zip(scored, student, strict=True)) >= 22  # the two may round a tie differently
    base = said("tiny://student", questions)
    assert sum(a == b for a, b in zip(scored, base, strict=True)) < 12


def said(model: str, questions: list[str]) -> list[str]:
    """Greedy attempts of a model, by the transformers engine."""

    def died(error: BaseException) -> None:
        raise AssertionError from error

    engine = TransformersEngine(EngineSettings(model=model, engine="transformers"), False, model, died)
    prompts = load_prompts("tiny")

    async def ask() -> list[Reply]:
        chats = [prompts.student("program", question) for question in questions]
        return list(await asyncio.gather(*(engine.generate(chat, Sampling(max_tokens=60)) for chat in chats)))

    return [reply.samples[0].text for reply in asyncio.run(ask())]
