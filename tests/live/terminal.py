"""A terminal of its own for a program: what it shows is read as a person would see it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
LIVE = {"TERM": "xterm-256color", "CI": "", "NO_COLOR": "", "FDD_RAY_PLAIN": "", "PYTHONUNBUFFERED": ""}


def _own_terminal() -> None:
    """^C reaches the program, also where the tests were started in the background, where it is ignored."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A program on a pseudo-terminal, and the screen that it makes."""

    def __init__(self, arguments: Sequence[str], columns: int, lines: int, environment: dict[str, str]) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=5000)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self.sent = b""
        master, slave = pty.openpty()
        self._master = master
        self._set_size(columns, lines)
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=ROOT, env=environment,
            preexec_fn=_own_terminal,
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 1 << 16):
                with self._lock:
                    self.sent += data
                    self._stream.feed(data)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """Another size of the window, while the program runs."""
        with self._lock:
            self.screen.resize(lines, columns)
        self._set_size(columns, lines)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, keys: bytes) -> None:
        """What a person types."""
        os.write(self._master, keys)

    def lines(self) -> list[str]:
        """What is on the screen."""
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    def all_lines(self) -> list[str]:
        """The scroll-back and the screen."""
        with self._lock:
            columns = range(self.screen.columns)
            above = ["".join(line[x].data for x in columns).rstrip() for line in self.screen.history.top]
            return [*above, *(line.rstrip() for line in self.screen.display)]

    @property
    def cursor_is_visible(self) -> bool:
        with self._lock:
            return not self.screen.cursor.hidden

    def wait_for(self, text: str, seconds: float = 30.0) -> list[str]:
        """The screen as soon as ``text`` is on it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            lines = self.lines()
            if any(text in line for line in lines):
                return lines
            time.sleep(0.05)
        raise AssertionError(f"{text!r} is not on the screen:\n" + "\n".join(self.all_lines()))

    def end(self, seconds: float = 60.0) -> int:
        """Wait for the program to end, and for all it wrote; its exit code."""
        code = self.process.wait(seconds)
        self._reader.join(5.0)
        return code


@contextlib.contextmanager
def terminal(*arguments: str, columns: int = 80, lines: int = 24, **environment: str) -> Iterator[Terminal]:
    """Python with these arguments on a terminal; it is ended with the block at the latest."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    found = Terminal(arguments, columns, lines, {**os.environ, **LIVE, "PYTHONPATH": path, **environment})
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
            found.process.wait()
        with contextlib.suppress(OSError):
            os.close(found._master)
