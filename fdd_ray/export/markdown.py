"""Markdown from words that others wrote: a problem, a model's name or a reason can never become markup.

>>> code("a|b\\n# Title")
'`a|b # Title`'
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MOST = 200


def code(text: str, most: int = _MOST) -> str:
    """``text`` as inline code on one line, shortened to ``most`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) > most:
        line = line[: most - 3] + "..."
    if not line:
        return "(empty)"
    fence = "`" * (_longest_run(line) + 1)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def block(text: str, language: str = "") -> str:
    """``text`` as a fenced block that nothing in it can end."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are markup already, only what would end a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
