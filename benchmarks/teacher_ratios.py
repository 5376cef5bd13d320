"""What sides did in turns, as rows of a table: their own figures, and the ratio of fdd_ray's to theirs.

No side is run here, so that this can be tested in no time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OURS = "fdd_ray"
STEADY, RATIONALES, SYNTHESISE = "steady", "rationales", "synthesise"
SAME_WORK = 0.02
"""By how large a share the completion tokens of two sides may differ for their work to pass as the same."""

# Part -> what fdd_ray's figure, divided by that of the other side, is to be.
GOALS = {STEADY: (">=", 0.97), RATIONALES: ("<", 1.0), SYNTHESISE: ("<=", 0.6)}


@dataclasses.dataclass(frozen=True)
class Pass:
    """What one side did in one turn.

    Attributes:
        side: Who.
        turn: The turn; sides are compared turn by turn.
        seconds: What is compared: of the steady state, or of the whole stage.
        rows: Rows worked on.
        prompt_tokens: Tokens of all prompts; a prompt that is solved several times counts once.
        completion_tokens: Tokens of all completions.
        kept: Rows that passed the checks; None where the side checks nothing.
        start_s: Seconds until its first request (steady; not part of ``seconds``) or its first answer (else; a part).
        engines_s: Seconds until all engines served; None where the side does not show it.
        answers: A digest of each completion, by row.
    """

    side: str
    turn: int
    seconds: float
    rows: int
    prompt_tokens: int
    completion_tokens: int
    kept: int | None = None
    start_s: float | None = None
    engines_s: float | None = None
    answers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def tokens_per_s(self) -> float:
        """Completion tokens per second."""
        return self.completion_tokens / self.seconds


def digest(text: str) -> str:
    """A short stand-in for a completion, to tell whether two are the same."""
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def ratios(part: str, ours: Sequence[Pass], theirs: Sequence[Pass]) -> list[float]:
    """fdd_ray's tokens per second (steady state) or seconds (whole stage) by the other's, for each turn both did."""
    other = {done.turn: done for done in theirs}
    pairs = [(done, other[done.turn]) for done in ours if done.turn in other]
    if part == STEADY:
        return [mine.tokens_per_s / its.tokens_per_s for mine, its in pairs]
    return [mine.seconds / its.seconds for mine, its in pairs]


def is_met(part: str, ratio: float) -> bool:
    """Whether a ratio is what it is to be."""
    how, goal = GOALS[part]
    return {">=": ratio >= goal, "<": ratio < goal, "<=": ratio <= goal}[how]


def difference(ours: Sequence[Pass], theirs: Sequence[Pass]) -> float:
    """By how large a share of fdd_ray's completion tokens the other's differ, in the turn where they differ most."""
    other = {done.turn: done.completion_tokens for done in theirs}
    shares = [(other[d.turn] - d.completion_tokens) / d.completion_tokens for d in ours if d.turn in other]
    return max(shares, key=abs, default=0.0)


def same_answers(ours: Sequence[Pass], theirs: Sequence[Pass]) -> float:
    """The share of all completions that are the same text on both sides, of those that either side has."""
    other = {done.turn: done.answers for done in theirs}
    same = every = 0
    for done in ours:
        if done.turn in other:
            keys = done.answers.keys() | other[done.turn].keys()
            every += len(keys)
            same += sum(done.answers.get(key) == other[done.turn].get(key) for key in keys)
    return same / every if every else 0.0


def rows_of(part: str, passes: Sequence[Pass], failures: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each side, fdd_ray's first.

    Args:
        part: What was measured.
        passes: What the sides did, in any order.
        failures: Why a side did not run, by side.
    """
    ours = [done for done in passes if done.side == OURS]
    sides = dict.fromkeys([OURS, *(done.side for done in passes), *failures])
    return [_row(part, side, ours, [p for p in passes if p.side == side], failures.get(side, "")) for side in sides]


def _row(part: str, side: str, ours: Sequence[Pass], its: Sequence[Pass], failure: str) -> dict[str, Any]:
    row: dict[str, Any] = {"part": part, "side": side, "turns": len(its)}
    for name in ("seconds", "low", "high", "start s", "engines s", "rows/s", "tokens/s"):
        row[name] = ""
    row |= {"completion tokens": "", "prompt tokens": "", "kept": ""}
    row |= {"ratio": "", "ratio low": "", "ratio high": "", "goal": "", "met": ""}
    row |= {"tokens differ %": "", "same answers %": "", "same work": "", "note": failure}
    if not its:
        return row
    seconds = [done.seconds for done in its]
    row |= {"seconds": statistics.median(seconds), "low": min(seconds), "high": max(seconds)}
    row |= {"start s": _median([p.start_s for p in its]), "engines s": _median([p.engines_s for p in its])}
    row |= {
        "rows/s": statistics.median(done.rows / done.seconds for done in its),
        "tokens/s": statistics.median(done.tokens_per_s for done in its),
    }
    row |= {
        "completion tokens": round(statistics.median(done.completion_tokens for done in its)),
        "prompt tokens": round(statistics.median(done.prompt_tokens for done in its)),
        "kept": _median([done.kept for done in its]),
    }
    found = ratios(part, ours, its) if side != OURS else []
    if found:
        how, goal = GOALS[part]
        ratio, differs = statistics.median(found), difference(ours, its)
        row |= {"ratio": ratio, "ratio low": min(found), "ratio high": max(found)}
        row |= {"goal": f"{how} {goal:g}", "met": "yes" if is_met(part, ratio) else "no"}
        row |= {"tokens differ %": 100 * differs, "same answers %": 100 * same_answers(ours, its)}
        row["same work"] = "yes" if abs(differs) <= SAME_WORK else "no"
    return row


def _median(values: Sequence[float | None]) -> float | str:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else ""
