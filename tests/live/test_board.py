from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fdd_ray.live import reporter as live
from fdd_ray.live.board import Board
from fdd_ray.live.view import DONE, StageView, View, planned
from fdd_ray.loop import distill
from fdd_ray.progress import Reporter, StageProgress
from tests.live.acting import done


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _stage(view: View, round: int | None, name: str) -> StageView:
    (found,) = (stage for stage in view.stages if (stage.round, stage.stage) == (round, name))
    return found


def test_the_plan_is_what_the_loop_does() -> None:
    """The loop itself is run, on a workshop that only notes what it is asked for."""
    called: list[tuple[int | None, str]] = []

    class Workshop:
        def __getattr__(self, name: str) -> Any:
            def stage(*arguments: Any, **more: Any) -> str:
                numbered = name in ("finetune", "score", "split", "synthesise", "curate")
                called.append((arguments[0] if numbered else 0, {"teach": "rationales"}.get(name, name)))
                return name

            return stage

    distill(Workshop(), 3)  # type: ignore[arg-type]
    plan = [(stage.round, stage.stage) for stage in planned(3)]
    assert sorted(plan, key=str) == sorted(called, key=str)
    for number in range(4):  # within a round, in this order
        assert [s for r, s in plan if r == number] == [s for r, s in called if r == number]


def test_stages_of_before_are_skipped_and_cost_nothing_now() -> None:
    clock = Clock()
    board = Board("x", "/x", planned(1), clock)
    board.finished(done("problems", 0, reused=True))
    board.finished(done("score", None, accuracy={"gsm8k": {"value": 0.25}, "pool": {"value": 0.9}, "odd": "?"}))
    view = board.view()
    assert _stage(view, 0, "problems").state == "skipped" and _stage(view, 0, "problems").seconds == 42.0
    assert _stage(view, None, "score").state == "done" and _stage(view, None, "score").scores == {"gsm8k": 0.25}
    assert _stage(view, 1, "curate").state == "to come"
    assert [stage.state in DONE for stage in view.stages].count(True) == 2
    clock.now += 7.0
    assert board.view().quiet_s == 7.0
    board.finished(done("rationales", 0, reused=True))
    assert board.view().quiet_s == 7.0, "nothing was finished just now"


def test_a_stage_at_work_is_followed_and_one_that_fails_stays_as_it_was() -> None:
    clock = Clock()
    board = Board("x", "/x", planned(0), clock)
    with board.at_work("rationales", 0):
        clock.now += 3.0
        assert _stage(board.view(), 0, "rationales").state == "working"
        assert _stage(board.view(), 0, "rationales").seconds == 3.0
        progress = StageProgress("rationales")
        with board.follow(progress):
            progress.start(100, 40)
            progress.advance(10, kept=8)
            standing = _stage(board.view(), 0, "rationales").standing
            assert standing is not None
            assert (standing.done, standing.resumed, standing.total, standing.kept) == (50, 40, 100, 8)
    board.finished(done("rationales", 0))
    assert _stage(board.view(), 0, "rationales").standing is None
    progress = StageProgress("finetune", "steps")
    with pytest.raises(KeyError), board.at_work("finetune", 0), board.follow(progress):
        progress.start(9)
        progress.advance(4)
        clock.now += 5.0
        raise KeyError
    board.end("failed")
    clock.now += 100.0
    view = board.view()
    stopped = _stage(view, 0, "finetune")
    assert stopped.state == "stopped" and stopped.seconds == 5.0 and stopped.standing is not None
    assert stopped.standing.done == 4
    assert view.state == "failed" and view.seconds == 8.0 and view.quiet_s is None


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can, so that one is soon interrupted where it must not be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_no_update_of_any_thread_is_lost(quick_switches: None) -> None:
    board = Board("x", "/x", planned(0))
    told: list[int] = []
    progress = StageProgress("rationales", tell=lambda unit, count: told.append(count))
    progress.start(40_000)
    stop = threading.Event()

    together = threading.Barrier(8)

    def work() -> None:
        together.wait()
        for _ in range(5000):
            progress.advance(1, kept=1)
            board.spent("teacher", 1, 2)

    def draw() -> None:
        while not stop.is_set():
            board.view()

    with board.at_work("rationales", 0), board.follow(progress):
        threads = [threading.Thread(target=work) for _ in range(8)]
        drawing = threading.Thread(target=draw)
        for thread in (drawing, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        drawing.join()
        view = board.view()
    assert view.tokens == {"teacher": (40_000, 80_000)}
    standing = _stage(view, 0, "rationales").standing
    assert standing is not None and (standing.done, standing.kept, sum(told)) == (40_000, 40_000, 40_000)


def test_without_a_terminal_the_reporter_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    board = Board("x", "/x", planned(0))
    with live.reporting(board) as reporter:
        assert type(reporter) is Reporter
        reporter.say("hello")
        with reporter.at_work("score", None), reporter.stage("score of the base") as progress:
            progress.start(3)
            progress.advance(3)
        reporter.spent("teacher", 1, 2)
        reporter.charge(lambda: 1.0)
    assert stream.getvalue() == "[    0s] hello\n[    0s] score of the base: done in 0s, 3 rows\n"
