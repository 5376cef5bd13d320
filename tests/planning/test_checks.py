"""Where budgets end a run, and what else a plan warns of."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdd_ray.experiment import load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.planning import Options, Plan, make_plan

from .recorded import STAGES, lay_out, tokens

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"storage={tmp_path}"


def tiny(storage: str, *overrides: str, done: int | None = None) -> Plan:
    """The plan of the tiny experiment; with rounds up to ``done`` finished."""
    if done is not None:
        lay_out(
            load_experiment(TINY_EXPERIMENT, [storage]),
            [stage for stage in STAGES if stage["round"] is None or stage["round"] <= done],
        )
    return make_plan(load_experiment(TINY_EXPERIMENT, [storage, *overrides]))


def warned(plan: Plan, start: str) -> str:
    return next((line for line in plan.warnings if line.startswith(start)), "")


def test_a_budget_that_is_enough_is_not_mentioned(storage: str) -> None:
    plan = tiny(storage, "budget.teacher_tokens=5_000_000", "budget.hours=9", "budget.problems_per_round=405")
    assert plan.warnings == ()


def test_a_budget_says_in_which_stage_it_ends_the_run(storage: str) -> None:
    line = warned(tiny(storage, "budget.teacher_tokens=10000"), "budget.teacher_tokens = 10,000:")
    assert "the run ends early, in round 0 rationales" in line


def test_a_budget_that_only_the_high_estimate_reaches_is_a_possibility(storage: str) -> None:
    left = tiny(storage).remaining.teacher_tokens
    between = int((left.likely + left.high) / 2)
    assert "possibly ends early" in warned(tiny(storage, f"budget.teacher_tokens={between}"), "budget.teacher_tokens")
    between = int((left.low + left.likely) / 2)
    assert "likely ends early" in warned(tiny(storage, f"budget.teacher_tokens={between}"), "budget.teacher_tokens")


def test_what_was_spent_counts(storage: str) -> None:
    spent = tokens([stage for stage in STAGES if stage["round"] in (None, 0, 1)], "teacher")
    line = warned(tiny(storage, f"budget.teacher_tokens={spent + 1000}", done=1), "budget.teacher_tokens")
    assert "the run ends early, in round 2 synthesise" in line


def test_stages_that_were_set_aside_count_too(storage: str, tmp_path: Path) -> None:
    experiment = load_experiment(TINY_EXPERIMENT, [storage])
    lay_out(experiment, STAGES)
    plan = make_plan(load_experiment(TINY_EXPERIMENT, [storage, "budget.hours=0.3"]))
    assert warned(plan, "budget.hours") == ""
    old = Path(experiment.directory) / "superseded" / "20260101T000000Z"
    old.mkdir(parents=True)
    (Path(experiment.directory) / "round-03").rename(old / "round-03")
    lay_out(experiment, [stage for stage in STAGES if stage["round"] == 3])
    plan = make_plan(load_experiment(TINY_EXPERIMENT, [storage, "budget.hours=0.2"]))
    hours = sum(stage["seconds"] for stage in STAGES) / 3600
    assert hours < 0.2 < hours + sum(stage["seconds"] for stage in STAGES if stage["round"] == 3) / 3600
    assert "ends early" in warned(plan, "budget.hours")


def test_money_and_problems_of_a_round(storage: str) -> None:
    assert "ends early" in warned(tiny(storage, "budget.money=0.001", "prices.cpu_hour=5"), "budget.money = 0.001:")
    line = warned(tiny(storage, "budget.problems_per_round=404"), "budget.problems_per_round")
    assert "stops before round 1 synthesise, which asks for 405" in line


def test_other_settings_than_the_runs_are_pointed_out(storage: str) -> None:
    line = warned(tiny(storage, "finetune.epochs=6", done=0), "the run was started with other settings")
    assert "finetune.epochs: 5 -> 6" in line
    assert tiny(storage, "budget.hours=100", "rounds=5").warnings == ()


def gsm8k(storage: str, job: str, *overrides: str) -> Plan:
    return make_plan(load_experiment(JOBS / f"gsm8k_{job}.yaml", [storage, *overrides]), Options())


def test_an_unfilled_endpoint_is_pointed_out(storage: str) -> None:
    plan = gsm8k(storage, "smollm2_360m_api")
    assert warned(plan, "teacher.prompt_price") and warned(plan, "teacher.endpoint leads to an example")
    filled = gsm8k(storage, "smollm2_360m_api", "teacher.endpoint=https://llm.test/v1", "teacher.prompt_price=1")
    assert filled.warnings == ()


def test_a_student_of_more_than_1b_is_pointed_out(storage: str) -> None:
    assert warned(gsm8k(storage, "llama3.2_1b"), "the student has about 1.24B parameters")
    assert gsm8k(storage, "codet5p_770m").warnings == ()


def test_a_teacher_that_thinks_is_pointed_out(storage: str) -> None:
    model = "teacher.model=Qwen/Qwen3-8B"
    assert warned(gsm8k(storage, "smollm2_360m", model), "the teacher seems to think")
    off = "teacher.chat_template_kwargs={enable_thinking: false}"
    assert gsm8k(storage, "smollm2_360m", model, off).warnings == ()
