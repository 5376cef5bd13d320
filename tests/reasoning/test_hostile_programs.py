"""Hostile programs: none escapes, none hangs a worker beyond its limit, none harms the host or the next program."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fdd_ray.reasoning.programs import ProgramLimits, ProgramRunner
from tests.reasoning.hostile import CASES, Case
from tests.reasoning.workers import is_running, open_files, resident_mib, workers_of

SECRET = "canary-71c9e0"
# Short, so that the suite is; programs that overrun take up to seconds + grace.
LIMITS = ProgramLimits(seconds=0.3, grace=0.5, memory_mib=32, recursion=300, output=5_000)
# Where time is not the point, a busy machine must not make it so.
PATIENT = dataclasses.replace(LIMITS, seconds=10.0)
# On top of the limits: a busy machine, a worker that has to be replaced.
SLACK = 4.0
# What a worker holds besides the program's memory: its own code and tables.
WORKER_MIB = 96
# Works out the same answer whatever an earlier program did to names, modules, the context and the seed.
HONEST = """import math, random
from decimal import Decimal
total = sum([math.floor(2.5), abs(-3), len(str(Decimal(1) / Decimal(8)))])
print(total)
answer = total + round(random.random(), 6)
"""


class Grounds(NamedTuple):
    """What is laid out for programs to reach for."""

    folder: Path
    marker: Path
    listener: socket.socket

    def fill(self, source: str) -> str:
        """``source`` with the names of what is laid out."""
        for name, value in (
            ("@SECRET_FILE@", self.folder / "secret"),
            ("@FOLDER@", self.folder),
            ("@MARKER@", self.marker),
            ("@MARKER_NAME@", "nowhere_to_be_found"),
            ("@VARIABLE@", "FDD_RAY_CANARY"),
            ("@PORT@", self.listener.getsockname()[1]),
        ):
            source = source.replace(name, str(value))
        return source

    def untouched(self) -> bool:
        """Whether nobody wrote, removed or connected to anything."""
        try:
            self.listener.accept()
        except BlockingIOError:
            pass
        else:
            return False
        secret = self.folder / "secret"
        return secret.read_text() == SECRET and sorted(self.folder.iterdir()) == [secret]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    folder = tmp_path_factory.mktemp("grounds")
    (folder / "secret").write_text(SECRET)
    os.environ["FDD_RAY_CANARY"] = SECRET
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Grounds(folder, folder / "marker", listener)
    del os.environ["FDD_RAY_CANARY"]


@pytest.fixture(scope="module")
def runners() -> Iterator[dict[bool, ProgramRunner]]:
    with ProgramRunner(LIMITS) as short, ProgramRunner(PATIENT) as patient:
        for runner in (short, patient):
            runner.run("answer = 1")
        before = _host()
        yield {True: short, False: patient}
        assert _host() == before, "the host is as it was"


def _host() -> tuple[object, ...]:
    """What of this process a hostile program may not change."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return os.getcwd(), environment, open_files(), threading.active_count(), len(workers_of())


def test_there_are_enough_distinct_programs() -> None:
    assert len({case.source for case in CASES}) == len(CASES) >= 200
    assert len({(case.family, case.name) for case in CASES}) == len(CASES)
    assert min(Counter(case.family for case in CASES).values()) >= 9


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}: {case.name}")
def test_hostile_program(
    case: Case, runners: dict[bool, ProgramRunner], grounds: Grounds, capfd: pytest.CaptureFixture[str]
) -> None:
    runner = runners["time_limit" in case.verdicts]
    held = resident_mib(os.getpid())
    start = time.perf_counter()
    result = runner.run(grounds.fill(case.source))
    seconds = time.perf_counter() - start
    assert result.verdict in case.verdicts, result
    assert (result.answer is not None) == (result.verdict == "ok")
    assert SECRET not in f"{result}"
    assert len(result.detail) <= 200 and (result.detail == "" or result.detail.isprintable())
    assert seconds < runner.limits.seconds + runner.limits.grace + SLACK
    assert grounds.untouched()
    assert resident_mib(os.getpid()) < held + 64, "nothing large crosses to the host"
    assert all(resident_mib(pid, "VmHWM") < LIMITS.memory_mib + WORKER_MIB for pid in workers_of())
    assert runner.run(HONEST).answer == "10.844422", "the next program gets its own answer"
    assert SECRET not in "".join(captured := capfd.readouterr()) and captured.out == ""


