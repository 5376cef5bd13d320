"""Rows through Ray Data: one async function from a row to a row, many rows in flight.

A stage with a language model in it is a `RowFunction`. `run_rows` cuts its input into blocks, which Ray
Data shards over map actors; each actor awaits the function on all rows of a block at once, with several
blocks in flight, so the engines' continuous batching stays full across rows, turns and blocks. A
finished block is written as one Parquet part before it is reported, so what was paid for is on disk; a
row that is in a part is never asked again. Neither rows nor results pass through the driver (see
`fdd_ray.flow`): what it hands out are places in Parquet files, what it gets back are counts.

Ray Data's own checkpoints (``ray.data.checkpoint``) are not used; benchmarks/resume.py measures both. They are
written by tasks behind the actors, so a kill also loses what was answered and still waits to be written; they
know nothing of settings, so old and new rows are mixed; and a row that raises costs its block, or the run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from fdd_ray.engines.base import RequestError
from fdd_ray.errors import EngineError, FddError, StageError, StoreError
from fdd_ray.flow import FlowSettings, map_items
from fdd_ray.gate import Gate
from fdd_ray.overseer import Overseer
from fdd_ray.progress import StageProgress
from fdd_ray.records import Outcome, content_id, from_table, schema_of, to_table
from fdd_ray.store import files
from fdd_ray.store.ids import IdSet
from fdd_ray.store.run import StageFolder, StageResult, count_outcomes

if TYPE_CHECKING:
    import pyarrow as pa
    import ray

__all__ = ["FlowSettings", "RowFunction", "run_rows"]

In = TypeVar("In")
Out = TypeVar("Out")
_TOKENS = ("prompt", "completion")
_BLOCK_TRIES = 2  # how often the rows of a block are begun together, before they are tried one by one
_READERS, _READ_AHEAD = 16, 256  # parts that are read at once, and that lie in memory at once at most
_COUNTED = ("id", "outcome", "reason", "prompt_tokens", "completion_tokens")


class RowFunction(Generic[In, Out]):
    """One async function from a row to a row, with what it needs to run in a map actor.

    Subclasses are picklable before `open`. Rows of both types have an ``id``; rows written also have
    ``outcome``, ``reason``, ``prompt_tokens`` and ``completion_tokens``.
    """

    reads: ClassVar[type]
    writes: ClassVar[type]
    role: ClassVar[str]

    def open(self) -> None:
        """Called once in the process that will run the rows."""

    async def __call__(self, row: In) -> Out:
        """What becomes of ``row``; exactly one row comes back."""
        raise NotImplementedError

    def failure(self, row: In, reason: str, outcome: Outcome = "failed") -> Out:
        """The row that stands for one that could not be worked on."""
        raise NotImplementedError


class _BlockWorker:
    """The callable class that Ray Data runs in a map actor."""

    def __init__(
        self,
        function: RowFunction[Any, Any],
        folder: StageFolder,
        done: ray.ObjectRef[IdSet],
        gate: Gate,
        row_tries: int,
    ) -> None:
        import ray

        self._function = function
        self._folder = folder
        self._gate = gate
        self._row_tries = row_tries
        self._done: IdSet = ray.get(done)
        self._suspects = asyncio.Lock()
        function.open()

    async def __call__(self, block: pa.Table) -> pa.Table:
        import pyarrow as pa

        begun_at = time.monotonic()
        (place,) = block.to_pylist()
        table = await asyncio.to_thread(
            files.read_rows, place["path"], place["start"], place["stop"], schema_of(self._function.reads)
        )
        read: list[Any] = from_table(table, self._function.reads)
        rows = [row for row in read if row.id not in self._done]
        written: list[Any] = []
        name = _part_of(rows)
        # A block that is tried again because its actor died after writing it is not asked again.
        if rows and not await self._is_written(name):
            key = f"{place['path']}:{place['start']}"
            begun = await self._gate.enter(key)
            if 0 < begun <= _BLOCK_TRIES:
                written = await asyncio.gather(*(self._one(row) for row in rows))
                await self._write(name, written)
            elif begun:
                written = await self._one_by_one(rows)
            await self._gate.leave([key])
        elif rows:
            written = rows
        tokens = {f"{kind}_tokens": sum(getattr(row, f"{kind}_tokens", 0) for row in written) for kind in _TOKENS}
        kept = sum(getattr(row, "outcome", "") == "kept" for row in written)
        seconds = round(time.monotonic() - begun_at, 3)
        summary = {"part": name, "rows": len(written), "kept": kept, "seconds": seconds, **tokens}
        return pa.table({key: [value] for key, value in summary.items()})

    async def _one_by_one(self, rows: Sequence[Any]) -> list[Any]:
        """The rows of a block whose worker died again and again: one of them may be the cause.

        Only one such row is worked on at a time, so that no other is blamed for what it does.
        """
        written = []
        for row in rows:
            async with self._suspects:
                name = _part_of([row])
                if await self._is_written(name):
                    written.append(row)
                    continue
                begun = await self._gate.enter(row.id)
                if begun == 0:
                    break
                if begun > self._row_tries:
                    result = self._function.failure(row, f"poison: its worker died {begun - 1} times")
                else:
                    result = await self._one(row)
                await self._write(name, [result])
                await self._gate.leave([row.id])
                written.append(result)
        return written

    async def _is_written(self, name: str) -> bool:
        return await asyncio.to_thread(files.exists, self._folder.file(name))

    async def _write(self, name: str, rows: Sequence[Any]) -> None:
        await asyncio.to_thread(files.write_table, self._folder.file(name), to_table(rows, self._function.writes))

    async def _one(self, row: Any) -> Any:
        try:
            return await self._function(row)
        except RequestError as error:
            return self._function.failure(row, error.reason, "rejected")
        except EngineError as error:
            return self._function.failure(row, f"engine: {error}"[:200])
        except FddError:
            raise
        except Exception as error:  # a row that breaks our own code is counted, and named, as failed
            return self._function.failure(row, f"error: {type(error).__name__}: {error}"[:200])


def _part_of(rows: Sequence[Any]) -> str:
    return f"part-{content_id('b', *(row.id for row in rows))}.parquet"


def run_rows(
    function: RowFunction[Any, Any],
    inputs: Sequence[str],
    folder: StageFolder,
    flow: FlowSettings,
    progress: StageProgress,
    overseer: Overseer | None = None,
) -> StageResult:
    """Run a row function over all rows of Parquet files.

    What an earlier, unfinished run left in the folder is kept, except for rows that failed: these are
    asked again, for the cause may have been mended.

    Args:
        function: What to do with a row.
        inputs: Parquet files with rows of ``function.reads``; ids are unique over all of them.
        folder: Where the parts go.
        flow: How rows travel.
        progress: Told of rows as they are finished.
        overseer: Told of tokens as they are used; it may end the stage early.

    Raises:
        BudgetError: If the budget was used up before all rows were done.
        KeyboardInterrupt: If the run was told to end before all rows were done.
        StageError: If more than ``max_failed_share`` of the rows failed, or nothing finishes any more.
        StoreError: If rows were lost or doubled.
    """
    total = sum(files.count_rows(path) for path in inputs)
    _forget_failures(folder, function.writes)
    done = _ids(folder, function.writes)
    folder.note("rows counted", rows=total, done=len(done))
    progress.start(total, len(done))
    if len(done) < total:
        _work(function, inputs, folder, done, flow, progress, overseer or Overseer())
    result = _account(function, folder, total)
    failed = result.counts.failed
    if total and failed / total > flow.max_failed_share:
        raise StageError(
            f"{folder.label}: {failed} of {total} rows failed, more than flow.max_failed_share"
            f" = {flow.max_failed_share:g} allows; most often: {result.summary['failures']}."
            " Mend the cause and run the same command again: these rows are asked again, all others are kept"
        )
    return result


def _work(
    function: RowFunction[Any, Any],
    inputs: Sequence[str],
    folder: StageFolder,
    done: IdSet,
    flow: FlowSettings,
    progress: StageProgress,
    overseer: Overseer,
) -> None:
    """Work on all rows that are missing; what ended it early is raised after the last row in flight."""
    import ray

    places = [
        {"path": path, "start": start, "stop": start + flow.block_rows}
        for path in inputs
        for start in range(0, files.count_rows(path), flow.block_rows)
    ]
    with overseer.brake(folder.label) as brake:
        # Read once, and shared by the actors of a node: each would have to read every part there is.
        arguments = (function, folder, ray.put(done), brake.gate, flow.row_tries)
        for summary in map_items(
            _BlockWorker, arguments, places, flow, folder.label, calls=flow.blocks_in_flight, tick=brake.tick
        ):
            if summary["rows"]:
                folder.note("part written", **summary)
                progress.advance(summary["rows"], summary["kept"])
            overseer.spent(function.role, summary["prompt_tokens"], summary["completion_tokens"])
    if brake.error is not None and progress.done < progress.total:
        raise brake.error


def _forget_failures(folder: StageFolder, row_type: type) -> None:
    """Rewrite parts without their failed rows."""
    import pyarrow.compute as pc

    outcomes = _tables(folder, row_type, ["outcome"])
    for name in [name for name, table in outcomes if "failed" in table.column("outcome").to_pylist()]:
        table = files.read_tables([folder.file(name)], schema_of(row_type))
        kept = table.filter(pc.field("outcome") != "failed")
        folder.note("failed rows are asked again", part=name, rows=table.num_rows - kept.num_rows)
        # In place and in one step: a kill in between must neither lose a row nor leave it twice.
        if kept.num_rows:
            folder.write(name, kept)
        else:
            files.remove(folder.file(name))


def _ids(folder: StageFolder, row_type: type) -> IdSet:
    """The ids of all rows that were written, in little memory: every node has them."""
    found = IdSet()
    for _, table in _tables(folder, row_type, ["id"]):
        if not found.add_new(table.column("id").to_pylist()):
            raise _doubled(folder)
    return found


def _doubled(folder: StageFolder) -> StoreError:
    return StoreError(f"{folder.label}: some rows were written twice in {folder.path}; remove the folder and run again")


def _tables(folder: StageFolder, row_type: type, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """All parts by name, with some columns; several are read at once, for a store may be far away."""
    schema = schema_of(row_type)

    def read(name: str) -> tuple[str, pa.Table]:
        return name, files.read_tables([folder.file(name)], schema, columns)

    names = folder.parts()
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(names), _READ_AHEAD):
            yield from readers.map(read, names[start : start + _READ_AHEAD])


def _account(function: RowFunction[Any, Any], folder: StageFolder, total: int) -> StageResult:
    """Count what lies on disk, not what was reported: this is what later stages will read."""
    seen = IdSet()
    tally: Counter[tuple[str, str]] = Counter()
    tokens = dict.fromkeys(_TOKENS, 0)
    for _, table in _tables(folder, function.writes, _COUNTED):
        ids, outcomes, reasons, *used = (table.column(name).to_pylist() for name in _COUNTED)
        if not seen.add_new(ids):
            raise _doubled(folder)
        tally.update(zip(outcomes, reasons, strict=True))
        for name, numbers in zip(_TOKENS, used, strict=True):
            tokens[name] += sum(numbers)
    failures = {reason: n for (outcome, reason), n in tally.items() if outcome == "failed"}
    counts = dataclasses.replace(count_outcomes(tally), rows=total)
    most = sorted(failures.items(), key=lambda item: (-item[1], item[0]))[:5]
    return StageResult(counts, tuple(folder.parts()), {function.role: tokens}, {"failures": dict(most)})
