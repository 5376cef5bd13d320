"""The live view of a run that this process drives, where there is a terminal for it; plain lines elsewhere.

board = Board("tiny", directory, planned(rounds=3))
with reporting(board) as reporter:
    reporter.say("experiment tiny")
    with reporter.stage("round 0 rationales") as progress:
        ...
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from fdd_ray.live.board import Board
from fdd_ray.live.paint import Paint
from fdd_ray.live.screen import Screen
from fdd_ray.progress import Reporter, StageProgress, can_redraw, duration


@contextlib.contextmanager
def reporting(board: Board) -> Iterator[Reporter]:
    """A reporter for a run; on a terminal the board is shown while the block runs, and stays as it was at its end.

    Args:
        board: What is shown; told of progress and cost by the reporter, of finished stages by the caller.
    """
    if not can_redraw(sys.stderr):
        yield Reporter()
        return
    paint = Paint.of(sys.stderr)
    reporter = LiveReporter(board)
    screen = Screen(sys.stderr, lambda width, height: paint.lines(board.view(), width, height))
    with screen, reporter.shown_on(screen):
        try:
            yield reporter
        except BaseException as error:
            board.end("failed" if isinstance(error, Exception) else "interrupted")
            raise
        board.end("finished")


class LiveReporter(Reporter):
    """Tells a board what happens, and shows lines above it while there is a screen.

    Args:
        board: What is shown.
    """

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board
        self._screen: Screen | None = None

    @contextlib.contextmanager
    def shown_on(self, screen: Screen) -> Iterator[None]:
        """Lines go to ``screen`` while the block runs, and straight to the terminal after it."""
        self._screen = screen
        try:
            yield
        finally:
            self._screen = None

    def say(self, text: str) -> None:
        """One line that stays."""
        if self._screen is None:
            super().say(text)
        else:
            self._screen.say(f"[{duration(self._clock()):>6}] {text}")

    @contextlib.contextmanager
    def stage(self, label: str, unit: str = "rows") -> Iterator[StageProgress]:
        """Show the progress of a stage while the block runs, and its end when it succeeds."""
        progress = StageProgress(label, unit, self.tell)
        begun = time.monotonic()
        with self._board.follow(progress):
            yield progress
        total = f", {progress.done} {progress.unit}" if progress.total else ""
        self.say(f"{label}: done in {duration(time.monotonic() - begun)}{total}")

    @contextlib.contextmanager
    def at_work(self, stage: str, round: int | None) -> Iterator[None]:
        """This stage is at work while the block runs."""
        with self._board.at_work(stage, round):
            yield

    def spent(self, role: str, prompt_tokens: int, completion_tokens: int) -> None:
        """The engines of a role used tokens."""
        self._board.spent(role, prompt_tokens, completion_tokens)

    def charge(self, money: Callable[[], float]) -> None:
        """``money()`` is what the run cost so far."""
        self._board.charge(money)
