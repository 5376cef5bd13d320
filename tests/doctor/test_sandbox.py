"""The self-test of the sandbox: it holds here, and one that does not is found out."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest

from fdd_ray.doctor.sandbox import SAMPLES, look_at_sandbox
from fdd_ray.errors import EngineError
from fdd_ray.reasoning.programs import ProgramLimits, ProgramResult

LIMITS = ProgramLimits()
_HARMLESS = ("never ends", "takes memory", "makes a huge number", "calls itself for ever", "prints for ever")


class Stopping:
    """Stops every sample and answers the honest program, but for what a test changes."""

    def __init__(self, limits: ProgramLimits) -> None:
        self.limits = limits
        self.closed = False

    def run(self, source: str) -> ProgramResult:
        if "baskets" in source:
            return ProgramResult("13", "ok")
        return ProgramResult(None, "time_limit" if any(s.source == source for s in SAMPLES[9:]) else "refused")

    def close(self) -> None:
        self.closed = True


class Open(Stopping):
    """Runs the samples that reach outside in this very process: no sandbox at all."""

    def run(self, source: str) -> ProgramResult:
        if any(sample.source == source for sample in SAMPLES if sample.tries in _HARMLESS) or "baskets" in source:
            return super().run(source)
        scope: dict[str, Any] = {}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(source, scope)
        return ProgramResult(str(scope["answer"]), "ok")


def test_the_sandbox_in_use_holds() -> None:
    (finding,) = look_at_sandbox(LIMITS)
    assert finding.level == "ok" and "pydantic-monty 1." in finding.found
    assert f"{len(SAMPLES)} hostile ones were stopped" in finding.found


def test_no_sandbox_is_found_out_in_every_way() -> None:
    (finding,) = look_at_sandbox(LIMITS, Open)
    assert (finding.level, finding.exit_code) == ("problem", 5)
    for harm in (
        "reads a file gets at the secret",
        "reads a file through pathlib gets at the secret",
        "writes a file leaves its mark on the disk",
        "reads the environment gets at the secret",
        "opens a connection reaches the network",
        "starts a process leaves its mark on the disk",
        "calls the system leaves its mark on the disk",
        "climbs out of its objects ends as 'ok'",
    ):
        assert harm in finding.found, harm
    assert "run nothing that a model wrote" in finding.next


def test_a_limit_that_does_not_hold_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Stopping):
        def run(self, source: str) -> ProgramResult:
            found = super().run(source)
            return ProgramResult("1", "ok") if source == "while True: pass" else found

    (finding,) = look_at_sandbox(LIMITS, Endless)
    assert "never ends ends as 'ok'" in finding.found

    monkeypatch.setattr("fdd_ray.doctor.sandbox._SLACK_S", -2.0)  # any time at all is too long
    (finding,) = look_at_sandbox(LIMITS, Stopping)
    assert "reads a file takes 0 s, and may take 0.5" in finding.found


def test_wrong_answers_are_found_out() -> None:
    class Wrong(Stopping):
        def run(self, source: str) -> ProgramResult:
            return ProgramResult("12", "ok") if "baskets" in source else super().run(source)

    (finding,) = look_at_sandbox(LIMITS, Wrong)
    assert (finding.level, finding.exit_code) == ("problem", 5) and "'12'" in finding.found


def test_the_runner_is_closed_also_when_it_fails() -> None:
    made: list[Stopping] = []

    class Failing(Stopping):
        def run(self, source: str) -> ProgramResult:
            raise EngineError("no worker for programs could be started: x; reinstall pydantic-monty")

    def make(limits: ProgramLimits) -> Stopping:
        made.append(Failing(limits))
        return made[0]

    with pytest.raises(EngineError):
        list(look_at_sandbox(LIMITS, make))
    assert made[0].closed and made[0].limits.seconds == 0.5
