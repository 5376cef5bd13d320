"""Workers of a process that was killed: none computes on for long."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from fdd_ray.reasoning.orphans import bound_cpu_time
from tests.reasoning.workers import is_running, workers_of

# Runs for ever in native code, which asks neither for its time limit nor for the pipe.
DEAF = "a = [0]\\nb = [0]\\nfor _ in range(60):\\n    a = [a, a]\\n    b = [b, b]\\nanswer = int(a == b)"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel bounds CPU time of others only on Linux")


def test_a_process_ends_once_it_has_used_its_time() -> None:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    bound_cpu_time(process.pid, 0.5)
    try:
        assert process.wait(timeout=120) == -signal.SIGXCPU
    finally:
        process.kill()
        process.wait()


def test_a_later_bound_counts_from_what_was_used() -> None:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while psutil.Process(process.pid).cpu_times().user < 1.0:  # on a busy machine that takes longer than a second
            time.sleep(0.05)
        bound_cpu_time(process.pid, 30.0)
        soft, _ = resource.prlimit(process.pid, resource.RLIMIT_CPU)
        assert 31 <= soft <= 34
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
    finally:
        process.kill()
        process.wait()
    bound_cpu_time(process.pid, 1.0)  # of a process that is gone: nothing happens


@pytest.mark.parametrize("source", ["answer = 1", "while True: pass", DEAF], ids=["idle", "loop", "deaf"])
def test_no_worker_outlives_a_killed_owner(source: str) -> None:
    code = (
        "from fdd_ray.reasoning.programs import ProgramLimits, ProgramRunner\n"
        "runner = ProgramRunner(ProgramLimits(seconds=1, grace=1))\n"
        "runner.run('answer = 1')\nprint('up', flush=True)\n"
        f"runner.run('''{source}''')\n"
        "import time\ntime.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "up\n"
        workers = workers_of(owner.pid)
        time.sleep(0.4)
    finally:
        owner.kill()
        owner.wait()
    assert len(workers) == 1
    # Two seconds of CPU time, rounded up and one more; in wall time more, for others use this machine too.
    deadline = time.monotonic() + 60
    while is_running(workers[0]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
