from __future__ import annotations

import dataclasses

import pytest

from fdd_ray.agreement import AgreementSettings, judge
from fdd_ray.records import Completion, Variation


def _variation(number: int, answers: tuple[str | None, ...] = ("7", "7", "7")) -> Variation:
    solutions = tuple(
        Completion(f"text {i}", answer, "answered" if answer else "no_answer", "stop", 1)
        for i, answer in enumerate(answers)
    )
    rationales = tuple(f"answer = {answer}  # {i}" if answer else "" for i, answer in enumerate(answers))
    return Variation(
        f"r-{number:03d}", "p-parent", "complex", 1, "kept", "", f"Totally different story number {number}?",
        "program", solutions, rationales, 1, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "settings", "reason", "answer"),
    [
        (("7", "7", "7"), {}, "", "7"),
        (("7", "7.0", "8"), {}, "", "7"),
        (("7", "8", "9"), {}, "no_agreement", ""),
        (("7", "7", "8"), {"agreement": 0.7}, "low_agreement", "7"),
        ((None, None, "7"), {}, "low_agreement", "7"),
        ((None, None, None), {}, "unsolved: no_answer", ""),
        (("-7", "-7", "-7"), {"answers": "positive_integer"}, "answer_not_allowed", "-7"),
        (("-7", "-7", "-7"), {"answers": "integer"}, "", "-7"),
        (("3.5", "3.5", "3.5"), {"answers": "integer"}, "answer_not_allowed", "3.5"),
        (("3.5", "3.5", "3.5"), {}, "", "3.5"),
    ],
)
def test_agreement(answers: tuple[str | None, ...], settings: dict[str, object], reason: str, answer: str) -> None:
    verdict = judge(_variation(1, answers=answers), AgreementSettings(**settings))  # type: ignore[arg-type]
    assert (verdict.reason, verdict.answer) == (reason, answer)
    assert bool(verdict.rationales) == (not reason)


def test_only_rationales_of_the_agreed_answer_are_kept() -> None:
    verdict = judge(_variation(1, answers=("8", "7", "7")), AgreementSettings(keep=5))
    assert verdict.rationales == ("answer = 7  # 1", "answer = 7  # 2")
    assert (verdict.votes, verdict.distinct) == (2, 2)
    assert verdict.agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (("7", "7.0"), ""),
        (("8", "8"), "kinds_disagree"),
        (("7", "8"), "second_kind_unsure"),
        (("7", None, None), "second_kind_unsure"),
        ((None, None), "second_kind_unsure"),
        ((), ""),
    ],
)
def test_both_kinds_must_agree(second: tuple[str | None, ...], reason: str) -> None:
    solutions = tuple(Completion("text", answer, "answered" if answer else "no_answer", "stop", 1) for answer in second)
    variation = dataclasses.replace(_variation(1), second=solutions)
    verdict = judge(variation, AgreementSettings())
    assert (verdict.reason, verdict.answer) == (reason, "7")
    assert bool(verdict.rationales) == (not reason)


def test_the_choice_of_rationales_is_deterministic_and_of_distinct_ones() -> None:
    variation = dataclasses.replace(
        _variation(1, ("7",) * 5),
        rationales=("answer = 7", "ANSWER  =  7", "a = 3\nanswer = a + 4", "answer = 7", "answer = 14 / 2"),
    )
    verdict = judge(variation, AgreementSettings(keep=2))
    assert verdict.rationales == ("answer = 7", "a = 3\nanswer = a + 4")
    assert (verdict.distinct, verdict.votes, verdict.agreement) == (3, 5, 1.0)


def test_more_rationales_of_a_known_problem_need_no_vote() -> None:
    solutions = tuple(
        Completion(text, "7", verdict, "stop", 1)
        for text, verdict in [("a", "right"), ("b", "wrong_answer"), ("c", "right")]
    )
    row = dataclasses.replace(_variation(1), origin="seed", solutions=solutions, rationales=("a", "", "c"))
    assert judge(row, AgreementSettings()).rationales == ("a",)
    assert judge(row, AgreementSettings(keep=5, agreement=1.0)).rationales == ("a", "c")
    # Right, but all of them known before:
    assert judge(dataclasses.replace(row, rationales=("", "", "")), AgreementSettings()).reason == "repeats_rationale"
    wrong = tuple(dataclasses.replace(solution, verdict="wrong_answer") for solution in solutions)
    assert judge(dataclasses.replace(row, solutions=wrong), AgreementSettings()).reason == "unsolved: wrong_answer"


def test_rationales_of_the_other_kind_are_kept_where_they_agree() -> None:
    second = tuple(Completion("chain", answer, "answered", "stop", 1) for answer in ("7", "8", "7.0"))
    row = dataclasses.replace(_variation(1), second=second, second_rationales=("#### 7", "#### 8", "it is\n#### 7"))
    assert judge(row, AgreementSettings(keep=5)).second == ("#### 7", "it is\n#### 7")
    assert judge(row, AgreementSettings(agreement=0.7, keep=5)).second == ()
