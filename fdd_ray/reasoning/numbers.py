"""Reads text that is one number, exactly, and writes numbers plainly.

    >>> parse_number("$1,234.50").value
    Fraction(2469, 2)
    >>> parse_number("twenty-five").value, parse_number("3:30"), parse_number("7 or 8")
    (Fraction(25, 1), None, None)

Values are `fractions.Fraction`; no float takes part. What is ambiguous is no number. A unit is read past,
but remembered where `fdd_ray.reasoning.units` knows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

from fdd_ray.reasoning.markup import cleaned
from fdd_ray.reasoning.units import Unit, find_unit

_LONGEST_ANSWER: Final = 200
_MOST_DIGITS: Final = 100
_MOST_WORDS: Final = 30
_VOTING_DIGITS: Final = 10
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MAGNITUDES: Final = {"hundred": 10**2, **_SCALES}
_ONES: Final = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL_WORDS: Final = {word: number for number, word in enumerate(_ONES.split(), start=1)}
_TENS_WORDS: Final = {word: 10 * number for number, word in enumerate(_TENS.split(), start=2)}
# Right after a number these change its value, so reading past them would give a wrong number.
_NOT_UNITS: Final = re.compile(
    r"[xyznie]|pi|\u03c0|k|bn?|and|or|to|half|halves|(?:ten|hundred|thousand)ths?|(?:third|fourth|fifth|sixth|eighth)s"
)
MINUS: Final = "-\u2212\u2013"
WHOLE: Final = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]{0,2}(?:[ ][0-9]{3})+|[0-9]+"
# Matched against text whose white space is single spaces; no part can match one text in two ways, so that
# hostile text costs linear time.
_NUMBER: Final = re.compile(
    rf"""
    (?:(?:[A-Za-z]\w{{0,20}}[ ]?)?[=≈~][ ]?)?
    (?P<sign>[{MINUS}+]?)[ ]?
    (?:(?P<currency>USD?|EUR|GBP|Rs\.?)[ ]?)?(?P<symbol>[$€£¥₹]?)[ ]?
    (?P<inner_sign>[{MINUS}]?)
    (?:
        (?P<mixed>[0-9]+)[ ](?P<part>[0-9]+)[ ]?/[ ]?(?P<parts>[0-9]+)
      | (?P<over>{WHOLE})[ ]?/[ ]?(?P<under>{WHOLE})
      | (?P<whole>{WHOLE}|(?=\.[0-9]))(?:\.(?P<decimals>[0-9]*))?
        (?:
            [eE](?P<exponent>[{MINUS}+]?[0-9]+)
          | [ ]?[\u00d7x*·][ ]?10[ ]?(?:\^|\*\*)[ ]?\{{?(?P<power>[{MINUS}+]?[0-9]+)\}}?
        )?
    )
    (?P<rest>[^0-9]*)
    """,
    re.VERBOSE,
)
_REST: Final = re.compile(r"(?: ?%)? ?[$€£¥₹¢]?(?: ?°)?(?:[ (/]{0,2}[^\W\d_](?:[^\W\d_]|[-\s'\u2019°/().])*)?")
_TIME: Final = re.compile(r"\b[ap]\.?\s?m\b|o['\u2019]?clock", re.IGNORECASE)
_SIGN: Final = re.compile(r"[$€£¥₹¢]")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written.

    Attributes:
        value: What it means; ``50%`` means 1/2. Its unit takes no part: ``5 hours`` is 5.
        percent: Whether it was written with a percent sign or the word.
        places: Decimal places as written.
        unit: Its unit, if it has one that is known.
    """

    value: Fraction
    percent: bool = False
    places: int = 0
    unit: Unit | None = None

    @property
    def written(self) -> Fraction:
        """The number in front of the percent sign, if it had one."""
        return self.value * 100 if self.percent else self.value


class _Rest(NamedTuple):
    """What the words after a number do to it."""

    factor: int
    percent: bool
    unit: Unit | None


def parse_number(text: str) -> Number | None:
    """The number that ``text`` is, or None when it is none or more than one.

    Args:
        text: An answer, not a sentence; `fdd_ray.reasoning.answers.final_answer` finds the answer of a chain.
    """
    text = text.strip()
    if len(text) > _LONGEST_ANSWER:
        return None
    text = cleaned(text)
    found = _NUMBER.fullmatch(text)
    if found is None:
        words = _read_words(text)
        return None if words is None else Number(Fraction(words))
    if found["sign"] and found["inner_sign"]:
        return None
    rest = _read_rest(found["rest"])
    value = _read_value(found)
    if rest is None or value is None:
        return None
    if (found["sign"] or found["inner_sign"] or "+") in MINUS:
        value = -value
    unit = rest.unit or find_unit(found["symbol"] or (found["currency"] or "").rstrip("."))
    value = value * rest.factor / (100 if rest.percent else 1)
    return Number(value, rest.percent, len(found["decimals"] or ""), unit)