def test_throughput_and_workers_are_the_same_after_all_hostile_programs(grounds: Grounds) -> None:
    """What a runner can do, before and after it ran every hostile program at once."""
    sources, others = [grounds.fill(case.source) for case in CASES], workers_of()
    with ProgramRunner(LIMITS, workers=2) as runner:
        before = _best_rate(runner)
        start = time.perf_counter()
        results = runner.run_many(sources)
        seconds = time.perf_counter() - start
        after = _best_rate(runner)
        # A worker that was killed is replaced when it is needed: two at once need both.
        runner.run_many([f"for i in range(200_000): pass\nanswer = {n}" for n in range(2)])
        workers = set(workers_of()) - set(others)
        assert len(workers) == 2
    print(f"{before:.0f} honest programs/s before {len(sources)} hostile ones ({seconds:.1f} s), {after:.0f} after")
    assert len(results) == len(sources)
    assert SECRET not in "".join(map(str, results))
    assert after > before / 3
    assert _gone(workers, seconds=5), "closing ends every worker"
    assert grounds.untouched()


def _best_rate(runner: ProgramRunner) -> float:
    """Honest programs per second, the best of some repeats: others use this machine too."""
    best = 0.0
    for repeat in range(6):
        sources = [f"a = {n} * 2\nb = [a + k for k in range(10)]\nanswer = sum(b) + {repeat}" for n in range(150)]
        start = time.perf_counter()
        results = runner.run_many(sources)
        best = max(best, len(sources) / (time.perf_counter() - start))
        assert [result.answer for result in results] == [str(20 * n + 45 + repeat) for n in range(150)]
    return best


def _gone(pids: Iterable[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# Programs that try to take just as long as they may; {n} grows until one takes more than half of the time.
PATIENCE = {
    "counts": "n = 0\nfor i in range({n} * 500):\n    n += 1\nanswer = n",
    "sums": "answer = sum(range({n} * 20_000))",
    "concatenates": "a = ''\nfor i in range({n} * 200):\n    a = (a + str(i))[-1000:]\nanswer = len(a)",
    "sorts": "a = [0]\nfor i in range({n}):\n    a = sorted(range(1000), key=lambda k: -k)\nanswer = a[0]",
    "matches": "import re\nanswer = sum(len(re.findall('a+', 'ab' * 1000)) for _ in range({n} * 10))",
    "multiplies": "a = 3 ** 2000\nfor i in range({n} * 20):\n    b = a * a % 7\nanswer = b",
    "calls": "def f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nfor i in range({n}):\n    a = f(12)\nanswer = a",
    "raises": "a = 0\nfor i in range({n} * 100):\n    try: 1 / 0\n    except ZeroDivisionError: a += 1\nanswer = a",
}


@pytest.mark.slow
def test_programs_just_under_the_limit_cost_their_time_and_no_more(grounds: Grounds) -> None:
    """Each takes most of its time, some overrun it; honest programs between them are answered all the same."""
    overrunning = [case.source for case in CASES if case.family == "overrun"]
    others = workers_of()
    with ProgramRunner(LIMITS, workers=2) as runner:
        patient = [_as_long_as_allowed(runner, source) for source in PATIENCE.values()]
        # The same programs many times, each a little different, so that no result is taken from another.
        hostile = [f"{source}\n# {turn}" for turn in range(4) for source in [*patient, *overrunning[:3]]]
        honest = [f"{HONEST}\n# {n}" for n in range(len(hostile))]
        start = time.perf_counter()
        results = runner.run_many([source for pair in zip(hostile, honest, strict=True) for source in pair])
        seconds = time.perf_counter() - start
        assert len(set(workers_of()) - set(others)) <= 2
    assert {result.answer for result in results[1::2]} == {"10.844422"}
    assert {result.verdict for result in results[::2]} <= {"ok", "time_limit"}
    longest = len(hostile) * (LIMITS.seconds + LIMITS.grace) / 2
    print(f"{len(hostile)} patient programs: {seconds:.1f} s of at most {longest:.1f} s")
    assert seconds < longest + SLACK


def _as_long_as_allowed(runner: ProgramRunner, source: str) -> str:
    n = 1
    while True:
        start = time.perf_counter()
        result = runner.run(source.replace("{n}", str(n)))
        if time.perf_counter() - start > LIMITS.seconds / 2 or result.verdict != "ok":
            return source.replace("{n}", str(n))
        n *= 2


@pytest.mark.parametrize("setting", ["seconds", "memory_mib", "recursion", "output"])
def test_the_limits_are_what_stops_hostile_programs(setting: str) -> None:
    """A program that a limit stops is answered when that limit alone is raised: nothing else stopped it."""
    source, low, high, verdict = {
        "seconds": ("n = 0\nfor i in range(2_000_000):\n    n += 1\nanswer = n", 0.05, 60.0, "time_limit"),
        "memory_mib": ("answer = len('x' * 20_000_000)", 8, 512, "memory_limit"),
        "recursion": ("def f(n): return n and f(n - 1) + 1\nanswer = f(200)", 50, 1000, "recursion_limit"),
        "output": ("print('x' * 10_000)\nanswer = 1", 100, 1_000_000, "output_limit"),
    }[setting]
    found = []
    for value in (low, high):
        with ProgramRunner(dataclasses.replace(ProgramLimits(seconds=10.0), **{setting: value})) as runner:
            found.append(runner.run(source).verdict)
    assert found == [verdict, "ok"]
