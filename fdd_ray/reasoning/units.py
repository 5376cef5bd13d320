"""The units that are known well enough to say that two answers differ in them, or mean the same.

    >>> find_unit("hours").size / find_unit("minutes").size
    Fraction(60, 1)

Units of one system convert exactly; systems of one dimension (metric and US lengths, two currencies) do not
convert here. Words that mean different things are left out (``m``, ``in``, ``tons``) or are marked ambiguous
(``pounds`` are money too, ``ounces`` volume).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, NamedTuple


class Unit(NamedTuple):
    """A unit of an answer.

    Attributes:
        dimension: What it measures.
        system: Units of one dimension and system convert into each other.
        size: How many of the system's base unit it is.
        ambiguous: Whether its word may mean another dimension.
    """

    dimension: str
    system: str
    size: Fraction
    ambiguous: bool = False


_ONE: Final = Fraction(1)
# dimension, system, then the words of each unit with its size
_TABLE: Final[tuple[tuple[str, str, dict[str, str]], ...]] = (
    (
        "time",
        "clock",
        {
            "s sec secs second seconds": "1",
            "min mins minute minutes": "60",
            "h hr hrs hour hours": "3600",
            "day days": "86400",
            "week weeks": "604800",
        },
    ),
    ("time", "calendar", {"month months": "1", "year years yr yrs": "12", "decade decades": "120"}),
    (
        "length",
        "metric",
        {
            "mm millimeter millimeters millimetre millimetres": "1/1000",
            "cm centimeter centimeters centimetre centimetres": "1/100",
            "meter meters metre metres": "1",
            "km kilometer kilometers kilometre kilometres": "1000",
        },
    ),
    (
        "length",
        "us",
        {
            "inch inches": "1",
            "ft foot feet": "12",
            "yd yds yard yards": "36",
            "mi mile miles": "63360",
        },
    ),
    (
        "mass",
        "metric",
        {
            "mg milligram milligrams": "1/1000",
            "g gram grams": "1",
            "kg kgs kilogram kilograms kilo kilos": "1000",
        },
    ),
    ("mass", "us", {"lb lbs": "16"}),
    (
        "volume",
        "metric",
        {
            "ml milliliter milliliters millilitre millilitres": "1/1000",
            "l liter liters litre litres": "1",
        },
    ),
    (
        "volume",
        "us",
        {
            "teaspoon teaspoons tsp": "1/48",
            "tablespoon tablespoons tbsp": "1/16",
            "cup cups": "1",
            "pint pints": "2",
            "quart quarts": "4",
            "gallon gallons": "16",
        },
    ),
    ("money", "dollar", {"$ usd dollar dollars buck bucks": "1", "cent cents ¢": "1/100"}),
    ("money", "euro", {"€ eur euro euros": "1"}),
    ("money", "pound", {"£ gbp": "1", "pence": "1/100"}),
    ("money", "yen", {"¥ yen": "1"}),
    ("money", "rupee", {"₹ rs rupee rupees": "1"}),
    ("temperature", "celsius", {"°c": "1"}),
    ("temperature", "fahrenheit", {"°f": "1"}),
)
_UNITS: Final = {
    word: Unit(dimension, system, Fraction(size))
    for dimension, system, units in _TABLE
    for words, size in units.items()
    for word in words.split()
} | {
    word: Unit("mass", "us", Fraction(size), ambiguous=True)
    for words, size in {"oz ounce ounces": 1, "pound pounds": 16}.items()
    for word in words.split()
}


def find_unit(word: str) -> Unit | None:
    """The unit that a word or sign names, None if it is not known; case does not matter."""
    return _UNITS.get(word.casefold())


def conversion(given: Unit | None, gold: Unit | None) -> Fraction | None:
    """What to multiply a number of ``given`` with to have it in ``gold``; None if they are different things.

    It is 1 where nothing speaks against their being the same: one of them is not known, or its word may mean
    another dimension.
    """
    if given is None or gold is None or given is gold:
        return _ONE
    if given.dimension != gold.dimension:
        return _ONE if given.ambiguous or gold.ambiguous else None
    return given.size / gold.size if given.system == gold.system else None
