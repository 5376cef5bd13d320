"""Progress for people: a live bar on a terminal, timed lines without one, and a heartbeat either way."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

_LINE_EVERY_S = 10.0
_HEARTBEAT_AFTER_S = 30.0


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
        self.total = 0
        self.done = 0
        self.resumed = 0
        self.detail = ""
        self._began: float | None = None
        self.last_change = time.monotonic()

    def start(self, total: int, done: int = 0) -> None:
        """Work begins (rates are counted from here); ``done`` of ``total`` were done before."""
        self.total, self.done, self.resumed, self.detail = total, done, done, ""
        self._began = self.last_change = time.monotonic()

    def advance(self, count: int) -> None:
        """``count`` more are done."""
        self.update(self.done + count)

    def update(self, done: int, detail: str = "") -> None:
        """``done`` are done now."""
        if done != self.done:
            self.last_change = time.monotonic()
            self._tell(self.unit, done - self.done)
        self.done, self.detail = done, detail or self.detail

    def waiting(self, detail: str) -> None:
        """Say what is being waited for."""
        self.detail = detail

    def line(self) -> str:
        """One line: done/total, rate, time left, and what is being waited for."""
        if self._began is None:
            return f"{self.label}: {self.detail or 'starting'}"
        elapsed = max(time.monotonic() - self._began, 1e-3)
        rate = (self.done - self.resumed) / elapsed
        share = f"{self.done}/{self.total}" if self.total else str(self.done)
        parts = [f"{share} {self.unit}", f"{rate:.1f}/s"]
        if rate > 0 and self.total > self.done:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        if self.detail:
            parts.append(self.detail)
        return f"{self.label}: {', '.join(parts)}"


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
        self._live = self._stream.isatty()
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


def duration(seconds: float) -> str:
    """Seconds as people read them: ``8s``, ``2m05s``, ``1h03m``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
