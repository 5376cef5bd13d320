"""The problems of all sources of a pool or benchmark, each row accounted for."""

from __future__ import annotations

import lzma
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
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
from fdd_ray.store.ids import IdSet

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


@dataclass(frozen=True)
class Repeated:
    """A problem whose question was read before."""

    problem: Problem


def load_problems(settings: Sequence[SourceSettings], *, seed: int, name: str) -> LoadedProblems:
    """Read all sources of a pool or benchmark, one after the other, into memory; see `iter_problems`."""
    problems: dict[str, Problem] = {}
    rejections: list[Rejection] = []
    read = 0
    for row in iter_problems(settings, seed=seed, name=name):
        read += 1
        if isinstance(row, Problem):
            problems[row.id] = row
        elif isinstance(row, Repeated):
            earlier = problems[row.problem.id]
            rejections.append(duplicate(row.problem, earlier.source, earlier.answer))
        else:
            rejections.append(row)
    duplicates = sum(rejection.reason == "duplicate" for rejection in rejections)
    return LoadedProblems(tuple(problems.values()), tuple(rejections), read, duplicates)


def iter_problems(
    settings: Sequence[SourceSettings], *, seed: int, name: str
) -> Generator[Problem | Rejection | Repeated]:
    """Read all sources of a pool or benchmark, one after the other.

    The first of several rows with one question is kept; the others are repeated, also across sources. A limit
    counts usable problems: with 100 of them found, the rest of the source is not read. What is kept in memory of
    a row is its id; a source that is shuffled is held whole.

    Args:
        settings: The sources.
        seed: The seed of the run; it decides the order of sources that are shuffled.
        name: What is loaded, such as ``pool``; it is in messages, and two names are shuffled differently.

    Yields:
        What became of each row, in the order of the sources: a problem, a rejection, or a repeated problem.

    Raises:
        ProblemsError: If a source cannot be read, or has no usable problem.
        DependencyError: If a package that a path asks for is not installed.
    """
    if not settings:
        raise ProblemsError(f"{name} has no source; give at least one with a format")
    seen = IdSet()
    for position, source in enumerate(settings):
        kept, rejected = len(seen), _Rejected()
        try:
            with closing(read_problems(source)) as stream:
                rows: Iterable[Problem | Rejection] = stream
                if source.shuffle:
                    rows = list(stream)
                    random.Random(stable_seed("shuffle", seed, name, position)).shuffle(rows)
                for row in rows:
                    if isinstance(row, Rejection):
                        rejected.add(row)
                        yield row
                    elif seen.add(row.id):
                        yield row
                    else:
                        rejected.repeated = True
                        yield Repeated(row)
                    if source.limit is not None and len(seen) - kept >= source.limit:
                        break
        except ProblemsError as error:
            raise ProblemsError(f"{name}: {error}") from error
        if len(seen) == kept:
            rejected.refuse_if_useless(source, name)


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


def duplicate(problem: Problem, source: str, answer: str) -> Rejection:
    """The rejection of a problem that was read before, from ``source`` and with ``answer``."""
    file, place = re.split(r"[:#](?=[0-9]+$)", problem.source)
    detail = f"the same question as {source}"
    if problem.answer != answer:
        detail += f", but the answer is {problem.answer[:30]!a}, not {answer[:30]!a}"
    return Rejection(file, int(place), "duplicate", detail)


@dataclass
class _Rejected:
    """What was rejected of one source."""

    counts: Counter[str] = field(default_factory=Counter)
    first: Rejection | None = None
    repeated: bool = False

    def add(self, rejection: Rejection) -> None:
        self.counts[rejection.reason] += 1
        self.first = self.first or rejection

    def refuse_if_useless(self, source: SourceSettings, name: str) -> None:
        """Raise unless the source merely repeats earlier ones."""
        where = source.path or source.format
        if self.repeated:
            return
        if self.first is None:
            raise ProblemsError(f"{name}: {where} has no rows; check that it is the right file")
        seen = ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common())
        raise ProblemsError(
            f"{name}: {where} has no usable problem in {self.counts.total()} rows ({seen}); the first is "
            f"{self.first.file}:{self.first.line}: {self.first.detail}; check format: {source.format} and its settings"
        )
