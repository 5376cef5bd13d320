"""What a run may cost, and the meter that says when that is used up.

    budget: {teacher_tokens: 50_000_000, money: 120, hours: 24}
    prices: {gpu_hour: 2.10}

A budget is for the whole run, kills and resumes included. When it is used up, the rows that are being
worked on are finished and written, and the run ends with an exit code of its own; raise the budget and
give the same command to go on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from fdd_ray.errors import BudgetError
from fdd_ray.settings import setting


@dataclasses.dataclass(frozen=True)
class BudgetSettings:
    """Where a run stops. None means no limit."""

    teacher_tokens: int | None = setting(None, "Prompt and completion tokens of the teacher, over the run.", ge=1)
    money: float | None = setting(None, "Money by the prices given, over the run.", gt=0)
    hours: float | None = setting(None, "Hours of stages at work, over the run.", gt=0)
    problems_per_round: int | None = setting(
        None, "New problems the teacher may be asked for in one round; a round that would ask for more stops.", ge=1
    )


@dataclasses.dataclass(frozen=True)
class PriceSettings:
    """What the cluster costs; the prices of an endpoint's tokens are settings of its engine."""

    gpu_hour: float = setting(0.0, "Money for a GPU that is reserved for an hour.", ge=0)
    cpu_hour: float = setting(0.0, "Money for a CPU that is reserved for an hour.", ge=0)

    def of(self, cpu_seconds: float, gpu_seconds: float) -> float:
        """What reserved CPUs and GPUs cost."""
        return (cpu_seconds * self.cpu_hour + gpu_seconds * self.gpu_hour) / 3600


def _nothing() -> float:
    return 0.0


class Meter:
    """Counts what is spent against a budget.

    Args:
        settings: The budget.
        teacher_tokens: What was spent before.
        money: What was spent before.
        seconds: What was spent before.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        *,
        teacher_tokens: int = 0,
        money: float = 0.0,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._tokens = teacher_tokens
        self._money = money
        self._seconds = seconds
        self._clock = clock
        self._running_money = 0.0
        self._begun: float | None = None
        self._per_second: Callable[[], float] = _nothing

    @property
    def money(self) -> float:
        """Money so far; of the stage at work as of the last look at the budget, about every second."""
        return self._money + self._running_money

    def begin(self, money_per_second: Callable[[], float] | None = None) -> None:
        """A stage begins to work; what it reserves at any moment costs ``money_per_second()``."""
        self._begun, self._per_second = self._clock(), money_per_second or _nothing

    def end(self) -> None:
        """The stage ended, one way or another."""
        if self._begun is not None:
            seconds = self._clock() - self._begun
            self._seconds += seconds
            self._money += seconds * self._per_second()
            self._begun, self._running_money = None, 0.0

    def add(self, teacher_tokens: int = 0, money: float = 0.0) -> None:
        """Tokens were used."""
        self._tokens += teacher_tokens
        self._money += money

    def exceeded(self) -> str:
        """Which part of the budget is used up, in words; empty if none is."""
        running = self._clock() - self._begun if self._begun is not None else 0.0
        self._running_money = running * self._per_second()
        for key, used, limit in [
            ("teacher_tokens", self._tokens, self._settings.teacher_tokens),
            ("money", self.money, self._settings.money),
            ("hours", (self._seconds + running) / 3600, self._settings.hours),
        ]:
            if limit is not None and used >= limit:
                return f"budget.{key} = {limit:,.10g} is used up ({used:,.6g} so far)"
        return ""

    def require(self, where: str) -> None:
        """Stop before something is begun that there is no budget for.

        Raises:
            BudgetError: If a part of the budget is used up.
        """
        if why := self.exceeded():
            raise budget_error(where, why)

    def require_problems(self, where: str, asked: int) -> None:
        """Stop before a round asks for more problems than it may.

        Raises:
            BudgetError: If ``asked`` is too many.
        """
        limit = self._settings.problems_per_round
        if limit is not None and asked > limit:
            raise budget_error(
                where, f"the round would ask the teacher for {asked} problems, budget.problems_per_round = {limit}"
            )


def budget_error(where: str, why: str) -> BudgetError:
    """The error with which a run ends that has used up its budget."""
    return BudgetError(
        f"{where}: {why}. What was finished is written; raise the budget (--set budget...=) and run the same"
        " command again to go on"
    )
