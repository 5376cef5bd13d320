"""The board: what is known of a run that this process drives, gathered from any thread, read as a `View`.

board = Board("tiny", directory, planned(rounds=3))
with board.at_work("score", None):
    ...
board.view().stages
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from fdd_ray.live.view import RunState, StageState, StageView, View, done_view
from fdd_ray.progress import StageProgress
from fdd_ray.store.manifest import Manifest

_Key = tuple[int | None, str]


class Board:
    """What is known of one run.

    Args:
        name: What the run is called.
        directory: Its folder.
        stages: What is to be done.
        clock: Seconds that only grow.
    """

    def __init__(
        self, name: str, directory: str, stages: Sequence[StageView], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.directory = directory
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = self._last = clock()
        self._stages: dict[_Key, StageView] = {(stage.round, stage.stage): stage for stage in stages}
        self._since: dict[_Key, float] = {}
        self._progress: StageProgress | None = None
        self._tokens: dict[str, tuple[int, int]] = {}
        self._money: Callable[[], float] = lambda: 0.0
        self._ended: tuple[RunState, float] | None = None

    @contextlib.contextmanager
    def at_work(self, stage: str, round: int | None) -> Iterator[None]:
        """This stage is at work while the block runs; it is done only once `finished` says so."""
        key = (round, stage)
        with self._lock:
            self._since[key] = self._last = self._clock()
            self._change(key, "working")
        try:
            yield
        except BaseException:
            with self._lock:
                self._change(key, "stopped")
            raise

    @contextlib.contextmanager
    def follow(self, progress: StageProgress) -> Iterator[None]:
        """The stage at work tells its progress here while the block runs."""
        with self._lock:
            self._progress = progress
        yield  # of a stage that fails, it stays to be seen how far it was
        with self._lock:
            self._progress, self._last = None, self._clock()

    def finished(self, manifest: Manifest) -> None:
        """A stage is done, now or before."""
        with self._lock:
            self._stages[manifest.round, manifest.stage] = done_view(manifest)
            if not manifest.reused and not manifest.forked_from:
                self._last = self._clock()

    def spent(self, role: str, prompt_tokens: int, completion_tokens: int) -> None:
        """The engines of a role used tokens."""
        with self._lock:
            prompt, completion = self._tokens.get(role, (0, 0))
            self._tokens[role] = (prompt + prompt_tokens, completion + completion_tokens)

    def charge(self, money: Callable[[], float]) -> None:
        """``money()`` is what the run cost so far; it must be quick and may be called from any thread."""
        with self._lock:
            self._money = money

    def end(self, state: RunState) -> None:
        """The run ended."""
        with self._lock:
            self._ended = (state, self._clock())

    def view(self) -> View:
        """The run as it is now, or as it was when it ended."""
        with self._lock:
            state, now = self._ended or ("at work", self._clock())
            standing = self._progress.standing() if self._progress is not None else None
            quiet = now - self._last
            if standing is not None and standing.seconds is not None:
                quiet = min(quiet, standing.quiet_s)
            stages = [self._shown(stage, now) for stage in self._stages.values()]
            if standing is not None:
                stages = [
                    dataclasses.replace(stage, standing=standing) if stage.state in ("working", "stopped") else stage
                    for stage in stages
                ]
            return View(
                name=self._name,
                directory=self.directory,
                state=state,
                seconds=now - self._begun,
                stages=tuple(sorted(stages, key=lambda stage: -1 if stage.round is None else stage.round)),
                tokens=dict(self._tokens),
                money=self._money(),
                quiet_s=None if self._ended else quiet,
                longest_s=standing.longest_s if standing is not None else None,
            )

    def _change(self, key: _Key, state: StageState) -> None:
        round, stage = key
        before = self._stages.get(key, StageView(stage, round))
        seconds = self._clock() - self._since[key] if key in self._since else None
        self._stages[key] = dataclasses.replace(before, state=state, seconds=seconds)

    def _shown(self, stage: StageView, now: float) -> StageView:
        """A stage with its seconds so far."""
        since = self._since.get((stage.round, stage.stage))
        if stage.state != "working" or since is None:
            return stage
        return dataclasses.replace(stage, seconds=now - since)
