"""One face for both kinds of rationale: check it, agree on an answer, pick distinct ones.

    >>> checked = check_rationale("chain", "3 + 4 = 7\\n#### 7 apples", "7", runner)
    >>> checked.verdict, checked.rationale
    ('right', '3 + 4 = 7\\n#### 7')

Verdicts: ``right`` (the answer is the known one); ``answered`` (there is a number, and no known answer to
compare it with); otherwise why not: ``no_program``, ``no_answer``, what `compare` found (``wrong_answer``,
``wrong_sign``, ``percent_mismatch``, ``unit_mismatch``, ``wrong_time``, ``half_day_mismatch``,
``unparsed_answer``), or what happened to the program (see `fdd_ray.reasoning.faults`); a program that needs
what the sandbox lacks is counted by feature, as ``unsupported: module:sympy``. That a completion was cut off is
known to the engine's caller, who says ``truncated`` without asking here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fdd_ray.reasoning.answers import (
    Tolerance,
    canonical,
    compare,
    final_answer,
    parse_number,
    without_answer_line,
)
from fdd_ray.reasoning.extraction import extract_program
from fdd_ray.reasoning.faults import counted_as
from fdd_ray.reasoning.programs import ProgramResult, ProgramRunner
from fdd_ray.reasoning.second_opinion import SecondOpinion, worth_asking
from fdd_ray.records import Kind

# The two good verdicts: against a known answer, and where there is none to compare with.
RIGHT: Final = "right"
ANSWERED: Final = "answered"


class Checked(NamedTuple):
    """What was found when a completion was checked.

    Attributes:
        answer: The answer that was read or computed, as text.
        verdict: See the module.
        rationale: What would be distilled: the program without fences, or the chain with its answer as a
            last line ``#### N``; empty when there is none.
        detail: For programs, what was seen, as one short printable line. A verdict that is not our own begins
            with ``second opinion:``.
    """

    answer: str | None
    verdict: str
    rationale: str
    detail: str = ""


class Agreement(NamedTuple):
    """What a majority of sampled solutions says.

    Attributes:
        answer: The answer with the most votes, in canonical form; None if nobody voted or two are first.
        votes: How many voted for it (or for each of those that are first).
        asked: How many solutions were asked for, with or without an answer.
        share: ``votes`` / ``asked``.
        runner_up: The votes of the next answer.
    """

    answer: str | None
    votes: int
    asked: int
    share: float
    runner_up: int


def check_rationale(
    kind: Kind,
    text: str,
    gold: str | None,
    runner: ProgramRunner,
    tolerance: Tolerance | None = None,
    second: SecondOpinion | None = None,
) -> Checked:
    """Check one completion.

    Args:
        kind: What was asked for.
        text: The completion, untouched.
        gold: The known answer; None for a new problem.
        runner: Runs programs; chains do not use it.
        tolerance: For answers that are not both whole numbers.
        second: Is asked about answers in LaTeX that `compare` cannot read.
    """
    return check_rationales(kind, [text], [gold], runner, tolerance, second)[0]


def check_rationales(
    kind: Kind,
    texts: Sequence[str],
    golds: Sequence[str | None],
    runner: ProgramRunner,
    tolerance: Tolerance | None = None,
    second: SecondOpinion | None = None,
) -> list[Checked]:
    """Check many completions of one kind, each against its own known answer.

    Raises:
        ValueError: If there are not as many known answers as texts.
    """
    if kind == "chain":
        return [_check_chain(text, gold, tolerance, second) for text, gold in zip(texts, golds, strict=True)]
    programs = [extract_program(text) for text in texts]
    results = iter(runner.run_many([program for program in programs if program is not None]))
    return [
        Checked(None, "no_program", "") if program is None else _judge(program, next(results), gold, tolerance, second)
        for program, gold in zip(programs, golds, strict=True)
    ]


def agree(answers: Sequence[str | None], asked: int) -> Agreement:
    """The answer that most solutions gave, by canonical value; a tie for the first place is no agreement.

    Args:
        answers: One for each solution, None where it has no answer; their order does not matter.
        asked: How many solutions were asked for; those that never arrived count against the share.

    Raises:
        ValueError: If there are more answers than were asked for, or none was asked for.
    """
    if asked < 1 or len(answers) > asked:
        raise ValueError(f"{len(answers)} answers to {asked} solutions asked for")
    ranked = Counter(canonical(answer) for answer in answers if answer is not None).most_common(2)
    if not ranked:
        return Agreement(None, 0, asked, 0.0, 0)
    answer, votes = ranked[0]
    runner_up = ranked[1][1] if len(ranked) > 1 else 0
    return Agreement(answer if votes > runner_up else None, votes, asked, votes / asked, runner_up)


def rationale_in(kind: Kind, text: str, gold: str | None = None) -> str:
    """What would be distilled of a completion that was checked before; empty if there is nothing."""
    return (extract_program(text) or "") if kind == "program" else _check_chain(text, gold, None, None).rationale


def distinct_rationales(texts: Iterable[str], most: int) -> tuple[str, ...]:
    """The first ``most`` rationales that differ in more than case and white space, in their order."""
    distinct: dict[str, str] = {}
    for text in texts:
        distinct.setdefault(" ".join(text.casefold().split()), text)
    return tuple(distinct.values())[:most]


def _check_chain(text: str, gold: str | None, tolerance: Tolerance | None, second: SecondOpinion | None) -> Checked:
    answer = final_answer(text)
    if answer is None:
        return Checked(None, "no_answer", "")
    verdict, detail = _verdict(answer, gold, tolerance, second)
    lines = [line.rstrip() for line in without_answer_line(text).strip().splitlines()]
    rationale = "\n".join([*lines, f"#### {_plain(answer, gold, tolerance)}"])
    return Checked(answer, verdict, rationale, detail)


def _plain(answer: str, gold: str | None, tolerance: Tolerance | None) -> str:
    """``answer`` as plain digits, unless the rationale would then teach another answer."""
    number = parse_number(answer)
    if number is None or number.percent:
        return answer
    plain = canonical(answer)
    # 30 minutes may be the known half an hour, but 30 is not.
    if number.unit and gold and compare(plain, gold, tolerance=tolerance) != compare(answer, gold, tolerance=tolerance):
        return answer
    return plain


def _judge(
    program: str,
    result: ProgramResult,
    gold: str | None,
    tolerance: Tolerance | None,
    second: SecondOpinion | None,
) -> Checked:
    if result.answer is None:
        return Checked(None, counted_as(result.verdict, result.detail), program, result.detail)
    verdict, detail = _verdict(result.answer, gold, tolerance, second)
    return Checked(result.answer, verdict, program, detail)


def _verdict(
    answer: str, gold: str | None, tolerance: Tolerance | None, second: SecondOpinion | None
) -> tuple[str, str]:
    """The verdict on an answer, and what a second opinion had to say if it was asked."""
    if gold is None:
        return ("unparsed_answer" if parse_number(answer) is None else ANSWERED), ""
    verdict = compare(answer, gold, tolerance=tolerance)
    unread = verdict == "unparsed_answer" or (verdict == "wrong_answer" and parse_number(gold) is None)
    if second is None or not unread or not worth_asking(answer, gold):
        return verdict, ""
    found = second.agrees(answer, gold)
    said = {True: "agrees", False: "disagrees", None: "gave none"}[found]
    return (RIGHT if found else verdict), f"second opinion: {second.name} {said}"
