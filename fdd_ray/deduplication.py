"""Finds the duplicates among any number of problems, in memory that does not grow with them.

    places = cut(pool_files, known=True) + cut(new_files, known=False)
    dropped = find_in_files(reader, places, folder, DuplicateSettings(), OnRay(flow, "curate"))
    for part in parts:
        findings = read_findings(folder, part)

Three steps follow each other, and within each every item is worked on by itself: *read* turns the rows of a
place into entries, dealt out by template; *texts* runs the first pass of `fdd_ray.curation.duplicates` on one
share of the templates and deals the survivors out by their quantities; *similar* runs the second pass on one share
of these. What one step hands to the next lies in the folder, cut into groups; what comes back to the driver is
counts. Both passes see whole templates and whole quantities, so how many shares there are changes nothing.

The steps run as one Ray Data job each, or all here, one after the other: few rows are not worth the start
of an actor for each step.
"""

from __future__ import annotations

import dataclasses
import json
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fdd_ray import errors
from fdd_ray.curation.duplicates import DuplicateSettings, Entry, Finding, check_similar, check_texts, in_order
from fdd_ray.errors import FddError, StageError
from fdd_ray.flow import FlowSettings, map_items
from fdd_ray.store import files
from fdd_ray.store.groups import read_group, write_groups

if TYPE_CHECKING:
    import pyarrow as pa

# Rows up to which all is done in one go: about 100 MiB, and a few seconds.
FEW_ROWS = 50_000
BLOCK_ROWS = 32_768
_ENTRIES, _SURVIVORS, _FINDINGS = "entries", "survivors", "findings"

_BUG = "; the worker's log in Ray's log folder has the traceback; report it, or mend the cause and run again"

Item = dict[str, Any]
Step = Callable[[Item], Item]


@dataclasses.dataclass(frozen=True)
class Place:
    """Rows of a Parquet file.

    Attributes:
        path: The file.
        start: Its first row.
        stop: One behind its last.
        known: Whether these problems are in the pool already.
    """

    path: str
    start: int
    stop: int
    known: bool


class Reader(Protocol):
    """Turns a place into entries; it is pickled, then `open` is called once where it runs."""

    def open(self) -> None:
        """Get ready to read."""

    def read(self, place: Place, number: int) -> list[Entry]:
        """The entries of a place, with the part where each finding is wanted; ``number`` is the place's own."""


class Runner(Protocol):
    """Runs a step on all items; results come in any order."""

    def __call__(self, step: Step, items: Sequence[Item]) -> Iterator[Item]:
        """Run the step; if it has an ``open``, that is called once in each process."""


def run_here(step: Step, items: Sequence[Item]) -> Iterator[Item]:
    """Run a step in this process."""
    _open(step)
    return map(step, items)


@dataclasses.dataclass(frozen=True)
class OnRay:
    """Runs steps as Ray Data jobs in light map actors.

    Attributes:
        flow: How many actors, of what size, and how long to wait for one of them to finish something.
        label: What is being done, for messages.
    """

    flow: FlowSettings
    label: str

    def __call__(self, step: Step, items: Sequence[Item]) -> Iterator[Item]:
        """Run a step, one item at a time in each actor."""
        for row in map_items(_StepWorker, (step,), [{"item": json.dumps(i)} for i in items], self.flow, self.label):
            result = json.loads(row["result"])
            if "error" in result:
                raise getattr(errors, result["error"])(result["message"])
            yield result


