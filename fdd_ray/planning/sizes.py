"""How many problems a source has, and what they look like, without the network.

Files on this machine are read as a run reads them, for a second or so; of larger ones, the rest is counted by
lines. What a hub data set holds is assumed: known ones as published, others as said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fdd_ray.errors import ProblemsError
from fdd_ray.planning.ranges import Range, total
from fdd_ray.problems import SourceSettings, read_problems
from fdd_ray.records import Problem

# Rows of known hub data sets by id and split, as their pages give them.
_HUB: Final = {
    ("openai/gsm8k", "train"): 7473,
    ("openai/gsm8k", "test"): 1319,
    ("ChilleD/SVAMP", "train"): 700,
    ("ChilleD/SVAMP", "test"): 300,
    ("ChilleD/MultiArith", "train"): 420,
    ("ChilleD/MultiArith", "test"): 180,
    ("EleutherAI/asdiv", "validation"): 2305,
}
_UNKNOWN: Final = Range(200, 1000, 10_000)
_SECONDS: Final = 1.0
SAMPLE: Final = 500


class Sized(NamedTuple):
    """A pool or benchmark.

    Attributes:
        problems: How many it has.
        questions: Some of their questions; none where its files are not on this machine.
        how: Where the count comes from, in words.
    """

    problems: Range
    questions: tuple[str, ...]
    how: str


def sizes_of(
    pool: Sequence[SourceSettings], benchmarks: Mapping[str, Sequence[SourceSettings]], given: Mapping[str, int]
) -> dict[str, Sized]:
    """The sizes of ``pool`` and of each benchmark; ``given`` ones win over what is found.

    Raises:
        ProblemsError: If a file is absent or unreadable, or has no usable problem.
    """
    return {
        name: Sized(Range.exact(given[name]), (), "given with --size") if name in given else _sized(name, sources)
        for name, sources in {"pool": pool, **benchmarks}.items()
    }


def _sized(name: str, sources: Sequence[SourceSettings]) -> Sized:
    found = []
    for source in sources:
        try:
            found.append(_of_source(source))
        except ProblemsError as error:
            raise ProblemsError(f"{name}: {error}") from error
    questions = tuple(question for item in found for question in item.questions)
    return Sized(total(item.problems for item in found), questions, ", ".join(item.how for item in found))


def _of_source(source: SourceSettings) -> Sized:
    if source.format == "hub":
        rows = _HUB.get((source.path, source.split))
        how = f"{source.path} {source.split} as published" if rows else f"{source.path} is not known: assumed"
        return Sized(_limited(Range.exact(rows) if rows else _UNKNOWN, source), (), how)
    if "://" in source.path and not source.path.startswith("file://"):
        return Sized(_limited(_UNKNOWN, source), (), "files elsewhere are not read for a plan: assumed")
    questions: list[str] = []
    rows = usable = 0
    seen: set[str] = set()
    began = time.monotonic()
    for row in read_problems(source):
        rows += 1
        if isinstance(row, Problem) and row.id not in seen:
            seen.add(row.id)
            usable += 1
            if len(questions) < SAMPLE:
                questions.append(row.question)
        if source.limit is not None and usable >= source.limit:
            break
        if time.monotonic() - began > _SECONDS and (lines := _lines(source)) > rows:
            count = Range.about(usable / rows * lines, 1.1)
            return Sized(_limited(count, source), tuple(questions), f"{lines:,} lines, {rows:,} of them read")
    if not usable:
        raise ProblemsError(
            f"{source.path or source.format} has no usable problem in {rows} rows; check that it is the right file, and"
            " its format"
        )
    return Sized(Range.exact(usable), tuple(questions), "drawn" if source.format == "tiny" else "read")


def _limited(count: Range, source: SourceSettings) -> Range:
    return count if source.limit is None else count.capped(source.limit)


def _lines(source: SourceSettings) -> int:
    """Lines of a plain file with one problem a line; 0 where a line is no problem."""
    path = Path(source.path.removeprefix("file://")).expanduser()
    if source.format not in ("jsonl", "gsm8k", "csv") or path.suffix not in (".jsonl", ".csv", ".json", ".txt"):
        return 0
    if not path.is_file():  # a pattern
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 22), b""))
