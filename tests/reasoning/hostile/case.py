"""One hostile program and what may come of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Case(NamedTuple):
    """A hostile program.

    Attributes:
        family: The property that it attacks.
        name: What it tries.
        source: The program.
        verdicts: The verdicts that are no harm.
    """

    family: str
    name: str
    source: str
    verdicts: frozenset[str]


def cases_of(family: str, programs: Mapping[str, tuple[str, str]]) -> Iterator[Case]:
    """The cases of one family; verdicts are given as words in one string."""
    for name, (source, verdicts) in programs.items():
        yield Case(family, name, source, frozenset(verdicts.split()))
