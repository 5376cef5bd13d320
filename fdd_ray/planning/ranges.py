"""Numbers that are not known but estimated: what is likely, and from where to where it may be.

>>> Range(1, 2, 4) + Range.exact(10)
Range(low=11, likely=12, high=14)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable


@dataclasses.dataclass(frozen=True)
class Range:
    """An estimate; ``low <= likely <= high``, and none below 0."""

    low: float
    likely: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Range:
        """A number that is known."""
        return cls(value, value, value)

    @classmethod
    def about(cls, value: float, factor: float) -> Range:
        """``value``, give or take a factor."""
        return cls(value / factor, value, value * factor)

    @property
    def known(self) -> bool:
        """Whether it is no estimate."""
        return self.low == self.high

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, other: Range | float) -> Range:
        by = other if isinstance(other, Range) else Range.exact(other)
        return Range(self.low * by.low, self.likely * by.likely, self.high * by.high)

    def __truediv__(self, other: Range | float) -> Range:
        """The most of it is over the least of ``other``."""
        by = other if isinstance(other, Range) else Range.exact(other)
        return Range(self.low / by.high, self.likely / by.likely, self.high / by.low)

    def map(self, function: Callable[[float], float]) -> Range:
        """Each of the three through a function that does not fall."""
        return Range(function(self.low), function(self.likely), function(self.high))

    def capped(self, most: float) -> Range:
        """No more than ``most``."""
        return self.map(lambda value: min(value, most))


ZERO = Range(0, 0, 0)


def total(ranges: Iterable[Range]) -> Range:
    """The sum."""
    found = ZERO
    for item in ranges:
        found = found + item
    return found


def short(value: float) -> str:
    """A number in three digits, with k, M or G."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}" if value >= 0.01 or not value else "<0.01"