class _StepWorker:
    """The callable class that Ray Data runs in a map actor."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._opened = False

    def __call__(self, block: pa.Table) -> pa.Table:
        import pyarrow as pa

        (row,) = block.to_pylist()
        return pa.table({"result": [json.dumps(self._result(json.loads(row["item"])))]})

    def _result(self, item: Item) -> Item:
        """What the step says, or the error that ended it: Ray Data would wrap it beyond recognition."""
        try:
            if not self._opened:  # not when it is made: an actor that cannot be made is made again and again
                _open(self._step)
                self._opened = True
            return self._step(item)
        except FddError as error:
            return {"error": type(error).__name__, "message": str(error)}
        except Exception as error:
            traceback.print_exc()  # into the log of the worker
            seen = f"{type(error).__name__}: {str(error)[:300]}"
            return {"error": "StageError", "message": f"{type(self._step).__name__} failed on {item}: {seen}{_BUG}"}


def _open(step: Step) -> None:
    if (prepare := getattr(step, "open", None)) is not None:
        prepare()


def cut(paths: Iterable[str], *, known: bool, rows: int = BLOCK_ROWS) -> list[Place]:
    """All rows of Parquet files as places of at most ``rows`` rows."""
    sizes = ((path, files.count_rows(path)) for path in paths)
    return [
        Place(path, start, min(start + rows, size), known) for path, size in sizes for start in range(0, size, rows)
    ]


def find_in_files(
    reader: Reader,
    places: Sequence[Place],
    folder: str,
    settings: DuplicateSettings,
    runner: Runner,
    *,
    shares: int | None = None,
    report: Callable[[str, int], None] = lambda step, rows: None,
) -> Counter[str]:
    """Find all duplicates among the entries of all places; `read_findings` tells them.

    Args:
        reader: Turns a place into entries.
        places: Where they are read from.
        folder: Where the steps exchange files; nothing else is in it. What an earlier run left is removed.
        settings: What counts as too much alike.
        runner: Runs the steps.
        shares: How many shares the entries are dealt into; by default, as many as keep a share small.
        report: Told of each finished item: its step, and how many rows it had.

    Returns:
        How many candidates there were (``candidates``), and how many are dropped for each reason.
    """
    files.remove(folder)
    total = sum(place.stop - place.start for place in places)
    shares = shares or max(1, -(-total // FEW_ROWS))
    counts: Counter[str] = Counter()

    def run(name: str, step: Step, items: Sequence[Item]) -> None:
        for result in runner(step, items):
            report(name, result.pop("rows"))
            counts.update(result)

    numbered = [{"number": number, **dataclasses.asdict(place)} for number, place in enumerate(places)]
    run("reading", _Read(reader, folder, shares), numbered)
    dealt = [{"share": share} for share in range(shares)]
    run("comparing texts", _Texts(folder, shares, settings), dealt)
    if settings.similarity is not None:
        run("comparing similar texts", _Similar(folder, settings.similarity), dealt)
    for name in files.list_names(folder, ".parquet"):
        if not name.startswith(_FINDINGS):
            files.remove(files.join(folder, name))
    return counts


def read_findings(folder: str, part: int | None = None) -> dict[str, Finding]:
    """What was found about the candidates of a part (None: of all), by their order."""
    table = read_group(_written(folder, _FINDINGS), part, _finding_schema())
    return {
        order: Finding(reason, evidence, similarity)
        for order, reason, evidence, similarity in _rows(table, "order", "reason", "evidence", "similarity")
    }


def refuse_flood(counts: Counter[str], settings: DuplicateSettings, label: str) -> None:
    """Raise if more candidates were dropped than ``max_drop_share`` allows.

    Raises:
        StageError: With the share by reason, and what can be done.
    """
    candidates = counts["candidates"]
    dropped = {reason: count for reason, count in counts.most_common() if reason != "candidates"}
    total = sum(dropped.values())
    if candidates < settings.min_candidates or total <= settings.max_drop_share * candidates:
        return
    shares = ", ".join(f"{reason} {count} ({count / candidates:.0%})" for reason, count in dropped.items())
    raise StageError(
        f"{label}: {total} of {candidates} good new problems ({total / candidates:.0%}) are too much like the pool or"
        f" each other, more than curate.duplicates.max_drop_share = {settings.max_drop_share:g} allows: {shares}."
        " If these drops are right, the teacher repeats itself: start a new run with a higher synthesise.temperature,"
        " more or other seed problems, or a smaller feedback.new_problems. If not, raise"
        f" curate.duplicates.per_template (now {settings.per_template}), similarity (now {settings.similarity}) or"
        " max_drop_share and run the same command again: only this stage is done anew"
    )


@dataclasses.dataclass
class _Read:
    """A place becomes entries, dealt out by template."""

    reader: Reader
    folder: str
    shares: int

    def open(self) -> None:
        self.reader.open()

    def __call__(self, item: Item) -> Item:
        number = item.pop("number")
        place = Place(**item)
        entries = self.reader.read(place, number)
        _deal(entries, lambda entry: entry.template, self.shares, f"{self.folder}/{_ENTRIES}-{number:06d}.parquet")
        return {"rows": place.stop - place.start, "candidates": sum(not entry.known for entry in entries)}


@dataclasses.dataclass
class _Texts:
    """One share of the templates goes through the first pass."""

    folder: str
    shares: int
    settings: DuplicateSettings

    def __call__(self, item: Item) -> Item:
        share = item["share"]
        entries = _entries(self.folder, _ENTRIES, share)
        checked = list(check_texts(entries, self.settings))
        if self.settings.similarity is not None:
            survivors = [entry for entry, finding in checked if finding is None]
            path = f"{self.folder}/{_SURVIVORS}-{share:06d}.parquet"
            _deal(survivors, lambda entry: entry.quantities, self.shares, path)
        return _write_findings(self.folder, f"texts-{share:06d}", checked)


@dataclasses.dataclass
class _Similar:
    """One share of the quantities goes through the second pass."""

    folder: str
    similarity: float

    def __call__(self, item: Item) -> Item:
        entries = _entries(self.folder, _SURVIVORS, item["share"])
        checked = check_similar(entries, self.similarity)
        return _write_findings(self.folder, f"similar-{item['share']:06d}", checked)


def _deal(entries: Iterable[Entry], key: Callable[[Entry], str], shares: int, path: str) -> None:
    """Write entries, those with one key in one group."""
    hands: dict[int, list[Entry]] = {}
    for entry in entries:
        hands.setdefault(zlib.crc32(key(entry).encode("utf-8", "surrogatepass")) % shares, []).append(entry)
    write_groups(path, {share: _entry_table(hand) for share, hand in hands.items()}, _entry_schema())


def _entries(folder: str, kind: str, share: int) -> list[Entry]:
    table = read_group(_written(folder, kind), share, _entry_schema())
    return in_order(Entry(*values) for values in _rows(table, *table.column_names))


def _write_findings(folder: str, name: str, checked: Iterable[tuple[Entry, Finding | None]]) -> Item:
    """Write what was found, by the part where it is wanted, and count it."""
    parts: dict[int, list[tuple[str, str, str, float]]] = {}
    result: Counter[str] = Counter()
    rows = 0
    for entry, finding in checked:
        rows += 1
        if finding is not None:
            parts.setdefault(entry.part, []).append((entry.order, *finding))
            result[finding.reason] += 1
    import pyarrow as pa

    schema = _finding_schema()
    groups = {
        part: pa.table([list(column) for column in zip(*found, strict=True)], schema=schema)
        for part, found in parts.items()
    }
    write_groups(f"{folder}/{_FINDINGS}-{name}.parquet", groups, schema)
    return {"rows": rows, **result}


def _entry_table(entries: Sequence[Entry]) -> pa.Table:
    import pyarrow as pa

    schema = _entry_schema()
    return pa.table([[getattr(entry, name) for entry in entries] for name in schema.names], schema=schema)


def _entry_schema() -> pa.Schema:
    from fdd_ray.records import schema_of

    return schema_of(Entry)


def _finding_schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    return pa.schema([("order", text), ("reason", text), ("evidence", text), ("similarity", pa.float64())])


def _written(folder: str, kind: str) -> list[str]:
    return [files.join(folder, name) for name in files.list_names(folder, ".parquet") if name.startswith(f"{kind}-")]


def _rows(table: pa.Table, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table.column(name).to_pylist() for name in columns), strict=True)
