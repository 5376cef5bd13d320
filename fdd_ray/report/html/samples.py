"""Which rows of a run the page shows: a small sample, the same each time, of seeds, new problems and benchmarks.

    samples = draw(find_stages("runs/tiny"), seed=0)
    samples.variations[0].curated.reason, samples.attempts["t-..."][1].completions

Kinds of outcome are drawn in turn, so that rare ones are seen; shares must be read from the counts, not from here.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from fdd_ray.records import Attempt, Curated, Request, Taught, Variation, content_id
from fdd_ray.report.html.reading import find_rows, some_rows
from fdd_ray.stages.score import POOL
from fdd_ray.store import files
from fdd_ray.store.manifest import Found, Manifest

VARIATIONS, SEEDS, PROBLEMS, EVIDENCE = 24, 6, 10, 20
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Made:
    """A new problem: what was asked for, what the teacher wrote (None if it was not found), what became of it."""

    curated: Curated
    request: Request | None
    variation: Variation | None


@dataclasses.dataclass(frozen=True)
class Samples:
    """What is shown.

    Attributes:
        seeds: Seed problems with the rationales that the teacher tried.
        variations: New problems.
        problems: Benchmark problems as the last student attempted them.
        attempts: Attempts at all of these by id of the attempt, each by round (None is the base).
        evidence: New problems that were rejected for being too much like another one.
        looked: How many curated rows were drawn from, and how many there are.
    """

    seeds: tuple[Taught, ...]
    variations: tuple[Made, ...]
    problems: tuple[Attempt, ...]
    attempts: Mapping[str, Mapping[int | None, Attempt]]
    evidence: tuple[Curated, ...]
    looked: tuple[int, int]


def draw(found: Sequence[Found], seed: int) -> Samples:
    """The samples of a run; only stages that are done are drawn from."""
    done = {(item.stage, item.round): item.manifest for item in found if item.manifest is not None}
    curated = [row for (stage, _), made in done.items() if stage == "curate" for row in some_rows(made, Curated, seed)]
    made = _made(done, _share(curated, seed))
    taught = done.get(("rationales", 0))
    tried = some_rows(taught, Taught, seed) if taught else []
    seeds = _spread(tried, lambda row: (row.outcome, row.reason), SEEDS, seed, _taught_id)
    scored = {number: manifest for (stage, number), manifest in done.items() if stage == "score"}
    problems = _problems(scored, seed)
    wanted = {attempt.id for attempt in problems} | {pool_attempt(row.id) for row in seeds}
    for item in made:
        wanted |= {pool_attempt(item.curated.parent_id), pool_attempt(item.curated.problem_id)}
    attempts: dict[str, dict[int | None, Attempt]] = {}
    for number in sorted(scored, key=_order):
        for id, attempt in find_rows(scored[number].outputs, Attempt, wanted).items():
            attempts.setdefault(id, {})[number] = attempt
    evidence = _spread([row for row in curated if row.evidence], lambda row: row.reason, EVIDENCE, seed, _curated_id)
    total = sum(manifest.counts.rows for (stage, _), manifest in done.items() if stage == "curate")
    return Samples(tuple(seeds), tuple(made), tuple(problems), attempts, tuple(evidence), (len(curated), total))


def pool_attempt(problem_id: str) -> str:
    """The id of the attempts at a problem of the pool."""
    return content_id("t", POOL, problem_id)


def _share(curated: Sequence[Curated], seed: int) -> list[Curated]:
    """As many accepted as rejected ones, if there are, of all rounds, origins and reasons."""

    def kind(row: Curated) -> Hashable:
        return row.round, row.origin, row.outcome, row.reason

    kept = [row for row in curated if row.outcome == "kept"]
    others = [row for row in curated if row.outcome != "kept"]
    bad = _spread(others, kind, max(VARIATIONS // 2, VARIATIONS - len(kept)), seed, _curated_id)
    chosen = [*_spread(kept, kind, VARIATIONS - len(bad), seed, _curated_id), *bad]
    return sorted(chosen, key=lambda row: (row.round, row.outcome != "kept", row.origin, row.reason, row.id))


def _made(done: Mapping[tuple[str, int | None], Manifest], curated: Sequence[Curated]) -> list[Made]:
    made = []
    for number in sorted({row.round for row in curated}):
        mine = [row for row in curated if row.round == number]
        ids = {row.id for row in mine}
        split, wrote = done.get(("split", number)), done.get(("synthesise", number))
        requests = find_rows([files.join(split.path, "requests.parquet")], Request, ids) if split else {}
        variations = find_rows(wrote.outputs, Variation, ids) if wrote else {}
        made += [Made(row, requests.get(row.id), variations.get(row.id)) for row in mine]
    return made


def _problems(scored: Mapping[int | None, Manifest], seed: int) -> list[Attempt]:
    """Benchmark problems of the last scored student, of every benchmark, right and wrong before and after."""
    if not scored:
        return []
    first, last = min(scored, key=_order), max(scored, key=_order)
    rows = [row for row in some_rows(scored[last], Attempt, seed) if row.subject != POOL]
    few = _spread(rows, lambda row: (row.subject, row.pass_rate == 1), 200, seed, _attempt_id)
    before = find_rows(scored[first].outputs, Attempt, {row.id for row in few})

    def kind(row: Attempt) -> Hashable:
        return row.subject, row.id in before and before[row.id].pass_rate, row.pass_rate

    return sorted(_spread(few, kind, PROBLEMS, seed, _attempt_id), key=lambda row: (row.subject, row.id))


def _spread(
    rows: Sequence[T], kind: Callable[[T], Hashable], most: int, seed: int, name: Callable[[T], str]
) -> list[T]:
    """Up to ``most`` rows, drawn from each kind in turn."""
    chance = random.Random(seed)
    groups: dict[Hashable, list[T]] = {}
    for row in sorted(rows, key=name):
        groups.setdefault(kind(row), []).append(row)
    order = sorted(groups, key=repr)
    chance.shuffle(order)
    for key in order:
        chance.shuffle(groups[key])
    chosen: list[T] = []
    while len(chosen) < most and any(groups.values()):
        for key in order:
            if groups[key] and len(chosen) < most:
                chosen.append(groups[key].pop())
    return chosen


def _order(round: int | None) -> int:
    return -1 if round is None else round


def _taught_id(row: Taught) -> str:
    return row.id


def _curated_id(row: Curated) -> str:
    return f"{row.round} {row.id}"


def _attempt_id(row: Attempt) -> str:
    return row.id
