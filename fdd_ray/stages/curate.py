"""Curate: of the teacher's new problems, only those that are agreed on, new, and in no benchmark are accepted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fdd_ray.agreement import AgreementSettings, Judged, judge
from fdd_ray.curation.contamination import BenchmarkGuard
from fdd_ray.curation.duplicates import DuplicateIndex, DuplicateSettings
from fdd_ray.records import Curated, Origin, Outcome, Problem, Variation, from_table, problem_id, schema_of, to_table
from fdd_ray.settings import setting
from fdd_ray.store import files
from fdd_ray.store.run import Counts, StageFolder, StageResult, count_outcomes, merge_counts


@dataclasses.dataclass(frozen=True)
class CurateSettings(AgreementSettings):
    """What a new problem must pass to be accepted."""

    duplicates: DuplicateSettings = setting(factory=DuplicateSettings, help="What is too much like the pool.")
    trim: bool = setting(
        True, "Accept no more than feedback.new_problems in a round; the surplus is counted as over_quota."
    )


def curate(
    folder: StageFolder,
    variations: Sequence[str],
    *,
    pool: Iterable[Problem],
    benchmarks: Mapping[str, Sequence[Problem]],
    settings: CurateSettings,
    quotas: Mapping[Origin, int],
) -> StageResult:
    """Accept or reject all variations of a round, in an order that depends on their ids alone.

    Args:
        folder: Gets one part with a row for each variation.
        variations: Parquet files of the synthesise stage.
        pool: The problems that are in the pool already.
        benchmarks: The problems that must never enter it, by benchmark.
        settings: What must be passed.
        quotas: Problems wanted by origin; what one origin cannot fill goes to the other.
    """
    guard = BenchmarkGuard(benchmarks)
    index = DuplicateIndex(settings.duplicates, pool)
    rows = sorted(from_table(files.read_tables(variations, schema_of(Variation)), Variation), key=lambda row: row.id)
    judged = [_check_new(row, judge(row, settings), guard, index) for row in rows]
    if settings.trim:
        judged = _trim(judged, quotas)
    folder.write("part-0.parquet", to_table(judged, Curated))
    by_origin = {origin: _count(row for row in judged if row.origin == origin) for origin in ("complex", "similar")}
    summary = {"kept": {origin: counts.kept for origin, counts in by_origin.items()}}
    return StageResult(merge_counts(list(by_origin.values())), ("part-0.parquet",), summary=summary)


def _check_new(row: Variation, verdict: Judged, guard: BenchmarkGuard, index: DuplicateIndex) -> Curated:
    new_id, reason, evidence = problem_id(row.question), verdict.reason, ""
    if row.outcome == "kept" and not reason:
        if leak := guard.same(row.question):
            reason, evidence = f"in_benchmark: {leak.reason}", f"{leak.benchmark}:{leak.problem_id}"
        else:
            seen = index.check(row.question)
            if seen.verdict != "new":
                reason, evidence = seen.verdict, seen.evidence
            else:
                index.add(new_id, row.question)
    outcome: Outcome = "failed" if row.outcome == "failed" else "rejected" if reason else "kept"
    return Curated(
        id=row.id,
        parent_id=row.parent_id,
        origin=row.origin,
        round=row.round,
        outcome=outcome,
        reason=reason,
        problem_id=new_id,
        question=row.question,
        answer=verdict.answer,
        kind=row.kind,
        rationales=verdict.rationales,
        votes=verdict.votes,
        agreement=verdict.agreement,
        distinct=verdict.distinct,
        evidence=evidence,
    )


def _trim(rows: list[Curated], quotas: Mapping[Origin, int]) -> list[Curated]:
    """Keep as many as are wanted: each origin its quota, then whatever is left of the other."""
    places = dict(quotas)
    spare = sum(quotas.values()) - sum(
        min(quotas.get(origin, 0), sum(row.outcome == "kept" and row.origin == origin for row in rows))
        for origin in quotas
    )
    result = []
    for row in rows:
        if row.outcome == "kept":
            if places.get(row.origin, 0) > 0:
                places[row.origin] -= 1
            elif spare > 0:
                spare -= 1
            else:
                row = dataclasses.replace(row, outcome="rejected", reason="over_quota")
        result.append(row)
    return result


def _count(rows: Iterable[Curated]) -> Counts:
    return count_outcomes(Counter((row.outcome, row.reason) for row in rows))
