"""The endpoint engine against every kind of reply that an endpoint may send, over real sockets."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import gzip
import json
import time
from typing import Any

import pytest

from fdd_ray.engines.base import ContentFiltered, EndpointError, EngineSettings, PromptTooLong, Sample, Sampling
from fdd_ray.engines.limits import Limits
from fdd_ray.engines.openai import OpenAIEngine
from fdd_ray.engines.replies import read_retry_after
from tests.engines.asking import CHAT, GOOD, GOOD_REPLY, KEY, choice, engine_at, in_turn
from tests.engines.endpoint import MODEL, Asked, Said, ScriptedEndpoint, completion, refusal


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)


# What passes: told once, then a sound reply. Each is asked exactly twice.
PASSING = {
    "internal error": Said(500, b"oops"),
    "bad gateway with a page": Said(502, b"<html><body>nginx</body></html>"),
    "overloaded": Said(503, b""),
    "a proxy's time-out": Said(524, b""),
    "request time-out": Said.of(refusal("timeout"), 408),
    "conflict": Said.of(refusal("locked"), 409),
    "turned away": Said.of(refusal("slow down"), 429),
    "turned away, wait given": Said.of(refusal("slow down"), 429, headers={"Retry-After": "0.05"}),
    "turned away, wait in milliseconds": Said.of(refusal("slow down"), 429, headers={"Retry-After-Ms": "50"}),
    "turned away, wait is nonsense": Said.of(refusal("slow down"), 429, headers={"Retry-After": "soon"}),
    "turned away, wait is no number": Said.of(refusal("slow down"), 429, headers={"Retry-After": "nan"}),
    "turned away, wait is negative": Said.of(refusal("slow down"), 429, headers={"Retry-After": "-5"}),
    "error body that is no object": Said(500, b"[1, 2]"),
    "cut before the reply": Said(cut_at=0),
    "cut within the reply": Said(body=json.dumps(GOOD).encode(), cut_at=40),
    "empty body": Said(),
    "not JSON": Said(body=b"<html>200 but no API</html>"),
    "JSON torn off": Said(body=json.dumps(GOOD).encode()[:60]),
    "not UTF-8": Said(body=b"\xff\xfe\x00{"),
    "nested without end": Said(body=b"[" * 200_000),
    "a number of a million digits": Said(body=b'{"choices": ' + b"9" * 500_000 + b"}"),
    "a list": Said.of([GOOD]),
    "null": Said.of(None),
    "no choices": Said.of({"id": "x"}),
    "choices empty": Said.of(completion()),
    "choices of a wrong type": Said.of(GOOD | {"choices": "many"}),
    "a choice of a wrong type": Said.of(GOOD | {"choices": [3]}),
    "no message": Said.of(GOOD | {"choices": [{"index": 0, "finish_reason": "stop"}]}),
    "message of a wrong type": Said.of(GOOD | {"choices": [{"message": "answer = 7"}]}),
    "content null": Said.of(choice(content=None)),
    "content missing": Said.of(choice(role="assistant")),
    "content a number": Said.of(choice(content=7)),
    "an error with status 200": Said.of(refusal("backend is down", code=502)),
    "another model": Said.of(completion("answer = 7", model="cheap-model")),
    "a smaller model of that family": Said.of(completion("answer = 7", model=f"{MODEL}-mini")),
    "model of a wrong type": Said.of(GOOD | {"model": {"name": MODEL}}),
    "longer than allowed": Said.of(completion("7" * (1 << 20))),
    "compressed unasked": Said(body=gzip.compress(json.dumps(GOOD).encode()), headers={"content-encoding": "gzip"}),
}


@pytest.mark.parametrize("name", PASSING)
async def test_what_can_pass_is_asked_again(name: str) -> None:
    with in_turn(PASSING[name], GOOD) as server:
        assert await engine_at(server).generate(CHAT, Sampling()) == GOOD_REPLY
        assert len(server.chats) == 2


# What does not pass, by what the endpoint says: the exception, a part of its text, and how often it is asked.
FAILING: dict[str, tuple[Said, type[Exception], str, int]] = {
    "wrong key": (Said.of(refusal("bad key"), 401), EndpointError, "the key in TEST_API_KEY .*bad key", 1),
    "no access": (Said.of(refusal("no access"), 403), EndpointError, "let the key in TEST_API_KEY use this model", 1),
    "no credit": (Said.of(refusal("pay"), 402), EndpointError, "no credit left", 1),
    "quota used up": (Said.of(refusal("pay", code="insufficient_quota"), 429), EndpointError, "no credit left", 1),
    "no such model": (Said.of(refusal("no model"), 404), EndpointError, "no such model or address", 1),
    "not even JSON": (Said(404, b"nginx\x1b[31m\x00"), EndpointError, r"HTTP 404: nginx \[31m\)", 1),
    "moved": (Said(308, b"", {"location": "https://elsewhere/v2"}), EndpointError, "moved to https://elsewhere/v2", 1),
    "what it does not take": (
        Said.of(refusal("temperature must be 1", param="temperature"), 400),
        EndpointError,
        "must",
        1,
    ),
    "validation": (
        Said.of({"detail": [{"loc": ["body"], "msg": "bad"}]}, 422),
        EndpointError,
        "refuses the request",
        1,
    ),
    "n though one was asked": (Said.of(refusal("no", param="n"), 400), EndpointError, "refuses n", 1),
    "teapot": (Said.of(refusal("I am a teapot"), 418), EndpointError, "teapot", 1),
    "too long by code": (Said.of(refusal("no", code="context_length_exceeded"), 400), PromptTooLong, "no", 1),
    "too long by text": (
        Said.of(refusal("This model's maximum context length is 512 tokens", code=400), 400),
        PromptTooLong,
        "512",
        1,
    ),
    "too large": (Said(413, b""), PromptTooLong, "413", 1),
    "filtered prompt": (Said.of(refusal("harm", code="content_filter"), 400), ContentFiltered, "harm", 1),
    "filtered by a nested code": (
        Said.of(refusal("harm", code=400, innererror={"code": "ResponsibleAIPolicyViolation"}), 400),
        ContentFiltered,
        "harm",
        1,
    ),
    "filtered answer": (Said.of(completion(None, finish="content_filter")), ContentFiltered, "withheld", 1),
    "refusal": (Said.of(choice(content=None, refusal="I will not.")), ContentFiltered, "refused to answer", 1),
    "wait until tomorrow": (
        Said.of(refusal("daily limit"), 429, headers={"Retry-After": "86400"}),
        EndpointError,
        "left alone for long; run later .*daily limit",
        1,
    ),
    "down for good": (Said(500, b"oops"), EndpointError, "gave up after 3 tries: HTTP 500: oops", 3),
    "never JSON": (Said(body=b"hello"), EndpointError, "gave up after 3 tries: the reply is not JSON: hello", 3),
    "always another model": (
        Said.of(completion("x", model="cheap")),
        EndpointError,
        f"3 tries: the reply is from the model 'cheap', not '{MODEL}'",
        3,
    ),
    "always turned away": (Said.of(refusal("busy"), 429, headers={"retry-after": "0"}), EndpointError, "30 times", 30),
}


@pytest.mark.parametrize("name", FAILING)
async def test_what_does_not_pass_ends_with_what_was_seen(name: str) -> None:
    said, kind, text, times = FAILING[name]
    with in_turn(said) as server:
        with pytest.raises(kind, match=text) as caught:
            await engine_at(server).generate(CHAT, Sampling())
        assert type(caught.value) is kind
        assert len(server.chats) == times
    assert len(str(caught.value)) < 400


# Odd but sound: read as they are.
SOUND: dict[str, tuple[Any, Sample]] = {
    "empty text": (completion(""), Sample("", "stop", 5)),
    "cut off": (completion("answer", finish="length"), Sample("answer", "length", 5)),
    "cut off by another name": (completion("answer", finish="max_tokens"), Sample("answer", "length", 5)),
    "cut off by the filter": (completion("answer", finish="content_filter"), Sample("answer", "length", 5)),
    "all thought, no text": (completion(None, finish="length"), Sample("", "length", 5)),
    "unknown finish": (completion("answer", finish="banana"), Sample("answer", "stop", 5)),
    "no finish": (completion("answer", finish=None), Sample("answer", "stop", 5)),
    "no finish at the limit": (
        completion("answer", finish=None, usage={"prompt_tokens": 7, "completion_tokens": 64}),
        Sample("answer", "length", 64),
    ),
    "no model": (completion("answer", model=None), Sample("answer", "stop", 5)),
    "a dated version": (completion("answer", model=f"Provider/{MODEL}-2026-05-01"), Sample("answer", "stop", 5)),
    "half a surrogate pair": (Said(body=json.dumps(completion("a\ud800b")).encode()), Sample("a?b", "stop", 5)),
    "no usage": (completion("answer = 12", usage=None), Sample("answer = 12", "stop", 4)),
    "usage of wrong types": (
        completion("answer = 12", usage={"prompt_tokens": "7", "completion_tokens": -3}),
        Sample("answer = 12", "stop", 4),
    ),
    "more than asked for": (completion("a", "b", "c"), Sample("a", "stop", 15)),
    "with a byte-order mark": (Said(body=b"\xef\xbb\xbf" + json.dumps(GOOD).encode()), GOOD_REPLY.samples[0]),
}


@pytest.mark.parametrize("name", SOUND)
async def test_odd_but_sound_replies_are_read(name: str) -> None:
    said, sample = SOUND[name]
    with in_turn(said) as server:
        reply = await engine_at(server).generate(CHAT, Sampling(max_tokens=64))
        assert reply.samples == (sample,)
        assert len(server.chats) == 1
    json.dumps(reply.samples[0].text, ensure_ascii=False).encode()  # it can be written to a file


async def test_the_request_says_what_the_sampling_says() -> None:
    with in_turn(completion("a", "b")) as server:
        sampling = Sampling(n=2, temperature=0.7, top_p=0.9, max_tokens=33, seed=5)
        await engine_at(server).generate(CHAT, sampling)
        assert server.chats[0].json == {
            "model": MODEL,
            "messages": CHAT,
            "n": 2,
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 33,
            "seed": 5,
        }
        assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"
        assert server.chats[0].path == "/v1/chat/completions"


async def test_tokens_of_several_samples_add_up() -> None:
    with in_turn(completion("a", "bb bb bb bb", "ccc", usage={"prompt_tokens": 9, "completion_tokens": 31})) as server:
        reply = await engine_at(server).generate(CHAT, Sampling(n=3, temperature=1))
    assert reply.completion_tokens == 31 and reply.prompt_tokens == 9
    assert reply.samples[1].tokens > reply.samples[0].tokens


@pytest.mark.parametrize("way", ["refused by name", "refused in words", "ignored"])
async def test_an_endpoint_that_draws_one_at_a_time_is_asked_n_times(way: str) -> None:
    """Each request has a seed of its own, or all samples would be the same."""

    def script(asked: Asked, number: int) -> Any:
        if "n" in asked.json and way != "ignored":
            error = refusal("bad", param="n") if way == "refused by name" else refusal("'n' must be at most 1")
            return Said.of(error, 400)
        return completion(f"seed {asked.json['seed']}")

    with ScriptedEndpoint(script) as server:
        engine = engine_at(server)
        first = await engine.generate(CHAT, Sampling(n=4, temperature=1, seed=10))
        assert sorted(sample.text for sample in first.samples) == [f"seed {seed}" for seed in (10, 11, 12, 13)]
        assert first.prompt_tokens == 28 and first.completion_tokens == 20
        before = len(server.chats)
        second = await engine.generate(CHAT, Sampling(n=2, temperature=1, seed=20))
        assert {sample.text for sample in second.samples} == {"seed 20", "seed 21"}
        assert len(server.chats) == before + 2, "what was learnt is not asked again"


async def test_a_failure_among_n_requests_is_the_failure_of_all() -> None:
    def script(asked: Asked, number: int) -> Any:
        return completion("a") if number == 0 else Said.of(refusal("no"), 401)

    with ScriptedEndpoint(script) as server, pytest.raises(EndpointError, match="does not accept"):
        await engine_at(server).generate(CHAT, Sampling(n=3, temperature=1))


@pytest.mark.parametrize(
    ("message", "param", "sent"),
    [
        ("Unsupported parameter: 'seed'", None, {"max_tokens": 512}),
        ("Use 'max_completion_tokens' instead.", "max_tokens", {"max_completion_tokens": 512, "seed": 3}),
    ],
)
async def test_parameters_that_an_endpoint_does_not_take(message: str, param: str | None, sent: dict[str, int]) -> None:
    def script(asked: Asked, number: int) -> Any:
        refused = number == 0 or (param or "seed") in asked.json
        return Said.of(refusal(message, param=param), 400) if refused else GOOD

    with ScriptedEndpoint(script) as server:
        engine = engine_at(server)
        assert await engine.generate(CHAT, Sampling(seed=3, temperature=0.5)) == GOOD_REPLY
        assert await engine.generate(CHAT, Sampling(seed=3, temperature=0.5)) == GOOD_REPLY
        assert len(server.chats) == 3
        assert server.chats[2].json == {"model": MODEL, "messages": CHAT, "temperature": 0.5, **sent}


async def test_a_parameter_that_is_refused_even_when_left_out_ends_the_asking() -> None:
    with in_turn(Said.of(refusal("no", param="seed"), 400)) as server:
        with pytest.raises(EndpointError, match="refuses seed"):
            await engine_at(server).generate(CHAT, Sampling(seed=3, temperature=0.5))
        assert len(server.chats) == 2


@pytest.mark.parametrize("said", [Said.of(GOOD, delay_s=3), Said.of(GOOD, drip_s=0.05)], ids=["slow", "dripping"])
async def test_a_reply_that_is_late_is_asked_for_again(said: Said) -> None:
    """Also one of which something arrives all the time."""
    with in_turn(said, GOOD) as server:
        begun = time.monotonic()
        assert await engine_at(server, request_deadline_s=0.4).generate(CHAT, Sampling()) == GOOD_REPLY
        assert 0.4 <= time.monotonic() - begun < 2.5


async def test_an_endpoint_that_is_not_there() -> None:
    with in_turn(GOOD) as server:
        url = server.url
    settings = EngineSettings(model=MODEL, endpoint=url, api_key_env=None, request_tries=2)
    with pytest.raises(EndpointError, match="gave up after 2 tries: no connection"):
        await OpenAIEngine(settings, Limits(None, None), back_off_s=0.01).generate(CHAT, Sampling())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "3", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
    ],
)
def test_what_retry_after_says(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_pauses_everybody(as_date: bool) -> None:
    """Two engines share the limits; only one is turned away, and the other waits as well."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
    wait = email.utils.format_datetime(until, usegmt=True) if as_date else "1"
    with in_turn(Said.of(refusal("slow"), 429, headers={"Retry-After": wait}), GOOD) as server:
        limits = Limits(None, None)
        first, second = engine_at(server, limits), engine_at(server, limits)
        task = asyncio.create_task(first.generate(CHAT, Sampling()))
        while limits._paused_until < 0:  # it has been turned away
            await asyncio.sleep(0.005)
        await second.generate(CHAT, Sampling())
        await task
        turned_away, *served = [asked.at for asked in server.chats]
        assert len(served) == 2
        # A date has whole seconds, so between 2 and 3 of them are left, less what the machine takes.
        assert all(at - turned_away >= 0.95 for at in served)


