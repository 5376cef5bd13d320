from __future__ import annotations

import io
import time

import pytest

from fdd_ray import progress
from fdd_ray.progress import Reporter, StageProgress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.9, "59s"), (125, "2m05s"), (3780, "1h03m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rates_leave_out_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stage = StageProgress("round 1 score")
    stage.waiting("the student engine")
    assert stage.line() == "round 1 score: the student engine"
    stage.start(100, 50)
    now[0] = 10.0
    stage.advance(20)
    assert stage.line() == "round 1 score: 70/100 rows, 2.0/s, 15s left"


def test_without_a_terminal_there_are_timed_lines_and_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.05)
    monkeypatch.setattr(progress, "_HEARTBEAT_AFTER_S", 0.1)
    stream = io.StringIO()
    reporter = Reporter(stream, clock=lambda: 61.0)
    with reporter.stage("round 1 score") as stage:
        stage.start(10)
        stage.advance(4)
        time.sleep(0.3)
        stage.advance(6)
    lines = stream.getvalue().splitlines()
    assert any("round 1 score: 4/10 rows" in line for line in lines)
    assert any("nothing finished for" in line for line in lines)
    assert lines[-1].startswith("[ 1m01s] round 1 score: done in ") and lines[-1].endswith(", 10 rows")
    assert "\r" not in stream.getvalue()


def test_on_a_terminal_one_line_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("FDD_RAY_PLAIN", raising=False)
    stream = Terminal()
    with Reporter(stream).stage("round 1 score") as stage:
        stage.start(10)
        time.sleep(1.2)
    assert "\r" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_a_failed_stage_is_not_called_done() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), Reporter(stream).stage("x"):
        raise KeyError
    assert "done" not in stream.getvalue()
