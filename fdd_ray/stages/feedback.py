"""Split: what the student's attempts say about each pool problem, and what is asked of the teacher next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fdd_ray.errors import StageError
from fdd_ray.policy import FeedbackSettings, draw_requests, group_parents, shares_of
from fdd_ray.pool import pool_problems
from fdd_ray.records import Attempt, Curated, Feedback, Problem, Request, Taught, schema_of, to_table
from fdd_ray.store import files
from fdd_ray.store.run import Counts, StageFolder, StageResult


def split_files(
    folder: StageFolder, attempts: Sequence[str], seeds: str, curated: Sequence[str], **further: Any
) -> StageResult:
    """`split` with the pool read from its files; to be called in a process of its own, for it holds all of it."""
    pool = {problem.id: problem for problem in pool_problems(seeds, curated)}
    return split(folder, attempts, pool, curated=curated, **further)


def split(
    folder: StageFolder,
    attempts: Sequence[str],
    pool: Mapping[str, Problem],
    *,
    settings: FeedbackSettings,
    round: int,
    seed: int,
    subject: str,
    previous: Sequence[str] = (),
    taught: Sequence[str] = (),
    curated: Sequence[str] = (),
) -> StageResult:
    """Split the pool into easy and hard, and draw the requests of the round.

    Args:
        folder: Gets ``feedback`` (one row for each problem) and ``requests.parquet``.
        attempts: Parquet files with the student's attempts.
        pool: All problems of the pool by id.
        settings: What is easy; how many requests, of which kind.
        round: The round that begins.
        seed: Makes the draw repeatable.
        subject: Which attempts are those at the pool.
        previous: Parquet files with the feedback of the round before.
        taught: Parquet files with the rationales of the seed problems.
        curated: Parquet files with what earlier rounds accepted, more rationales of seed problems among it.
    """
    unsolved = dict(_unsolved(previous))
    columns = ["problem_id", "subject", "outcome", "pass_rate"]
    rows = [
        row for row in files.read_tables(attempts, schema_of(Attempt), columns).to_pylist() if row["subject"] == subject
    ]
    feedback = [
        Feedback(
            row["problem_id"],
            "easy" if row["pass_rate"] >= settings.easy_from else "hard",
            row["pass_rate"],
            unsolved.get(row["problem_id"], 0) + 1 if row["pass_rate"] == 0 else 0,
        )
        for row in sorted(rows, key=lambda row: row["problem_id"])
        if row["outcome"] == "kept"
    ]
    if not feedback:
        raise StageError(f"{folder.label}: no pool problem was attempted; look at the score stage of the round before")
    seeds = [problem.id for problem in pool.values() if problem.origin == "seed"]
    groups = group_parents(feedback, seeds, settings)
    after = settings.bridge_after
    stuck = frozenset(item.problem_id for item in feedback if after is not None and item.unsolved_rounds >= after)
    more = settings.policy == "more_rationales" and settings.distinct_rationales
    rationales = _rationales(taught, curated) if more else {}
    requests = draw_requests(groups, pool, settings, round, seed, stuck=stuck, rationales=rationales)
    folder.write("part-0.parquet", to_table(feedback, Feedback))
    folder.write("requests.parquet", to_table(requests, Request))
    left_out = len(rows) - len(feedback)
    sizes = Counter(item.difficulty for item in feedback)
    asked = Counter(request.origin for request in requests)
    return StageResult(
        Counts(len(rows), len(feedback), {"not_attempted": left_out} if left_out else {}, 0),
        ("part-0.parquet",),
        summary={
            "easy": sizes["easy"],
            "hard": sizes["hard"],
            "policy": settings.policy,
            "parents": {group.name: len(group.parents) for group in groups},
            "asked": dict(sorted(asked.items())),
            "wanted": shares_of(groups, settings.new_problems),
        },
    )


def _rationales(taught: Sequence[str], curated: Sequence[str]) -> dict[str, list[str]]:
    """The rationales that seed problems have, by problem."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in files.read_tables(taught, schema_of(Taught), ["id", "rationales"]).to_pylist():
        found[row["id"]] += row["rationales"]
    columns = ["problem_id", "origin", "outcome", "rationales"]
    for row in files.read_tables(curated, schema_of(Curated), columns).to_pylist():
        if row["origin"] == "seed" and row["outcome"] == "kept":
            found[row["problem_id"]] += row["rationales"]
    return found


def _unsolved(previous: Sequence[str]) -> list[tuple[str, int]]:
    table = files.read_tables(previous, schema_of(Feedback), ["problem_id", "unsolved_rounds"])
    return [(row["problem_id"], row["unsolved_rounds"]) for row in table.to_pylist()]
