from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fdd_ray.checking import Asking, CheckSettings
from fdd_ray.curation.contamination import ContaminationSettings
from fdd_ray.engines.base import Sample, Sampling
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Origin, Problem, Request, problem_id, to_table
from fdd_ray.stages.synthesise import SynthesiseRow, SynthesiseSettings
from fdd_ray.store import files
from tests.scripted import ScriptedAsker

PARENT = "Ann has 3 apples in her bag. How many apples does she have?"
REQUEST = Request("r-1", "p-1", PARENT, "3", "complex", 1, 1)
WRITTEN = "Ann has 3 apples in her bag and buys 4 more. How many apples does she have?"


def _row(asker: ScriptedAsker, prompts: str = "tiny", **settings: Any) -> SynthesiseRow:
    asking = Asking(asker, load_prompts(prompts), CheckSettings(), "program", seed=1)
    row = SynthesiseRow(asking, SynthesiseSettings(**settings))
    row.open()
    return row


def _guarded(tmp_path: Path, asker: ScriptedAsker, question: str, **contamination: Any) -> SynthesiseRow:
    path = str(tmp_path / "benchmark.parquet")
    files.write_table(path, to_table([Problem.new(question, "7")], Problem))
    asking = Asking(asker, load_prompts("default"), CheckSettings(), "program", seed=1)
    row = SynthesiseRow(asking, SynthesiseSettings(), {"bench": path}, ContaminationSettings(**contamination))
    row.open()
    return row


def _script(prompt: str, sampling: Sampling) -> list[str]:
    if prompt.startswith("Write"):
        return [WRITTEN]
    return ["answer = 3 + 4", "answer = 7", "answer = 8"]


async def test_two_turns_write_a_problem_and_solve_it() -> None:
    asker = ScriptedAsker(_script)
    variation = await _row(asker)(REQUEST)
    assert (variation.outcome, variation.question, variation.origin) == ("kept", WRITTEN, "complex")
    assert [solution.answer for solution in variation.solutions] == ["7", "7", "8"]
    assert variation.rationales == ("answer = 3 + 4", "answer = 7", "answer = 8")
    first, second = asker.asked
    assert first[0].startswith("Write a more complex variation") and REQUEST.parent_question in first[0]
    assert WRITTEN in second[0] and second[1].n == 3
    assert variation.completion_tokens == len(WRITTEN.split()) + 5 + 3 + 3
    assert variation.prompt_tokens == len(first[0].split()) + len(second[0].split())


async def test_nothing_is_solved_that_is_no_new_problem() -> None:
    for text, reason in [
        ("  ", "no_problem"),
        (REQUEST.parent_question.upper(), "copy_of_parent"),
        (Sample("Ann has", "length", 90), "problem_truncated"),
        ("Bob has 5 pens. He gives away 2.", "no_question"),
        ("Bob has 5 pens. He gives away 2. How many pens are left? Answer: 3", "answer_leaked"),
        ("Ann has 5 apples in her bag. How many apples does she have?", "same_content"),
    ]:
        request = Request("r-1", problem_id(REQUEST.parent_question),
                          REQUEST.parent_question, "3", "similar", 1, 1)  # fmt: skip
        asker = ScriptedAsker(lambda prompt, sampling, text=text: [text])  # type: ignore[misc]
        variation = await _row(asker)(request)
        assert (variation.outcome, variation.reason, len(asker.asked)) == ("rejected", reason, 1)


async def test_the_two_turns_have_seeds_of_their_own() -> None:
    asker = ScriptedAsker(_script)
    await _row(asker)(REQUEST)
    assert asker.asked[0][1].seed != asker.asked[1][1].seed


@pytest.mark.parametrize(
    ("origin", "text", "reason"),
    [
        ("complex", "Ann has 9 apples in her bag. How many apples does she have?", "same_steps"),
        ("similar", "Ann has 9 apples in her bag. How many apples does she have?", "same_content"),
    ],
)
async def test_what_was_asked_for_must_be_what_came(origin: Origin, text: str, reason: str) -> None:
    asker = ScriptedAsker(lambda prompt, sampling: [text])
    variation = await _row(asker)(Request("r-1", "p-1", PARENT, "3", origin, 1, 1))
    assert (variation.outcome, variation.reason, len(asker.asked)) == ("rejected", reason, 1)


async def test_both_kinds_are_asked_and_kept_apart() -> None:
    def script(prompt: str, sampling: Sampling) -> list[str]:
        if prompt.startswith("Write"):
            return [WRITTEN]
        if "Python" in prompt:
            return ["answer = 3 + 4"] * sampling.n
        return ["3 + 4 = 7\n#### 7", "3 + 4 = 8\n#### 8"]

    asker = ScriptedAsker(script)
    variation = await _row(asker, second_solutions=2)(REQUEST)
    assert [solution.answer for solution in variation.solutions] == ["7", "7", "7"]
    assert [solution.answer for solution in variation.second] == ["7", "8"]
    assert variation.rationales == ("answer = 3 + 4",) * 3
    assert [sampling.n for _, sampling in asker.asked] == [1, 3, 2]
    assert len({sampling.seed for _, sampling in asker.asked}) == 3


NEAR = "Ann has 30 apples in her bag and buys 40 more. How many apples does she have?"


async def test_a_benchmark_problem_is_never_solved(tmp_path: Path) -> None:
    asker = ScriptedAsker(lambda prompt, sampling: [WRITTEN])
    variation = await _guarded(tmp_path, asker, NEAR)(REQUEST)
    assert (variation.outcome, variation.reason, len(asker.asked)) == ("rejected", "in_benchmark: ngram", 1)
    assert variation.evidence == f"bench:{problem_id(NEAR)}"
    assert variation.similarity >= 10 and "apples in her bag and buys" in variation.span


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("The same numbers and steps.\nVerdict: yes", "in_benchmark: judged_same"),
        ("Verdict: yes? Verdict: no", "unjudged"),
        ("Other numbers.\nVerdict: no", ""),
    ],
)
async def test_the_teacher_judges_what_is_close(tmp_path: Path, reply: str, reason: str) -> None:
    def script(prompt: str, sampling: Sampling) -> list[str]:
        if "Problem B:" in prompt:
            assert WRITTEN in prompt and NEAR in prompt
            return [reply]
        return [WRITTEN] if "variation" in prompt else ["```python\nanswer = 3 + 4\n```"] * sampling.n

    asker = ScriptedAsker(script)
    row = _guarded(tmp_path, asker, NEAR, ngram=None, containment=None, judge=1, judge_from=0.2)
    variation = await row(REQUEST)
    assert variation.reason == reason
    assert len(asker.asked) == (2 if reason else 3)
    assert variation.evidence == (f"bench:{problem_id(NEAR)}" if reason else "")
    assert variation.completion_tokens >= len(reply.split())


async def test_a_further_rationale_is_held_to_the_known_answer_and_to_those_that_there_are() -> None:
    request = Request("r-1", "p-1", PARENT, "3", "seed", 1, 1, "seeds", ("answer = 3",))
    asker = ScriptedAsker(lambda prompt, sampling: ["answer = 3", "answer = 1 + 2", "answer = 4"])
    variation = await _row(asker)(request)
    assert len(asker.asked) == 1, "no new problem is written"
    assert (variation.outcome, variation.question, variation.band) == ("kept", PARENT, "seeds")
    assert [solution.verdict for solution in variation.solutions] == ["right", "right", "wrong_answer"]
    assert variation.rationales == ("", "answer = 1 + 2", "")
