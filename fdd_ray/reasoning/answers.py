"""Reads the answer of a word problem out of text and compares it with the known one, exactly.

Numbers are `fractions.Fraction` from reading to verdict; floats never decide anything.

    >>> compare("$1,234.00", "1234")
    'right'
    >>> compare("50%", "50"), compare("-5", "5"), compare("2 1/2", "2.5")
    ('percent_mismatch', 'wrong_sign', 'right')
    >>> compare("15:30", "3:30 PM"), compare("3:30", "3:30 PM"), compare("5 minutes", "5 hours")
    ('right', 'half_day_mismatch', 'unit_mismatch')

What was decided:

- A percent sign means hundredths: ``50%`` equals ``50%`` and ``0.5`` (that is what the sign says, and
  answers that are equal also vote together) but not ``50``, the slip that matters.
- A unit on one side only is read past: ``12 apples`` is 12, and ``5 minutes`` is 5. Where both sides have a
  known unit, units of one system convert (``30 minutes`` is ``1/2 hour``, ``150 cents`` is ``$1.50``), and
  the same number of different ones is a ``unit_mismatch``. Votes do not look at units.
- Words that change the number are either understood (``3 million``) or make the text no number (``5k``,
  ``3x``, ``2 and a half``). ``2 dozen`` is 2 of a unit that is not known.
- An answer that is spelled out and nothing else is a number: ``seven``, ``two hundred and five``. It has no
  unit, and fractions, ordinals and ``a dozen`` are not read.
- Times of day are compared as such, and are never numbers. Without am or pm a time is read on the 24-hour
  clock; one that is off by exactly half a day is a ``half_day_mismatch``, whichever side left am or pm out.
- Other ratios (``2:1``) and text are compared as text.
- What is ambiguous is not guessed at: ``3,5``, ``(5)``, ``3 or 4``, ``2*3`` are no numbers.
- Two whole numbers are equal or not. Otherwise `Tolerance` decides; it covers the last written place of
  a known answer with two or more decimals, because ``round`` differs between interpreters on ties.

Not covered: conversion between systems (miles and kilometres), compound units (``km/h``), a unit that
only one side has (``300 minutes`` is not 5, and ``5 minutes`` is), decimal commas, sets and tuples of
answers, algebra (see `fdd_ray.reasoning.second_opinion`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from fdd_ray.reasoning.markup import folded, last_boxed
from fdd_ray.reasoning.numbers import MINUS, WHOLE, Number, parse_number, write_number
from fdd_ray.reasoning.times import HALF_DAY, read_time, write_time
from fdd_ray.reasoning.units import conversion
from fdd_ray.settings import setting

__all__ = [
    "Number",
    "Tolerance",
    "Verdict",
    "canonical",
    "compare",
    "final_answer",
    "parse_number",
    "without_answer_line",
    "write_number",
]

Verdict = Literal[
    "right",
    "wrong_answer",
    "wrong_sign",
    "percent_mismatch",
    "unit_mismatch",
    "wrong_time",
    "half_day_mismatch",
    "unparsed_answer",
]

_LONGEST_CHAIN: Final = 50_000
_ANSWER_LINE: Final = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)
_ANSWER_IS: Final = re.compile(r"\banswer\s*(?:is\b|:|=)[\s:=]*", re.IGNORECASE)
_SAID: Final = re.compile(r".*?(?=[.;!?]\s|,\s[A-Za-z]|$)", re.MULTILINE)
_LAST_NUMBER: Final = re.compile(rf"[{MINUS}]?[$€£¥₹]?(?:{WHOLE})(?:\.[0-9]+)?(?:/[0-9]+)?%?")


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may be from the known one, unless both are whole numbers: then not at all."""

    relative: float = setting(1e-6, "Allowed difference as a share of the known answer.", ge=0, le=0.1)
    absolute: float = setting(1e-6, "Allowed difference in itself.", ge=0)
    last_places: float = setting(
        1.0,
        "Allowed difference in units of the last place of a known answer with two or more decimals.",
        ge=0,
        le=10,
    )


