"""One face for both kinds; agreement; distinct rationales."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from fdd_ray.reasoning.programs import ProgramLimits, ProgramRunner
from fdd_ray.reasoning.rationales import (
    Agreement,
    Checked,
    agree,
    check_rationale,
    check_rationales,
    distinct_rationales,
)


@pytest.fixture(scope="module")
def runner() -> Iterator[ProgramRunner]:
    with ProgramRunner(ProgramLimits(seconds=0.5)) as runner:
        yield runner


@pytest.mark.parametrize(
    ("text", "gold", "checked"),
    [
        ("```python\nanswer = 3 + 4\n```", "7", Checked("7", "right", "answer = 3 + 4")),
        ("```python\nanswer = 3 + 4\n```", "8", Checked("7", "wrong_answer", "answer = 3 + 4")),
        ("```python\nanswer = 3 - 10\n```", "7", Checked("-7", "wrong_sign", "answer = 3 - 10")),
        ("```python\nanswer = 50\n```", "50%", Checked("50", "percent_mismatch", "answer = 50")),
        ("```python\nanswer = 7\n```", None, Checked("7", "answered", "answer = 7")),
        ("```python\nx = 7\n```", None, Checked(None, "no_answer", "x = 7", "neither")),
        (
            "```python\nimport sympy\n```",
            "7",
            Checked(None, "unsupported: module:sympy", "import sympy", "module:sympy"),
        ),
        ("I do not know", "7", Checked(None, "no_program", "")),
    ],
)
def test_programs(runner: ProgramRunner, text: str, gold: str | None, checked: Checked) -> None:
    found = check_rationale("program", text, gold, runner)
    assert found[:3] == checked[:3]
    assert found.detail.startswith(checked.detail)


@pytest.mark.parametrize(
    ("text", "gold", "checked"),
    [
        ("3 + 4 = 7\n#### 7", "7", Checked("7", "right", "3 + 4 = 7\n#### 7")),
        (" 3 + 4 = 7  \r\n####  $7.00 \nBye", "7", Checked("$7.00", "right", "3 + 4 = 7\n#### 7")),
        ("So \\boxed{1,234}.", "1234", Checked("1,234", "right", "So \\boxed{1,234}.\n#### 1234")),
        (
            "The answer is 7 apples.",
            "7",
            Checked("7 apples.", "right", "The answer is 7 apples.\n#### 7"),
        ),
        ("half\n#### 50%", "0.5", Checked("50%", "right", "half\n#### 50%")),
        ("half\n#### 50%", "50", Checked("50%", "percent_mismatch", "half\n#### 50%")),
        ("a\n#### 8", "7", Checked("8", "wrong_answer", "a\n#### 8")),
        ("a\n#### many", "7", Checked("many", "unparsed_answer", "a\n#### many")),
        ("a\n#### Monday", "monday", Checked("Monday", "right", "a\n#### Monday")),
        ("a\n#### many", None, Checked("many", "unparsed_answer", "a\n#### many")),
        ("a\n#### 7", None, Checked("7", "answered", "a\n#### 7")),
        ("there are 7", "7", Checked(None, "no_answer", "")),
    ],
)
def test_chains(runner: ProgramRunner, text: str, gold: str | None, checked: Checked) -> None:
    assert check_rationale("chain", text, gold, runner) == checked


def test_a_normalised_chain_is_normal(runner: ProgramRunner) -> None:
    once = check_rationale("chain", "so\n\\boxed{$7}", "7", runner)
    assert check_rationale("chain", once.rationale, "7", runner).rationale == once.rationale


def test_a_batch_keeps_its_order_when_some_hold_no_program(runner: ProgramRunner) -> None:
    texts = ["```\nanswer = 1\n```", "no", "```\nanswer = 1\n```", "```\nanswer = 2\n```"]
    found = check_rationales("program", texts, ["1", "1", "2", None], runner)
    assert [checked.verdict for checked in found] == ["right", "no_program", "wrong_answer", "answered"]
    with pytest.raises(ValueError):
        check_rationales("program", texts, ["1"], runner)
    with pytest.raises(ValueError):
        check_rationales("chain", texts, ["1"], runner)


@pytest.mark.parametrize(
    ("answers", "asked", "agreement"),
    [
        (["7", "7.0", "$7", "8"], 4, Agreement("7", 3, 4, 0.75, 1)),
        (["7", "8"], 2, Agreement(None, 1, 2, 0.5, 1)),
        (["7", "7", "8", "8", "9"], 5, Agreement(None, 2, 5, 0.4, 2)),
        (["7", None, None], 4, Agreement("7", 1, 4, 0.25, 0)),
        ([None, None], 2, Agreement(None, 0, 2, 0.0, 0)),
        ([], 3, Agreement(None, 0, 3, 0.0, 0)),
        (["50%", "0.5", "50"], 3, Agreement("0.5", 2, 3, 2 / 3, 1)),
        (["0.30000000000000004", "0.3"], 2, Agreement("0.3", 2, 2, 1.0, 0)),
    ],
)
def test_agree_in_any_order(answers: list[str | None], asked: int, agreement: Agreement) -> None:
    for order in itertools.permutations(answers):
        assert agree(order, asked) == agreement


@pytest.mark.parametrize(("answers", "asked"), [(["7"], 0), (["7", "7"], 1), ([], 0)])
def test_more_answers_than_asked_for_is_an_error(answers: list[str], asked: int) -> None:
    with pytest.raises(ValueError, match="asked for"):
        agree(answers, asked)


def test_distinct_rationales_keep_the_first_of_each_and_their_order() -> None:
    texts = ["b = 1", "B  = 1", "a = 1", "b\n= 1", "c = 1"]
    assert distinct_rationales(texts, 2) == ("b = 1", "a = 1")
    assert distinct_rationales(texts, 9) == ("b = 1", "a = 1", "c = 1")
    assert distinct_rationales([], 3) == ()
