"""Feedback policies: who becomes a parent, of what, and how many."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fdd_ray.errors import StageError
from fdd_ray.policy import POLICIES, BandSettings, FeedbackSettings, draw_requests, group_parents, shares_of
from fdd_ray.records import Feedback, Problem, Request

POOL = {problem.id: problem for problem in (Problem.new(f"Question {i}?", str(i)) for i in range(10))}
IDS = list(POOL)


def _feedback(easy: int, hard: int) -> list[Feedback]:
    return [Feedback(IDS[i], "easy" if i < easy else "hard", 1.0 if i < easy else 0.0) for i in range(easy + hard)]


def _draw(feedback: list[Feedback], settings: FeedbackSettings, round: int = 1, seed: int = 0) -> list[Request]:
    return draw_requests(group_parents(feedback, IDS, settings), POOL, settings, round, seed)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_asks_for_the_same_number(policy: Any) -> None:
    settings = FeedbackSettings(policy=policy, new_problems=20, ask_share=1.5)
    requests = _draw(_feedback(6, 4), settings)
    assert len(requests) == 30 == len({request.id for request in requests})
    groups = group_parents(_feedback(6, 4), IDS, settings)
    assert sum(shares_of(groups, 20).values()) == 20


def test_where_each_policy_takes_its_parents() -> None:
    def kinds(policy: Any, **more: Any) -> Counter[tuple[str, bool]]:
        requests = _draw(_feedback(6, 4), FeedbackSettings(policy=policy, new_problems=40, ask_share=1, **more))
        easy = set(IDS[:6])
        return Counter((request.origin, request.parent_id in easy) for request in requests)

    assert kinds("fdd") == {("complex", True): 24, ("similar", False): 16}
    assert kinds("fdd", complex_share=0.5) == {("complex", True): 20, ("similar", False): 20}
    assert kinds("hard_only") == {("similar", False): 40}
    assert kinds("easy_only") == {("complex", True): 40}
    assert kinds("more_rationales") == {("seed", True): 24, ("seed", False): 16}
    # Twice over all ten problems for either kind of request, whatever the student can do.
    expected = {("complex", True): 12, ("complex", False): 8, ("similar", True): 12, ("similar", False): 8}
    assert kinds("random") == expected


@pytest.mark.parametrize("policy", ["hard_only", "easy_only"])
def test_a_policy_without_parents_is_an_error(policy: Any) -> None:
    feedback = _feedback(5, 0) if policy == "hard_only" else _feedback(0, 5)
    with pytest.raises(StageError, match=f"feedback.policy = {policy}"):
        group_parents(feedback, IDS, FeedbackSettings(policy=policy))


def test_parents_are_all_used_once_before_any_twice() -> None:
    requests = _draw(_feedback(4, 2), FeedbackSettings(new_problems=20, ask_share=1, complex_share=0.5))
    uses = Counter((r.origin, r.parent_id) for r in requests)
    assert sum(n for (origin, _), n in uses.items() if origin == "complex") == 10
    assert max(uses.values()) == 5 and min(n for (o, _), n in uses.items() if o == "complex") == 2
    assert len({r.id for r in requests}) == 20


def test_draws_are_repeatable_and_differ_by_round_and_seed() -> None:
    settings = FeedbackSettings(new_problems=3, ask_share=1)

    def draw(round: int, seed: int) -> list[str]:
        return [request.parent_id for request in _draw(_feedback(8, 2), settings, round, seed)]

    assert draw(1, 0) == draw(1, 0)
    assert draw(1, 0) != draw(2, 0) or draw(1, 0) != draw(1, 1)


@pytest.mark.parametrize(
    ("share", "easy", "hard", "expected"),
    [
        (None, 3, 1, {"easy": 75, "hard": 25}),
        (0.5, 3, 1, {"easy": 50, "hard": 50}),
        (0.5, 0, 4, {"hard": 100}),
        (0.5, 4, 0, {"easy": 100}),
        (0.0, 3, 1, {"hard": 100}),
    ],
)
def test_shares(share: float | None, easy: int, hard: int, expected: dict[str, int]) -> None:
    groups = group_parents(_feedback(easy, hard), IDS, FeedbackSettings(complex_share=share))
    assert shares_of(groups, 100) == expected


BANDS = (
    BandSettings("never", 0.0, "bridge", share=0.2),
    BandSettings("seldom", 0.1, "similar"),
    BandSettings("often", 0.6, "similar", weight=3.0),
    BandSettings("always", 1.0, "nothing"),
)


def test_bands_go_by_pass_rate_share_and_weight() -> None:
    rates = [0.0, 0.0, 0.1, 0.5, 0.6, 0.9, 1.0, 1.0]
    feedback = [Feedback(IDS[i], "easy" if rate == 1 else "hard", rate) for i, rate in enumerate(rates)]
    settings = FeedbackSettings(bands=BANDS, new_problems=100, ask_share=1)
    groups = group_parents(feedback, IDS, settings)
    assert {group.name: [IDS.index(parent) for parent in group.parents] for group in groups} == {
        "never": [0, 1],
        "seldom": [2, 3],
        "often": [4, 5],
    }
    assert shares_of(groups, 100) == {"never": 20, "seldom": 20, "often": 60}
    requests = _draw(feedback, settings)
    assert Counter((request.band, request.origin) for request in requests) == {
        ("never", "bridge"): 20,
        ("seldom", "similar"): 20,
        ("often", "similar"): 60,
    }
    assert len({request.id for request in requests}) == 100
    # What an empty band leaves goes to the others.
    assert shares_of(group_parents(feedback[2:], IDS, settings), 100) == {"seldom": 25, "often": 75}
    assert shares_of(group_parents(feedback[:2], IDS, settings), 100) == {"never": 100}


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ((BandSettings("a", 0.5, "similar"),), "must begin at 0"),
        ((BandSettings("a", 0.0, "similar"), BandSettings("a", 0.5, "complex")), "name of its own"),
        ((BandSettings("a", 0.0, "similar", 0.7), BandSettings("b", 0.5, "complex", 0.7)), "more than 1"),
        ((BandSettings("a", 0.0, "nothing"),), "nothing to distil"),
    ],
)
def test_bands_that_make_no_sense_are_refused(bands: tuple[BandSettings, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeedbackSettings(bands=bands)


def test_shares_add_up_whatever_the_rounding() -> None:
    for total in range(1, 60):
        groups = group_parents(_feedback(3, 7), IDS, FeedbackSettings(complex_share=1 / 3))
        found = shares_of(groups, total)
        assert sum(found.values()) == total
        assert abs(found["easy"] - total / 3) <= 1
