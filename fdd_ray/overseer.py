"""Watches over the stages of a run: what they cost, and whether one shall end early.

Two things end a stage early: its budget is used up, or the machine is being taken away (SIGTERM, the polite
notice of Slurm, Kubernetes and spot markets). Either way its gate is closed: the rows that are being
worked on are finished and written, no others are begun, and the run ends with an exit code that says why.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from fdd_ray.budget import BudgetSettings, Meter, budget_error
from fdd_ray.gate import Gate

TEACHER = "teacher"


class Brake:
    """Ends one stage early; `tick` is to be called every second or so while its rows are worked on.

    Args:
        gate: The gate of the stage.
        reason: Why the stage shall end, or None.
        say: Told once when it does.
    """

    def __init__(self, gate: Gate, reason: Callable[[], BaseException | None], say: Callable[[str], None]) -> None:
        self.gate = gate
        self.error: BaseException | None = None
        self._reason = reason
        self._say = say

    def tick(self) -> None:
        """Close the gate as soon as there is a reason to."""
        if self.error is None:
            self.error = self._reason()
            if self.error is not None:
                self._say(f"{self.error}; the rows in flight are being finished")
                self.gate.close()


class Overseer:
    """Watches over one run, from its driver.

    Args:
        meter: What is spent, against the budget; none counts nothing.
        costs: By role, what (prompt, completion) tokens cost.
        grace_s: Seconds that the rows in flight get after SIGTERM.
        say: Where to tell people what is going on.
        tell: Told of tokens, as `spent` is, and of the money that they cost.
    """

    def __init__(
        self,
        meter: Meter | None = None,
        costs: Mapping[str, Callable[[int, int], float]] | None = None,
        *,
        grace_s: float = 30.0,
        say: Callable[[str], None] = lambda text: None,
        tell: Callable[[str, int, int, float], None] = lambda role, prompt, completion, money: None,
    ) -> None:
        self.meter = meter or Meter(BudgetSettings())
        self._costs = costs or {}
        self._grace_s = grace_s
        self._say = say
        self._tell = tell
        self._gate: Gate | None = None
        self._timer: threading.Timer | None = None
        self._in_rows = False
        self._told_to_end = False

    def watch_for_sigterm(self) -> None:
        """Take SIGTERM from now on; to be called after Ray has started, which puts a handler of its own."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def spent(self, role: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Tokens were used by the engines of ``role``."""
        cost = self._costs.get(role)
        money = cost(prompt_tokens, completion_tokens) if cost is not None else 0.0
        self.meter.add(prompt_tokens + completion_tokens if role == TEACHER else 0, money)
        self._tell(role, prompt_tokens, completion_tokens, money)

    @contextlib.contextmanager
    def brake(self, label: str) -> Iterator[Brake]:
        """The brake of a stage that works on rows; Ray must be initialised."""

        def reason() -> BaseException | None:
            if self._told_to_end:
                return KeyboardInterrupt(f"{label}: told to end (SIGTERM)")
            why = self.meter.exceeded()
            return budget_error(label, why) if why else None

        if self._gate is None:
            self._gate = Gate.open()
        self._gate.reset()
        brake = Brake(self._gate, reason, self._say)
        self._in_rows = True
        try:
            yield brake
        finally:
            self._in_rows = False
            if self._timer is not None:  # what ends in time is not hurried on
                self._timer.cancel()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if not self._in_rows or self._told_to_end:
            raise KeyboardInterrupt
        self._told_to_end = True
        self._timer = threading.Timer(self._grace_s, os.kill, (os.getpid(), signal.SIGTERM))
        self._timer.daemon = True
        self._timer.start()
