"""Split: what the student's attempts say about each pool problem, and what is asked of the teacher next."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from fdd_ray.errors import StageError
from fdd_ray.records import Attempt, Feedback, Origin, Problem, Request, content_id, schema_of, stable_seed, to_table
from fdd_ray.settings import setting
from fdd_ray.store import files
from fdd_ray.store.run import Counts, StageFolder, StageResult


@dataclasses.dataclass(frozen=True)
class FeedbackSettings:
    """What makes a problem easy, and how many new problems a round asks for."""

    easy_from: float = setting(
        1.0, "A problem is easy when its pass rate is at least this, otherwise hard.", gt=0, le=1
    )
    new_problems: int = setting(1000, "Accepted new problems wanted in each round.", ge=1)
    ask_share: float = setting(
        1.35, "Problems asked for / problems wanted; the excess makes up for those that are rejected.", ge=1
    )
    complex_share: float | None = setting(
        None,
        "Share of complex variations (of easy problems) among the new ones; default: the share of easy problems,"
        " one request for each problem alike.",
        ge=0,
        le=1,
    )
    bridge_after: int | None = setting(
        None,
        "Rounds in a row without one right attempt after which an easier step towards a problem (a bridge) is asked"
        " for in place of a similar one; default: never.",
        ge=1,
    )


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
    requests = draw_requests(feedback, pool, settings, round, seed)
    folder.write("part-0.parquet", to_table(feedback, Feedback))
    folder.write("requests.parquet", to_table(requests, Request))
    left_out = len(rows) - len(feedback)
    sizes = Counter(item.difficulty for item in feedback)
    asked = Counter(request.origin for request in requests)
    quotas = wanted(settings, settings.new_problems, sizes["easy"], sizes["hard"])
    bridges = asked["bridge"] / (asked["bridge"] + asked["similar"]) if asked["bridge"] else 0.0
    quotas["bridge"] = int(quotas["similar"] * bridges + 0.5)
    quotas["similar"] -= quotas["bridge"]
    return StageResult(
        Counts(len(rows), len(feedback), {"not_attempted": left_out} if left_out else {}, 0),
        ("part-0.parquet",),
        summary={
            "easy": sizes["easy"],
            "hard": sizes["hard"],
            "asked": dict(sorted(asked.items())),
            "wanted": {origin: number for origin, number in sorted(quotas.items()) if number},
        },
    )


def draw_requests(
    feedback: Sequence[Feedback], pool: Mapping[str, Problem], settings: FeedbackSettings, round: int, seed: int
) -> list[Request]:
    """The requests of a round: complex variations of easy problems, similar ones to hard problems.

    Parents are taken in a seeded shuffle, all once before any twice. Where bridges are on, a parent that has
    gone unsolved for long enough gets one in place of a similar problem.
    """
    after = settings.bridge_after
    stuck = {item.problem_id for item in feedback if after is not None and item.unsolved_rounds >= after}
    sources: dict[Origin, list[str]] = {
        "complex": [item.problem_id for item in feedback if item.difficulty == "easy"],
        "similar": [item.problem_id for item in feedback if item.difficulty == "hard"],
    }
    total = math.ceil(settings.new_problems * settings.ask_share)
    quotas = wanted(settings, total, len(sources["complex"]), len(sources["similar"]))
    requests: list[Request] = []
    for origin, parents in sources.items():
        rng = random.Random(stable_seed(seed, "draw", round, origin))
        order: list[str] = []
        while len(order) < quotas[origin]:
            order.extend(rng.sample(parents, len(parents)))
        times: Counter[str] = Counter()
        for parent_id in order[: quotas[origin]]:
            times[parent_id] += 1
            parent, draw = pool[parent_id], times[parent_id]
            asked: Origin = "bridge" if parent_id in stuck and origin == "similar" else origin
            request_id = content_id("r", asked, str(round), parent_id, str(draw))
            requests.append(Request(request_id, parent_id, parent.question, parent.answer, asked, round, draw))
    return requests


def _unsolved(previous: Sequence[str]) -> list[tuple[str, int]]:
    table = files.read_tables(previous, schema_of(Feedback), ["problem_id", "unsolved_rounds"])
    return [(row["problem_id"], row["unsolved_rounds"]) for row in table.to_pylist()]


def wanted(settings: FeedbackSettings, total: int, easy: int, hard: int) -> dict[Origin, int]:
    """How many of ``total`` new problems shall be complex and how many similar."""
    share = easy / (easy + hard) if settings.complex_share is None else settings.complex_share
    if easy == 0 or hard == 0:
        share = 1.0 if hard == 0 else 0.0
    complex_count = int(total * share + 0.5)
    return {"complex": complex_count, "similar": total - complex_count}
