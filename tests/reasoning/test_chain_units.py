"""The last line of a distilled chain must itself be the known answer."""

from __future__ import annotations

import pytest

from fdd_ray.reasoning.answers import compare
from fdd_ray.reasoning.programs import ProgramRunner
from fdd_ray.reasoning.rationales import check_rationale


@pytest.mark.parametrize(
    ("answer", "gold", "last"),
    [
        ("30 minutes", "1/2 hour", "#### 30 minutes"),
        ("150 cents", "$1.50", "#### 150 cents"),
        ("2 hours", "2 hours", "#### 2"),
        ("2 hours", "2", "#### 2"),
        ("twenty-five", "25", "#### 25"),
        ("15:30", "3:30 PM", "#### 15:30"),
        ("50%", "0.5", "#### 50%"),
    ],
)
def test_the_last_line_is_right_by_itself(answer: str, gold: str, last: str) -> None:
    with ProgramRunner() as runner:
        checked = check_rationale("chain", f"so\n#### {answer}", gold, runner)
    assert checked.verdict == "right"
    assert checked.rationale == f"so\n{last}"
    assert compare(last.removeprefix("#### "), gold) == "right"
