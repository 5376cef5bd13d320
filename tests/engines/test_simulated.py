from __future__ import annotations

import json
from pathlib import Path

import pytest

from fdd_ray.engines.base import EngineSettings, Sampling
from fdd_ray.engines.simulated import SimulatedEngine, call_key
from fdd_ray.errors import ExperimentError
from fdd_ray.prompts import load_prompts
from fdd_ray.reasoning import ProgramRunner
from fdd_ray.tiny.parse import parse_story
from fdd_ray.tiny.problems import make_problems

PROMPTS = load_prompts("tiny")
PROBLEMS = make_problems("pool", 40, 1)


def _engine(weights: str = "tiny://teacher", **arguments: object) -> SimulatedEngine:
    return SimulatedEngine(EngineSettings("tiny://teacher", engine="simulated", engine_args=arguments), weights)


async def test_the_teacher_solves_and_varies_as_the_grammar_does() -> None:
    engine = _engine(right=1.0)
    with ProgramRunner() as runner:
        for problem in PROBLEMS:
            reply = await engine.generate(PROMPTS.solve("program", problem.question), Sampling(n=2, seed=1))
            assert [runner.run(sample.text).answer for sample in reply.samples] == [str(problem.answer)] * 2
            for origin in ("complex", "similar"):
                reply = await engine.generate(PROMPTS.vary(origin, problem.question), Sampling(seed=1))  # type: ignore[arg-type]
                varied = parse_story(reply.samples[0].text)
                assert varied is not None and varied.text() != problem.question


async def test_a_student_is_as_right_as_its_weights_say(tmp_path: Path) -> None:
    shares = {}
    with ProgramRunner() as runner:
        for right in (0.0, 0.5, 1.0):
            weights = tmp_path / str(right)
            weights.mkdir()
            (weights / "simulated.json").write_text(json.dumps({"right": right}))
            engine = _engine()
            await engine.reload(str(weights))
            texts = [
                (await engine.generate(PROMPTS.student("program", problem.question), Sampling())).samples[0].text
                for problem in PROBLEMS
            ]
            answers = [runner.run(text).answer for text in texts]
            shares[right] = sum(a == str(p.answer) for a, p in zip(answers, PROBLEMS, strict=True)) / len(PROBLEMS)
    assert shares[0.0] == 0 and shares[1.0] == 1 and 0.2 < shares[0.5] < 0.8


async def test_words_depend_on_weights_prompt_and_seed_alone(tmp_path: Path) -> None:
    chat = PROMPTS.vary("similar", PROBLEMS[0].question)
    first = await _engine(seconds=0.001, spread=0.5).generate(chat, Sampling(seed=1))
    assert await _engine().generate(chat, Sampling(seed=1)) == first
    assert await _engine().generate(chat, Sampling(seed=2)) != first


async def test_every_request_is_logged_before_it_is_answered(tmp_path: Path) -> None:
    chat = PROMPTS.solve("program", PROBLEMS[0].question)
    await _engine(calls=str(tmp_path)).generate(chat, Sampling(seed=7))
    (log,) = tmp_path.iterdir()
    assert log.read_text().split()[1] == call_key("tiny://teacher", chat[-1]["content"], 7)


async def test_a_completion_is_cut_at_its_limit() -> None:
    reply = await _engine().generate(PROMPTS.solve("program", PROBLEMS[0].question), Sampling(max_tokens=3))
    assert (reply.samples[0].finish, reply.samples[0].tokens) == ("length", 3)


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ExperimentError, match="speed"):
        _engine(speed=3)
