r"""Asks math-verify about answers in LaTeX that our own comparison cannot read; off unless it is asked for.

    >>> with MathVerify() as second:
    ...     second.agrees(r"\sqrt{12}", r"2\sqrt{3}"), second.agrees("9^{9^{9^{9}}}", "1")
    (True, None)

It is for pools whose known answers are LaTeX. Numbers, percentages, units and times of day are never put to
it: there its reading is looser than ours (``50%`` and ``50`` are equal to it). `worth_asking` says which pairs are.

Covered:

- math-verify runs in a process of its own, started afresh (not forked) and with an empty environment. One that
  overruns its deadline is killed from outside and replaced, and kills itself should nobody be left to do it.
- Its memory is limited, and so is the length of what it is asked. Only one word ever comes back; what sympy
  made of the text is never printed, for that alone can take for ever.
- Its own timeouts are switched off: they use SIGALRM, which works on the main thread of a process only.

Not covered: math-verify itself, which may be wrong. Decimals are equal to it from six places on. Its process is
no sandbox: it runs as the same user.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from typing import IO, Final, Literal, Protocol, Self

from fdd_ray.errors import DependencyError, EngineError
from fdd_ray.reasoning.times import read_time

SecondOpinionName = Literal["none", "math_verify"]

_LONGEST: Final = 500
_STARTING_SECONDS: Final = 120.0
_LATEX: Final = re.compile(r"\\[A-Za-z{]|\^|_\{")
_WORDS: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}|\\(?:text|textbf|mathrm|mathbf|mbox)\b")
_READY: Final = b"ready\n"
_ANSWERS: Final[dict[bytes, bool | None]] = {b"true\n": True, b"false\n": False, b"null\n": None}
_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from fdd_ray.reasoning.second_opinion import serve; serve(float(sys.argv[2]), int(sys.argv[3]))"
)


class SecondOpinion(Protocol):
    """Somebody else who compares answers."""

    name: str

    def agrees(self, given: str, gold: str) -> bool | None:
        """Whether both are the same answer; None if that could not be found out."""


def worth_asking(given: str, gold: str) -> bool:
    """Whether a pair is LaTeX that a second opinion may be asked about.

    Not so for text with words, percent signs or times of day: their meaning is not for algebra to say.
    """
    texts = (given, gold)
    if not all(text.strip() and len(text) <= _LONGEST for text in texts):
        return False
    if any("%" in text or _WORDS.search(text) or read_time(text) is not None for text in texts):
        return False
    return any(_LATEX.search(text) for text in texts)


def second_opinion(name: SecondOpinionName) -> MathVerify | None:
    """The second opinion of that name, None for ``none``. Nothing is started before it is asked.

    Raises:
        DependencyError: If math-verify is asked for and not installed.
    """
    if name == "none":
        return None
    require_math_verify()
    return MathVerify()


def require_math_verify() -> None:
    """Raise `DependencyError` if math-verify is not installed; nothing is imported."""
    if importlib.util.find_spec("math_verify") is None:
        raise DependencyError(
            "check.second_opinion is math_verify, and math-verify is not installed; install it with: "
            "pip install 'fdd-ray[latex]', or set check.second_opinion=none"
        )


class MathVerify:
    """math-verify in a killable process; safe to use from several threads, which take turns.

    Args:
        seconds: Time for one question.
        memory_mib: Address space of the process, in MiB.
    """

    name = "math_verify"

    def __init__(self, seconds: float = 5.0, memory_mib: int = 1024) -> None:
        self.seconds = seconds
        self.memory_mib = memory_mib
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[MathVerify], tuple[float, int]]:
        return type(self), (self.seconds, self.memory_mib)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # At the end of the interpreter half of it is gone; the process ends by itself when its input does.
        with contextlib.suppress(Exception):
            self._kill()

    def close(self) -> None:
        """End the process; the next question starts a new one."""
        with self._lock:
            self._kill()

    def agrees(self, given: str, gold: str) -> bool | None:
        """Whether math-verify holds ``given`` for the known answer ``gold``; None if it did not say in time.

        Raises:
            EngineError: If its process cannot be started.
        """
        if not all(text.strip() and len(text) <= _LONGEST for text in (given, gold)):
            return None
        question = json.dumps([given, gold]).encode() + b"\n"
        with self._lock:
            process = self._started()
            reply = b""
            with contextlib.suppress(OSError):  # it died; an empty reply says so
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(question)
                process.stdin.flush()
                reply = _read_line(process.stdout, self.seconds)
            if reply not in _ANSWERS:
                self._kill()
                return None
            return _ANSWERS[reply]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._pid == os.getpid():
            return self._process
        command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), str(self.seconds), str(self.memory_mib)]
        try:
            # stderr is kept from the log: warnings there quote what a model wrote.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"LANG": "C.UTF-8"},
            )
        except OSError as error:
            raise EngineError(
                f"math-verify's process could not be started: {error}; see check.second_opinion"
            ) from error
        self._process, self._pid = process, os.getpid()
        assert process.stdout is not None
        if _read_line(process.stdout, _STARTING_SECONDS) != _READY:
            self._kill()
            raise EngineError(
                "math-verify's process did not come up; look at what `python -c 'import math_verify'` says, "
                "or set check.second_opinion=none"
            )
        return process

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None or self._pid != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def serve(seconds: float, memory_mib: int) -> None:
    """What the process does: read a pair of answers per line, write a word per line, until the input ends."""
    import logging
    import math
    import resource
    import signal

    allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = memory_mib << 20 if allowed == resource.RLIM_INFINITY else min(memory_mib << 20, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    # Only this module writes to the pipe, whatever the libraries print.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    from math_verify import LatexExtractionConfig, parse, verify

    def is_same(given: str, gold: str) -> bool:
        read = [
            parse(_as_latex(text), extraction_config=[LatexExtractionConfig()], parsing_timeout=None)
            for text in (gold, given)
        ]
        return all(read) and bool(verify(read[0], read[1], timeout_seconds=None))

    # The default action of the alarm ends the process whatever it is doing, even with no parent left.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers.write(_READY)
    for line in sys.stdin.buffer:
        given, gold = json.loads(line)
        signal.alarm(math.ceil(seconds) + 1)
        word = b"null\n"
        with contextlib.suppress(Exception):
            word = b"true\n" if is_same(given, gold) else b"false\n"
        signal.alarm(0)
        answers.write(word)


def _as_latex(text: str) -> str:
    """``text`` marked as LaTeX: math-verify reads nothing that is not."""
    text = text.strip()
    return text if "\\boxed" in text or text.startswith(("$", "\\(", "\\[")) else f"${text}$"


def _read_line(pipe: IO[bytes], seconds: float) -> bytes:
    """A line of at most a few bytes; what came of it when time is up or the pipe is closed."""
    end = time.monotonic() + seconds
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    line = b""
    while not line.endswith(b"\n") and len(line) <= len(_READY):
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            break
        part = os.read(pipe.fileno(), 1)
        if not part:
            break
        line += part
    return line
