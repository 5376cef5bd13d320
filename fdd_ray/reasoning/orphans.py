"""Bounds how long a sandbox worker computes on when the process that owned it is gone.

An idle worker ends as soon as the pipe to its owner closes. One that is inside a long native operation, which
asks neither for the pipe nor for its own time limit, would keep a core for ever after its owner was killed. So
before each program the kernel is told when to end the worker (Linux only; elsewhere nothing is done):

    bound_cpu_time(worker_pid, 2.0)     # SIGXCPU once it has used 2 s of a core more, rounded up
"""

from __future__ import annotations

import contextlib
import math
import resource
import sys
import time


def bound_cpu_time(pid: int, seconds: float) -> None:
    """Let the kernel end process ``pid`` after ``seconds`` more of CPU time; a later call sets a new bound.

    The bound is rounded up to whole seconds and one second is added, so that a process that keeps its own
    limits never meets it. A process that has ended meanwhile is left at that.
    """
    if sys.platform != "linux":
        return
    # The kernel's name for the CPU-time clock of a whole process.
    clock = (~pid << 3) | 2
    with contextlib.suppress(ProcessLookupError, OSError):
        soft = math.ceil(time.clock_gettime(clock) + seconds) + 1
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        resource.prlimit(pid, resource.RLIMIT_CPU, (soft, hard))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
