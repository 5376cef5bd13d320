"""Settings that are valid and go wrong later."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fdd_ray.doctor.data import POOL, Samples, look_at_source
from fdd_ray.doctor.examination import extras_of
from fdd_ray.doctor.findings import Finding
from fdd_ray.doctor.pitfalls import look_at_plan, look_at_pool, look_at_settings
from fdd_ray.experiment import Experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.planning.ranges import Range
from fdd_ray.settings import read_settings

API = ("teacher={model: m, endpoint: 'http://127.0.0.1:1/v1', tokens_per_minute: 5000, prompt_price: 1}",)


def experiment(*overrides: str) -> Experiment:
    return read_settings(Experiment, TINY_EXPERIMENT, overrides)


def settings(*overrides: str) -> list[Finding]:
    return [f for f in look_at_settings(experiment(*overrides)) if f.level != "ok"]


def pool(samples: Samples, *overrides: str) -> list[Finding]:
    return [f for f in look_at_pool(experiment(*overrides), samples) if f.level != "ok"]


def test_the_tiny_experiment_is_good() -> None:
    (finding,) = look_at_settings(experiment())
    assert finding.level == "ok" and "tracking" in finding.found


def test_prompts_that_are_missing() -> None:
    (finding,) = settings("feedback.bridge_after=2")
    assert (finding.level, finding.exit_code) == ("problem", 2) and "bridge.txt" in finding.found
    (finding,) = settings("prompts=none")
    assert (finding.level, finding.exit_code) == ("problem", 2)


def test_trackers_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (finding,) = settings("track=[wandb]")
    assert (finding.level, finding.exit_code) == ("problem", 8) and "pip install" in finding.next
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (finding,) = settings("track=[mlflow]")
    assert (finding.level, finding.exit_code) == ("problem", 2) and "MLFLOW_TRACKING_URI" in finding.next


def test_settings_that_say_less_than_they_seem_to() -> None:
    assert "teach.keep = 3" in settings("teach.keep=3")[0].found
    assert "nothing has to agree" in settings("synthesise.solutions=1")[0].found
    assert settings("synthesise.solutions=1", "rounds=0") == []
    assert "no benchmark" in settings("benchmarks={}")[0].found


def test_a_paid_teacher_without_a_budget() -> None:
    (finding,) = settings(*API)
    assert finding.level == "note" and "no budget" in finding.found
    assert settings(*API, "budget.money=5") == [] and settings(*API, "budget.teacher_tokens=500") == []


def test_a_rate_that_one_request_uses_up() -> None:
    found = settings(*API, "budget.money=5", "synthesise.solutions=10", "synthesise.max_solution_tokens=1000")
    assert ["tokens_per_minute = 5,000 is less than the 10,000" in f.found for f in found] == [True]


def samples_of(size: Range, questions: int = 20, solved: int = 20) -> Samples:
    texts = [f"Bob has {n} pens and finds {n * n + 3} more. How many pens has Bob?" for n in range(questions)]
    return Samples({POOL: texts}, Counter({POOL: solved}), {POOL: [size]})


def test_a_pool_smaller_than_what_is_needed() -> None:
    (finding,) = pool(samples_of(Range.exact(31)))
    assert (finding.level, finding.exit_code) == ("problem", 3) and "teach.min_kept = 32" in finding.found
    (finding,) = pool(samples_of(Range.exact(40)))
    assert finding.level == "note" and "about 40 problems" in finding.found
    assert pool(samples_of(Range.exact(300))) == [] and pool(samples_of(Range(10, 100, 1000))) == []
    assert pool(samples_of(Range.exact(31)), "teach.min_kept=10") == []


def test_a_pool_of_which_one_source_is_unknown_is_not_judged() -> None:
    two = "pool=[{format: tiny, split: pool, size: 5}, {format: tiny, split: pool, size: 5, seed: 9}]"
    assert pool(samples_of(Range.exact(5)), two) == []


def test_a_data_set_without_solutions() -> None:
    taken = ("rationales=from_dataset", "kind=chain")
    (finding,) = pool(samples_of(Range.exact(300), solved=0), *taken)
    assert (finding.level, finding.exit_code) == ("problem", 7)
    (finding,) = pool(samples_of(Range.exact(300), solved=15), *taken)
    assert finding.level == "note" and "5 of the pool's first 20" in finding.found
    assert pool(samples_of(Range.exact(300), solved=0)) == []


def test_a_pool_that_is_a_benchmark() -> None:
    same = experiment("benchmarks={same: {format: tiny, split: pool, size: 300, seed: 1}}")
    samples = Samples()
    for name, sources in {POOL: same.pool, **same.benchmarks}.items():
        list(look_at_source(name, sources[0], samples))
    (finding,) = [f for f in look_at_pool(same, samples) if f.level != "ok"]
    assert (finding.level, finding.exit_code) == ("problem", 3) and "none is left" in finding.found
    samples.questions[POOL] += [f"Bob has {n} pens and finds {n * n} more. How many?" for n in range(10_000, 10_300)]
    (finding,) = [f for f in look_at_pool(same, samples) if f.level != "ok"]
    assert finding.level == "note" and "200 of the pool's first 500" in finding.found


def test_what_a_plan_warns_of(tmp_path: Path) -> None:
    storage = f"storage={tmp_path}"
    assert [f.level for f in look_at_plan(experiment(storage))] == ["ok"]
    (finding,) = look_at_plan(experiment(storage, "budget.teacher_tokens=10000"))
    assert finding.level == "note" and "the run ends early" in finding.found


def test_extras_that_an_experiment_needs() -> None:
    assert extras_of(experiment()) == frozenset()
    many = experiment(*API, "storage=s3://b/runs", "student.model=gs://b/m", "check.second_opinion=math_verify",
                      "finetune.lora={}")  # fmt: skip
    assert extras_of(many) == {"api", "s3", "gcs", "latex", "lora"}
