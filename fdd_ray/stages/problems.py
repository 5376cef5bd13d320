"""Problems: the pool and the benchmarks are loaded, and nothing of a benchmark gets into the pool."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from fdd_ray.curation.contamination import BenchmarkGuard, ContaminationSettings
from fdd_ray.errors import ProblemsError
from fdd_ray.problems import SourceSettings, load_problems
from fdd_ray.problems.load import Repeated, duplicate, iter_problems
from fdd_ray.records import Problem, Rejection, schema_of, to_table
from fdd_ray.store import files
from fdd_ray.store.run import Counts, StageFolder, StageResult, merge_counts

POOL_FILE = "pool.parquet"
REJECTIONS_FILE = "pool-rejections.parquet"
_SAID_EVERY = 1000


def benchmark_file(name: str) -> str:
    """The file of a benchmark's problems in the folder of this stage."""
    return f"benchmark-{name}.parquet"


def load(
    folder: StageFolder,
    *,
    pool: Sequence[SourceSettings],
    benchmarks: Mapping[str, Sequence[SourceSettings]],
    contamination: ContaminationSettings,
    seed: int,
    least: int,
    say: Callable[[str], None] = lambda text: None,
) -> StageResult:
    """Load all problems.

    Args:
        folder: Gets a file of problems and a file of rejections for the pool and for each benchmark.
        pool: Where the seed problems come from.
        benchmarks: Where the problems of each benchmark come from.
        contamination: What is too close to a benchmark problem to be in the pool.
        seed: Makes samples of sources repeatable.
        least: Fewest problems the pool must have.
        say: Told now and then how many rows of the pool were read.

    Raises:
        ProblemsError: If a source cannot be read, or too few problems are left.
    """
    loaded = {name: load_problems(sources, seed=seed, name=f"benchmark {name}") for name, sources in benchmarks.items()}
    guard = BenchmarkGuard({name: benchmark.problems for name, benchmark in loaded.items()}, contamination)
    sieve = _Sieve(guard, say)
    kept = folder.write_rows(POOL_FILE, sieve.usable(iter_problems(pool, seed=seed, name="pool")), Problem)
    rejections = list(_rejections(folder.file(POOL_FILE), sieve))
    folder.write(REJECTIONS_FILE, to_table(rejections, Rejection))
    if kept < least:
        files.remove(folder.file(POOL_FILE))
        raise ProblemsError(
            f"the pool has {kept} usable problems, fewer than teach.min_kept = {least}"
            f" ({len(sieve.leaked)} are too close to a benchmark, {len(rejections) - len(sieve.leaked)} rows were"
            f" rejected, see {folder.file(REJECTIONS_FILE)}); name more sources, lower teach.min_kept, or loosen"
            " decontaminate where pool and benchmark share their wording by design"
        )
    accounts = [_account(kept, rejections)]
    for name, benchmark in loaded.items():
        folder.write(benchmark_file(name), to_table(benchmark.problems, Problem))
        folder.write(f"benchmark-{name}-rejections.parquet", to_table(benchmark.rejections, Rejection))
        accounts.append(_account(len(benchmark.problems), benchmark.rejections))
    sizes = {"pool": kept} | {name: len(benchmark.problems) for name, benchmark in loaded.items()}
    summary = {"sizes": sizes, "pool": dataclasses.asdict(accounts[0])}
    return StageResult(merge_counts(accounts), (POOL_FILE,), summary=summary)


class _Sieve:
    """Lets usable problems through, one by one, and keeps what it holds back, in the order of the rows."""

    def __init__(self, guard: BenchmarkGuard, say: Callable[[str], None]) -> None:
        self._guard = guard
        self._say = say
        self.held: list[Rejection | Repeated] = []
        self.leaked: dict[str, Problem] = {}

    def usable(self, rows: Iterable[Problem | Rejection | Repeated]) -> Iterator[Problem]:
        for number, row in enumerate(rows, 1):
            if number % _SAID_EVERY == 0:
                self._say(f"{number:,} rows of the pool read")
            if not isinstance(row, Problem):
                self.held.append(row)
            elif (leak := self._guard.check(row.question)) is None:
                yield row
            else:
                evidence = f"{leak.benchmark}:{leak.problem_id} {leak.measure:g}: {leak.span}"
                file, _, line = row.source.rpartition(":")
                place = (file, int(line)) if line.isdecimal() else (row.source, 0)
                self.held.append(Rejection(*place, f"in_benchmark: {leak.reason}", evidence))
                self.leaked[row.id] = row


def _rejections(pool: str, sieve: _Sieve) -> Iterator[Rejection]:
    """All that was held back; repeated problems with those that they repeat, in the pool or held back themselves."""
    first = {id: (problem.source, problem.answer) for id, problem in sieve.leaked.items()}
    wanted = {row.problem.id for row in sieve.held if isinstance(row, Repeated)} - first.keys()
    if wanted:
        for table in files.iter_tables([pool], schema_of(Problem), ["id", "source", "answer"]):
            rows = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
            first.update((id, (source, answer)) for id, source, answer in rows if id in wanted)
    for row in sieve.held:
        yield row if isinstance(row, Rejection) else duplicate(row.problem, *first[row.problem.id])


def _account(kept: int, rejections: Sequence[Rejection]) -> Counts:
    rejected = Counter(rejection.reason for rejection in rejections)
    return Counts(kept + len(rejections), kept, dict(sorted(rejected.items())), 0)
