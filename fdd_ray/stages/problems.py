"""Problems: the pool and the benchmarks are loaded, and nothing of a benchmark gets into the pool."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from fdd_ray.curation.contamination import BenchmarkGuard, ContaminationSettings
from fdd_ray.errors import ProblemsError
from fdd_ray.problems import SourceSettings, load_problems
from fdd_ray.records import Problem, Rejection, to_table
from fdd_ray.store.run import Counts, StageFolder, StageResult, merge_counts

POOL_FILE = "pool.parquet"
REJECTIONS_FILE = "pool-rejections.parquet"


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
) -> StageResult:
    """Load all problems.

    Args:
        folder: Gets a file of problems and a file of rejections for the pool and for each benchmark.
        pool: Where the seed problems come from.
        benchmarks: Where the problems of each benchmark come from.
        contamination: What is too close to a benchmark problem to be in the pool.
        seed: Makes samples of sources repeatable.
        least: Fewest problems the pool must have.

    Raises:
        ProblemsError: If a source cannot be read, or too few problems are left.
    """
    loaded = {name: load_problems(sources, seed=seed, name=f"benchmark {name}") for name, sources in benchmarks.items()}
    found = load_problems(pool, seed=seed, name="pool")
    guard = BenchmarkGuard({name: benchmark.problems for name, benchmark in loaded.items()}, contamination)
    seeds: list[Problem] = []
    rejections = list(found.rejections)
    for problem in found.problems:
        leak = guard.check(problem.question)
        if leak is None:
            seeds.append(problem)
        else:
            evidence = f"{leak.benchmark}:{leak.problem_id} {leak.measure:g}: {leak.span}"
            file, _, line = problem.source.rpartition(":")
            place = (file, int(line)) if line.isdecimal() else (problem.source, 0)
            rejections.append(Rejection(*place, f"in_benchmark: {leak.reason}", evidence))
    folder.write(REJECTIONS_FILE, to_table(rejections, Rejection))
    if len(seeds) < least:
        raise ProblemsError(
            f"the pool has {len(seeds)} usable problems, fewer than teach.min_kept = {least}"
            f" ({len(found.problems) - len(seeds)} are too close to a benchmark, {len(found.rejections)} rows were"
            f" rejected, see {folder.file(REJECTIONS_FILE)}); name more sources, lower teach.min_kept, or loosen"
            " decontaminate where pool and benchmark share their wording by design"
        )
    folder.write(POOL_FILE, to_table(seeds, Problem))
    accounts = [_account(len(seeds), rejections)]
    for name, benchmark in loaded.items():
        folder.write(benchmark_file(name), to_table(benchmark.problems, Problem))
        folder.write(f"benchmark-{name}-rejections.parquet", to_table(benchmark.rejections, Rejection))
        accounts.append(_account(len(benchmark.problems), benchmark.rejections))
    sizes = {"pool": len(seeds)} | {name: len(benchmark.problems) for name, benchmark in loaded.items()}
    summary = {"sizes": sizes, "pool": dataclasses.asdict(accounts[0])}
    return StageResult(merge_counts(accounts), (POOL_FILE,), summary=summary)


def _account(kept: int, rejections: Sequence[Rejection]) -> Counts:
    rejected = Counter(rejection.reason for rejection in rejections)
    return Counts(kept + len(rejections), kept, dict(sorted(rejected.items())), 0)
