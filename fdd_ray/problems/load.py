"""The problems of all sources of a pool or benchmark, each row accounted for."""

from __future__ import annotations

import lzma
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Final

from fdd_ray.errors import ProblemsError
from fdd_ray.problems.asdiv import read_asdiv
from fdd_ray.problems.files import open_files
from fdd_ray.problems.gsm8k import read_gsm8k
from fdd_ray.problems.hub import read_hub
from fdd_ray.problems.multiarith import read_multiarith
from fdd_ray.problems.source import SourceSettings
from fdd_ray.problems.svamp import read_svamp
from fdd_ray.problems.tables import read_csv, read_jsonl, read_parquet
from fdd_ray.problems.tiny import read_tiny
from fdd_ray.records import Problem, Rejection, stable_seed

Reader = Callable[[IO[bytes], str], Iterator[Problem | Rejection]]
TableReader = Callable[[IO[bytes], str, Mapping[str, str]], Iterator[Problem | Rejection]]

_READERS: Final[dict[str, Reader]] = {
    "gsm8k": read_gsm8k,
    "svamp": read_svamp,
    "multiarith": read_multiarith,
    "asdiv": read_asdiv,
}
_TABLE_READERS: Final[dict[str, TableReader]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
}


@dataclass(frozen=True)
class LoadedProblems:
    """What became of every row that was read: ``read == len(problems) + len(rejections)``.

    Attributes:
        problems: The usable problems, in the order of their sources, no question twice.
        rejections: The rows that are no usable problems, with the reason.
        read: How many rows were read; rows behind a limit are not.
        duplicates: How many of the rejections repeat an earlier question.
    """

    problems: tuple[Problem, ...]
    rejections: tuple[Rejection, ...]
    read: int
    duplicates: int

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were rejected for each reason, the most frequent first."""
        return dict(Counter(rejection.reason for rejection in self.rejections).most_common())


def load_problems(settings: Sequence[SourceSettings], *, seed: int, name: str) -> LoadedProblems:
    """Read all sources of a pool or benchmark, one after the other.

    The first of several rows with one question is kept; the others are rejected as duplicates, also across
    sources. A limit counts usable problems: with 100 of them found, the rest of the source is not read.

    Args:
        settings: The sources.
        seed: The seed of the run; it decides the order of sources that are shuffled.
        name: What is loaded, such as ``pool``; it is in messages, and two names are shuffled differently.

    Raises:
        ProblemsError: If a source cannot be read, or has no usable problem.
        DependencyError: If a package that a path asks for is not installed.
    """
    if not settings:
        raise ProblemsError(f"{name} has no source; give at least one with a format")
    problems: dict[str, Problem] = {}
    rejections: list[Rejection] = []
    read = 0
    for position, source in enumerate(settings):
        kept, rejected = len(problems), len(rejections)
        try:
            with closing(read_problems(source)) as stream:
                rows: Iterable[Problem | Rejection] = stream
                if source.shuffle:
                    rows = list(stream)
                    random.Random(stable_seed("shuffle", seed, name, position)).shuffle(rows)
                read += _gather(rows, source.limit, problems, rejections)
        except ProblemsError as error:
            raise ProblemsError(f"{name}: {error}") from error
        if len(problems) == kept:
            _refuse_if_useless(source, rejections[rejected:], name)
    duplicates = sum(rejection.reason == "duplicate" for rejection in rejections)
    return LoadedProblems(tuple(problems.values()), tuple(rejections), read, duplicates)


def read_problems(source: SourceSettings) -> Generator[Problem | Rejection]:
    """Everything in one source, as its reader yields it, repeated questions too; close it if not read to its end."""
    if source.format == "hub":
        yield from read_hub(source)
    elif source.format == "tiny":
        yield from read_tiny(source)
    else:
        for name, file in open_files(source.path):
            try:
                if source.format in _TABLE_READERS:
                    yield from _TABLE_READERS[source.format](file, name, source.columns)
                else:
                    yield from _READERS[source.format](file, name)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise ProblemsError(
                    f"{name} cannot be read to its end: {error}; it may be damaged or cut off, fetch it again"
                ) from error


def _gather(
    rows: Iterable[Problem | Rejection],
    limit: int | None,
    problems: dict[str, Problem],
    rejections: list[Rejection],
) -> int:
    """Sort rows into problems (by id) and rejections until ``limit`` new problems are there; count them."""
    read = 0
    wanted = None if limit is None else len(problems) + limit
    for row in rows:
        read += 1
        if isinstance(row, Rejection):
            rejections.append(row)
        elif (earlier := problems.get(row.id)) is not None:
            rejections.append(_duplicate(row, earlier))
        else:
            problems[row.id] = row
        if wanted is not None and len(problems) >= wanted:
            break
    return read


def _duplicate(problem: Problem, earlier: Problem) -> Rejection:
    file, place = re.split(r"[:#](?=[0-9]+$)", problem.source)
    detail = f"the same question as {earlier.source}"
    if problem.answer != earlier.answer:
        detail += f", but the answer is {problem.answer[:30]!a}, not {earlier.answer[:30]!a}"
    return Rejection(file, int(place), "duplicate", detail)


def _refuse_if_useless(source: SourceSettings, rejections: Sequence[Rejection], name: str) -> None:
    """Raise unless the source merely repeats earlier ones."""
    where = source.path or source.format
    if not rejections:
        raise ProblemsError(f"{name}: {where} has no rows; check that it is the right file")
    counts = Counter(rejection.reason for rejection in rejections)
    if counts["duplicate"]:
        return
    first = rejections[0]
    seen = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    raise ProblemsError(
        f"{name}: {where} has no usable problem in {len(rejections)} rows ({seen}); the first is "
        f"{first.file}:{first.line}: {first.detail}; check format: {source.format} and its settings"
    )
