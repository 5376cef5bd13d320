"""The live view on a terminal, as a person sees it: programs run on a pseudo-terminal, `pyte` reads the screen."""

from __future__ import annotations

import itertools
import os
import pty
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from fdd_ray.live.screen import Screen, _Lines, _plain
from tests.live.terminal import Terminal, terminal

ACTING = ("-m", "tests.live.acting")
TITLE = re.compile(r"tiny  (at work for|finished after|failed after|interrupted after) \d+s")


def _views(lines: list[str]) -> list[str]:
    """The first lines of all views that are to be seen; there must never be two."""
    return [line for line in lines if TITLE.match(line)]


def test_a_run_is_shown_while_it_works_and_stays_to_be_read() -> None:
    with terminal(*ACTING, "finish") as found:
        lines = found.wait_for("/20 rows, ")
        assert lines[0].endswith("] experiment tiny"), "what is said scrolls by above"
        assert lines[1].startswith("tiny  at work for ")
        assert any(line.startswith("  ▶ rationales ") for line in lines)
        assert found.end() == 0
        lines = [line for line in found.lines() if line]
        assert re.fullmatch(r"\[ +\ds\] round 0 rationales: done in \ds, 20 rows", lines[1])
        assert lines[2].startswith("tiny  finished after ")
        assert "  ✓ rationales     42s  380 of 400 kept" in lines
        assert lines[-1] == "after the view", "and goes on below it"
        assert len(_views(found.all_lines())) == 1
        assert found.cursor_is_visible


def test_nothing_that_the_process_writes_tears_the_view() -> None:
    with terminal(*ACTING, "noise", lines=20) as found:
        found.wait_for("▶ rationales")
        while found.process.poll() is None:
            lines = found.lines()
            assert len(_views(lines)) <= 1
            for line in lines:  # no line of the view has others in it, nor is it in theirs
                assert not ("rationales" in line and re.search(r"std|raw|child|logged", line)), line
            time.sleep(0.02)
        assert found.end() == 0
        lines = found.all_lines()
        for number in range(15):
            for name in ("stdout", "stderr", "raw", "child", "logged"):
                assert lines.count(f"{name}-{number}") == 1, f"{name}-{number}"
        assert len(_views(lines)) == 1
        assert "bar-done" in lines and "cleared?\\x07 after" in lines
        assert any("UserWarning: warned-of" in line for line in lines)
        view = lines.index(_views(lines)[0])
        assert max(lines.index(f"{name}-14") for name in ("stdout", "stderr", "raw", "child", "logged")) < view


def test_lines_from_many_threads_are_all_there_and_whole() -> None:
    with terminal(*ACTING, "threads") as found:
        assert found.end() == 0
        lines = found.all_lines()
        said = [line.split("] ", 1)[1] for line in lines if "said-" in line]
        assert sorted(said) == sorted(f"said-{n}-{k}" for n in range(4) for k in range(200))
        assert len(_views(lines)) == 1


def test_an_error_is_told_below_the_last_state() -> None:
    with terminal(*ACTING, "fail") as found:
        assert found.end() == 1
        lines = [line for line in found.all_lines() if line]
        view = lines.index(_views(lines)[0])
        assert lines[view].startswith("tiny  failed after ")
        assert any(re.fullmatch(r"  ✗ rationales +\ds  unfinished, 7/20 rows", line) for line in lines)
        assert lines[-1] == "ValueError: something broke" and view < lines.index("ValueError: something broke")
        assert found.cursor_is_visible and b"\x1b[?7l" in found.sent and found.sent.count(b"\x1b[?7h") > 1


def test_a_process_that_outlives_the_view_still_has_its_output() -> None:
    with terminal(*ACTING, "child") as found:
        assert found.end() == 0
        lines = found.all_lines()
        title = lines.index(_views(lines)[0])
        assert lines.index("early-child") < title < lines.index("late-child") < lines.index("after the view")


def test_one_run_after_another_as_in_a_comparison() -> None:
    with terminal(*ACTING, "twice") as found:
        assert found.end() == 0
        lines = [line for line in found.all_lines() if line]
        first = lines.index(_views(lines)[0])
        (second,) = (number for number, line in enumerate(lines) if line.startswith("second  finished after "))
        assert first < lines.index("between") < second < lines.index("after the view")


def test_standard_output_that_goes_to_a_file_goes_there(tmp_path: Path) -> None:
    code = (
        "import os, runpy, sys\n"
        f"os.dup2(os.open({str(tmp_path / 'out')!r}, os.O_WRONLY | os.O_CREAT), 1)\n"
        "sys.argv = ['acting', 'noise']\nrunpy.run_module('tests.live.acting', run_name='__main__')"
    )
    with terminal("-c", code) as found:
        assert found.end() == 0
        lines = found.all_lines()
    assert len(_views(lines)) == 1 and lines.count("stderr-3") == 1 and "stdout-3" not in lines
    written = (tmp_path / "out").read_text().splitlines()
    assert sorted(written) == sorted(
        [*(f"{name}-{n}" for name in ("stdout", "child") for n in range(15)), "after the view"]
    )


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM", "SIGKILL"])
def test_however_it_ends_the_terminal_is_fit_for_use(how: str) -> None:
    with terminal(*ACTING, "wait") as found:
        found.wait_for("▶ rationales")
        time.sleep(0.6)
        if how == "ctrl-c":
            found.type(b"\x03")
        else:
            found.process.send_signal(getattr(signal, how))
        found.end()
        lines = found.all_lines()
        assert found.cursor_is_visible
        assert found.sent.count(b"\x1b[?25l") == found.sent.count(b"\x1b[?25h") > 1
        assert found.sent.count(b"\x1b[?7l") == found.sent.count(b"\x1b[?7h") > 1
        assert len(_views(lines)) == 1
        if how == "ctrl-c":
            assert _views(lines)[0].startswith("tiny  interrupted after ")
            assert "KeyboardInterrupt" in lines


