"""Hostile programs by the property they attack: for each its name, its source and the verdicts it may get.

In the sources ``@SECRET_FILE@``, ``@FOLDER@``, ``@MARKER@``, ``@VARIABLE@`` and ``@PORT@`` stand for what the test
lays out: a file with a secret, its folder, a file that must not come into being, a variable with a secret, and a
port on which somebody listens.
"""

from __future__ import annotations

from tests.reasoning.hostile import crashing, endless, escaping, large, outside
from tests.reasoning.hostile.case import Case, cases_of

CASES: tuple[Case, ...] = (
    *cases_of("files", outside.FILES),
    *cases_of("environment", outside.ENVIRONMENT),
    *cases_of("network", outside.NETWORK),
    *cases_of("processes", outside.PROCESSES),
    *cases_of("imports", outside.IMPORTS),
    *cases_of("dunders", escaping.DUNDERS),
    *cases_of("formats", escaping.FORMATS),
    *cases_of("wrapper", escaping.WRAPPER),
    *cases_of("loops", endless.LOOPS),
    *cases_of("native loops", endless.NATIVE_LOOPS),
    *cases_of("overrun", endless.OVERRUN),
    *cases_of("recursion", endless.RECURSION),
    *cases_of("memory", large.MEMORY),
    *cases_of("integers", large.INTEGERS),
    *cases_of("output", large.OUTPUT),
    *cases_of("exceptions", crashing.EXCEPTIONS),
    *cases_of("crashes", crashing.CRASHES),
    *cases_of("next program", crashing.NEXT_PROGRAM),
)

__all__ = ["CASES", "Case"]
