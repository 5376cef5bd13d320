"""The sides of ``generation.py``, each run in a process of its own, two of them by another environment's Python.

    python benchmarks/generation_sides.py SIDE JOB.json

Every side asks one OpenAI-compatible endpoint the same prompts, one user message each, and is set up for throughput as
its documentation says; what is not named here is left at its default.

- ``fdd_ray``: the teacher's stage of a run. ``teacher.max_num_seqs`` is the number of requests in flight,
  ``flow.blocks_in_flight`` such that twice as many rows are under way. Rows are checked (their programs are run) and
  written.
- ``distilabel``: a `Pipeline` of `LoadDataFromDicts` and `TextGeneration` with `OpenAILLM`. A step sends a whole
  batch at once and waits for all of it, so ``input_batch_size`` is the number of requests in flight (divided among
  the replicas of the step, if there are several). No cache.
- ``curator``: a `curator.LLM` with the backend ``openai`` (or ``litellm``). ``max_concurrent_requests`` is the number
  of requests in flight; its limits per minute are set too high to matter. An answer that was cut off is kept, not
  asked again. A fresh folder, no telemetry, no viewer.
- ``client``: the package openai alone, with a semaphore; nothing is checked or kept.
- ``http``: aiohttp alone, which is a leaner client. The faster of the two is the server's own ceiling.

A side prints one JSON line: ``begun`` and ``ended`` in seconds since 1970 (its call, without imports; to its last row
being written), ``version``, and writes its answers by prompt id to ``answers.json``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

ANSWERS = "answers.json"
REQUEST_S = 900.0
_NO_LIMIT = 10**9


@dataclasses.dataclass(frozen=True)
class Job:
    """What a side is to do.

    Attributes:
        endpoint: Base URL of the server, up to /v1.
        model: The name under which it serves the model.
        prompts: JSON lines with ``id`` and ``prompt``.
        pool: The same problems as a Parquet file of `fdd_ray.records.Problem`.
        folder: Where the side writes; empty at its start.
        prompt_set: Name of the prompt set that made the prompts.
        in_flight: Requests in flight.
        max_tokens: Longest answer, in tokens.
        replicas: Processes of distilabel's step.
        backend: curator's backend.
    """

    endpoint: str
    model: str
    prompts: str
    pool: str
    folder: str
    prompt_set: str
    in_flight: int
    max_tokens: int
    replicas: int = 1
    backend: str = "openai"

    def rows(self) -> list[dict[str, str]]:
        """The prompts."""
        with open(self.prompts, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


@dataclasses.dataclass(frozen=True)
class Told:
    """What a side says: when it began and ended (seconds since 1970), its version, and its answers by prompt id."""

    begun: float
    ended: float
    version: str
    answers: Mapping[str, str]


def fdd_ray(job: Job) -> Told:
    """The teacher's stage, as `fdd-ray run` does it."""
    from fdd_ray import __version__
    from fdd_ray.experiment import load_experiment
    from fdd_ray.launch import TINY_EXPERIMENT
    from fdd_ray.progress import Reporter
    from fdd_ray.records import Taught, from_table, schema_of
    from fdd_ray.store import files
    from fdd_ray.store.run import Run
    from fdd_ray.workshop import Workshop

    experiment = load_experiment(TINY_EXPERIMENT)
    blocks = max(1, -(-2 * job.in_flight // experiment.flow.block_rows))
    changes = [
        "name=generation",
        f"storage={job.folder}",
        f"pool={{format: parquet, path: {job.pool}}}",
        f"prompts={job.prompt_set}",
        f"teach={{max_tokens: {job.max_tokens}, min_kept: 1}}",
        f"teacher.endpoint={job.endpoint}",
        f"teacher.model={job.model}",
        "teacher.api_key_env=null",
        "teacher.kv_cache_mib=null",
        "teacher.cpus_per_replica=0.1",
        "teacher.replicas=1",
        f"teacher.max_num_seqs={job.in_flight}",
        f"teacher.request_deadline_s={REQUEST_S}",
        f"flow.blocks_in_flight={blocks}",
    ]
    experiment = load_experiment(TINY_EXPERIMENT, changes)
    with (
        Run(experiment.directory) as run,
        Workshop(experiment, run, Reporter(), start_early=False) as shop,
    ):
        problems = shop.problems()
        begun = time.time()
        taught = shop.teach(problems)
        ended = time.time()
    rows = from_table(files.read_tables(taught.outputs, schema_of(Taught)), Taught)
    answers = {row.id: row.completions[0].text for row in rows if row.completions}
    return Told(begun, ended, __version__, answers)


def distilabel(job: Job) -> Told:
    """A pipeline of two steps."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts, StepResources
    from distilabel.steps.tasks import TextGeneration

    batch = max(1, job.in_flight // job.replicas)
    rows = [{"id": row["id"], "instruction": row["prompt"]} for row in job.rows()]
    begun = time.time()
    with Pipeline(name="generation", cache_dir=os.path.join(job.folder, "cache")) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=batch)
        generate = TextGeneration(
            llm=OpenAILLM(
                model=job.model,
                base_url=job.endpoint,
                api_key="none",  # type: ignore[arg-type]
                timeout=int(REQUEST_S),
                generation_kwargs={"temperature": 0.0, "max_new_tokens": job.max_tokens},
            ),
            input_batch_size=batch,
            resources=StepResources(replicas=job.replicas),
            add_raw_input=False,
            add_raw_output=False,
        )
        load >> generate
    made = pipeline.run(use_cache=False)
    made.save_to_disk(os.path.join(job.folder, "made"))
    ended = time.time()
    table = made["default"]["train"]
    answers = {row["id"]: row["generation"] for row in table if row["generation"] is not None}
    return Told(begun, ended, version("distilabel"), answers)


def curator(job: Job) -> Told:
    """One `curator.LLM` over all rows."""
    litellm = importlib.util.find_spec("litellm")
    assert litellm is not None and litellm.submodule_search_locations is not None
    tokenizers = os.path.join(litellm.submodule_search_locations[0], "litellm_core_utils", "tokenizers")
    # It counts tokens with a table that it fetches from the network at each start, unless it is here already.
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", tokenizers)
    # Read when the package is imported.
    os.environ |= {"TELEMETRY_ENABLED": "0", "CURATOR_VIEWER": "0", "CURATOR_DISABLE_CACHE": "1"}
    os.environ |= {"CURATOR_CACHE_DIR": job.folder, "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    from bespokelabs import curator as package
    from datasets import Dataset

    class Solver(package.LLM):  # type: ignore[misc, name-defined]
        def prompt(self, row: dict[str, str]) -> str:
            return row["prompt"]

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"id": row["id"], "text": response}

    begun = time.time()
    solver = Solver(
        model_name=job.model if job.backend == "openai" else f"openai/{job.model}",
        backend=job.backend,
        generation_params={"temperature": 0.0, "max_tokens": job.max_tokens},
        backend_params={
            "base_url": job.endpoint,
            "api_key": "none",
            "max_concurrent_requests": job.in_flight,
            "max_requests_per_minute": _NO_LIMIT,
            "max_tokens_per_minute": _NO_LIMIT,
            "request_timeout": int(REQUEST_S),
            "require_all_responses": False,
            "invalid_finish_reasons": ["content_filter"],
        },
    )
    made = solver(Dataset.from_list(job.rows()), working_dir=os.path.join(job.folder, "work"))
    made.dataset.to_parquet(os.path.join(job.folder, "made.parquet"))
    ended = time.time()
    answers = {row["id"]: row["text"] for row in made.dataset if row["text"] is not None}
    return Told(begun, ended, version("bespokelabs-curator"), answers)


def client(job: Job) -> Told:
    """The package openai and a semaphore: what the server gives to a client that does nothing else."""
    import openai

    rows, answers = job.rows(), {}

    async def ask_all() -> None:
        gate = asyncio.Semaphore(job.in_flight)
        async with openai.AsyncOpenAI(api_key="none", base_url=job.endpoint, timeout=REQUEST_S) as asked:

            async def ask(row: Mapping[str, str]) -> None:
                async with gate:
                    reply = await asked.chat.completions.create(
                        model=job.model,
                        messages=[{"role": "user", "content": row["prompt"]}],
                        temperature=0.0,
                        max_tokens=job.max_tokens,
                    )
                text = reply.choices[0].message.content
                if text is not None:
                    answers[row["id"]] = text

            await asyncio.gather(*(ask(row) for row in rows))

    begun = time.time()
    asyncio.run(ask_all())
    return Told(begun, time.time(), version("openai"), answers)


def http(job: Job) -> Told:
    """aiohttp and as many connections as requests in flight."""
    import aiohttp

    rows, answers = job.rows(), {}

    async def ask_all() -> None:
        connector = aiohttp.TCPConnector(limit=job.in_flight)
        limit = aiohttp.ClientTimeout(total=None, sock_read=REQUEST_S)
        async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:

            async def ask(row: Mapping[str, str]) -> None:
                body = {
                    "model": job.model,
                    "messages": [{"role": "user", "content": row["prompt"]}],
                    "temperature": 0.0,
                    "max_tokens": job.max_tokens,
                }
                async with session.post(f"{job.endpoint}/chat/completions", json=body, raise_for_status=True) as reply:
                    text = (await reply.json())["choices"][0]["message"]["content"]
                if text is not None:
                    answers[row["id"]] = text

            await asyncio.gather(*(ask(row) for row in rows))

    begun = time.time()
    asyncio.run(ask_all())
    return Told(begun, time.time(), version("aiohttp"), answers)


SIDES: dict[str, Callable[[Job], Told]] = {
    "fdd_ray": fdd_ray,
    "distilabel": distilabel,
    "curator": curator,
    "client": client,
    "http": http,
}


def main() -> None:
    """Run one side."""
    side, path = sys.argv[1:]
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    told: dict[str, Any] = dataclasses.asdict(SIDES[side](job))
    Path(job.folder, ANSWERS).write_text(json.dumps(told.pop("answers")), encoding="utf-8")
    print(f"\n{json.dumps(told)}", flush=True)


if __name__ == "__main__":
    main()