def test_a_window_that_is_resized_holds_one_whole_view() -> None:
    with terminal(*ACTING, "wait", columns=100, lines=30) as found:
        found.wait_for("▶ rationales")
        for columns, lines in ((60, 30), (40, 24), (120, 40), (60, 12), (80, 24)):
            found.resize(columns, lines)
            time.sleep(1.3)
            shown = found.lines()
            assert len(_views(shown)) == 1, "\n".join(shown)
            assert sum("rationales" in line for line in shown) == 1, "\n".join(shown)
            assert any("last finished" in line or "nothing finished" in line for line in shown)
        assert sum("experiment tiny" in line for line in shown) == 1


def test_no_colours_where_no_color_is_set() -> None:
    colours = re.compile(rb"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7])[;m]")
    for environment, wanted in (({}, True), ({"NO_COLOR": "1"}, False)):
        with terminal(*ACTING, "finish", **environment) as found:
            found.end()
            assert bool(colours.search(found.sent)) is wanted
            assert b"\x1b[?25l" in found.sent, "it is a live view all the same"


@pytest.mark.parametrize("plain", [{"TERM": "dumb"}, {"CI": "true"}, {"FDD_RAY_PLAIN": "1"}])
def test_plain_lines_on_a_terminal_where_they_are_asked_for(plain: dict[str, str]) -> None:
    with terminal(*ACTING, "finish", **plain) as found:
        assert found.end() == 0
        assert b"\x1b" not in found.sent
        lines = [line for line in found.all_lines() if line]
        assert len(lines) == 3 and lines[0] == "[    0s] experiment tiny" and lines[2] == "after the view"
        assert re.fullmatch(r"\[ +\ds\] round 0 rationales: done in \ds, 20 rows", lines[1])


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    with terminal(*ACTING, "hostile") as found:
        found.wait_for("[red]not red[/red] \\x1b[2J\\x1b[31m\\u202e engine")
        assert found.end() == 0
        assert any(line.endswith("] [bold]plain[/bold] wiped?") for line in found.all_lines())
        assert b"\x1b[2J" not in found.sent and "\u202e".encode() not in found.sent


def test_a_terminal_that_knows_ascii_only_gets_ascii_only() -> None:
    with terminal(*ACTING, "finish", PYTHONIOENCODING="ascii", PYTHONUTF8="0") as found:
        assert found.end() == 0
        assert found.sent.isascii() and any("+ rationales " in line for line in found.lines())


def test_after_ctrl_z_it_goes_on_below_what_the_shell_wrote() -> None:
    with terminal(*ACTING, "wait") as found:
        found.wait_for("▶ rationales")
        time.sleep(0.6)
        os.kill(found.process.pid, signal.SIGSTOP)
        time.sleep(1.0)
        _write(found, b"\r\n$ ls\r\nfile-1\r\nfile-2\r\n")
        os.kill(found.process.pid, signal.SIGCONT)
        time.sleep(1.5)
        lines = found.lines()
        assert lines.index("file-2") < max(i for i, line in enumerate(lines) if TITLE.match(line))


def _write(found: Terminal, data: bytes) -> None:
    """What another program writes to the same terminal."""
    with found._lock:
        found._stream.feed(data)


def test_it_is_drawn_at_most_four_times_a_second() -> None:
    master, slave = pty.openpty()
    threading.Thread(target=lambda: [None for _ in iter(lambda: _read(master), b"")], daemon=True).start()
    drawn: list[float] = []

    def draw(width: int, height: int | None) -> list[str]:
        if height is not None:  # the last one is drawn at once
            drawn.append(time.monotonic())
        return ["view"]

    with os.fdopen(slave, "w") as stream, Screen(stream, draw) as screen:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            screen.say("again")
            time.sleep(0.005)
    os.close(master)
    assert len(drawn) >= 2 and min(b - a for a, b in itertools.pairwise(drawn)) >= 0.24


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except OSError:
        return b""


def test_bytes_become_lines_of_plain_text() -> None:
    lines = _Lines()
    lines.add("é".encode()[:1])
    assert lines.take() == []
    lines.add("é".encode()[1:] + b" one\r\ntwo\nthr")
    assert lines.take() == ["é one", "two"]
    lines.add(b"ee")
    assert lines.take() == [] and lines.take(rest=True) == ["three"] and lines.take(rest=True) == []
    lines.add(b"\xff\x00\n\n" + b"\r5 %" * 200_000)
    assert lines.take() == ["\\ufffd\\x00", ""]
    lines.add(b"\r6 %")
    assert lines.size == 4000 and lines.take(rest=True) == ["6 %"], "a bar that never ends costs nothing"
    assert _plain("\x1b[1;31mred\x1b[0m\x1b(B\ta\x08b") == "red     a\\x08b"
    assert len(_plain("x" * 100_000)) == 4000
