"""Programs inside Ray tasks and actors: a runner for each process, and no worker left when one is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from fdd_ray.reasoning.programs import ProgramLimits, ProgramRunner
from tests.reasoning.workers import is_running, workers_of

LIMITS = ProgramLimits(seconds=1.0, grace=1.0)
# Runs for ever in native code, which asks neither for its time limit nor for the pipe.
DEAF = "a = [0]\nb = [0]\nfor _ in range(60):\n    a = [a, a]\n    b = [b, b]\nanswer = int(a == b)"

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("ray_local")]


class RunPrograms:
    """A stage of Ray Data: its runner starts in the actor, whichever process made it."""

    def __init__(self, runner: ProgramRunner) -> None:
        self.runner = runner

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = self.runner.run_many([str(source) for source in batch["source"]])
        batch["answer"] = [result.answer or "" for result in results]
        batch["verdict"] = [result.verdict for result in results]
        batch["pid"] = [os.getpid()] * len(results)
        return batch


def test_map_batches_of_actors() -> None:
    import ray

    sources = [f"answer = {n} * 2" if n % 10 else "import sympy" for n in range(400)]
    runner = ProgramRunner(LIMITS, workers=2)
    assert runner.run("answer = 1").answer == "1", "a runner that has workers travels all the same"
    rows = (
        ray.data.from_items([{"source": source} for source in sources])
        .map_batches(RunPrograms, fn_constructor_args=(runner,), batch_size=50, concurrency=2)
        .take_all()
    )
    runner.close()
    assert {row["source"]: row["answer"] for row in rows} == {
        source: str(2 * n) if n % 10 else "" for n, source in enumerate(sources)
    }
    assert {row["verdict"] for row in rows} == {"ok", "unsupported"}
    owners = {int(row["pid"]) for row in rows}
    assert os.getpid() not in owners
    _wait_until_gone(lambda: [worker for pid in owners for worker in workers_of(pid)])


def test_a_plain_task() -> None:
    import ray

    @ray.remote
    def run(sources: list[str]) -> tuple[list[str | None], list[int]]:
        with ProgramRunner(LIMITS, workers=2) as runner:
            answers = [result.answer for result in runner.run_many(sources)]
            return answers, workers_of()

    answers, workers = ray.get(run.remote([f"answer = {n}" for n in range(100)]))
    assert answers == [str(n) for n in range(100)]
    assert 1 <= len(workers) <= 2
    _wait_until_gone(lambda: [pid for pid in workers if is_running(pid)])


@pytest.mark.parametrize("source", ["answer = 1", DEAF], ids=["idle", "deaf"])
def test_no_worker_outlives_a_killed_ray_worker(source: str) -> None:
    import ray

    @ray.remote(max_restarts=0)
    class Owner:
        def start(self) -> tuple[int, list[int]]:
            self.runner = ProgramRunner(LIMITS)
            self.runner.run("answer = 1")
            return os.getpid(), workers_of()

        def run(self, source: str) -> str:
            return self.runner.run(source).verdict

    owner = Owner.remote()
    pid, workers = ray.get(owner.start.remote())
    assert len(workers) == 1
    running = owner.run.remote(source)
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    if source == DEAF:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(running)
    _wait_until_gone(lambda: [worker for worker in workers if is_running(worker)])


def _wait_until_gone(found: Callable[[], list[int]]) -> None:
    # Seconds of CPU time; on a busy machine, at low priority, more of wall time.
    deadline = time.monotonic() + 90
    while remaining := found():
        assert time.monotonic() < deadline, f"workers {remaining} are still there"
        time.sleep(0.1)
