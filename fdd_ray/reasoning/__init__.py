"""Checks rationales: programs are run in a sandbox, chains are read, answers are compared exactly.

``rationales`` is the face for both kinds; ``programs`` runs programs, ``answers`` reads and compares, and
``second_opinion`` asks math-verify about LaTeX where that is switched on.
Importing this package loads nothing but the standard library and `fdd_ray.settings`.
"""

from __future__ import annotations

from fdd_ray.reasoning.answers import Number, Tolerance, canonical, compare, final_answer, parse_number
from fdd_ray.reasoning.extraction import extract_program
from fdd_ray.reasoning.programs import ProgramLimits, ProgramResult, ProgramRunner
from fdd_ray.reasoning.rationales import (
    ANSWERED,
    RIGHT,
    Agreement,
    Checked,
    agree,
    check_rationale,
    check_rationales,
    distinct_rationales,
)
from fdd_ray.reasoning.second_opinion import MathVerify

__all__ = [
    "ANSWERED",
    "RIGHT",
    "Agreement",
    "Checked",
    "MathVerify",
    "Number",
    "ProgramLimits",
    "ProgramResult",
    "ProgramRunner",
    "Tolerance",
    "agree",
    "canonical",
    "check_rationale",
    "check_rationales",
    "compare",
    "distinct_rationales",
    "extract_program",
    "final_answer",
    "parse_number",
]
