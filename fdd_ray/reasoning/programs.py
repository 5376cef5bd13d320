"""Runs programs written by a model, in a sandbox, and says what came of each.

A program leaves its answer in the variable ``answer``, or in what its function ``solution()`` returns:

    with ProgramRunner() as runner:
        runner.run("apples = 3\\nanswer = apples * 4")     # ProgramResult("12", "ok", "")
        runner.run("import sympy")                         # ProgramResult(None, "unsupported", "module:sympy")

The sandbox is pydantic-monty: an interpreter of a part of Python, written in Rust, in worker processes.

Covered:

- No file, network, environment or other process can be reached: the interpreter has no such functions.
  A worker has an empty environment.
- Time, memory (of the worker's allocator, so that the parser is bound too), recursion, printed
  characters, length of the source and number of calls to the host are limited on every run.
- A worker that overruns its time by ``grace`` seconds is killed from outside: some operations, such as
  comparing trees that share their branches, ask for no limit. A worker that dies for any reason is
  replaced, and the program gets one more chance, in case it was not the culprit.
- A worker whose owner is killed ends: at once if it is idle, otherwise with its program or (on Linux)
  when it has used ``seconds + grace`` of CPU time, rounded up, and a second more.
- Three strings, cut inside the sandbox, come back; what is printed or passed to a refused call is bounded
  and thrown away. The program runs in a scope of its own, so it can neither end nor change what wraps it.
- A program starts with nothing of the one before, and gives the same answer each time: the clock stands
  still, random numbers have a fixed seed, sleeping takes no time.
- A program that needs what the sandbox lacks is ``unsupported``, with the feature as detail; see
  `fdd_ray.reasoning.faults.counted_as`.

Not covered:

- A hole in the interpreter. Workers run as the same user, without namespaces or seccomp: an attacker who
  breaks out of the interpreter has what this process has.
- CPU time of the machine: a batch of n hostile programs may take n times ``seconds + grace`` of a worker
  (twice that for those under which a worker dies).
- A worker killed for its memory writes one line of its own to this process's standard error.
- Programs that need what the sandbox lacks: sympy, numpy, fractions and most other modules, ``yield``,
  ``del``, inheritance (so no exceptions or enums of one's own), properties, ``await`` outside a coroutine.
- ``__len__``, ``__getattr__``, ``__new__``, ``__format__`` and the ordering methods of a class are ignored
  without a word, so such a program may fail or answer as if it were wrong.
- Small differences from CPython: ``round(x, n)`` may differ by one unit of its last place on ties.
"""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from fdd_ray.errors import DependencyError, EngineError
from fdd_ray.reasoning.answers import canonical, parse_number
from fdd_ray.reasoning.faults import Fault, ProgramVerdict, fault_of_error, shorten
from fdd_ray.reasoning.orphans import bound_cpu_time
from fdd_ray.settings import setting

_MOST_HOST_CALLS: Final = 100
# What the worker is told to run: the program in a scope of its own, so that it can neither replace what the
# wrapper uses nor end it early (a `return` outside a function ends what it stands in). The wrapper gives back
# three strings, cut inside the sandbox, so that nothing large or deep ever crosses to the host.
_WRAPPER: Final = """
def _main():
    scope = {"__name__": "__main__"}
    try:
        exec(_source, scope)
        if "answer" in scope:
            given = scope["answer"]
        elif "solution" in scope:
            given = scope["solution"]()
        else:
            return "nothing", "", ""
        return "answer", f"{given!r}"[:300], f"{given!s}"[:300]
    except BaseException as error:
        try:
            return "error", f"{type(error).__name__}"[:100], f"{error!s}"[:1000]
        except BaseException:
            return "error", "Exception", ""

_main()
"""
_first_pid: int | None = None


@dataclass(frozen=True)
class ProgramLimits:
    """What one program may use."""

    seconds: float = setting(1.0, "Time a program may run, in seconds.", gt=0, le=60)
    grace: float = setting(1.0, "Seconds after which a worker that overruns is killed from outside.", gt=0, le=60)
    memory_mib: int = setting(64, "Memory of a program, in MiB.", ge=8, le=4096)
    recursion: int = setting(500, "Depth of calls.", ge=20, le=1000)
    output: int = setting(20_000, "Bytes a program may print (they are thrown away).", ge=1, le=10_000_000)
    source: int = setting(20_000, "Characters of a program.", ge=1, le=1_000_000)


class ProgramResult(NamedTuple):
    """What came of a program.

    Attributes:
        answer: A number as text; there is one exactly when the verdict is ``ok``.
        verdict: ``ok`` or the reason why there is no answer.
        detail: What was seen, as one short printable line.
    """

    answer: str | None
    verdict: ProgramVerdict
    detail: str = ""


