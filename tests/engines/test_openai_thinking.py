"""The endpoint engine and reasoning models, and what a role says of drawing tokens, over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

from fdd_ray.engines.base import EndpointError, Sample, Sampling
from fdd_ray.engines.sampling import SamplingSettings
from tests.engines.asking import CHAT, GOOD, KEY, choice, engine_at, in_turn
from tests.engines.endpoint import Said, refusal


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)


def _said(**message: Any) -> dict[str, Any]:
    return choice(**message) | {"usage": GOOD["usage"]}


THOUGHT = {
    "within the text": (_said(content="<think>3 and 4</think>\n\nanswer = 7"), "answer = 7", "stop"),
    "opened by the template": (_said(content="3 and 4\n</think>\n\nanswer = 7"), "answer = 7", "stop"),
    "beside the text": (_said(content="\n\nanswer = 7", reasoning_content="3 and 4"), "\n\nanswer = 7", "stop"),
    "beside it, by its other name": (_said(content="answer = 7", reasoning="3 and 4"), "answer = 7", "stop"),
    "never ended": (_said(content="<think>3 and 4"), "", "length"),
    "never ended, beside the text": (_said(content=None, reasoning_content="3 and 4"), "", "length"),
    "of a wrong type": (_said(content="answer = 7", reasoning=["3"]), "answer = 7", "stop"),
}


@pytest.mark.parametrize("case", THOUGHT)
async def test_thinking_is_stripped_and_counted(case: str) -> None:
    said, text, finish = THOUGHT[case]
    with in_turn(said) as server:
        reply = await engine_at(server).generate(CHAT, Sampling())
    assert reply.samples == (Sample(text, finish, 5),)


async def test_thinking_is_kept_where_the_model_wrote_it() -> None:
    beside = _said(content="answer = 7", reasoning="3 and 4")
    cut = _said(content=None, reasoning="3 and 4")
    within = _said(content="<think>3 and 4</think>answer = 7")
    with in_turn(beside, within, cut) as server:
        engine = engine_at(server, thinking="keep")
        replies = [await engine.generate(CHAT, Sampling()) for _ in range(3)]
    texts = [(reply.samples[0].text, reply.samples[0].finish) for reply in replies]
    assert texts == [("<think>3 and 4</think>answer = 7", "stop")] * 2 + [("<think>3 and 4", "length")]


async def test_tokens_of_thinking_that_comes_beside_the_text_are_estimated_too() -> None:
    said = _said(content="answer = 7", reasoning="3 and 4 " * 30)
    del said["usage"]
    with in_turn(said) as server:
        reply = await engine_at(server).generate(CHAT, Sampling())
    assert reply.completion_tokens == 80 + 4


async def test_sampling_settings_and_template_arguments_are_sent() -> None:
    sampling = SamplingSettings(top_k=20, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.5, stop=(r"\n\nQ",))
    with in_turn(GOOD) as server:
        engine = engine_at(server, sampling=sampling, chat_template_kwargs={"enable_thinking": False})
        await engine.generate(CHAT, Sampling(temperature=0.5))
        await engine_at(server).generate(CHAT, Sampling(temperature=0.5))
    asked, plain = (chat.json for chat in server.chats)
    assert {name: asked[name] for name in asked.keys() - plain.keys()} == {
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "stop": ["\n\nQ"],
        "chat_template_kwargs": {"enable_thinking": False},
    }


async def test_an_endpoint_that_does_not_know_a_sampling_setting_is_not_asked_without_it() -> None:
    with in_turn(Said.of(refusal("Unrecognized request argument supplied: top_k"), 400)) as server:
        with pytest.raises(EndpointError, match="top_k"):
            await engine_at(server, sampling=SamplingSettings(top_k=5)).generate(CHAT, Sampling())
        assert len(server.chats) == 1