def final_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""The answer at the end of a chain.

    The last ``#### ...`` line counts; failing that the last ``\boxed{...}``; failing that the last
    "the answer is ...".

    Args:
        text: A chain.
        last_number: Also take the last number of the text when nothing else was found. Off by default: it
            turns a chain that never reached its answer into a guess.
    """
    text = text[-_LONGEST_CHAIN:]
    lines = _ANSWER_LINE.findall(text)
    if lines:
        return str(lines[-1]).strip()
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    said = list(_ANSWER_IS.finditer(text))
    if said and (found := _SAID.match(text, said[-1].end())) and found[0].strip():
        return found[0].strip()
    if last_number:
        numbers = _LAST_NUMBER.findall(text)
        return numbers[-1] if numbers else None
    return None


def without_answer_line(text: str) -> str:
    """A chain up to its last ``####`` line; all of it when it has none."""
    found = list(_ANSWER_LINE.finditer(text))
    return text[: found[-1].start()] if found else text


def compare(given: str, gold: str, *, tolerance: Tolerance | None = None) -> Verdict:
    """Whether ``given`` is the known answer ``gold``, or why not.

    ``unparsed_answer`` means that ``given`` is not even of the kind of ``gold``: no number, or no time of
    day.

    Args:
        given: The answer of a model.
        gold: The known answer. One that is neither a number nor a time of day is compared as text, blind to
            case and white space.
        tolerance: For answers that are not both whole numbers.
    """
    wanted = parse_number(gold)
    if wanted is None:
        time = read_time(gold)
        if time is not None:
            return _compare_times(read_time(given), time)
        text = folded(given)
        return "right" if text and text == folded(gold) else "wrong_answer"
    number = parse_number(given)
    if number is None:
        return "unparsed_answer"
    return _compare_numbers(number, wanted, tolerance or Tolerance())


def canonical(text: str) -> str:
    """The text under which answers vote: ``7``, ``7.0``, ``seven`` and ``$7.`` all give ``7``.

    Whole numbers are exact; others are rounded to ten significant digits, so that the noise of floats
    splits no vote. A time of day is written on the 24-hour clock. Other text is folded as `compare` does it.
    """
    number = parse_number(text)
    if number is not None:
        return write_number(number.value)
    time = read_time(text)
    return folded(text) if time is None else write_time(time)


def _compare_times(given: int | None, gold: int) -> Verdict:
    if given is None:
        return "unparsed_answer"
    if given == gold:
        return "right"
    return "half_day_mismatch" if abs(given - gold) == HALF_DAY else "wrong_time"


def _compare_numbers(number: Number, wanted: Number, tolerance: Tolerance) -> Verdict:
    written_step = Fraction(1, 10**wanted.places) if wanted.places >= 2 else Fraction(0)
    step = written_step / 100 if wanted.percent else written_step
    factor = conversion(number.unit, wanted.unit)
    value = number.value if factor is None else number.value * factor
    if factor is not None and _close(value, wanted.value, step, tolerance):
        return "right"
    if factor != 1 and _close(number.value, wanted.value, step, tolerance):
        return "unit_mismatch"
    if number.percent != wanted.percent and _close(number.written, wanted.written, written_step, tolerance):
        return "percent_mismatch"
    if _close(-value, wanted.value, step, tolerance):
        return "wrong_sign"
    return "wrong_answer"


def _close(given: Fraction, gold: Fraction, step: Fraction, tolerance: Tolerance) -> bool:
    if given.denominator == gold.denominator == 1:
        return given == gold
    allowed = max(
        Fraction(tolerance.absolute),
        Fraction(tolerance.relative) * abs(gold),
        Fraction(tolerance.last_places) * step,
    )
    return abs(given - gold) <= allowed