class ProgramRunner:
    """Runs programs in sandboxed worker processes; safe to use from several threads.

    The workers start with the first program. A runner can be pickled at any time and arrives without
    workers. It cannot be used in a forked child of a process that ran programs (the sandbox's threads do
    not survive a fork); processes that Ray starts are no such children.

    Args:
        limits: What one program may use.
        workers: Worker processes, and so programs that run at once.
    """

    def __init__(self, limits: ProgramLimits | None = None, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"a ProgramRunner needs at least one worker, not {workers}")
        self.limits = limits or ProgramLimits()
        self.workers = workers
        self._pool: Any = None
        self._pid = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ProgramRunner], tuple[ProgramLimits, int]]:
        return type(self), (self.limits, self.workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the next program starts new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.__exit__(None, None, None)

    def run(self, source: str) -> ProgramResult:
        """Run one program.

        Raises:
            DependencyError: If pydantic-monty is not installed.
            EngineError: If no worker can be started.
        """
        if len(source) > self.limits.source:
            return ProgramResult(None, "source_limit", f"{len(source)} characters")
        try:
            source.encode()
        except UnicodeEncodeError:
            return ProgramResult(None, "syntax_error", "characters that UTF-8 does not have")
        pool = self._started()
        return self._run_once(pool, source) or self._run_once(pool, source) or _DIED_TWICE

    def run_many(self, sources: Sequence[str]) -> list[ProgramResult]:
        """Run programs, as many at once as there are workers; results come in the order of ``sources``.

        Programs that are the same text are run once.
        """
        distinct = list(dict.fromkeys(sources))
        if self.workers == 1 or len(distinct) < 2:
            results = [self.run(source) for source in distinct]
        else:
            with ThreadPoolExecutor(self.workers) as threads:
                results = list(threads.map(self.run, distinct))
        found = dict(zip(distinct, results, strict=True))
        return [found[source] for source in sources]

    def _started(self) -> Any:
        global _first_pid
        with self._lock:
            if self._pool is not None and self._pid == os.getpid():
                return self._pool
            if _first_pid not in (None, os.getpid()):
                raise EngineError(
                    "programs cannot be run in a forked child of a process that ran programs; "
                    "start the child with the spawn method instead"
                )
            monty = _monty()
            pool = monty.Monty(
                min_processes=1,
                max_processes=self.workers,
                request_timeout=self.limits.seconds + self.limits.grace,
                feed_duration_limit_grace=self.limits.grace,
                max_checkouts_per_worker=10_000,
            )
            try:
                pool.__enter__()
            except RuntimeError as error:
                raise _no_worker(error) from error
            _first_pid = self._pid = os.getpid()
            self._pool = pool
            return pool

    def _run_once(self, pool: Any, source: str) -> ProgramResult | None:
        """The result of a program, or None when its worker died under it."""
        monty = _monty()
        limits = {
            "max_feed_duration_secs": self.limits.seconds,
            "max_memory": self.limits.memory_mib << 20,
            "max_recursion_depth": self.limits.recursion,
            "max_total_sleep_secs": self.limits.seconds,
            "max_suspensions": _MOST_HOST_CALLS,
        }
        printed = monty.CollectString(max_bytes=self.limits.output)
        try:
            with pool.checkout(limits=limits, os_policy=_OS_POLICY) as session:
                if (pid := session.worker_pid) is not None:
                    bound_cpu_time(pid, self.limits.seconds + self.limits.grace)
                found = session.feed_run(_WRAPPER, inputs={"_source": source}, print_callback=printed)
        except monty.MontyCrashedError as error:
            return _OVERRAN if error.timed_out else None
        except (monty.MontySyntaxError, monty.MontyRuntimeError) as error:
            # The limits cannot be caught inside; what they say is short.
            inner = error.exception()
            if isinstance(inner, MemoryError) and str(inner).endswith(f"> {self.limits.output} bytes"):
                return ProgramResult(None, "output_limit", f"printed more than {self.limits.output} bytes")
            return _failed(fault_of_error(type(inner).__name__, str(inner)))
        except RuntimeError as error:
            raise _no_worker(error) from error
        kind, shown, text = found
        if kind == "nothing":
            return ProgramResult(None, "no_answer", "neither `answer` nor `solution()` is defined")
        return _read_answer(shown, text) if kind == "answer" else _failed(fault_of_error(shown, text))


_OS_POLICY: Final[dict[str, Any]] = {
    "datetime": datetime.datetime(2000, 1, 1),
    "sleep": "zero",
    "process_time": "zero",
    "random_start": {"seed": 0},
}
_DIED_TWICE: Final = ProgramResult(None, "crashed", "the worker died twice on this program")
_OVERRAN: Final = ProgramResult(None, "time_limit", "the worker overran and was killed")


def _read_answer(shown: str, text: str) -> ProgramResult:
    """The result for an answer whose ``repr`` and ``str`` are given (both cut)."""
    if shown in ("True", "False", "None"):
        return ProgramResult(None, "answer_not_number", shown)
    if parse_number(text) is None:
        return ProgramResult(None, "answer_not_number", shorten(shown, 80))
    # A number is written plainly; the text of a string is kept, for its percent sign matters.
    is_string = shown[:1] in ("'", '"')
    return ProgramResult(text.strip() if is_string else canonical(text), "ok")


def _failed(fault: Fault) -> ProgramResult:
    return ProgramResult(None, fault.verdict, fault.detail)


def _no_worker(error: RuntimeError) -> EngineError:
    return EngineError(f"no worker for programs could be started: {error}; reinstall pydantic-monty")


def _monty() -> Any:
    try:
        import pydantic_monty
    except ImportError as error:
        raise DependencyError(
            "running programs needs pydantic-monty; install it with: pip install 'pydantic-monty>=1.4,<1.5'"
        ) from error
    return pydantic_monty
