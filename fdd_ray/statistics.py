"""Intervals and differences of accuracies: what a score says, and whether two of them differ.

    wilson(right / n, n)                          # one model on one benchmark
    paired_bootstrap(before, after, seed=0)       # two models on the same problems
    mean_interval([0.61, 0.64, 0.60])             # one figure over several seeds

Problems are what is drawn, so two models are compared problem by problem: that takes the difficulty of the
problems out of the difference. None of this corrects for looking at many rounds and keeping the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

RESAMPLES = 10_000
_Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
_CHUNK = 500  # resamples drawn at once; bounds the memory where all differences are distinct


class Accuracy(NamedTuple):
    """Share of right answers with its 95 % Wilson interval, over ``n`` problems."""

    value: float
    low: float
    high: float
    n: int


class PairedDifference(NamedTuple):
    """How much better ``after`` is than ``before`` on the same problems.

    Attributes:
        difference: Mean of after minus before, between -1 and 1.
        low: Lower end of its 95 % interval (percentiles of the bootstrap).
        high: Upper end.
        not_better: Share of the resamples whose difference is 0 or less.
        gained: Problems on which ``after`` is better (solved now, not before).
        lost: Problems on which it is worse.
        p_value: Two-sided exact McNemar (sign) test of ``gained`` against ``lost``.
        n: Problems.
    """

    difference: float
    low: float
    high: float
    not_better: float
    gained: int
    lost: int
    p_value: float
    n: int


class MeanInterval(NamedTuple):
    """A mean with its 95 % t interval; one value has a mean, but no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval (E. B. Wilson, 1927) of a share among ``n``; (0, 1) of none."""
    if n == 0:
        return 0.0, 1.0
    centre = share + _Z * _Z / (2 * n)
    spread = _Z * math.sqrt(max(0.0, share * (1 - share)) / n + _Z * _Z / (4 * n * n))
    scale = 1 + _Z * _Z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def accuracy_of(pass_rates: Sequence[float]) -> Accuracy:
    """Mean pass rate with its Wilson interval, rounded to six digits; 0 in (0, 1) of none."""
    n = len(pass_rates)
    share = math.fsum(pass_rates) / n if n else 0.0
    low, high = wilson(share, n)
    return Accuracy(round(share, 6), round(low, 6), round(high, 6), n)


def paired_bootstrap(
    before: Sequence[float], after: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES
) -> PairedDifference:
    """The difference of two models' pass rates on the same problems, by resampling problems.

    Args:
        before: Pass rate on each problem.
        after: Pass rate of the other model on the same problems, in the same order.
        seed: The same seed gives the same interval.
        resamples: How often as many problems are drawn anew, with replacement.

    Raises:
        ValueError: If the two differ in length, or are empty.
    """
    import numpy as np

    n = len(before)
    if n != len(after) or n == 0:
        raise ValueError(f"{n} and {len(after)} pass rates; the same problems are needed, one at the least")
    deltas = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    # Only how often each distinct difference is drawn matters, and that is multinomial: for right and wrong
    # there are three of them, however many problems there are.
    values, counts = np.unique(deltas.round(12), return_counts=True)
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            generator.multinomial(n, counts / n, size=min(_CHUNK, resamples - start)) @ values / n
            for start in range(0, resamples, _CHUNK)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    gained, lost = int((deltas > 1e-9).sum()), int((deltas < -1e-9).sum())
    return PairedDifference(
        difference=round(float(deltas.mean()), 6),
        low=round(float(low), 6),
        high=round(float(high), 6),
        not_better=round(float((means <= 1e-12).mean()), 6),
        gained=gained,
        lost=lost,
        p_value=float(f"{sign_test(gained, lost):.6g}"),
        n=n,
    )


def sign_test(gained: int, lost: int) -> float:
    """Two-sided exact probability of so uneven a split of ``gained + lost`` if both were as likely (McNemar)."""
    n, fewer = gained + lost, min(gained, lost)
    if 2 * fewer == n:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """The mean of a figure over repeats, such as seeds, with its 95 % interval by Student's t.

    Raises:
        ValueError: If there are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values have no mean")
    mean = math.fsum(values) / n
    if n == 1:
        return MeanInterval(mean, None, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = t_quantile(n - 1) * deviation / math.sqrt(n)
    return MeanInterval(mean, mean - reach, mean + reach, n)


def t_quantile(degrees: int, level: float = 0.95) -> float:
    """The ``t`` within which Student's t with ``degrees`` of freedom lies with probability ``level``, both sides."""
    low, high = 0.0, 1.0
    while _t_within(high, degrees) < level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, degrees) < level else (low, middle)
    return high


def _t_within(t: float, degrees: int) -> float:
    """P(|T| <= t) for a whole number of degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = degrees % 2 == 1
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for k in range(3 if odd else 2, degrees + 1, 2):
        total += term
        term *= square * (k - 1) / k
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
