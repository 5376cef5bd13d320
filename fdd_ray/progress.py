"""Progress for people: timed lines with a heartbeat; on a terminal, where `fdd_ray.live` is not used, one live line.

reporter = Reporter()
with reporter.stage("round 1 score") as progress:
    progress.start(100)
    progress.advance(32)
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

_LINE_EVERY_S = 10.0
_HEARTBEAT_AFTER_S = 30.0


@dataclasses.dataclass(frozen=True)
class Standing:
    """How far a stage is at one moment.

    Attributes:
        unit: What is counted.
        total: How many there are; 0 if that is not known.
        done: How many are done.
        resumed: How many of these were done before, by another process.
        kept: How many of those done by this process were kept; None if that is not told.
        detail: What is waited for, or anything else worth knowing.
        seconds: Since work began; None if it has not.
        quiet_s: Seconds since something last finished, or since there is nothing else to count from.
        longest_s: The longest that this process waited for something to finish; None if nothing has yet.
    """

    unit: str
    total: int
    done: int
    resumed: int
    kept: int | None
    detail: str
    seconds: float | None
    quiet_s: float
    longest_s: float | None

    @property
    def rate(self) -> float:
        """Finished by this process in a second."""
        return (self.done - self.resumed) / max(self.seconds or 0.0, 1e-3)

    @property
    def left_s(self) -> float | None:
        """Seconds until all are done, at this rate; None if that cannot be told."""
        rate = self.rate
        return (self.total - self.done) / rate if rate > 0 and self.total > self.done else None


class StageProgress:
    """Progress of one stage; updates may come from any thread.

    Args:
        label: How the stage is called.
        unit: What is counted (``rows``, ``steps``).
        tell: Told of the unit and of how many more are finished.
    """

    def __init__(
        self, label: str, unit: str = "rows", tell: Callable[[str, int], None] = lambda unit, count: None
    ) -> None:
        self.label = label
        self.unit = unit
        self._tell = tell
        self._lock = threading.Lock()
        self.total = 0
        self.done = 0
        self.resumed = 0
        self.detail = ""
        self._kept: int | None = None
        self._began: float | None = None
        self._longest: float | None = None
        self.last_change = time.monotonic()

    def start(self, total: int, done: int = 0) -> None:
        """Work begins (rates are counted from here); ``done`` of ``total`` were done before."""
        with self._lock:
            self.total, self.done, self.resumed, self.detail = total, done, done, ""
            self._kept, self._longest = None, None
            self._began = self.last_change = time.monotonic()

    def advance(self, count: int, kept: int | None = None) -> None:
        """``count`` more are done, of which ``kept`` were kept."""
        with self._lock:
            self._set(self.done + count)
            if kept is not None:
                self._kept = kept + (self._kept or 0)
        self._tell_of(count)

    def update(self, done: int, detail: str = "") -> None:
        """``done`` are done now."""
        with self._lock:
            more = done - self.done
            self._set(done)
            self.detail = detail or self.detail
        self._tell_of(more)

    def waiting(self, detail: str) -> None:
        """Say what is being waited for."""
        with self._lock:
            self.detail = detail

    def standing(self) -> Standing:
        """How far it is now."""
        with self._lock:
            now = time.monotonic()
            return Standing(
                unit=self.unit,
                total=self.total,
                done=self.done,
                resumed=self.resumed,
                kept=self._kept,
                detail=self.detail,
                seconds=None if self._began is None else now - self._began,
                quiet_s=now - self.last_change,
                longest_s=self._longest,
            )

    def line(self) -> str:
        """One line: done/total, rate, time left, and what is being waited for."""
        now = self.standing()
        if now.seconds is None:
            return f"{self.label}: {now.detail or 'starting'}"
        share = f"{now.done}/{now.total}" if now.total else str(now.done)
        parts = [f"{share} {now.unit}", f"{now.rate:.1f}/s"]
        if now.left_s is not None:
            parts.append(f"{duration(now.left_s)} left")
        if now.detail:
            parts.append(now.detail)
        return f"{self.label}: {', '.join(parts)}"

    def _set(self, done: int) -> None:
        if done != self.done:
            now = time.monotonic()
            if self._began is not None:
                self._longest = max(self._longest or 0.0, now - self.last_change)
            self.last_change = now
        self.done = done

    def _tell_of(self, count: int) -> None:
        if count:
            self._tell(self.unit, count)


class Reporter:
    """Shows what a run is doing.

    Args:
        stream: Where to write; a terminal gets a line that is redrawn, anything else timed lines.
        clock: Seconds since the run began, for the stamp of each line.

    Attributes:
        tell: Told of the progress of every stage; see `StageProgress`.
    """

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = can_redraw(self._stream)
        begun = time.monotonic()
        self._clock = clock or (lambda: time.monotonic() - begun)
        self._lock = threading.Lock()
        self._width = 0
        self.tell: Callable[[str, int], None] = lambda unit, count: None

    def say(self, text: str) -> None:
        """One line that stays."""
        with self._lock:
            self._erase()
            print(f"[{duration(self._clock()):>6}] {text}", file=self._stream, flush=True)

    @contextlib.contextmanager
    def stage(self, label: str, unit: str = "rows") -> Iterator[StageProgress]:
        """Show the progress of a stage while the block runs, and its end when it succeeds."""
        progress = StageProgress(label, unit, self.tell)
        begun = time.monotonic()
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(progress, stop), name="progress", daemon=True)
        thread.start()
        try:
            yield progress
        finally:
            stop.set()
            thread.join()
            with self._lock:
                self._erase()
        total = f", {progress.done} {progress.unit}" if progress.total else ""
        self.say(f"{label}: done in {duration(time.monotonic() - begun)}{total}")

    @contextlib.contextmanager
    def at_work(self, stage: str, round: int | None) -> Iterator[None]:
        """This stage is at work while the block runs; ``round`` None means the base student."""
        yield

    def spent(self, role: str, prompt_tokens: int, completion_tokens: int) -> None:
        """The engines of a role used tokens, now or before this process began."""

    def charge(self, money: Callable[[], float]) -> None:
        """``money()`` is what the run cost so far; it is called often, from another thread."""

    def _watch(self, progress: StageProgress, stop: threading.Event) -> None:
        every = 0.5 if self._live else _LINE_EVERY_S
        while not stop.wait(every):
            quiet = time.monotonic() - progress.last_change
            beat = f" (nothing finished for {duration(quiet)})" if quiet > _HEARTBEAT_AFTER_S else ""
            if self._live:
                self._redraw(progress.line() + beat)
            else:
                self.say(progress.line() + beat)

    def _redraw(self, text: str) -> None:
        with self._lock:
            self._erase()
            self._stream.write(text[:150])
            self._stream.flush()
            self._width = min(len(text), 150)

    def _erase(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


def can_redraw(stream: IO[str]) -> bool:
    """Whether ``stream`` is a terminal on which something may be redrawn, and nobody asked for plain lines.

    ``FDD_RAY_PLAIN=1`` asks for them; CI systems and terminals that cannot move their cursor get them too.
    """
    plain = any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in ("FDD_RAY_PLAIN", "CI"))
    return stream.isatty() and not plain and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def duration(seconds: float) -> str:
    """Seconds as people read them: ``8s``, ``2m05s``, ``1h03m``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
