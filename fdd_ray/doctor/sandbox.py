"""Whether the sandbox of programs holds here, by programs that try what it must not let happen.

    look_at_sandbox(ProgramLimits())

A file with a secret, a variable with one, and a port with somebody listening are laid out; each hostile program
reaches for one of them, or for more time, memory, depth or output than it may have. Then an honest program must
still get its own answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from fdd_ray.doctor import host
from fdd_ray.doctor.findings import Finding, note, ok, problem
from fdd_ray.errors import EngineError
from fdd_ray.reasoning.programs import ProgramLimits, ProgramResult, ProgramRunner

_SLACK_S: Final = 10.0  # a busy machine, and a worker that has to be replaced
_VARIABLE: Final = "FDD_RAY_DOCTOR_SECRET"
_HONEST: Final = "import math\nbaskets = math.ceil(17 / 4)\nanswer = baskets * 3 - 2"
_ANSWER: Final = "13"
_STOPPED: Final = frozenset({"refused", "unsupported", "runtime_error", "syntax_error", "no_answer"})
_LIMITED: Final = frozenset({"time_limit", "memory_limit", "recursion_limit", "output_limit", "crashed"})


class Runner(Protocol):
    """What runs programs."""

    limits: ProgramLimits

    def run(self, source: str) -> ProgramResult:
        """Run one program."""
        ...


class Sample(NamedTuple):
    """A hostile program.

    Attributes:
        tries: What it tries, in words.
        source: The program; ``@FILE@``, ``@MARKER@``, ``@VARIABLE@`` and ``@PORT@`` stand for what is laid out.
        verdicts: Those under which it did no harm.
    """

    tries: str
    source: str
    verdicts: frozenset[str]


SAMPLES: Final = (
    Sample("reads a file", "answer = open('@FILE@').read()", _STOPPED),
    Sample("reads a file through pathlib", "from pathlib import Path\nanswer = Path('@FILE@').read_text()", _STOPPED),
    Sample("writes a file", "open('@MARKER@', 'w').write('x')\nanswer = 1", _STOPPED),
    Sample("reads the environment", "import os\nanswer = os.environ['@VARIABLE@']", _STOPPED),
    Sample(
        "opens a connection",
        "import socket\nsocket.create_connection(('127.0.0.1', @PORT@))\nanswer = 1",
        _STOPPED,
    ),
    Sample("starts a process", "import subprocess\nsubprocess.run(['touch', '@MARKER@'])\nanswer = 1", _STOPPED),
    Sample("calls the system", "import os\nos.system('touch @MARKER@')\nanswer = 1", _STOPPED),
    Sample("climbs out of its objects", "answer = len(().__class__.__base__.__subclasses__())", _STOPPED),
    Sample("reaches a function's globals", "def f(): pass\nanswer = len(f.__globals__)", _STOPPED),
    Sample("never ends", "while True: pass", _LIMITED),
    Sample("takes memory", "a = 'x'\nwhile True: a += a", _LIMITED),
    Sample("makes a huge number", "answer = 10 ** 10 ** 9", _LIMITED),
    Sample("calls itself for ever", "def f(): return f()\nanswer = f()", _LIMITED),
    Sample("prints for ever", "while True: print('x' * 1000)", _LIMITED),
)


def look_at_sandbox(
    limits: ProgramLimits, make: Callable[[ProgramLimits], Runner] = ProgramRunner
) -> Iterator[Finding]:
    """Run the samples.

    Args:
        limits: Those of the experiment. Time is shortened, or the self-test would take as long as it allows.
        make: Makes what runs programs; the sandbox that is in use by default.
    """
    short = dataclasses.replace(limits, seconds=min(limits.seconds, 0.5), grace=min(limits.grace, 1.0))
    runner = make(short)
    began = time.monotonic()
    try:
        with _grounds() as grounds:
            harm = [
                f"a program that {sample.tries} {why}" for sample in SAMPLES if (why := grounds.try_on(runner, sample))
            ]
            honest = runner.run(_HONEST)
    finally:
        close = getattr(runner, "close", None)
        if close is not None:
            close()
    used = f"pydantic-monty {host.installed('pydantic-monty') or '(version unknown)'}"
    if harm:
        yield problem(
            f"the sandbox of programs ({used}) does not hold: {'; '.join(harm)}",
            "run nothing that a model wrote on this machine: reinstall pydantic-monty in the tested version",
            EngineError,
        )
    elif honest.answer != _ANSWER:
        yield problem(
            f"the sandbox of programs ({used}) gives {honest.answer!r} ({honest.verdict}: {honest.detail}) where an"
            f" honest program's answer is {_ANSWER}",
            "reinstall pydantic-monty in the tested version",
            EngineError,
        )
    else:
        yield ok(
            f"programs run in {used}: {len(SAMPLES)} hostile ones were stopped and an honest one was answered, in"
            f" {time.monotonic() - began:.1f} s"
        )
        if not Path("/proc/self").exists():
            yield note(
                "this system is not Linux: no kernel limit ends a program whose owner was killed",
                "run on Linux, or look for workers that are left over after a kill",
            )


@dataclasses.dataclass
class _Grounds:
    """What is laid out for programs to reach for."""

    secret: str
    file: Path
    marker: Path
    listener: socket.socket

    def try_on(self, runner: Runner, sample: Sample) -> str:
        """What harm a sample did; empty if none."""
        source = sample.source
        for name, value in (
            ("@FILE@", self.file),
            ("@MARKER@", self.marker),
            ("@VARIABLE@", _VARIABLE),
            ("@PORT@", self.listener.getsockname()[1]),
        ):
            source = source.replace(name, str(value))
        began = time.monotonic()
        result = runner.run(source)
        seconds = time.monotonic() - began
        if self.secret in f"{result}":
            return "gets at the secret"
        if self.marker.exists():
            self.marker.unlink()
            return "leaves its mark on the disk"
        if self._connected():
            return "reaches the network"
        if seconds > runner.limits.seconds + runner.limits.grace + _SLACK_S:
            return f"takes {seconds:.0f} s, and may take {runner.limits.seconds:g}"
        return "" if result.verdict in sample.verdicts else f"ends as {result.verdict!r} ({result.detail})"

    def _connected(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except OSError:  # nobody is there
            return False
        return True


@contextlib.contextmanager
def _grounds() -> Iterator[_Grounds]:
    secret = secrets.token_hex(8)
    with (
        tempfile.TemporaryDirectory(prefix="fdd-doctor-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        listener.setblocking(False)
        file = Path(folder, "secret")
        file.write_text(secret)
        os.environ[_VARIABLE] = secret
        try:
            yield _Grounds(secret, file, Path(folder, "marker"), listener)
        finally:
            os.environ.pop(_VARIABLE, None)
