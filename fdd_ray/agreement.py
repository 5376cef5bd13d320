"""Whether the sampled solutions of a new problem agree, on what, and which of them are worth distilling."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from fdd_ray.reasoning import ANSWERED, RIGHT, agree, canonical, distinct_rationales, parse_number
from fdd_ray.records import Completion, Variation
from fdd_ray.settings import setting


@dataclasses.dataclass(frozen=True)
class AgreementSettings:
    """What the solutions of a new problem must show."""

    agreement: float = setting(
        0.6, "Smallest share of the sampled solutions that must give the agreed answer.", gt=0, le=1
    )
    keep: int = setting(1, "Most distinct rationales kept for each accepted problem.", ge=1)
    answers: Literal["any", "integer", "positive_integer"] = setting(
        "any", "Which agreed answers are allowed; counting problems have whole and positive ones."
    )


class Judged(NamedTuple):
    """The verdict on one variation, before duplicates and quotas."""

    reason: str
    answer: str = ""
    votes: int = 0
    agreement: float = 0.0
    distinct: int = 0
    rationales: tuple[str, ...] = ()
    second: tuple[str, ...] = ()


def judge(variation: Variation, settings: AgreementSettings) -> Judged:
    """Whether the sampled solutions agree, on what, and which rationales are worth keeping."""
    if variation.outcome != "kept":
        return Judged(variation.reason)
    if variation.origin == "seed":
        return _right_ones(variation, settings)
    solutions = variation.solutions
    answers = [solution.answer if solution.verdict == ANSWERED else None for solution in solutions]
    if not any(answers):
        reasons = Counter(solution.verdict for solution in solutions)
        return Judged(f"unsolved: {reasons.most_common(1)[0][0]}")
    found = agree(answers, len(solutions))
    if found.answer is None:
        return Judged("no_agreement", votes=found.votes, agreement=found.share)
    texts = [
        text
        for text, answer in zip(variation.rationales, answers, strict=True)
        if answer is not None and canonical(answer) == found.answer
    ]
    reason = "" if found.share >= settings.agreement else "low_agreement"
    if not reason and variation.second:
        reason = _second_opinion(variation, found.answer, settings)
    if not reason and not _allowed(found.answer, settings):
        reason = "answer_not_allowed"
    kept = () if reason else distinct_rationales(texts, settings.keep)
    distinct = len(distinct_rationales(texts, len(texts)))
    second = () if reason else _agreeing(variation.second, variation.second_rationales, found.answer)
    return Judged(
        reason, found.answer, found.votes, found.share, distinct, kept, distinct_rationales(second, settings.keep)
    )


def _right_ones(variation: Variation, settings: AgreementSettings) -> Judged:
    """Further rationales of a problem whose answer is known: no vote, each is right or not."""
    right = [solution for solution in variation.solutions if solution.verdict == RIGHT]
    answer = right[0].answer if right else None
    texts = [text for text in variation.rationales if text]
    if not right or answer is None:
        verdicts = Counter(solution.verdict for solution in variation.solutions)
        return Judged(f"unsolved: {verdicts.most_common(1)[0][0]}")
    kept = distinct_rationales(texts, settings.keep)
    share = len(right) / len(variation.solutions)
    if not kept:
        return Judged("repeats_rationale", answer, len(right), share)
    return Judged("", answer, len(right), share, len(distinct_rationales(texts, len(texts))), kept)


def _agreeing(solutions: Sequence[Completion], rationales: Sequence[str], answer: str) -> list[str]:
    """The rationales of the other kind that reach the agreed answer."""
    return [
        text
        for solution, text in zip(solutions, rationales, strict=False)
        if solution.verdict == ANSWERED and solution.answer is not None and canonical(solution.answer) == answer
    ]


def _second_opinion(variation: Variation, answer: str, settings: AgreementSettings) -> str:
    """Why the solutions of the other kind do not bear ``answer`` out; empty if they do."""
    answers = [solution.answer if solution.verdict == ANSWERED else None for solution in variation.second]
    found = agree(answers, len(answers))
    if found.answer is None or found.share < settings.agreement:
        return "second_kind_unsure"
    return "" if found.answer == answer else "kinds_disagree"


def _allowed(answer: str, settings: AgreementSettings) -> bool:
    number = parse_number(answer)
    if settings.answers == "any" or number is None:
        return settings.answers == "any"
    return number.value.denominator == 1 and (settings.answers == "integer" or number.value > 0)
