"""A fleet that asks an endpoint: vLLM's own server with the tiny teacher, behind a proxy that spoils replies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.checking import Asking, CheckSettings
from fdd_ray.dataflow import FlowSettings, RowFunction, run_rows
from fdd_ray.engines.base import EndpointError, EngineSettings, PromptTooLong, Reply, Sampling
from fdd_ray.engines.fleet import Fleet
from fdd_ray.errors import EngineError, StageError
from fdd_ray.progress import StageProgress
from fdd_ray.prompts import Message, load_prompts
from fdd_ray.records import Problem, Request, Taught, Variation, content_id, from_table, schema_of, to_table
from fdd_ray.stages.synthesise import SynthesiseRow, SynthesiseSettings
from fdd_ray.stages.teach import TeachRow, TeachSettings
from fdd_ray.store import files
from fdd_ray.store.run import Run, StageResult
from fdd_ray.tiny import make_problems
from tests.engines.endpoint import FAULTS, MODEL, FaultyProxy, Said, ScriptedEndpoint, completion, refusal

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("ray_local")]
PROMPTS = load_prompts("tiny")
FLOW = FlowSettings(block_rows=8, blocks_in_flight=4, map_actors=(1, 1), cpus_per_map_actor=0.1)
PROBLEMS = [Problem.new(item.question, item.answer) for item in make_problems("pool", 30, seed=21)]
CANARY = "sk-canary-0a1b2c3d4e5f"
CHAT: list[Message] = [{"role": "user", "content": "What is 3 + 4?"}]


@contextmanager
def _fleet(endpoint: str | None, name: str, **rest: Any) -> Iterator[Fleet]:
    own: dict[str, Any] = {"model": "tiny://teacher", "kv_cache_mib": 64, "max_num_seqs": 64, "cpus_per_replica": 0.1}
    given: dict[str, Any] = {"model": MODEL, "endpoint": endpoint, "api_key_env": None, "request_deadline_s": 20.0}
    fleet = Fleet("teacher", EngineSettings(**((own if endpoint is None else given) | rest)), f"{name}-{os.getpid()}")
    fleet.start()
    try:
        fleet.wait(lambda text: None)
        yield fleet
    finally:
        fleet.release()


def _run(
    make: Callable[[Asking], RowFunction[Any, Any]], rows: Sequence[Any], fleet: Fleet, directory: Path
) -> tuple[StageResult, list[Any]]:
    folder = Run(str(directory)).folder(0, "stage")
    function = make(Asking(fleet.client(), PROMPTS, CheckSettings(), "program", seed=0))
    source = folder.write("rows.parquet", to_table(rows, function.reads))
    result = run_rows(function, [source], folder, FLOW, StageProgress("stage"))
    table = files.read_tables([folder.file(name) for name in folder.parts()], schema_of(function.writes))
    return result, from_table(table, function.writes)


def _teach(fleet: Fleet, directory: Path) -> tuple[StageResult, list[Taught]]:
    return _run(lambda asking: TeachRow(asking, TeachSettings(max_tokens=100)), PROBLEMS, fleet, directory)


def _synthesise(fleet: Fleet, directory: Path) -> tuple[StageResult, list[Variation]]:
    settings = SynthesiseSettings(
        temperature=0.7, max_problem_tokens=120, solutions=3, solution_temperature=0.7, max_solution_tokens=100
    )
    requests = [
        Request(content_id("r", problem.id), problem.id, problem.question, problem.answer, "similar", 1, 0)
        for problem in PROBLEMS
    ]
    return _run(lambda asking: SynthesiseRow(asking, settings), requests, fleet, directory)


def test_a_faulty_endpoint_loses_no_row_and_teaches_like_the_same_teacher_run_by_ourselves(
    tiny_endpoint: str, tmp_path: Path
) -> None:
    with _fleet(None, "own") as fleet:
        own, own_rows = _teach(fleet, tmp_path / "own")
    # A slow reply comes after the deadline, when it has been asked again.
    with FaultyProxy(tiny_endpoint, slow_s=22.0) as proxy:
        with _fleet(proxy.url, "http", replicas=(2, 2), request_deadline_s=20.0) as fleet:
            http, http_rows = _teach(fleet, tmp_path / "http")
            made, variations = _synthesise(fleet, tmp_path / "synthesise")
        spoilt = proxy.spoilt
    assert set(spoilt) == set(FAULTS) and sum(spoilt.values()) >= 30, spoilt
    # Greedy, so only the rounding of sums in batches of other sizes may tell the two apart.
    assert Counter(row.id for row in http_rows) == Counter(problem.id for problem in PROBLEMS)
    assert http.counts.failed == own.counts.failed == 0
    texts = {row.id: row.completions[0].text for row in own_rows}
    same = sum(row.completions[0].text == texts[row.id] for row in http_rows)
    assert same >= len(PROBLEMS) - 2
    assert abs(http.counts.kept - own.counts.kept) <= 2 and own.counts.kept >= 15
    tokens = {row.id: (row.prompt_tokens, row.completion_tokens) for row in own_rows}
    assert sum((row.prompt_tokens, row.completion_tokens) == tokens[row.id] for row in http_rows) >= same
    # Drawn, so only that nothing is lost, and each has its three solutions.
    assert made.counts.failed == 0 and len({row.id for row in variations}) == len(variations) == len(PROBLEMS)
    solved = [row for row in variations if row.outcome == "kept"]
    assert len(solved) >= 15 and all(len(row.solutions) == 3 for row in solved)


def test_a_real_endpoint_refuses_what_our_own_engine_refuses(tiny_endpoint: str) -> None:
    with _fleet(tiny_endpoint, "refuse") as fleet:
        client = fleet.client()

        async def ask(chat: list[Message], sampling: Sampling) -> Reply:
            return await client.ask(chat, sampling)

        with pytest.raises(PromptTooLong, match="512"):
            asyncio.run(ask(PROMPTS.solve("program", "apples " * 600), Sampling(max_tokens=8)))
        with pytest.raises(EndpointError, match="temperature"):
            asyncio.run(ask(CHAT, Sampling(temperature=-1.0, max_tokens=8)))


def test_a_real_endpoint_draws_samples_that_differ_and_repeat(tiny_endpoint: str) -> None:
    with _fleet(tiny_endpoint, "draw") as fleet:
        client = fleet.client()

        async def write(seed: int) -> list[Reply]:
            sampling = Sampling(n=3, temperature=1.0, max_tokens=40, seed=seed)
            chats = [PROMPTS.vary("similar", problem.question) for problem in PROBLEMS[:6]]
            return list(await asyncio.gather(*(client.ask(chat, sampling) for chat in chats)))

        first = asyncio.run(write(7))
    with _fleet(tiny_endpoint, "again") as fleet:
        client = fleet.client()
        assert asyncio.run(write(7)) == first != asyncio.run(write(8))
    assert all(len({sample.text for sample in reply.samples}) == 3 for reply in first)
    assert all(3 <= reply.completion_tokens <= 3 * 40 for reply in first)


def test_a_wrong_model_is_found_before_the_work_begins(tiny_endpoint: str) -> None:
    expected = rf"teacher: asked {tiny_endpoint} for a few tokens of nobody.*HTTP 404.*It serves: {MODEL}"
    begun = time.monotonic()
    with pytest.raises(EngineError, match=expected), _fleet(tiny_endpoint, "wrong", model="nobody"):
        pass
    assert time.monotonic() - begun < 60


def test_a_key_that_the_engine_does_not_have_is_found_before_the_work_begins(tiny_endpoint: str) -> None:
    expected = "NOBODYS_API_KEY is not set where this engine runs"
    with pytest.raises(EngineError, match=expected), _fleet(tiny_endpoint, "no", api_key_env="NOBODYS_API_KEY"):
        pass


def test_one_limit_for_all_engines_of_an_endpoint() -> None:
    """Three engines in three processes together keep 120 requests a minute, one each half second."""
    with ScriptedEndpoint(lambda asked, number: completion("answer = 7")) as server:
        with _fleet(server.url, "limit", replicas=(3, 3), requests_per_minute=120.0) as fleet:
            client = fleet.client()

            async def ask() -> list[Reply]:
                return list(await asyncio.gather(*(client.ask(CHAT, Sampling(max_tokens=8)) for _ in range(12))))

            assert len(asyncio.run(ask())) == 12
            assert all(lane.in_flight == 0 for lane in client._lanes)
        times = sorted(asked.at for asked in server.chats)
    assert len(times) == 12 + 3, "and a start check of each engine"
    # Sending takes moments of its own, so gaps may shrink a little; a limit per engine would give a third.
    assert times[-1] - times[0] >= 0.5 * 14 - 0.3


def test_an_engine_that_is_killed_is_started_again_and_its_requests_are_asked_again() -> None:
    import ray

    server = ScriptedEndpoint(lambda asked, number: Said.of(completion("answer = 7"), delay_s=1.0))
    with server, _fleet(server.url, "killed") as fleet:
        client = fleet.client()
        pid = ray.get(client.actors[0].ready.remote())

        async def ask() -> list[Reply]:
            asked = asyncio.gather(*(client.ask(CHAT, Sampling(max_tokens=8)) for _ in range(5)))
            while len(server.chats) < 6:
                await asyncio.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
            return list(await asked)

        assert [reply.samples[0].text for reply in asyncio.run(ask())] == ["answer = 7"] * 5


def test_an_endpoint_that_gives_out_stops_the_stage_and_the_key_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is echoed in every reply. All that this run and Ray have written is searched for it."""
    import ray

    def script(asked: Any, number: int) -> Any:
        key = asked.headers["authorization"].removeprefix("Bearer ")
        assert key == CANARY
        if number < 12:
            return completion(f"answer = 7  # {key}")
        return Said.of(refusal(f"key {key} has no credit", code="insufficient_quota"), 429)

    # Workers get the environment of their node; this is how a job hands it to them.
    monkeypatch.setattr("fdd_ray.engines.fleet._environment", lambda *given: {"TEACHER_API_KEY": CANARY})
    with ScriptedEndpoint(script) as server, _fleet(server.url, "canary", api_key_env="TEACHER_API_KEY") as fleet:
        with pytest.raises(
            StageError, match=r"rows failed.*the account has no credit left .*TEACHER_API_KEY"
        ) as caught:
            _teach(fleet, tmp_path)
        logs = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    assert CANARY not in str(caught.value)
    folder = Run(str(tmp_path)).folder(0, "stage")
    rows = from_table(files.read_tables([folder.file(n) for n in folder.parts()], schema_of(Taught)), Taught)
    assert any("[key]" in completion.text for row in rows for completion in row.completions)
    written = [path for root in (tmp_path, logs / "logs") for path in root.rglob("*") if path.is_file()]
    assert len(written) > 20
    found = [path for path in written if CANARY.encode() in path.read_bytes()]
    # Ray writes down the environment that a job hands to its workers; nothing that we write may be among these.
    assert [path for path in found if "runtime_env" not in path.name] == []
