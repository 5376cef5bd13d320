"""A view that is redrawn at the bottom of a terminal while lines scroll by above it.

    with Screen(sys.stderr, draw) as screen:
        screen.say("[   3s] Ray is up")

One thread owns the terminal. It draws at most four times a second, each time with one write that begins and ends
at the line below the view and leaves the cursor visible there, so whatever ends the process, and be it SIGKILL,
the terminal is fit for use. Meanwhile everything that the process itself or a library in it writes to the same
terminal, by whatever way, goes through a pipe to that thread, which shows it above the view as plain text.
"""

from __future__ import annotations

import codecs
import contextlib
import faulthandler
import os
import re
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from rich.cells import cell_len

from fdd_ray.nodes import printable

Draw = Callable[[int, int | None], Sequence[str]]
# Half a second between two drawings, a quarter of one if there is something to say.
EVERY_S = 0.5
AT_LEAST_S = 0.25
_READ = 1 << 16
_HELD = 1 << 18  # bytes that are shown at once
_REMEMBERED = 300  # lines that are written anew where a window was resized
_LONGEST = 4000  # characters of a line
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])")


class Screen:
    """Owns a terminal while it is open; a context manager.

    Args:
        stream: The terminal: `sys.stderr` or `sys.stdout`.
        draw: The lines of the view for so many columns and at most so many lines (None: all); narrower than that.
    """

    def __init__(self, stream: TextIO, draw: Draw) -> None:
        self._stream = stream
        self._draw = draw
        self._encoding = stream.encoding or "ascii"
        self._said: deque[str] = deque()
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._drawn = 0  # lines of the view that are on the terminal, above the cursor
        self._longest = 0
        self._size = (0, 0)
        self._broken = False
        self._signals: int | None = None
        self._stop = False
        self._lock = threading.Lock()
        self._closed = False  # nobody draws any more: lines go the usual way
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Screen:
        with contextlib.ExitStack() as stack:
            self._terminal = os.dup(self._stream.fileno())
            self._output, writes = os.pipe()
            self._woken, self._wake = os.pipe()
            os.set_blocking(self._output, False)
            os.set_blocking(self._wake, False)
            stack.enter_context(_redirected(self._terminal, writes))
            os.close(writes)
            stack.enter_context(_crashes_told_to(self._terminal))
            self._signals = stack.enter_context(_signals())
            self._thread = threading.Thread(target=self._own, name="live-view", daemon=True)
            self._thread.start()
            self._undo = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            self._stop = True
            with self._lock:
                if not self._closed:
                    self._rouse()
            self._ended.wait(5.0)
        finally:
            self._undo.close()

    def say(self, line: str) -> None:
        """A line that stays, above the view; it is there within a quarter of a second."""
        with self._lock:
            if self._closed:
                print(line, file=self._stream, flush=True)
            else:
                self._said.append(line)
                self._rouse()

    def _rouse(self) -> None:
        with contextlib.suppress(OSError):  # it is woken up already, or has ended
            os.write(self._wake, b".")

    # -- the thread that owns the terminal --------------------------------------------------------

    def _own(self) -> None:
        output = _Lines()
        try:
            self._redraw(output)
        finally:
            with self._lock:
                self._closed = True
                os.close(self._wake)
            # Other threads, and processes that we started, may still write into the pipe, and must not die of it.
            self._ended.set()
            while _ready(self._output) and (data := _read_some(self._output)):
                self._write(data)
            for fd in (self._output, self._woken, self._terminal):
                os.close(fd)

    def _redraw(self, output: _Lines) -> None:
        drawn = 0.0
        while not self._stop:
            self._wait(drawn + EVERY_S)
            while not self._stop and (left := drawn + AT_LEAST_S - time.monotonic()) > 0:
                if output.size > _HELD or not self._read(output):
                    time.sleep(min(left, 0.02))
            if self._stop:
                break
            if drawn and time.monotonic() - drawn > EVERY_S + AT_LEAST_S:
                time.sleep(0.1)  # perhaps the process was stopped: the thread that has the signal is to tell it first
            self._frame(output.take())
            drawn = time.monotonic()
        until = time.monotonic() + EVERY_S  # others may go on writing
        while self._read(output) and time.monotonic() < until:
            pass
        with self._lock:  # what is said from now on is said below the view
            self._closed = True
            self._frame(output.take(rest=True), last=True)

    def _wait(self, until: float) -> None:
        """Sleep until there is something to say."""
        if self._woken in _ready(self._output, self._woken, seconds=max(0.0, until - time.monotonic())):
            os.read(self._woken, _READ)

    def _read(self, output: _Lines) -> bool:
        data = _read_some(self._output)
        if data:
            output.add(data)
        return bool(data)

    def _frame(self, written: Sequence[str], last: bool = False) -> None:
        lines = [*written]
        while self._said:
            lines += [_plain(line) for line in self._said.popleft().split("\n")]
        size = self._terminal_size()
        if self._continued():
            self._drawn = 0
        try:
            view = [] if self._broken else self._draw(size[0], None if last else size[1])
        except Exception as error:
            self._broken, view = True, []
            lines.append(f"the live view ends, the run goes on: {printable(f'{type(error).__name__}: {error}'[:300])}")
        self._write(self._moves(lines, view, size).encode(self._encoding, errors="replace"))
        self._recent.extend(lines)
        self._size, self._drawn = size, 0 if last else len(view)
        self._longest = max((cell_len(_ESCAPES.sub("", line)) for line in view), default=0)

    def _continued(self) -> bool:
        """After Ctrl-Z and ``fg`` the view begins below what the shell wrote meanwhile."""
        return self._signals is not None and signal.SIGCONT in _read_some(self._signals)

    def _moves(self, lines: Sequence[str], view: Sequence[str], size: tuple[int, int]) -> str:
        """What the terminal is sent: lines in place of the old view, the new view below them."""
        parts = ["\x1b[?25l"]
        if self._drawn and size != self._size and (size[0] <= self._longest or size[1] <= self._drawn):
            # The old view was wrapped or cut, by each terminal in its own way: begin with an empty screen.
            parts += ["\x1b[H\x1b[J", *(f"{line}\r\n" for line in self._last_lines(size, len(view) + 1 + len(lines)))]
        else:
            parts.append(f"\r\x1b[{self._drawn}A" if self._drawn else "\r")
            if lines:
                parts.append("\x1b[J")
        parts += [f"{line}\r\n" for line in lines]
        parts += ["\x1b[?7l", *(f"{line}\x1b[K\r\n" for line in view), "\x1b[J\x1b[?7h\x1b[?25h"]
        return "".join(parts)

    def _last_lines(self, size: tuple[int, int], taken: int) -> list[str]:
        """The last lines that fit above the view."""
        found: list[str] = []
        room = size[1] - taken
        for line in reversed(self._recent):
            room -= max(1, -(-cell_len(line) // size[0]))
            if room < 0:
                break
            found.append(line)
        return found[::-1]

    def _terminal_size(self) -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(self._terminal)
        except OSError:
            columns, lines = 0, 0
        return columns or 80, lines or 24

    def _write(self, data: bytes) -> None:
        """Send all of it; a terminal that is gone is no reason to end a run."""
        with contextlib.suppress(OSError):
            while data:
                try:
                    data = data[os.write(self._terminal, data) :]
                except BlockingIOError:
                    _ready(self._terminal, event=select.POLLOUT)


class _Lines:
    """Bytes that were written, as lines of plain text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""

    @property
    def size(self) -> int:
        return len(self._text)

    def add(self, data: bytes) -> None:
        self._text += self._decoder.decode(data)
        if "\n" not in self._text and len(self._text) > _HELD:  # a bar that is redrawn, or no text at all
            self._text = self._text[-_LONGEST:]

    def take(self, rest: bool = False) -> list[str]:
        """The lines that are whole; with ``rest`` also the last one that is not."""
        whole, _, self._text = self._text.rpartition("\n")
        if rest and self._text:
            whole, self._text = f"{whole}\n{self._text}" if whole else self._text, ""
        return [_plain(line) for line in whole.split("\n")] if whole else []


def _plain(line: str) -> str:
    """A line as it would look on a terminal in the end, without anything that a terminal would obey."""
    shown = _ESCAPES.sub("", line[: 2 * _LONGEST].rstrip("\r\n")).rpartition("\r")[2].expandtabs()
    return printable(shown[:_LONGEST])


def _ready(*fds: int, seconds: float | None = None, event: int = select.POLLIN) -> set[int]:
    """Which of these can be read; waits until one can, or for so long."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, event)
    return {fd for fd, _ in poll.poll(None if seconds is None else 1000 * seconds)}


def _read_some(pipe: int) -> bytes:
    try:
        return os.read(pipe, _READ)
    except BlockingIOError:
        return b""


@contextlib.contextmanager
def _redirected(terminal: int, target: int) -> Iterator[None]:
    """Standard output and error, as far as they are this terminal, go to ``target`` while the block runs."""
    here = os.fstat(terminal).st_rdev
    saved = [(fd, os.dup(fd)) for fd in (1, 2) if os.isatty(fd) and os.fstat(fd).st_rdev == here]
    for fd, _ in saved:
        os.dup2(target, fd)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for fd, was in saved:
            os.dup2(was, fd)
            os.close(was)


@contextlib.contextmanager
def _crashes_told_to(terminal: int) -> Iterator[None]:
    """A crash of the interpreter is told to the terminal itself: nobody would read the pipe any more."""
    if faulthandler.is_enabled():
        yield
        return
    faulthandler.enable(terminal, all_threads=False)
    try:
        yield
    finally:
        faulthandler.disable()


@contextlib.contextmanager
def _signals() -> Iterator[int | None]:
    """A pipe with a byte for each signal, SIGCONT among them; None where another has such a pipe.

    Handlers would come too late: they run when the main thread is out of what it waits for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    os.set_blocking(writes, False)
    before: Any = signal.signal(signal.SIGCONT, lambda number, frame: None)
    ours = (other := signal.set_wakeup_fd(writes, warn_on_full_buffer=False)) == -1
    if not ours:
        signal.set_wakeup_fd(other)
    try:
        yield reads if ours else None
    finally:
        if ours and (other := signal.set_wakeup_fd(-1)) not in (-1, writes):
            signal.set_wakeup_fd(other)  # somebody took it meanwhile
        signal.signal(signal.SIGCONT, signal.SIG_DFL if before is None else before)
        os.close(reads)
        os.close(writes)
