"""The two sides of `resume.py`: the same rows and the same row function through fdd_ray and through Ray Data.

As a program it is the driver that `resume.py` kills; what it prints is one JSON line when Ray is up and one at
its end:

    python benchmarks/resume_sides.py '{"side": "fdd_ray", "folder": "/tmp/x", "input": "/tmp/in.parquet", ...}'
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from fdd_ray.dataflow import FlowSettings, RowFunction, run_rows
from fdd_ray.errors import FddError
from fdd_ray.flow import map_items
from fdd_ray.progress import StageProgress
from fdd_ray.records import Outcome, from_table, schema_of, to_table
from fdd_ray.store import files
from fdd_ray.store.run import Run, StageFolder, StageResult

CPUS = 4  # logical ones: Ray Data's read and write tasks take a whole one each
STAGE = "round-00/rationales"
FLOW = FlowSettings(map_actors=(2, 2))


@dataclasses.dataclass(frozen=True)
class Ask:
    """A row that is read."""

    id: str
    number: int


@dataclasses.dataclass(frozen=True)
class Told:
    """A row that is written."""

    id: str
    number: int
    outcome: Outcome
    reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of one side.

    Attributes:
        side: ``fdd_ray`` or ``ray``, or one of them ``without`` keeping what is done.
        folder: Where its output goes.
        input: The Parquet file with the rows.
        factor: The setting of the row function.
        latency_s: How long a row takes.
        fail_every: Every so manieth row raises an exception; 0 is none.
        catch: Ray Data: catch the exception in the function and write a row that says so.
        calls: A file that each call of the row function is logged to; none where it is empty.
        block_rows: Rows in a block; 0 leaves it to Ray Data.
        max_errored_blocks: Ray Data's setting of this name.
    """

    side: str
    folder: str
    input: str
    factor: int = 2
    latency_s: float = 0.0
    fail_every: int = 0
    catch: bool = False
    calls: str = ""
    block_rows: int = FLOW.block_rows
    max_errored_blocks: int = 0


class Work(RowFunction[Ask, Told]):
    """Multiplies a number, after a while."""

    reads: ClassVar[type] = Ask
    writes: ClassVar[type] = Told
    role: ClassVar[str] = "teacher"

    def __init__(self, job: Job) -> None:
        self._job = job
        self._log = -1

    def open(self) -> None:
        """Open the log of calls; each line is on disk when the call goes on."""
        if self._job.calls:
            self._log = os.open(self._job.calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def __call__(self, row: Ask) -> Told:
        """One row."""
        if self._log >= 0:
            os.write(self._log, f"{time.time():.3f} {row.id}\n".encode())
        await asyncio.sleep(self._job.latency_s)
        if self._job.fail_every and row.number % self._job.fail_every == 0:
            raise RuntimeError(f"row {row.number} cannot be worked on")
        return Told(row.id, row.number * self._job.factor, "kept", "", 2, 3)

    def failure(self, row: Ask, reason: str, outcome: Outcome = "failed") -> Told:
        """A row that failed."""
        return Told(row.id, 0, outcome, reason, 0, 0)


class Blocks:
    """The function for Ray Data: all rows of a block at once, as fdd_ray has them."""

    def __init__(self, job: Job) -> None:
        self._work = Work(job)
        self._catch = job.catch
        self._work.open()

    async def __call__(self, block: pa.Table) -> pa.Table:
        rows = from_table(block.cast(schema_of(Ask)), Ask)
        return to_table(await asyncio.gather(*(self._one(row) for row in rows)), Told)

    async def _one(self, row: Ask) -> Told:
        try:
            return await self._work(row)
        except RuntimeError as error:
            if not self._catch:
                raise
            return self._work.failure(row, str(error))


class BlocksOfPlaces(Blocks):
    """The function for fdd_ray's flow when nothing is kept: rows are read and worked on, and dropped."""

    async def __call__(self, block: pa.Table) -> pa.Table:
        (place,) = block.to_pylist()
        table = await asyncio.to_thread(files.read_rows, place["path"], place["start"], place["stop"], schema_of(Ask))
        return pa.table({"rows": [(await super().__call__(table)).num_rows]})


def run(job: Job) -> None:
    """Do a job to its end; Ray is up.

    Raises:
        FddError: If fdd_ray refuses, or too many rows failed.
        Exception: What Ray Data raises.
    """
    kind, _, without = job.side.partition(" ")
    if kind == "ray":
        _ray_data(job, keep=not without)
    elif without:
        places = [
            {"path": job.input, "start": start, "stop": start + job.block_rows}
            for start in range(0, files.count_rows(job.input), job.block_rows)
        ]
        results = map_items(BlocksOfPlaces, (job,), places, FLOW, "rows", calls=FLOW.blocks_in_flight)
        assert sum(result["rows"] for result in results) == files.count_rows(job.input)
    else:
        _fdd_ray(job)


def _fdd_ray(job: Job) -> None:
    flow = dataclasses.replace(FLOW, block_rows=job.block_rows, max_failed_share=0.005)

    def work(folder: StageFolder) -> StageResult:
        return run_rows(Work(job), [job.input], folder, flow, StageProgress("rows"))

    with Run(job.folder) as run:
        run.once("rationales", 0, {"work": {"factor": job.factor}, "inputs": ["the rows"]}, work)


def _ray_data(job: Job, *, keep: bool) -> None:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.checkpoint import CheckpointConfig

    context = DataContext.get_current()
    context.max_errored_blocks = job.max_errored_blocks
    # Kept at the end as well, so that its files can be counted and a finished run can be repeated.
    kept = CheckpointConfig("id", str(Path(job.folder, "checkpoint")), delete_checkpoint_on_success=False)
    context.checkpoint_config = kept if keep else None
    most = FLOW.map_actors[1]
    try:
        rows = ray.data.read_parquet(job.input)
        if job.block_rows:  # override_num_blocks does not cut a file of one row group
            rows = rows.repartition(target_num_rows_per_block=job.block_rows)
        rows.map_batches(
            Blocks,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=most,
                max_size=most,
                max_tasks_in_flight_per_actor=FLOW.blocks_in_flight,
                max_concurrent_calls_per_actor=FLOW.blocks_in_flight,
            ),
            num_cpus=FLOW.cpus_per_map_actor,
            fn_constructor_args=(job,),
        ).write_parquet(str(Path(job.folder, "rows")))
    finally:
        context.checkpoint_config = None  # it is the process's: the other side would have it too


def start_ray() -> None:
    """A Ray of this process's own, which ends with it."""
    import ray
    from ray.data import DataContext

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context: Any = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def main() -> None:
    """The driver: what came of the job is printed, also when it is an error."""
    import resume_sides  # by its name, so that Ray's workers import its classes rather than unpickle them

    job = resume_sides.Job(**json.loads(sys.argv[1]))
    resume_sides.start_ray()
    print(json.dumps({"up": time.time()}), flush=True)
    error = ""
    try:
        resume_sides.run(job)
    except FddError as refused:
        error = f"{type(refused).__name__}: {refused}"
    except Exception as failed:  # whatever Ray Data raises
        lines = [line.strip() for line in str(failed).splitlines() if line.strip()]
        error = f"{type(failed).__name__}: {lines[-1] if lines else ''}"
    print(json.dumps({"ended": time.time(), "error": error}), flush=True)


if __name__ == "__main__":
    main()
