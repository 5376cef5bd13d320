from __future__ import annotations

import pytest

from fdd_ray.budget import BudgetSettings, Meter, PriceSettings
from fdd_ray.errors import BudgetError


def test_no_budget_is_never_used_up() -> None:
    meter = Meter(BudgetSettings(), teacher_tokens=10**12, money=10**9, seconds=10**9)
    assert meter.exceeded() == ""
    meter.require("round 1 synthesise")
    meter.require_problems("round 1 synthesise", 10**9)


@pytest.mark.parametrize(
    ("settings", "before", "tokens", "money", "named"),
    [
        (BudgetSettings(teacher_tokens=100), {"teacher_tokens": 60}, 39, 0.0, ""),
        (BudgetSettings(teacher_tokens=100), {"teacher_tokens": 60}, 40, 0.0, "budget.teacher_tokens = 100"),
        (BudgetSettings(money=2.5), {"money": 2.0}, 10**9, 0.4, ""),
        (BudgetSettings(money=2.5), {"money": 2.0}, 0, 0.6, "budget.money = 2.5"),
        (BudgetSettings(hours=1), {"seconds": 3599}, 0, 0.0, ""),
        (BudgetSettings(hours=1), {"seconds": 3600}, 0, 0.0, "budget.hours = 1"),
    ],
)
def test_what_was_spent_before_counts(
    settings: BudgetSettings, before: dict[str, float], tokens: int, money: float, named: str
) -> None:
    meter = Meter(settings, **before)  # type: ignore[arg-type]
    meter.add(tokens, money)
    assert meter.exceeded().startswith(named) and bool(meter.exceeded()) == bool(named)
    if named:
        with pytest.raises(BudgetError, match=r"round 1 synthesise.*is used up.*run the same command again"):
            meter.require("round 1 synthesise")


def test_time_and_what_is_reserved_cost_while_a_stage_works() -> None:
    now = 0.0
    meter = Meter(BudgetSettings(money=10, hours=1), clock=lambda: now)
    meter.begin(lambda: PriceSettings(gpu_hour=36, cpu_hour=3.6).of(cpu_seconds=10, gpu_seconds=1))
    now = 400.0
    assert meter.exceeded() == ""
    now = 600.0
    assert meter.money == pytest.approx(8), "as of the last look"
    assert meter.exceeded().startswith("budget.money = 10")
    assert meter.money == pytest.approx(12)
    meter.end()
    assert meter.money == pytest.approx(12)
    now = 5000.0
    assert meter.exceeded() == "budget.money = 10 is used up (12 so far)"


def test_a_round_may_not_ask_for_too_many() -> None:
    meter = Meter(BudgetSettings(problems_per_round=100))
    meter.require_problems("round 1", 100)
    with pytest.raises(BudgetError, match=r"101 problems, budget\.problems_per_round = 100"):
        meter.require_problems("round 1", 101)
