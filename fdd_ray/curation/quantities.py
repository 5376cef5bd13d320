"""What a problem calculates with, in order, and the text around it.

    >>> read_quantities(fold("Ann has 3 apples and buys twenty-five more; half are red."))
    Quantities(text='ann has # apples and buys # more half are red', values=('3', '25', 'half'))

A number may be written in digits or in words. Words that change a result as a number does (half, twice,
third) count too, but stay in the text.
"""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from typing import Final, NamedTuple

from fdd_ray.curation.folding import Folded

_SMALL: Final[list[str]] = re.findall(
    r"\w+",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty",
)
_TENS: Final = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS: Final = {word: number for number, word in enumerate(_SMALL[:9], 1)}
_WORDS: Final = {word: number for number, word in enumerate(_SMALL, 1)} | {
    word: 10 * number for number, word in enumerate(_TENS, 3)
}
_SCALES: Final = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
# Words whose change makes another problem of the same text.
_FACTORS: Final[list[str]] = re.findall(
    r"\w+",
    "half halves halved twice double doubled doubles thrice triple tripled triples quadruple quadrupled quarter"
    " quarters first second third thirds fourth fourths fifth fifths sixth sixths seventh eighth eighths ninth tenth"
    " tenths",
)
# Exact for every number that a problem can hold without being rejected for its length.
_DIGITS: Final = 25_000


def _any(words: list[str] | dict[str, int]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_FOUND: Final = re.compile(
    rf"(?<!\S)(?:(?P<first>\#|{_any(_WORDS)})(?:(?<=ty) (?P<unit>{_any(_UNITS)}))?(?P<scales>(?: (?:{_any(_SCALES)}))*)"
    rf"|(?P<scale>{_any(_SCALES)})|(?P<factor>{_any(_FACTORS)}))(?!\S)"
)


class Quantities(NamedTuple):
    """The quantities of a question apart from its words.

    Attributes:
        text: The folded words with ``#`` for each number, in digits or words.
        values: The numbers in plain digits and the words that act like one, in the order of the text.
    """

    text: str
    values: tuple[str, ...]


def read_quantities(folded: Folded) -> Quantities:
    """The quantities of a question that was folded."""
    numbers = iter(folded.numbers)
    values: list[str] = []

    def mask(found: re.Match[str]) -> str:
        if factor := found["factor"]:
            values.append(factor)
            return factor
        if scale := found["scale"]:
            values.append(str(_SCALES[scale]))
            return "#"
        first = found["first"]
        number = next(numbers) if first == "#" else str(_WORDS[first] + _UNITS.get(found["unit"], 0))
        values.append(_scaled(number, found["scales"].split()))
        return "#"

    text = _FOUND.sub(mask, folded.template)
    return Quantities(text, tuple(values))


def _scaled(number: str, scales: list[str]) -> str:
    if not scales:
        return number
    with localcontext(prec=_DIGITS):
        value = Decimal(number)
        for scale in scales[:4]:
            value *= _SCALES[scale]
        digits = format(value, "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
