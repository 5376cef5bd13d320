"""A request that kills every engine it meets must not take the others with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fdd_ray.engines.base import EngineSettings, Reply, Sampling
from fdd_ray.engines.fleet import Fleet
from fdd_ray.errors import EngineError
from fdd_ray.prompts import load_prompts
from fdd_ray.tiny.problems import make_problems

PROMPTS = load_prompts("tiny")


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_poison_is_set_aside_and_its_neighbours_are_answered(tmp_path: Path) -> None:
    arguments = {"poison": "zyzzyva", "seconds": 0.3, "calls": str(tmp_path)}
    settings = EngineSettings(
        "tiny://teacher", engine="simulated", engine_args=arguments, cpus_per_replica=0.1, replicas=(2, 2)
    )
    questions = [problem.question for problem in make_problems("pool", 24, 1)]
    questions[7] = "The zyzzyva has 3 apples. How many apples are there?"
    fleet = Fleet("teacher", settings, "poison")
    fleet.start()
    fleet.wait(print)
    client = fleet.client()

    async def all_at_once() -> list[Reply | BaseException]:
        asked = [client.ask(PROMPTS.solve("program", question), Sampling()) for question in questions]
        return await asyncio.gather(*asked, return_exceptions=True)

    try:
        replies = asyncio.run(all_at_once())
    finally:
        fleet.release()
    failed = [number for number, reply in enumerate(replies) if isinstance(reply, BaseException)]
    assert failed == [7], replies
    assert isinstance(replies[7], EngineError) and "gave up after 4 tries" in str(replies[7])
    asked = sum(len(log.read_text().splitlines()) for log in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) >= 4  # every one of its tries cost an engine
    assert asked < 24 * 4
