"""Reads times of day, which are answers of their own kind: not numbers, and not mere text.

    >>> read_time("3:30 p.m."), read_time("15:30")
    (55800, 55800)
    >>> write_time(55800), read_time("noon"), read_time("2:1")
    ('15:30', 43200, None)

A time without am or pm is read on the 24-hour clock, so ``7:30`` is ``7:30 AM``. A ratio with two digits
after the colon cannot be told from a time, and compares as one, which gives the same verdict.
"""

from __future__ import annotations

import re
from typing import Final

from fdd_ray.reasoning.markup import cleaned

HALF_DAY: Final = 12 * 60 * 60
_LONGEST: Final = 60
_NAMED: Final = {"noon": HALF_DAY, "midday": HALF_DAY, "midnight": 0}
_CLOCK: Final = re.compile(
    r"""
    (?P<hour>[0-9]{1,2})
    (?:(?P<mark>[:.])(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?)?
    (?P<exactly>[ ]?o['\u2019]?clock)?
    (?:[ ]?(?P<half>[ap])\.?[ ]?m\.? | [ ]in[ ]the[ ](?P<part>morning|afternoon|evening))?
    """,
    re.VERBOSE,
)


def read_time(text: str) -> int | None:
    """Seconds since midnight, or None if ``text`` is not a time of day.

    Read are ``3:30``, ``15:30:05``, ``3 PM``, ``3.30 p.m.``, ``3 o'clock``, ``3:30 in the afternoon``,
    ``noon``, ``midnight`` and ``12 noon``. Minutes after a period need am or pm: ``3.30`` is a number.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    text = cleaned(text).casefold().removeprefix("at ")
    name = re.sub(r"^12(?::00)? ", "", text)
    if name in _NAMED:
        return _NAMED[name]
    found = _CLOCK.fullmatch(text)
    if found is None:
        return None
    half = found["half"] or {"morning": "a", "afternoon": "p", "evening": "p"}.get(found["part"] or "")
    hour = int(found["hour"])
    if found["exactly"] and found["minute"]:
        return None
    if half is None and not found["exactly"] and found["mark"] != ":":
        return None
    if half or found["exactly"]:
        # Nobody agrees on what 12 in the morning or in the evening is.
        if not 1 <= hour <= 12 or (hour == 12 and found["part"] in ("morning", "evening")):
            return None
        if half:
            hour = hour % 12 + (12 if half == "p" else 0)
    return None if hour > 23 else (hour * 60 + int(found["minute"] or 0)) * 60 + int(found["second"] or 0)


def write_time(seconds: int) -> str:
    """Seconds since midnight on the 24-hour clock: ``7:30``, ``15:30``, ``15:30:05``."""
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}" + (f":{second:02d}" if second else "")
