from __future__ import annotations

import io
import time

import pytest

from fdd_ray import progress
from fdd_ray.progress import Reporter, StageProgress, Standing, can_redraw, duration


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


def test_how_far_a_stage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stage = StageProgress("round 1 score")
    assert stage.standing() == Standing("rows", 0, 0, 0, None, "", None, 0.0, None)
    now[0] = 100.0
    stage.start(100, 50)
    now[0] = 107.0
    assert (stage.standing().quiet_s, stage.standing().longest_s, stage.standing().left_s) == (7.0, None, None)
    stage.advance(10, kept=4)
    now[0] = 110.0
    stage.advance(5, kept=5)
    now[0] = 111.0
    stage.update(65)
    found = stage.standing()
    assert (found.done, found.resumed, found.kept, found.seconds) == (65, 50, 9, 11.0)
    assert (found.quiet_s, found.longest_s) == (1.0, 7.0)
    assert found.rate == pytest.approx(15 / 11) and found.left_s == pytest.approx(35 * 11 / 15)


@pytest.mark.parametrize(
    ("terminal", "environment", "wanted"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "FDD_RAY_PLAIN": "0", "CI": "false"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
        (True, {"TERM": "xterm", "CI": "true"}, False),
        (True, {"TERM": "xterm", "FDD_RAY_PLAIN": "1"}, False),
    ],
)
def test_what_is_redrawn_and_where_not(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], wanted: bool
) -> None:
    for name in ("TERM", "CI", "FDD_RAY_PLAIN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert can_redraw(Terminal() if terminal else io.StringIO()) is wanted


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