def write_number(value: Fraction) -> str:
    """``value`` as plain digits: whole numbers exactly, others with ten significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    size, sign = abs(value), "-" if value < 0 else ""
    power = len(str(size.numerator)) - len(str(size.denominator))
    if size < Fraction(10) ** power:
        power -= 1
    places = max(0, _VOTING_DIGITS - 1 - power)
    shifted = round(size * 10**places)
    whole, decimals = divmod(shifted, 10**places)
    tail = f"{decimals:0{places}d}".rstrip("0") if decimals else ""
    return f"{sign}{whole}.{tail}" if tail else f"{sign}{whole}"


def _read_value(found: re.Match[str]) -> Fraction | None:
    """The unsigned number of a match, or None when it is too large or divides by zero."""
    if found["mixed"] is not None:
        whole, part, parts = (_digits(found[name]) for name in ("mixed", "part", "parts"))
        if whole is None or part is None or not parts or part >= parts:
            return None
        return whole + Fraction(part, parts)
    if found["over"] is not None:
        over, under = _digits(found["over"]), _digits(found["under"])
        return None if over is None or not under else Fraction(over, under)
    decimals = found["decimals"] or ""
    digits = _digits((found["whole"] or "0") + decimals)
    raw = found["exponent"] or found["power"] or "0"
    exponent = _digits(raw.lstrip(MINUS + "+"))
    if digits is None or exponent is None or exponent > _MOST_DIGITS:
        return None
    power = (-exponent if raw[0] in MINUS else exponent) - len(decimals)
    return Fraction(digits * 10**power) if power >= 0 else Fraction(digits, 10**-power)


def _digits(text: str) -> int | None:
    plain = text.replace(",", "").replace(" ", "")
    return int(plain) if len(plain) <= _MOST_DIGITS else None


def _read_rest(rest: str) -> _Rest | None:
    """What stands after the number: nothing, a percent sign, a magnitude, a unit; None if none of these."""
    if not rest:
        return _Rest(1, False, None)
    if not _REST.fullmatch(rest) or _TIME.search(rest) or any(map(str.isnumeric, rest)):
        return None
    percent = "%" in rest
    words = re.findall(r"[^\W\d_]+", rest)
    factor = 1
    while words and words[0].casefold() in _MAGNITUDES:
        factor *= _MAGNITUDES[words.pop(0).casefold()]
    low = [word.casefold() for word in words]
    if low[:1] == ["percent"] or low[:2] == ["per", "cent"] or low[:1] == ["percentage"]:
        percent = True
    # A capital M is "million" to some and "metre" to none; a small one is a metre.
    if low and (_NOT_UNITS.fullmatch(low[0]) or words[0] == "M"):
        return None
    if {"and", "or"} & set(low):
        return None
    return _Rest(factor, percent, _read_unit(rest, low))


def _read_unit(rest: str, words: list[str]) -> Unit | None:
    """The unit behind a number; ``5 dollars per hour`` and ``5 /hour`` have none that is known."""
    if len(words) == 1 and "/" not in rest:
        return find_unit(f"°{words[0]}" if "°" in rest else words[0])
    sign = None if words else _SIGN.search(rest)
    return find_unit(sign[0]) if sign else None


def _read_words(text: str) -> int | None:
    """The whole number that ``text`` spells, such as ``two hundred and five``; None if it is anything else."""
    sign = -1 if text[:1] and text[0] in MINUS else 1
    words = text[1 if sign < 0 else 0 :].casefold().replace("-", " ").split()
    if words == ["zero"]:
        return 0
    if not words or len(words) > _MOST_WORDS:
        return None
    if words[0] == "a" and len(words) > 1 and words[1] in _MAGNITUDES:
        words[0] = "one"
    total = group = 0
    largest: int | None = None  # the next scale must be smaller: no "thousand million"
    before = ""
    for place, word in enumerate(words):
        if word in _SMALL_WORDS:
            number, rest = _SMALL_WORDS[word], group % 100
            if rest and (rest < 20 or rest % 10 or number > 9):
                return None
            group += number
        elif word in _TENS_WORDS and group % 100 == 0:
            group += _TENS_WORDS[word]
        elif word == "hundred" and 1 <= group <= 9:
            group *= 100
        elif word in _SCALES and group and before != "and" and (largest is None or _SCALES[word] < largest):
            largest = _SCALES[word]
            total, group = total + group * largest, 0
        elif word != "and" or before not in _MAGNITUDES or place + 1 == len(words):
            return None
        before = word
    return sign * (total + group)