async def test_being_turned_away_costs_no_tries_and_narrows_what_is_in_flight() -> None:
    """An endpoint that serves 4 at once: 40 requests get through, though each may fail but once."""
    at_once = 0

    class Busy(ScriptedEndpoint):
        async def answer(self, asked: Asked) -> Said:
            nonlocal at_once
            at_once += 1
            try:
                if at_once > 4:
                    return Said.of(refusal("busy"), 429, headers={"retry-after": "0.02"})
                await asyncio.sleep(0.01)
                return await super().answer(asked)
            finally:
                at_once -= 1

    with Busy(lambda asked, number: GOOD) as server:
        engine = engine_at(server, max_num_seqs=32, request_tries=1)
        replies = await asyncio.gather(*(engine.generate(CHAT, Sampling()) for _ in range(40)))
        assert replies == [GOOD_REPLY] * 40
        assert engine._window.size <= 16


async def test_no_more_requests_in_flight_than_allowed_and_not_one_by_one() -> None:
    most = at_once = 0

    class Counting(ScriptedEndpoint):
        async def answer(self, asked: Asked) -> Said:
            nonlocal most, at_once
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.02)
            at_once -= 1
            return await super().answer(asked)

    with Counting(lambda asked, number: GOOD) as server:
        engine = engine_at(server, max_num_seqs=8)
        await asyncio.gather(*(engine.generate(CHAT, Sampling()) for _ in range(40)))
    assert 4 <= most <= 8


async def test_tokens_not_used_are_given_back() -> None:
    """Reserved are 512 and the prompt, used are 12: at 60,000 a minute, 20 requests take less than a second."""
    with in_turn(GOOD) as server:
        engine = engine_at(server, Limits(None, 60_000), tokens_per_minute=60_000.0, max_num_seqs=1)
        begun = time.monotonic()
        for _ in range(20):
            await engine.generate(CHAT, Sampling())
        assert time.monotonic() - begun < 3.0


# -- the start check --------------------------------------------------------------------------------
