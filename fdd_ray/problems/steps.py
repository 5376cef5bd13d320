"""How many steps of arithmetic a problem takes, where that is known.

    >>> known_steps(Problem.new("...", "7", solution="3 + 1 = 4\\n4 + 3 = 7\\n#### 7"))
    2

Known it is from the worked solution that came with the problem, and in the tiny world from the question
itself, whose grammar says what each sentence computes. What a model wrote is never counted here.
"""

from __future__ import annotations

from typing import Final

from fdd_ray.problems.gsm8k import calculator_annotations
from fdd_ray.records import Problem

_MARK: Final = "####"
_TINY: Final = "tiny/"


def known_steps(problem: Problem) -> int | None:
    """Steps of a problem, or None where nothing tells.

    Counted are the calculator annotations (``<<3+1=4>>``) of its worked solution; where these were taken out, its
    lines up to the ``####`` line, for GSM8K has one step to a line. A solution without either, such as one
    paragraph of text, tells nothing.
    """
    if problem.solution is not None:
        return _steps_of(problem.solution)
    if problem.source.startswith(_TINY):
        from fdd_ray.tiny.parse import parse_story

        story = parse_story(problem.question)
        return None if story is None else story.steps
    return None


def _steps_of(solution: str) -> int | None:
    annotations = [text for text in calculator_annotations(solution) if text.strip()]
    if annotations:
        return len(annotations)
    worked = solution.rpartition(_MARK)[0]
    return sum(bool(line.strip()) for line in worked.splitlines()) or None
