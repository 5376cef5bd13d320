"""Feedback policies: from what the student can do, which problems become parents, and of what.

    groups = group_parents(feedback, seeds, FeedbackSettings(policy="fdd"))
    quotas = shares_of(groups, 1000)      # new problems wanted, by band
    draw_requests(groups, pool, settings, round=1, seed=0)

``fdd`` is the paper's: complex variations of easy problems, similar ones to hard problems. The others are what
it is compared with; each wants the same number of accepted rows, so that a comparison is between distillation
sets of one size.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from fdd_ray.errors import StageError
from fdd_ray.reasoning.rationales import distinct_rationales
from fdd_ray.records import Feedback, Origin, Problem, Request, content_id, stable_seed
from fdd_ray.settings import setting

Policy = Literal["fdd", "hard_only", "easy_only", "random", "more_rationales"]
POLICIES: tuple[Policy, ...] = ("fdd", "hard_only", "easy_only", "random", "more_rationales")


@dataclasses.dataclass(frozen=True)
class BandSettings:
    """A band of pass rates, and what is asked for from its problems."""

    name: str = setting(help="What the band is called, in the account and in the rows.")
    at_least: float = setting(help="Lowest pass rate of the band; it ends where the next one begins.", ge=0, le=1)
    ask: Literal["complex", "similar", "bridge", "nothing"] = setting(
        help="What is asked for: more complex variations, similar problems, easier steps (bridges), or nothing."
    )
    share: float | None = setting(
        None, "Share of the new problems that this band gets; default: what the others leave, by weight.", ge=0, le=1
    )
    weight: float = setting(
        1.0, "How often a problem of this band becomes a parent, beside those of other bands without a share.", gt=0
    )


@dataclasses.dataclass(frozen=True)
class FeedbackSettings:
    """What makes a problem easy, and how much is asked for from which problems."""

    policy: Policy = setting(
        "fdd",
        "Where new problems come from. fdd: complex variations of easy and similar ones to hard problems;"
        " hard_only and easy_only: one of the two; random: the same number from parents drawn at random, without"
        " feedback; more_rationales: no new problems, as many more rationales for the seed problems.",
    )
    easy_from: float = setting(
        1.0, "A problem is easy when its pass rate is at least this, otherwise hard.", gt=0, le=1
    )
    new_problems: int = setting(1000, "Accepted new problems (or rationales) wanted in each round.", ge=1)
    exact: bool = setting(
        False, "Stop the run where fewer than new_problems are accepted; for comparisons at equal size."
    )
    ask_share: float = setting(
        1.35, "Problems asked for / problems wanted; the excess makes up for those that are rejected.", ge=1
    )
    complex_share: float | None = setting(
        None,
        "Share of complex variations (of easy problems) among the new ones; default: the share of easy problems,"
        " one request for each problem alike; half with policy random.",
        ge=0,
        le=1,
    )
    bridge_after: int | None = setting(
        None,
        "Rounds in a row without one right attempt after which an easier step towards a problem (a bridge) is asked"
        " for in place of a similar one; default: never.",
        ge=1,
    )
    bands: tuple[BandSettings, ...] = setting(
        (),
        "Bands of pass rates in place of the split into easy and hard, from the lowest up; the first begins at 0."
        " More than two need score.attempts > 1. Whether a problem is called easy still goes by easy_from.",
    )
    distinct_rationales: bool = setting(
        True, "With more_rationales: reject a rationale that the problem has already, in the same words."
    )

    def __post_init__(self) -> None:
        if not self.bands:
            return
        edges = [band.at_least for band in self.bands]
        if edges[0] != 0 or edges != sorted(set(edges)):
            raise ValueError(f"bands begin at {edges}; the first must begin at 0, each other above the one before")
        names = [band.name for band in self.bands]
        if "" in names or len(set(names)) < len(names):
            raise ValueError(f"bands are called {names}; each needs a name of its own")
        if sum(band.share or 0.0 for band in self.bands) > 1 + 1e-9:
            raise ValueError("the shares of the bands add up to more than 1")
        if all(band.ask == "nothing" for band in self.bands):
            raise ValueError("all bands ask for nothing; then there is nothing to distil in a round")
        if self.complex_share is not None:
            raise ValueError("bands and complex_share are two ways to say the same; give the bands a share")


@dataclasses.dataclass(frozen=True)
class Group:
    """The parents of one band, and what is asked for from them.

    Attributes:
        name: The band's.
        ask: The origin of what is asked for; ``seed`` is one more rationale for the parent itself.
        parents: Ids of problems in the pool.
        share: Its share of all requests; None: by weight.
        weight: How often one of its parents is drawn, beside those of other groups without a share.
    """

    name: str
    ask: Origin
    parents: tuple[str, ...]
    share: float | None = None
    weight: float = 1.0


def group_parents(feedback: Sequence[Feedback], seeds: Sequence[str], settings: FeedbackSettings) -> list[Group]:
    """The parents by band, as the policy wants them; bands without parents are left out.

    Args:
        feedback: What the attempts say about each problem of the pool.
        seeds: Ids of the seed problems, attempted or not.
        settings: The policy, and its bands.

    Raises:
        StageError: If no band has a parent.
    """
    every = tuple(item.problem_id for item in feedback)
    if settings.policy == "more_rationales":
        return [Group("seeds", "seed", tuple(sorted(seeds)))]
    if settings.policy == "random":
        share = 0.5 if settings.complex_share is None else settings.complex_share
        groups = [Group("any, complex", "complex", every, share), Group("any, similar", "similar", every, 1 - share)]
    elif settings.bands:
        groups = _banded(feedback, settings.bands)
    else:
        part = settings.complex_share
        easy = tuple(item.problem_id for item in feedback if item.difficulty == "easy")
        hard = tuple(item.problem_id for item in feedback if item.difficulty == "hard")
        groups = [
            Group("easy", "complex", easy, part),
            Group("hard", "similar", hard, None if part is None else 1 - part),
        ]
    if settings.policy == "hard_only":
        groups = [group for group in groups if group.ask != "complex"]
    if settings.policy == "easy_only":
        groups = [group for group in groups if group.ask == "complex"]
    found = [group for group in groups if group.parents and group.share != 0]
    if not found:
        raise StageError(
            f"feedback.policy = {settings.policy}: no problem of the pool is one to ask from"
            f" ({Counter(item.difficulty for item in feedback)}); choose another policy or other feedback.bands,"
            " or end the run here with fewer rounds"
        )
    return found


def _banded(feedback: Sequence[Feedback], bands: Sequence[BandSettings]) -> list[Group]:
    members: dict[str, list[str]] = {band.name: [] for band in bands}
    for item in feedback:
        band = max((band for band in bands if band.at_least <= item.pass_rate), key=lambda band: band.at_least)
        members[band.name].append(item.problem_id)
    return [
        Group(band.name, band.ask, tuple(members[band.name]), band.share, band.weight)
        for band in bands
        if band.ask != "nothing"
    ]


def shares_of(groups: Sequence[Group], total: int) -> dict[str, int]:
    """How many of ``total`` each group gets; they add up to ``total``.

    Groups with a share get it, the others divide the rest by parents times weight. What the shares leave where
    no group is without one (because it is empty, say) goes to all in proportion.
    """
    given = sum(group.share or 0.0 for group in groups)
    weights = {group.name: len(group.parents) * group.weight for group in groups if group.share is None}
    rest = max(0.0, 1.0 - given)
    parts: dict[str, float] = {}
    for group in groups:
        if group.share is not None:
            parts[group.name] = group.share / (1.0 if weights else given)
        else:
            parts[group.name] = rest * weights[group.name] / sum(weights.values())
    # Cut a line of length total: what rounding takes from one it gives to the next.
    quotas, begun, at = {}, 0, 0.0
    for name, part in parts.items():
        at += part
        end = min(total, int(total * at + 0.5))
        quotas[name], begun = end - begun, end
    quotas[next(reversed(quotas))] += total - begun
    return quotas


def draw_requests(
    groups: Sequence[Group],
    pool: Mapping[str, Problem],
    settings: FeedbackSettings,
    round: int,
    seed: int,
    *,
    stuck: frozenset[str] = frozenset(),
    rationales: Mapping[str, Sequence[str]] | None = None,
) -> list[Request]:
    """The requests of a round.

    Parents are taken in a seeded shuffle, all of a group once before any twice.

    Args:
        groups: The parents.
        pool: All problems by id.
        settings: How many are asked for.
        round: The round that begins.
        seed: Makes the draw repeatable.
        stuck: Problems that get a bridge where a similar one would be asked for.
        rationales: Those that seed problems have already; a further one must differ.
    """
    requests: list[Request] = []
    for group, quota in _with_quotas(groups, math.ceil(settings.new_problems * settings.ask_share)):
        rng = random.Random(stable_seed(seed, "draw", round, group.ask))
        order: list[str] = []
        while len(order) < quota:
            order.extend(rng.sample(group.parents, len(group.parents)))
        times: Counter[str] = Counter()
        for parent_id in order[:quota]:
            times[parent_id] += 1
            parent, draw = pool[parent_id], times[parent_id]
            asked: Origin = "bridge" if parent_id in stuck and group.ask == "similar" else group.ask
            parts = [asked, str(round), parent_id, str(draw)]
            if settings.bands:  # two bands may ask for the same
                parts.append(group.name)
            known = tuple((rationales or {}).get(parent_id, ()))
            requests.append(
                Request(
                    content_id("r", *parts), parent_id, parent.question, parent.answer, asked, round, draw, group.name,
                    distinct_rationales(known, len(known)),
                )
            )  # fmt: skip
    return requests


def _with_quotas(groups: Sequence[Group], total: int) -> list[tuple[Group, int]]:
    quotas = shares_of(groups, total)
    return [(group, quotas[group.name]) for group in groups]
