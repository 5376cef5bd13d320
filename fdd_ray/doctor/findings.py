"""What a check found, and how checks are run so that none of them can end or stop the others.

checks = [Check("storage", "the disk", lambda: [ok("12 GB are free")])]
run_checks(checks)       # [Finding(level="ok", found="12 GB are free", next="", exit_code=0, group="storage")]
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

from fdd_ray.errors import EngineError, FddError

Level = Literal["ok", "note", "problem"]
_CRASHED: Final = 1  # kept for bugs, as everywhere
_SHOWN: Final = 300


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        level: ``ok``, ``note`` (works, but look at it) or ``problem`` (a run would fail).
        found: What was found, in one sentence.
        next: What to do about it; empty if it is good.
        exit_code: That of the exception with which a run would end; 0 unless it is a problem.
        group: What was checked.
    """

    level: Level
    found: str
    next: str = ""
    exit_code: int = 0
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes:
        group: Under which its findings are shown.
        name: What it looks at, for messages.
        look: Looks, and returns or yields what it found; it may raise anything.
        deadline_s: Seconds after which it is not waited for any more.
        error: What a run would fail with, if this never answers.
    """

    group: str
    name: str
    look: Callable[[], Iterable[Finding]]
    deadline_s: float = 60.0
    error: type[FddError] = EngineError


def ok(found: str) -> Finding:
    """Something that is as it should be."""
    return Finding("ok", found)


def note(found: str, next: str) -> Finding:
    """Something that works, but is to be known or looked at."""
    return Finding("note", found, next)


def problem(found: str, next: str, error: type[FddError]) -> Finding:
    """Something with which a run would end in ``error``."""
    return Finding("problem", found, next, error.exit_code)


def of_error(error: FddError, about: str = "") -> Finding:
    """A problem from one of our exceptions, whose message ends with what to do."""
    found, separator, todo = str(error).rpartition("; ")
    if not separator:
        found, todo = str(error), "correct it and run fdd-ray doctor again"
    return Finding("problem", f"{about}{found}", todo, error.exit_code)


def run_checks(checks: Iterable[Check], tell: Callable[[Finding], None] = lambda finding: None) -> list[Finding]:
    """Run checks one after the other.

    What a check yielded before it crashed or overran its deadline is kept. One that overran is left to itself, in a
    thread that does not keep this process from ending.

    Args:
        checks: May be a generator: each is asked for when those before it have ended.
        tell: Told of each finding as it comes.
    """
    found: list[Finding] = []
    for check in checks:
        for finding in _run(check):
            found.append(dataclasses.replace(finding, group=check.group))
            tell(found[-1])
    return found


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without a problem, 2 if the experiment itself is one, otherwise that of the first problem."""
    codes = [finding.exit_code for finding in findings if finding.level == "problem"]
    return 2 if 2 in codes else next(iter(codes), 0)


def _run(check: Check) -> Iterable[Finding]:
    outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            for finding in check.look():
                outbox.put(finding)
            outbox.put(None)
        except BaseException as error:  # SystemExit too: a library's must not end the doctor
            outbox.put(error)

    threading.Thread(target=work, name=f"doctor: {check.name}", daemon=True).start()
    end = time.monotonic() + check.deadline_s
    while True:
        try:
            item = outbox.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            yield problem(
                f"{check.name}: no answer within {check.deadline_s:g} s",
                "see what it waits for (a network share, an object store or a service that hangs), then try again",
                check.error,
            )
            return
        if item is None:
            return
        if isinstance(item, Finding):
            yield item
            continue
        yield of_error(item) if isinstance(item, FddError) else crashed(check.name, item)
        return


def crashed(name: str, error: BaseException) -> Finding:
    """The finding that a check itself failed, so that nothing is known of what it looks at."""
    text = " ".join(str(error).split())[:_SHOWN]
    return Finding(
        "problem",
        f"{name}: the check itself failed ({type(error).__name__}: {text}), so nothing is known of it",
        "this is a fault of fdd-ray doctor or of a broken package: reinstall, and if it stays, report this line",
        _CRASHED,
    )
