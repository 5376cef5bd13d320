r"""Takes away what surrounds an answer without being part of it: Markdown, LaTeX, quotes, the trailing period.

>>> cleaned(r"**\boxed{18\text{ dollars}}**.")
'18 dollars'
>>> folded("  Tuesday. ")
'tuesday'
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import Final

_VULGAR: Final = {sign: f" {Fraction(unicodedata.numeric(sign)).limit_denominator(10)}" for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}


def cleaned(text: str) -> str:
    """``text`` in one line without what surrounds it, and with fractions and signs in plain characters.

    An exponent on a unit becomes a word (``12 cm²`` gives ``12 cm squared``), for it is no part of the number.
    """
    text = re.sub(r"^####", "", text).strip().strip("*_`\"'").strip()
    if "\\" in text:
        text = _without_latex(text)
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text.strip("$")
    for sign, fraction in _VULGAR.items():
        if sign in text:
            text = text.replace(sign, fraction)
    text = text.replace("\u2044", "/").replace("{,}", ",")
    text = re.sub(r"(?<=[^\W\d_])(?:\^\{?[23]\}?|[²³])", " squared", text)
    text = re.sub(r"^\s*(?:minus|negative)\s+", "-", text, flags=re.IGNORECASE)
    return " ".join(text.split()).rstrip(". ").rstrip("*_`\"'")


def folded(text: str) -> str:
    """``text`` blind to case, white space and a trailing period: how answers that are no numbers are compared."""
    return " ".join(text.casefold().split()).rstrip(".").strip()


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` holds; None if there is none, it is empty, or it is not closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for place in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : place].strip() or None
    return None


def _without_latex(text: str) -> str:
    boxed = last_boxed(text)
    text = text if boxed is None else boxed
    text = text.replace("\\%", "%").replace("\\$", "$")
    text = re.sub(r"\\[,!;: ]|\\[()\[\]]|\\(?:left|right|displaystyle)\b", "", text)
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2", text)
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\^\{?\\circ\}?", "°", text)
    return text.replace("\\times", "*").replace("\\cdot", "*").replace("\\approx", "≈")
