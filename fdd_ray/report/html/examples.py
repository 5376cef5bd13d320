"""The examples of the page: problems beside what they were made from, what was written, and what was found.

Without script all of them are there, one below another; with it they can be filtered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fdd_ray.reasoning import ANSWERED, RIGHT
from fdd_ray.records import Attempt, Completion, Taught
from fdd_ray.report.html.markup import Child, Markup, folded, join, tag, text
from fdd_ray.report.html.samples import Made, Samples, pool_attempt

_LONG = 1200  # characters of a text that are shown
_COMPLETIONS = 4  # completions of one answer of a model that are shown


def examples(samples: Samples) -> list[Markup]:
    """All examples, each an article with what it can be filtered by."""
    return [
        *(_variation(item, samples) for item in samples.variations),
        *(_seed(row, samples) for row in samples.seeds),
        *(_problem(row, samples.attempts[row.id]) for row in samples.problems if row.id in samples.attempts),
    ]


def _variation(item: Made, samples: Samples) -> Markup:
    row, request, wrote = item.curated, item.request, item.variation
    parent = [_question("Parent", request.parent_question, request.parent_answer)] if request else []
    parent += _attempts("The student at the parent", samples.attempts.get(pool_attempt(row.parent_id), {}))
    if row.origin == "seed":
        mine = [tag("h4", "Asked for"), tag("p", "one more rationale for the parent itself")]
    else:
        mine = [_question("New problem", row.question, row.answer or None)]
        mine += _attempts("The student at it", samples.attempts.get(pool_attempt(row.problem_id), {}))
    judged = [
        f"votes for the answer: {row.votes}",
        f"agreement {100 * row.agreement:.0f} %",
        f"distinct rationales: {row.distinct}",
    ]
    lines = [tag("p", "; ".join(judged), class_="quiet")] if row.votes else []
    if row.evidence:
        near = f"too much like {row.evidence} (measure {row.similarity:.3g})" + (f": {row.span}" if row.span else "")
        lines.append(tag("p", text(near, 400)))
    lines += [_text_block(f"Rationale {number}", told) for number, told in enumerate(row.rationales, start=1)]
    lines += [_text_block(f"Rationale of the other kind {n}", told) for n, told in enumerate(row.second, start=1)]
    if wrote and (wrote.solutions or wrote.second):
        solutions = (*wrote.solutions, *wrote.second)
        lines.append(folded(f"The teacher's solutions ({len(solutions)})", *_completions(solutions)))
    return _article(
        f"round {row.round}: {row.origin}", row.origin, row.outcome, row.reason, row.id,
        tag("div", tag("div", *parent), tag("div", *mine), class_="pair"), *lines,
    )  # fmt: skip


def _seed(row: Taught, samples: Samples) -> Markup:
    lines = [_question("Seed problem", row.question, row.answer)]
    lines += _attempts("The student at it", samples.attempts.get(pool_attempt(row.id), {}))
    given = [_text_block(f"Rationale {number}", told) for number, told in enumerate((*row.rationales, *row.second), 1)]
    tried = (*row.completions, *row.second_completions)
    given += [folded(f"The teacher's tries ({len(tried)})", *_completions(tried))] if tried else []
    pair = tag("div", tag("div", *lines), tag("div", *given), class_="pair")
    return _article("seed problem", "seed problem", row.outcome, row.reason, row.id, pair)


def _problem(row: Attempt, attempts: Mapping[int | None, Attempt]) -> Markup:
    first = next(iter(attempts.values()))
    words = {(0, 1): "gained", (1, 0): "lost", (1, 1): "right before and after", (0, 0): "wrong before and after"}
    outcome = words[int(first.pass_rate == 1), int(row.pass_rate == 1)] if len(attempts) > 1 else "one student only"
    lines = [_question("Problem", row.question, row.gold), *_attempts("The student at it", attempts)]
    return _article(f"benchmark {row.subject}", f"benchmark {row.subject}", outcome, "", row.problem_id, *lines)


def _article(title: str, origin: str, outcome: str, reason: str, id: str, *children: Child) -> Markup:
    verdict = f"{outcome}: {reason}" if reason else outcome
    good = outcome in ("kept", "gained", "right before and after")
    head = tag("h3", text(title, 80), " ", _mark(text(verdict, 80), good))
    return tag(
        "article", head, *children, tag("p", text(id, 80), class_="quiet id"),
        class_="example", data_origin=text(origin, 80), data_outcome=text(outcome, 80),
        data_reason=text(reason, 80) or "none",
    )  # fmt: skip


def _question(title: str, question: str, answer: str | None) -> Markup:
    told = [tag("h4", title), tag("p", text(question, _LONG), class_="told", dir="auto")]
    if answer is not None:
        told.append(tag("p", "answer ", tag("bdi", tag("strong", text(answer, 100)))))
    return join(told)


def _attempts(title: str, attempts: Mapping[int | None, Attempt]) -> list[Markup]:
    """The attempts of each round, each folded under what became of it."""
    lines = []
    for number, attempt in attempts.items():
        who = "base" if number is None else f"after round {number}"
        tried = attempt.completions
        votes = "" if attempt.majority is None else f"majority {'right' if attempt.majority else 'wrong'}"
        if attempt.outcome != "kept" or not tried:
            said, good = f"{attempt.outcome}: {attempt.reason}", False
        elif len(tried) == 1:
            said, good = _verdict(tried[0]), attempt.pass_rate == 1
        else:
            said, good = f"{100 * attempt.pass_rate:.0f} % right", attempt.pass_rate > 0
        words = text("; ".join(word for word in (said, votes) if word), 200)
        lines.append(folded(join([who, " ", _mark(words, good)]), *_completions(tried, marked=len(tried) > 1)))
    return [tag("h4", title), *lines] if lines else []


def _completions(completions: Sequence[Completion], marked: bool = True) -> list[Markup]:
    """What a model wrote, each with its verdict; equal texts once."""
    groups = Counter((c.text, _verdict(c), c.verdict in (RIGHT, ANSWERED)) for c in completions)
    shown = []
    for (told, said, good), times in list(groups.items())[:_COMPLETIONS]:
        words = text(said, 300)
        if marked:
            shown.append(tag("p", _mark(words, good), f" {times} times" if times > 1 else ""))
        shown.append(tag("pre", text(told, _LONG), dir="auto"))
    if len(groups) > _COMPLETIONS:
        shown.append(tag("p", f"and {len(groups) - _COMPLETIONS} more", class_="quiet"))
    return shown


def _verdict(completion: Completion) -> str:
    words = [completion.verdict, completion.detail]
    words.insert(1, f"answer {completion.answer}" if completion.answer is not None else "")
    words.append("" if completion.finish == "stop" else f"ended by {completion.finish}")
    return "; ".join(word for word in words if word)


def _mark(words: Markup, good: bool) -> Markup:
    return tag("span", words, class_="mark good" if good else "mark")


def _text_block(title: str, told: str) -> Markup:
    return join([tag("h4", title), tag("pre", text(told, _LONG), dir="auto")])
