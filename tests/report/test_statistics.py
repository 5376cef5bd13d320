from __future__ import annotations

import math
import random
import statistics

import pytest

from fdd_ray.statistics import (
    accuracy_of,
    mean_interval,
    paired_bootstrap,
    sign_test,
    t_quantile,
    wilson,
)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (50, 100), (9999, 10000)])
def test_wilson_ends_are_where_the_score_test_just_fails(right: int, n: int) -> None:
    """The interval by its definition: its ends p solve (share - p)^2 = z^2 p (1 - p) / n."""
    share = right / n
    for end in wilson(share, n):
        if 0 < end < 1:
            assert math.isclose((share - end) ** 2, 1.959964**2 * end * (1 - end) / n, rel_tol=1e-5)
    assert wilson(share, n)[0] <= share <= wilson(share, n)[1]


def test_nothing_says_nothing() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)
    assert accuracy_of([]) == (0.0, 0.0, 1.0, 0)


def test_the_bootstrap_interval_is_that_of_the_normal_where_there_are_many_problems() -> None:
    draw = random.Random(1)
    before = [float(draw.random() < 0.5) for _ in range(4000)]
    after = [float(b or draw.random() < 0.1) if draw.random() < 0.95 else 0.0 for b in before]
    found = paired_bootstrap(before, after, seed=3)
    deltas = [a - b for a, b in zip(after, before, strict=True)]
    spread = 1.96 * statistics.pstdev(deltas) / math.sqrt(len(deltas))
    assert math.isclose(found.difference, statistics.fmean(deltas), abs_tol=1e-6)
    assert math.isclose(found.high - found.low, 2 * spread, rel_tol=0.05)
    assert found.gained == deltas.count(1.0) and found.lost == deltas.count(-1.0)
    assert found.n == 4000


def test_the_bootstrap_agrees_with_resampling_problem_by_problem() -> None:
    """The short cut through the multinomial is the plain bootstrap: same quantiles, drawn the long way."""
    draw = random.Random(2)
    before = [draw.choice([0.0, 0.25, 0.5, 1.0]) for _ in range(120)]
    after = [draw.choice([0.0, 0.25, 0.75, 1.0]) for _ in range(120)]
    deltas = [a - b for a, b in zip(after, before, strict=True)]
    means = sorted(statistics.fmean(draw.choices(deltas, k=120)) for _ in range(10_000))
    found = paired_bootstrap(before, after)
    assert math.isclose(found.low, means[250], abs_tol=0.01)
    assert math.isclose(found.high, means[9750], abs_tol=0.01)
    assert math.isclose(found.not_better, sum(mean <= 0 for mean in means) / 10_000, abs_tol=0.02)


def test_pairing_matters() -> None:
    """Twenty gained of a thousand and none lost is a sure gain, though the two accuracies' intervals overlap."""
    before = [1.0] * 500 + [0.0] * 500
    after = [1.0] * 520 + [0.0] * 480
    found = paired_bootstrap(before, after)
    assert (found.difference, found.gained, found.lost, found.not_better) == (0.02, 20, 0, 0.0)
    assert 0.01 < found.low < 0.02 < found.high < 0.03
    assert accuracy_of(before).high > accuracy_of(after).low
    back = paired_bootstrap(after, before)
    assert (back.difference, back.gained, back.lost, back.not_better) == (-0.02, 0, 20, 1.0)


def test_the_same_is_no_better() -> None:
    assert paired_bootstrap([0.0, 1.0], [0.0, 1.0]) == (0.0, 0.0, 0.0, 1.0, 0, 0, 1.0, 2)


def test_a_seed_makes_it_repeatable() -> None:
    before, after = [0.0, 1.0, 0.5] * 50, [1.0, 0.3, 0.5] * 50
    assert paired_bootstrap(before, after, seed=7) == paired_bootstrap(before, after, seed=7)
    assert paired_bootstrap(before, after, seed=7) != paired_bootstrap(before, after, seed=8)


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 0.0])])
def test_unpaired_problems_are_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="the same problems are needed"):
        paired_bootstrap(before, after)


# Two-sided binomial tests by hand: P(X <= 1) for n = 10 is 11 / 1024.
@pytest.mark.parametrize(("gained", "lost", "p"), [(5, 5, 1.0), (9, 1, 22 / 1024), (0, 0, 1.0), (0, 5, 1 / 16)])
def test_sign_test(gained: int, lost: int, p: float) -> None:
    assert sign_test(gained, lost) == sign_test(lost, gained) == pytest.approx(p)


# From printed tables of Student's t, 97.5 %.
@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)]
)
def test_t_quantiles(degrees: int, t: float) -> None:
    assert t_quantile(degrees) == pytest.approx(t, abs=6e-4)


def test_mean_over_seeds() -> None:
    found = mean_interval([0.6, 0.7, 0.8])
    assert found.mean == pytest.approx(0.7) and found.n == 3
    assert found.low == pytest.approx(0.7 - 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert found.high == pytest.approx(0.7 + 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert mean_interval([0.5]) == (0.5, None, None, 1)
    with pytest.raises(ValueError, match="no mean"):
        mean_interval([])
