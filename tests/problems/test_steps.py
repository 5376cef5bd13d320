from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest

from fdd_ray.problems.gsm8k import calculator_annotations, read_gsm8k
from fdd_ray.problems.source import SourceSettings
from fdd_ray.problems.steps import known_steps
from fdd_ray.problems.tiny import read_tiny
from fdd_ray.records import Problem
from fdd_ray.tiny import make_problems


@pytest.mark.parametrize(
    ("solution", "steps"),
    [
        ("3 + 1 = <<3+1=4>>4, and 4 + 3 = <<4+3=7>>7\n#### 7", 2),
        ("3 + 1 = 4\n\n4 + 3 = 7\n#### 7", 2),
        ("<<>>3 + 1 = 4\n4 - 2 = 2\n#### 2", 2),
        ("He has three and one, which is four.", None),
        ("#### 7", None),
        ("", None),
        (None, None),
    ],
)
def test_steps_of_a_worked_solution(solution: str | None, steps: int | None) -> None:
    assert known_steps(Problem.new("Q?", "7", source="own.jsonl:1", solution=solution)) == steps


def test_steps_of_the_tiny_world_are_those_of_its_programs() -> None:
    source = SourceSettings("tiny", split="test_ood", size=60, seed=5)
    drawn = make_problems("test_ood", 60, 5)
    assert [known_steps(problem) for problem in read_tiny(source)] == [problem.steps for problem in drawn]
    assert {problem.steps for problem in drawn} == {1, 2, 3, 4, 5}


def test_what_a_model_wrote_is_not_counted() -> None:
    question = make_problems("pool", 1, 0)[0].question
    assert known_steps(Problem.new(question, "1", origin="complex", source="round 1")) is None


def test_lines_are_near_the_annotations_on_gsm8k(gsm8k: Path) -> None:
    """The loader takes the annotations out; in most solutions there is one to a line."""
    data = (gsm8k / "gsm8k_test.jsonl").read_bytes()
    written = [len(calculator_annotations(json.loads(line)["answer"])) for line in data.splitlines()]
    problems = [row for row in read_gsm8k(io.BytesIO(data), "t") if isinstance(row, Problem)]
    assert len(problems) == len(written)
    counted = [known_steps(problem) for problem in problems]
    differences = Counter((steps or 0) - known for steps, known in zip(counted, written, strict=True))
    assert None not in counted
    assert sum(differences[d] for d in (-1, 0, 1)) > 0.9 * len(written)
