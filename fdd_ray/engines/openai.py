"""An engine that is somebody else's: an OpenAI-compatible endpoint, asked for chat completions.

`OpenAIEngine` has many requests in flight, within limits that all engines of the endpoint share. It
makes every try itself (the client's own retries are off): what can pass is tried again after a back-off
with jitter, what asks to wait makes everybody wait, what concerns one request rejects its row, and what
concerns all ends at once with an `EndpointError`.

The key comes from the environment of the process that asks, and stays there: it is never pickled or
shown, and is blotted out of whatever the endpoint sends back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from fdd_ray.engines.base import EndpointError, EngineSettings, Reply, RequestError, Sampling
from fdd_ray.engines.keys import Key
from fdd_ray.engines.limits import Limiter, Limits, Window
from fdd_ray.engines.replies import Answer, Thinking, Trouble, estimate_tokens, judge_refusal, read_answer, shown
from fdd_ray.errors import DependencyError, EngineError
from fdd_ray.prompts import Message

_BACK_OFF_S = 1.0
_LONGEST_BACK_OFF_S = 60.0
# An endpoint that wants to be left alone for longer than this has a daily quota, not a busy minute.
_LONGEST_PAUSE_S = 900.0
# How often one request may be turned away for the endpoint's limits; these are no tries.
_TURNED_AWAY = 30
_CHECK_DEADLINE_S = 60.0
_MOST_BYTES = 64 << 20
# Of the further sampling settings, those that are parameters of the API itself.
_OPENAI_KNOWS = ("presence_penalty", "frequency_penalty", "stop")


class OpenAIEngine:
    """Asks one model behind an endpoint.

    Args:
        settings: The role's settings; ``endpoint`` is given.
        limits: The limits that everybody who asks this endpoint shares.
        back_off_s: Longest wait before the second try; it doubles with each further one.
        most_bytes: Longest reply that is read.

    Raises:
        EndpointError: If the key is not in the environment.
        DependencyError: If the package openai is not installed.
    """

    def __init__(
        self,
        settings: EngineSettings,
        limits: Limiter,
        *,
        back_off_s: float = _BACK_OFF_S,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        assert settings.endpoint is not None
        self._settings = settings
        self._limits = limits
        self._back_off_s = back_off_s
        self._window = Window(settings.max_num_seqs)
        self._key = Key(settings.api_key_env)
        self._client = _client(settings, self._key, most_bytes)
        self._thinking = Thinking(settings.thinking, settings.thinking_open, settings.thinking_close)
        self._without: set[str] = set()
        self._notes: dict[str, None] = {}

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat.

        Raises:
            RequestError: If the endpoint will not answer this prompt.
            EndpointError: If it does not answer within the tries, or answers nobody.
        """
        answers = [] if sampling.n > 1 and "n" in self._without else [await self._ask(messages, sampling)]
        missing = sampling.n - sum(len(answer.samples) for answer in answers)
        if missing > 0:
            # It does not do n at once. Each of n requests needs a seed of its own.
            self._without.add("n")
            ones = [_one(sampling, i) for i in range(sampling.n - missing, sampling.n)]
            answers += await _all_of([self._ask(messages, one) for one in ones])
        samples = tuple(sample for answer in answers for sample in answer.samples)
        return Reply(samples, sum(answer.prompt_tokens for answer in answers))

    async def reload(self, weights: str) -> None:
        """An endpoint keeps its weights.

        Raises:
            EndpointError: Always.
        """
        raise EndpointError(f"{self._settings.endpoint} cannot load {weights}; only an engine of our own can")

    async def check(self) -> tuple[str, ...]:
        """Ask for a few tokens, to know before the work begins that the endpoint serves.

        Returns:
            What the user should know of it.

        Raises:
            EndpointError: If it does not; with what it serves instead, where it tells.
        """
        settings, trouble = self._settings, ""
        chat: list[Message] = [{"role": "user", "content": "Reply with the word ready."}]
        try:
            deadline_s = min(_CHECK_DEADLINE_S, settings.request_deadline_s)
            await self._ask(chat, Sampling(temperature=1.0, max_tokens=16, seed=0), deadline_s)
        except EngineError as error:
            trouble = str(error)
        if trouble:
            served = await self._served()
            others = f". It serves: {', '.join(served)}" if served and settings.model not in served else ""
            raise EndpointError(
                f"asked {settings.endpoint} for a few tokens of {settings.model}, to see whether it serves:"
                f" {trouble}{others}"
            )
        return tuple(self._notes)

    async def _served(self) -> list[str]:
        """The first models that the endpoint lists, as far as it does."""
        import openai

        names: list[str] = []
        try:
            async with asyncio.timeout(10):
                async for model in self._client.models.list():
                    names.append(shown(self._key.blot_out(str(model.id))))
                    if len(names) == 10:
                        break
        except (openai.OpenAIError, TimeoutError, _Unreadable, AttributeError, TypeError, ValueError):
            pass
        return names

    async def _ask(self, messages: Sequence[Message], sampling: Sampling, deadline_s: float | None = None) -> Answer:
        """One request, tried until it is answered or given up."""
        deadline_s = deadline_s or self._settings.request_deadline_s
        tries, turned_away, again = 0, 0, False
        adapted: set[str] = set()
        while True:
            outcome = await self._try(messages, sampling, again, deadline_s)
            again = True
            if isinstance(outcome, Answer):
                return outcome
            if outcome.help == "differently":
                if outcome.blamed in adapted or not self._adapt(outcome, sampling):
                    raise EndpointError(f"the endpoint refuses {outcome.blamed} ({outcome.text})")
                adapted.add(outcome.blamed)
            elif outcome.help == "later":
                turned_away += 1
                if (outcome.after_s or 0) > _LONGEST_PAUSE_S:
                    raise EndpointError(f"the endpoint wants to be left alone for long; run later ({outcome.text})")
                if turned_away >= _TURNED_AWAY:
                    raise EndpointError(f"turned away {turned_away} times; ask less of it a minute ({outcome.text})")
                pause_s = self._back_off(turned_away, least=0.5) if outcome.after_s is None else outcome.after_s
                await self._limits.pause(pause_s)
            else:
                tries += 1
                if tries >= self._settings.request_tries:
                    raise EndpointError(f"gave up after {tries} tries: {outcome.text}")
                await asyncio.sleep(max(min(outcome.after_s or 0.0, _LONGEST_PAUSE_S), self._back_off(tries)))

    def _back_off(self, tries: int, least: float = 0.0) -> float:
        """Anything up to a time that doubles with each try, so that those who failed together part."""
        most: float = min(_LONGEST_BACK_OFF_S, self._back_off_s * 2.0 ** (tries - 1))
        return most * random.uniform(least, 1.0)

    def _adapt(self, trouble: Trouble, sampling: Sampling) -> bool:
        """Ask without the parameter that the endpoint does not take, if that still asks for the same."""
        name = trouble.blamed
        if name == "n" and sampling.n > 1:
            self._note("the endpoint draws one sample at a time: several are several requests, each with its prompt")
        elif name == "seed" and sampling.seed is not None:
            self._note("the endpoint takes no seed: a repeated run draws other samples")
        elif name != "max_tokens" or "max_completion_tokens" not in trouble.text:
            return False
        self._without.add(name)
        return True

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes[text] = None
            print(f"{self._settings.endpoint}: {text}", file=sys.stderr, flush=True)

    async def _try(
        self, messages: Sequence[Message], sampling: Sampling, again: bool, deadline_s: float
    ) -> Answer | Trouble:
        prompt = "\n".join(message["content"] for message in messages)
        reserved = estimate_tokens(prompt) + sampling.n * sampling.max_tokens
        status, unused = 0, 0
        era = await self._window.enter(first=again)
        try:
            await self._limits.reserve(reserved)
            response = await self._send(self._body(messages, sampling), deadline_s)
            status = response.status if isinstance(response, _Response) else 0
        finally:
            self._window.leave(era, served=status == 200, turned_away=status in (429, 503))
        outcome = self._read(response, prompt, sampling) if isinstance(response, _Response) else response
        if isinstance(outcome, Answer):
            unused = reserved - outcome.prompt_tokens - outcome.completion_tokens
        elif status not in (0, 200):  # otherwise tokens may have been made, and stay reserved
            unused = reserved
        if unused and self._settings.tokens_per_minute is not None:
            await self._limits.settle(unused)
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome

    def _read(
        self, response: _Response, prompt: str, sampling: Sampling
    ) -> Answer | Trouble | RequestError | EndpointError:
        settings = self._settings
        if response.status != 200:
            return judge_refusal(response.status, response.headers, response.body, settings.api_key_env)
        model = settings.answers_as or settings.model
        answer = read_answer(response.body, model, sampling.n, sampling.max_tokens, prompt, self._thinking)
        if isinstance(answer, Answer) and answer.estimated:
            self._note("the endpoint does not tell how many tokens it took: counts and costs are estimates")
        return answer

    async def _send(self, body: dict[str, Any], deadline_s: float) -> _Response | Trouble:
        """Send one request.

        Nothing that the client raises leaves here, not even as a cause: its errors hold the request and so the key.
        """
        import openai

        try:
            async with asyncio.timeout(deadline_s):
                raw = await self._client.chat.completions.with_raw_response.create(**body)
            return self._response(raw.http_response)
        except openai.APIStatusError as error:
            return self._response(error.response)
        except (openai.APITimeoutError, TimeoutError):
            return Trouble(f"no answer within request_deadline_s = {deadline_s:g}")
        except _Unreadable as error:
            return Trouble(str(error))
        except openai.OpenAIError as error:
            cause = error.__cause__ or error
            return Trouble(f"no connection: {type(cause).__name__}: {shown(self._key.blot_out(str(cause)))}")

    def _response(self, response: Any) -> _Response:
        headers = {name.lower(): self._key.blot_out(value) for name, value in response.headers.items()}
        return _Response(response.status_code, headers, self._key.blot_out_json(response.content))

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        length = "max_completion_tokens" if "max_tokens" in self._without else "max_tokens"
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": list(messages),
            "temperature": sampling.temperature,
            length: sampling.max_tokens,
        }
        if sampling.n > 1 and "n" not in self._without:
            body["n"] = sampling.n
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if sampling.seed is not None and sampling.temperature > 0 and "seed" not in self._without:
            body["seed"] = sampling.seed
        further = self._settings.sampling.given()
        body |= {name: further.pop(name) for name in _OPENAI_KNOWS if name in further}
        if self._settings.chat_template_kwargs:
            further["chat_template_kwargs"] = self._settings.chat_template_kwargs
        if further:
            body["extra_body"] = further
        return body


