"""The benchmark of the teacher's stages: its ratios, and that all sides are given the same work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks import teacher_processor, teacher_ratios, teacher_work
from benchmarks.teacher_ratios import OURS, RATIONALES, STEADY, SYNTHESISE, Pass
from fdd_ray.checking import Asking
from fdd_ray.engines.base import Reply, Sample, Sampling
from fdd_ray.prompts import Message, load_prompts
from fdd_ray.stages.synthesise import SynthesiseRow
from fdd_ray.stages.teach import TeachRow


def _pass(side: str, turn: int, seconds: float, tokens: int = 1000, **more: Any) -> Pass:
    return Pass(side, turn, seconds, 10, 500, tokens, **more)


def test_the_steady_ratio_is_of_tokens_per_second_turn_by_turn() -> None:
    ours = [_pass(OURS, 1, 2.0), _pass(OURS, 2, 4.0), _pass(OURS, 3, 1.0)]
    theirs = [_pass("other", 2, 3.0), _pass("other", 1, 1.0)]
    assert teacher_ratios.ratios(STEADY, ours, theirs) == [0.5, 0.75]


def test_the_ratio_of_a_stage_is_of_its_seconds() -> None:
    assert teacher_ratios.ratios(SYNTHESISE, [_pass(OURS, 1, 2.0)], [_pass("other", 1, 8.0)]) == [0.25]


def test_a_side_has_the_median_ratio_with_its_spread_and_whether_it_is_met() -> None:
    passes = [_pass(OURS, turn, seconds) for turn, seconds in enumerate((5.0, 6.0, 8.0))]
    passes += [_pass("other", turn, 10.0) for turn in range(3)]
    ours, other = teacher_ratios.rows_of(SYNTHESISE, passes, {})
    assert (ours["side"], ours["ratio"], ours["seconds"], ours["low"], ours["high"]) == (OURS, "", 6.0, 5.0, 8.0)
    assert (other["ratio"], other["ratio low"], other["ratio high"]) == (0.6, 0.5, 0.8)
    assert (other["goal"], other["met"], other["turns"]) == ("<= 0.6", "yes", 3)
    assert other["tokens/s"] == 100 and other["rows/s"] == 1
    assert ours.keys() == other.keys()


@pytest.mark.parametrize(
    ("part", "ratio", "met"),
    [(STEADY, 0.97, True), (STEADY, 0.96, False), (RATIONALES, 1.0, False), (SYNTHESISE, 0.61, False)],
)
def test_goals(part: str, ratio: float, met: bool) -> None:
    assert teacher_ratios.is_met(part, ratio) is met


def test_other_work_is_not_the_same_work() -> None:
    ours = [_pass(OURS, 1, 1.0, answers={"a": "x", "b": "y"}), _pass(OURS, 2, 1.0)]
    near = [_pass("near", 1, 1.0, 1015, answers={"a": "x", "b": "z"}), _pass("near", 2, 1.0, 990)]
    far = [_pass("far", 1, 1.0, 1000), _pass("far", 2, 1.0, 970)]
    rows = teacher_ratios.rows_of(STEADY, [*ours, *near, *far], {})
    assert [row["same work"] for row in rows] == ["", "yes", "no"]
    assert rows[1]["tokens differ %"] == pytest.approx(1.5)
    assert rows[2]["tokens differ %"] == pytest.approx(-3.0)
    assert rows[1]["same answers %"] == 50


def test_a_side_that_does_not_run_has_a_row_that_says_why() -> None:
    ours, other = teacher_ratios.rows_of(RATIONALES, [_pass(OURS, 1, 1.0)], {"other": "does not run: no GPU"})
    assert (other["side"], other["turns"], other["ratio"]) == ("other", 0, "")
    assert other["note"] == "does not run: no GPU" and not ours["note"]


class _Listener:
    """Answers every chat with a problem, or with a program, and keeps how it was asked."""

    def __init__(self) -> None:
        self.heard: list[tuple[Sequence[Message], Sampling]] = []

    async def ask(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        self.heard.append((messages, sampling))
        text = NEW_PROBLEM if len(self.heard) == 1 else "answer = 7"
        return Reply(tuple(Sample(text, "stop", 9) for _ in range(sampling.n)), 20)


NEW_PROBLEM = "Zoe buys 3 red kites and 4 blue kites. Then she gets 5 more as a gift. How many kites does Zoe have now?"


def _experiment(*sets: str) -> Any:
    return teacher_work.experiment_of("tiny://teacher", 1, 0, "runs", sets)


def _asked(experiment: Any, row_class: Any, settings: Any, row: Any) -> tuple[_Listener, Any]:
    listener = _Listener()
    asking = Asking(listener, load_prompts("tiny"), experiment.check, experiment.kind, experiment.seed)
    function = row_class(asking, settings)
    function.open()
    return listener, asyncio.run(function(row))


def test_the_other_sides_draw_rationales_as_the_stage_does() -> None:
    experiment = _experiment("teach.samples=2", "teach.temperature=0.6", "teach.top_p=0.9")
    (problem,) = teacher_work.make_pool(1)
    listener, _ = _asked(experiment, TeachRow, experiment.teach, problem)
    ((messages, sampling),) = listener.heard
    assert sampling == teacher_work.rationale_sampling(experiment, problem.id)
    row = {"id": problem.id, "question": problem.question, "gold": problem.answer, "sample": 1}
    asked = teacher_processor._ask_solution(experiment, RATIONALES, row)
    assert asked["messages"] == messages
    assert asked["sampling_params"]["n"] == 1 and asked["sampling_params"]["seed"] == sampling.seed + 1
    assert asked["sampling_params"]["top_p"] == 0.9


def test_the_two_passes_ask_what_the_synthesis_asks() -> None:
    experiment = _experiment()
    (request,) = teacher_work.make_requests(teacher_work.make_pool(1))
    listener, variation = _asked(experiment, SynthesiseRow, experiment.synthesise, request)
    assert variation.outcome == "kept", variation.reason
    (write, write_sampling), (solve, solve_sampling) = listener.heard
    assert write_sampling == teacher_work.question_sampling(experiment, request.id)
    assert solve_sampling == teacher_work.solution_sampling(experiment, request.id)
    first = teacher_processor._ask_question(
        experiment, {"id": request.id, "origin": request.origin, "parent": request.parent_question}
    )
    assert first["messages"] == write
    reply = {"generated_text": NEW_PROBLEM, "num_generated_tokens": 9, "num_input_tokens": 20}
    read = teacher_processor._read(experiment, {**first, **reply})
    assert (read["reason"], read["question"], read["prompt_tokens"]) == ("", variation.question, 20)
    second = [
        teacher_processor._ask_solution(experiment, SYNTHESISE, row)
        for row in teacher_processor._repeat(experiment, read)
    ]
    assert [row["messages"] for row in second] == [solve] * experiment.synthesise.solutions
    assert [row["sampling_params"]["seed"] - solve_sampling.seed for row in second] == [0, 1, 2]


def test_a_question_that_is_cut_off_or_a_copy_is_not_solved() -> None:
    experiment = _experiment()
    (request,) = teacher_work.make_requests(teacher_work.make_pool(1))
    row = {"id": request.id, "origin": "complex", "parent": request.parent_question, "num_input_tokens": 20}
    longest = experiment.synthesise.max_problem_tokens
    cut = teacher_processor._read(experiment, row | {"generated_text": NEW_PROBLEM, "num_generated_tokens": longest})
    copy = teacher_processor._read(
        experiment, row | {"generated_text": request.parent_question, "num_generated_tokens": 9}
    )
    assert (cut["reason"], copy["reason"]) == ("problem_truncated", "copy_of_parent")
    assert not [*teacher_processor._repeat(experiment, cut), *teacher_processor._repeat(experiment, copy)]


def test_solutions_get_the_verdict_of_the_stage() -> None:
    experiment = _experiment()
    row = {"id": "p-1", "sample": 0, "gold": "7", "num_input_tokens": 20, "num_generated_tokens": 9}
    verdicts = [
        teacher_processor._check(experiment, RATIONALES, row | {"generated_text": text})["verdict"]
        for text in ("answer = 3 + 4", "answer = 8")
    ]
    longest = experiment.teach.max_tokens
    cut = row | {"generated_text": "answer = 7", "num_generated_tokens": longest}
    assert verdicts == ["right", "wrong_answer"]
    assert teacher_processor._check(experiment, RATIONALES, cut)["verdict"] == "truncated"


def test_a_model_of_ones_own_is_not_asked_with_the_tiny_settings() -> None:
    experiment = teacher_work.experiment_of("owner/model", 3, 2, "runs", ["teach.max_tokens=300"])
    teacher = teacher_work.teacher_of(experiment)
    assert (experiment.prompts, experiment.teach.max_tokens) == ("default", 300)
    assert (teacher.replicas, teacher.gpus_per_replica, teacher.tensor_parallel) == ((3, 3), 2, 2)
    assert (teacher.cpus, teacher.max_num_seqs, teacher.kv_cache_mib) == (1.0, 256, None)
