"""Before an endpoint is asked anything: the start check, and the key that goes nowhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import pytest

from fdd_ray.engines.base import EndpointError, EngineSettings, Sampling
from fdd_ray.engines.openai import check_endpoint
from tests.engines.asking import CHAT, GOOD, KEY, engine_at, in_turn
from tests.engines.endpoint import MODEL, Said, ScriptedEndpoint, completion, refusal


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)


async def test_the_start_check_passes_with_a_few_tokens() -> None:
    with in_turn(GOOD) as server:
        assert await engine_at(server).check() == ()
        assert len(server.chats) == 1 and server.chats[0].json["max_tokens"] <= 16


def test_an_endpoint_can_be_checked_without_ray() -> None:
    with in_turn(GOOD) as server:
        settings = EngineSettings(model=MODEL, endpoint=server.url, api_key_env="TEST_API_KEY")
        assert check_endpoint(settings) == ()
        assert check_endpoint(settings) == ()
        assert len(server.chats) == 2


async def test_the_start_check_tells_what_the_endpoint_serves_instead() -> None:
    models = tuple(f"model-{i}" for i in range(12))
    with ScriptedEndpoint(lambda asked, number: Said.of(refusal("no such model"), 404), models) as server:
        with pytest.raises(EndpointError) as caught:
            await engine_at(server).check()
        assert "It serves: model-0, model-1," in str(caught.value)
        assert "model-9" in str(caught.value) and "model-10" not in str(caught.value)
        assert server.url in str(caught.value)


@pytest.mark.parametrize("models", [None, (), ("\x1b[31m",)])
async def test_the_start_check_survives_an_endpoint_that_lists_nothing(models: tuple[str, ...] | None) -> None:
    server = ScriptedEndpoint(lambda asked, number: Said.of(refusal("no such model"), 404), models)
    with server, pytest.raises(EndpointError, match="no such model") as caught:
        await engine_at(server).check()
    assert str(caught.value).isprintable()


async def test_the_start_check_finds_another_model_behind_the_name() -> None:
    with in_turn(completion("ready", model="deployment-7")) as server:
        with pytest.raises(EndpointError, match="'deployment-7'"):
            await engine_at(server).check()
        assert await engine_at(server, answers_as="deployment-7").check() == ()


async def test_the_start_check_says_that_tokens_are_not_told() -> None:
    with in_turn(completion("ready", usage=None)) as server:
        (note,) = await engine_at(server).check()
    assert "estimates" in note


# -- the key ----------------------------------------------------------------------------------------


def _echo(key: str) -> Sequence[Said]:
    escaped = "".join(f"\\u{ord(c):04x}" for c in key)
    return [
        Said.of(refusal(f"bad key {key}"), 401),
        Said(401, f'{{"error": {{"message": "bad key {escaped}"}}}}'.encode()),
        Said(401, f"bad {key}".encode()),
        Said(500, f"Authorization: Bearer {key}".encode()),
        Said(302, b"", {"location": f"https://elsewhere/?key={key}"}),
        Said(body=f"you sent {key}".encode()),
        Said.of(refusal("x" * 150 + key, code="context_length_exceeded"), 400),
        Said.of(completion(f"your key is {key}, is it not?")),
        Said(body=json.dumps(completion("KEY")).replace("KEY", f"your key is {escaped}").encode()),
        Said.of(completion("x", model=key)),
    ]


@pytest.mark.parametrize("index", range(len(_echo(KEY))))
async def test_a_key_that_is_echoed_is_blotted_out(
    index: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with in_turn(_echo(KEY)[index]) as server:
        engine = engine_at(server)
        seen = [repr(engine), repr(vars(engine))]
        try:
            seen.append(repr(await engine.generate(CHAT, Sampling())))
        except Exception as error:
            chain: BaseException | None = error
            while chain is not None:
                seen += [str(chain), repr(vars(chain))]
                chain = chain.__cause__ or chain.__context__
        try:
            seen.append(repr(await engine.check()))
        except EndpointError as error:
            seen.append(str(error))
    out, err = capfd.readouterr()
    assert all(KEY not in text and KEY[:16] not in text for text in [*seen, caplog.text, out, err])
    # By name, not by text: whoever set up logging before may have left the names out of it.
    heard = {record.name.partition(".")[0] for record in caplog.records}
    assert len(seen) >= 4 and {"httpx2", "openai"} <= heard, "the log was listened to"


async def test_text_with_backslashes_comes_through_a_reply_that_is_searched_for_the_key() -> None:
    text = 'a\\u0041 \\/ \\\\ "q" \n / \u00e9 \u0041'
    with in_turn(Said(body=json.dumps(completion(text)).replace("/", "\\/").encode())) as server:
        reply = await engine_at(server).generate(CHAT, Sampling())
    assert reply.samples[0].text == text


def test_a_key_does_not_travel() -> None:
    import pickle

    from fdd_ray.engines.keys import Key

    key = Key("TEST_API_KEY")
    assert KEY not in repr(key) and KEY not in str(key)
    with pytest.raises(TypeError, match="stays in this process"):
        pickle.dumps(key)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_key_that_is_not_set_is_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_API_KEY")
    if value is not None:
        monkeypatch.setenv("TEST_API_KEY", value)
    with in_turn(GOOD) as server, pytest.raises(EndpointError, match=r"TEST_API_KEY is not set .*api_key_env: null"):
        engine_at(server)


@pytest.mark.parametrize("value", ["two words-secret", "sécret-value", "line\nbreak-secret"])
def test_a_key_that_can_be_none_is_not_repeated(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", value)
    with in_turn(GOOD) as server, pytest.raises(EndpointError, match="TEST_API_KEY holds") as caught:
        engine_at(server)
    assert value[-6:] not in str(caught.value)


async def test_a_word_that_stands_for_no_key_is_left_in_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", "EMPTY")
    with in_turn(completion("an EMPTY basket")) as server:
        reply = await engine_at(server).generate(CHAT, Sampling())
        assert reply.samples[0].text == "an EMPTY basket"


async def test_without_a_key_no_key_of_ours_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with in_turn(GOOD) as server:
        await engine_at(server, api_key_env=None).generate(CHAT, Sampling())
        assert KEY not in json.dumps(server.chats[0].headers)


async def test_weights_cannot_be_loaded_into_an_endpoint() -> None:
    with in_turn(GOOD) as server, pytest.raises(EndpointError, match="cannot load"):
        await engine_at(server).reload("other")
