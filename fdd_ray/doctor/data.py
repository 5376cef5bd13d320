"""Whether the pool and the benchmarks can be read: their first rows, and how many there are where that is cheap.

    look_at_source("pool", source, Samples())

Data sets of the hub are looked for in the local cache only (`fdd_ray.doctor.hub`); nothing is asked of the network
for them. Files in an object store are read, for a run would read them there too.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from fdd_ray.doctor.child import ask
from fdd_ray.doctor.findings import Finding, note, of_error, ok, problem
from fdd_ray.errors import FddError, ProblemsError
from fdd_ray.planning.ranges import Range, total
from fdd_ray.planning.sizes import sizes_of
from fdd_ray.problems import SourceSettings, read_problems
from fdd_ray.records import Problem
from fdd_ray.settings import to_plain

POOL: Final = "pool"
ROWS: Final = 200
HUB_S: Final = 150.0
_SECONDS: Final = 10.0
_MANY_REJECTED: Final = 0.2


@dataclasses.dataclass
class Samples:
    """What was read of the sources, for the checks that come later.

    Attributes:
        questions: First questions by pool or benchmark.
        solved: How many of these came with a solution.
        counts: How many problems each source has, as far as is known, in the order in which they were looked at.
    """

    questions: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    solved: Counter[str] = dataclasses.field(default_factory=Counter)
    counts: dict[str, list[Range]] = dataclasses.field(default_factory=dict)

    def size(self, name: str) -> Range | None:
        """How many problems a pool or benchmark has; None if nobody knows."""
        found = self.counts.get(name)
        return total(found) if found else None


@dataclasses.dataclass(frozen=True)
class FirstRows:
    """The first rows of a source: how many were read, what was usable, and why others were not.

    Attributes:
        read: Rows that were read.
        questions: Of the usable ones.
        solved: How many of these came with a solution.
        rejected: How many of the others for each reason.
        first: The first of these, and what is wrong with it.
        whole: Whether the source has no more rows.
    """

    read: int
    questions: tuple[str, ...]
    solved: int
    rejected: dict[str, int]
    first: str = ""
    whole: bool = False


def read_first_rows(source: SourceSettings, most: int = ROWS, seconds: float = _SECONDS) -> FirstRows:
    """Read the first rows of a source.

    Raises:
        FddError: If it cannot be read.
    """
    questions: list[str] = []
    solved, rejected, first, whole = 0, Counter[str](), "", True
    began: float | None = None
    with closing(read_problems(source)) as rows:
        for count, row in enumerate(rows, 1):
            if isinstance(row, Problem):
                questions.append(row.question)
                solved += row.solution is not None
            else:
                rejected[row.reason] += 1
                first = first or f"{row.file}:{row.line}: {row.detail}"
            began = began or time.monotonic()  # not before: a library may have had to be imported
            if count >= most or time.monotonic() - began > seconds:
                whole = False
                break
    reasons = dict(rejected.most_common())
    return FirstRows(len(questions) + rejected.total(), tuple(questions), solved, reasons, first[:300], whole)


def look_at_source(name: str, source: SourceSettings, samples: Samples, hub_s: float = HUB_S) -> Iterator[Finding]:
    """Findings about one source of a pool or benchmark.

    Args:
        name: ``pool``, or the benchmark's.
        source: Its settings.
        samples: Gets what was read.
        hub_s: Seconds that a data set of the hub may take to be opened.
    """
    where = source.path or f"{source.format} {source.split}"
    about = f"{name}: {where}"
    try:
        if source.format == "hub":
            told = ask("fdd_ray.doctor.hub:read", to_plain(source), hub_s, {"HF_HUB_OFFLINE": "1"})
            if told["absent"]:
                yield from _absent(about, samples, name, source)
                return
            rows = FirstRows(**told["rows"])
        else:
            rows = read_first_rows(source)
    except FddError as error:
        yield of_error(error, f"{name}: ")
        return
    samples.questions.setdefault(name, []).extend(rows.questions)
    samples.solved[name] += rows.solved
    if not rows.questions:
        why = f"; the first is {rows.first}" if rows.first else ""
        yield problem(
            f"{about} has no usable problem in its first {rows.read} rows ({_reasons(rows)}{why})",
            f"check that it is the right file, its format ({source.format}) and columns",
            ProblemsError,
        )
        return
    count, how = (Range.exact(len(set(rows.questions))), "read") if rows.whole else _count(source)
    samples.counts.setdefault(name, []).append(count if source.limit is None else count.capped(source.limit))
    text = f"{about}: {_shown(count)} ({how}); of the first {rows.read} rows {len(rows.questions)} are usable"
    if sum(rows.rejected.values()) > _MANY_REJECTED * rows.read:
        yield note(
            f"{text} ({_reasons(rows)}; the first is {rows.first})", "see whether format and columns are meant so"
        )
    else:
        yield ok(text)


def _absent(about: str, samples: Samples, name: str, source: SourceSettings) -> Iterator[Finding]:
    """A data set that is not in the cache."""
    from huggingface_hub import constants

    count, how = _count(source)
    samples.counts.setdefault(name, []).append(count)
    found = f"{about} is not in the cache of this machine ({_shown(count)}, {how})"
    if constants.HF_HUB_OFFLINE:
        yield problem(
            f"{found}, and HF_HUB_OFFLINE forbids to download it",
            "fetch it where there is a network, or give files instead (format: jsonl, parquet, ...)",
            ProblemsError,
        )
        return
    yield note(
        f"{found}: the run downloads it at its start (whether the hub has it was not asked)",
        "to be sure beforehand, load it once here, or give files instead",
    )


def _count(source: SourceSettings) -> tuple[Range, str]:
    try:
        found = sizes_of([source], {}, {})[POOL]
    except ProblemsError as error:  # what it reads beyond the first rows
        return Range.exact(0), str(error)
    return found.problems, found.how


def _shown(count: Range) -> str:
    if count.known:
        return f"{count.likely:,.0f} problems"
    return f"{count.low:,.0f} to {count.high:,.0f} problems"


def _reasons(rows: FirstRows) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in rows.rejected.items()) or "there are none"


def as_plain(rows: FirstRows) -> dict[str, Any]:
    """As JSON can hold it."""
    return dataclasses.asdict(rows)