def check_endpoint(settings: EngineSettings, deadline_s: float | None = None) -> tuple[str, ...]:
    """Ask an endpoint from this very process, without Ray, whether it serves; see `OpenAIEngine.check`.

    Args:
        settings: The role's settings.
        deadline_s: Seconds that all tries and back-offs together may take; default: as many as they want.

    Raises:
        EndpointError: If it does not serve, or not in time.
    """

    async def check() -> tuple[str, ...]:
        async with asyncio.timeout(deadline_s):
            return await OpenAIEngine(settings, Limits(None, None)).check()

    try:
        return asyncio.run(check())
    except TimeoutError:
        if deadline_s is None:
            raise
        raise EndpointError(
            f"{settings.endpoint} gave no tokens of {settings.model} within {deadline_s:g} s; it is busy, or turns us"
            " away: try later, or look at its own page of status"
        ) from None


class _Response(NamedTuple):
    """A reply over HTTP, without the key."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Unreadable(Exception):
    """A body that is not read to its end."""


def _one(sampling: Sampling, index: int) -> Sampling:
    """The draw of one of several samples, with a seed of its own."""
    seed = None if sampling.seed is None else (sampling.seed + index) % 2**31
    return dataclasses.replace(sampling, n=1, seed=seed)


async def _all_of(asked: Sequence[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """All answers; the first failure ends the others, which would be paid for in vain."""
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in asked]
    except* EngineError as failures:
        failure = failures.exceptions[0]
    if failure is not None:
        raise failure
    return [task.result() for task in tasks]


def _client(settings: EngineSettings, key: Key, most_bytes: int) -> Any:
    """The client, which neither retries nor follows redirects, and reads no more than it is allowed."""
    try:
        import httpx2
        import openai
    except ImportError as error:
        raise DependencyError(
            f"an endpoint is asked through the package openai: pip install fdd-ray[api] ({error})"
        ) from error

    class Bounded(httpx2.AsyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> Any:
            read = 0
            async for chunk in self._stream:
                read += len(chunk)
                if read > most_bytes:
                    raise _Unreadable(f"the reply is longer than {most_bytes} bytes")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def bound(response: Any) -> None:
        # What is packed tightly could unpack to any size.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _Unreadable("the reply is compressed, which was not asked for")
        response.stream = Bounded(response.stream)

    # At debug level it writes down the headers that the endpoint sends, which may repeat the key.
    logging.getLogger("httpcore2").setLevel(logging.INFO)
    http_client = openai.DefaultAsyncHttpxClient(
        headers={"Accept-Encoding": "identity"}, follow_redirects=False, event_hooks={"response": [bound]}
    )
    return openai.AsyncOpenAI(
        api_key=key.reveal(),
        base_url=settings.endpoint,
        max_retries=0,
        # The deadline of a whole request is kept in `_send`; a host that is not there is noticed sooner.
        timeout=openai.Timeout(settings.request_deadline_s, connect=min(30.0, settings.request_deadline_s)),
        http_client=http_client,
    )
