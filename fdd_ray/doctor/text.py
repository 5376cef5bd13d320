"""Findings for people, and for programs.

storage
  ok       /runs/tiny can be written and read from here
  problem  /runs has 1.2 GiB free; ...
           next: make room there, or name another storage
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

from fdd_ray.doctor.findings import Finding, exit_code
from fdd_ray.nodes import printable

_WIDTH: Final = 118
_INDENT: Final = " " * 11


class Printer:
    """Prints findings as they come, under the names of their groups.

    Args:
        say: Prints a line.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self._say = say
        self._group = ""

    def tell(self, finding: Finding) -> None:
        """Print one."""
        if finding.group != self._group:
            self._group = finding.group
            self._say(self._group)
        self._say(_wrapped(f"  {finding.level.ljust(7)}  ", finding.found))
        if finding.next:
            self._say(_wrapped(f"{_INDENT}next: ", finding.next))


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each kind, in one line."""
    problems, notes, good = (sum(f.level == level for f in findings) for level in ("problem", "note", "ok"))
    if not problems:
        return f"no problem; {notes} to look at, {good} good"
    plural = "" if problems == 1 else "s"
    return f"{problems} problem{plural} with which a run would fail; {notes} to look at, {good} good"


def findings_json(findings: Sequence[Finding], experiment: str | None) -> dict[str, Any]:
    """What ``fdd-ray doctor --json`` prints.

    Returns:
        ``experiment``: the file, or null; ``exit_code``; ``findings``: in order, each with ``group``, ``level``
        (``ok``, ``note`` or ``problem``), ``found``, ``next`` (empty if there is nothing to do) and ``exit_code``
        (with which a run would end; 0 unless it is a problem).
    """
    return {
        "experiment": experiment,
        "exit_code": exit_code(findings),
        "findings": [
            {
                "group": finding.group,
                "level": finding.level,
                "found": finding.found,
                "next": finding.next,
                "exit_code": finding.exit_code,
            }
            for finding in findings
        ],
    }


def _wrapped(start: str, text: str) -> str:
    # What stands in a file or an endpoint's answer must not reach the terminal as a command to it.
    plain = printable(" ".join(text.split()))
    return textwrap.fill(
        plain,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
