"""Reading what an endpoint sends, of which nothing is taken for granted.

`read_answer` turns the body of a reply into samples or says what is wrong with it; `judge_refusal` turns
an HTTP error into what is to be done: ask again, wait, ask differently, give the request up, or give up.
Both are plain functions of bytes, so that every kind of broken reply can be tested without a server.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from fdd_ray.engines.base import ContentFiltered, EndpointError, PromptTooLong, RequestError, Sample
from fdd_ray.engines.thinking import CLOSE, OPEN, answer_of

_SHOWN = 160
_CUT_OFF = {"length", "max_tokens", "model_length", "content_filter"}
_ENDED = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"}
_OUT_OF_CREDIT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits"}
_THOUGHTS = ("reasoning_content", "reasoning")
_FILTERED = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
_TOO_LONG = {"context_length_exceeded", "string_above_max_length", "input_tokens"}
_TOO_LONG_TEXT = re.compile(
    r"(maximum )?context (length|window)|(prompt|input) is too long|reduce the length|too many (input )?tokens", re.I
)
# Names a model has gone by in replies, beyond the one it was asked by: a dated version, or a numbered one.
_VERSION = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|\d{3}|latest)")


class Answer(NamedTuple):
    """A reply that could be read.

    Attributes:
        samples: At least one, at most as many as asked for.
        prompt_tokens: As the endpoint counted them, or an estimate.
        completion_tokens: Likewise, of all choices, also of those beyond what was asked for.
        estimated: Whether the token counts are estimates from the length of the texts.
    """

    samples: tuple[Sample, ...]
    prompt_tokens: int
    completion_tokens: int
    estimated: bool


class Thinking(NamedTuple):
    """What becomes of the thinking before an answer; see `fdd_ray.engines.thinking`."""

    mode: Literal["strip", "keep"] = "strip"
    open_tag: str = OPEN
    close_tag: str = CLOSE

    def applied(self, text: str, apart: str, finish: str, *, ended: bool) -> tuple[str, str]:
        """The text of a choice and its finish.

        Args:
            text: Its content.
            apart: The thinking that came beside it; kept, it is put where the model wrote it.
            finish: ``stop`` or ``length``.
            ended: Whether there is an answer after that thinking.
        """
        if self.mode == "strip":
            return answer_of(text, finish, self.open_tag, self.close_tag)
        return f"{self.open_tag}{apart}{self.close_tag if ended else ''}{text}" if apart else text, finish


class _Choice(NamedTuple):
    """A choice that could be read: what is left of it, and all that was written."""

    text: str
    finish: str
    written: str


@dataclasses.dataclass(frozen=True)
class Trouble:
    """Why a try brought no answer, and what may help.

    Attributes:
        text: What was seen, short and without the key.
        help: ``again`` after a back-off; ``later``, when the endpoint lets requests in again; or asked
            ``differently``, without the parameter in ``blamed``.
        after_s: How long the endpoint asked to wait.
        blamed: Name of the parameter that the endpoint does not take.
    """

    text: str
    help: Literal["again", "later", "differently"] = "again"
    after_s: float | None = None
    blamed: str = ""


def estimate_tokens(text: str) -> int:
    """A rough count, on the high side for English: one token for each three bytes."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 3)


def is_called(asked: str, answered: str) -> bool:
    """Whether a reply's model name is the one asked for, give or take a provider's prefix and a version.

    >>> is_called("some-model", "provider/some-model-2026-05-01"), is_called("some-model", "some-model-mini")
    (True, False)
    """
    want, got = (name.lower().rsplit("/", 1)[-1].split(":", 1)[0] for name in (asked, answered))
    want = want.removesuffix("-latest")
    return got == want or (got.startswith(want) and _VERSION.fullmatch(got[len(want) :]) is not None)


def read_answer(
    body: bytes, model: str, n: int, max_tokens: int, prompt_text: str, thinking: Thinking | None = None
) -> Answer | Trouble:
    """The samples in the body of a successful reply.

    Args:
        body: As it came.
        model: The name that the reply must carry, if it carries one.
        n: How many samples were asked for.
        max_tokens: Longest sample asked for.
        prompt_text: The text of the prompt, to estimate its tokens from where they are not told.
        thinking: What becomes of the thinking before an answer.

    Raises:
        ContentFiltered: If the endpoint withholds every sample.
    """
    try:
        reply = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Trouble(f"the reply is not JSON: {shown(body)}")
    if not isinstance(reply, dict):
        return Trouble(f"the reply is no JSON object: {shown(body)}")
    if not isinstance(reply.get("choices"), list) or not reply["choices"]:
        return Trouble(f"the reply has no choices: {shown(body)}")
    named = reply.get("model")
    if named is not None and not (isinstance(named, str) and is_called(model, named)):
        return Trouble(f"the reply is from the model {str(named)[:80]!r}, not {model!r}")
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    told = _count(usage.get("completion_tokens"))
    choices = reply["choices"]
    read: list[_Choice | ContentFiltered] = []
    for choice in choices:
        found = _read_choice(choice, told if len(choices) == 1 else None, max_tokens, thinking or Thinking())
        if isinstance(found, str):
            return Trouble(f"{found}: {shown(body)}")
        read.append(found)
    kept = [found for found in read[:n] if not isinstance(found, ContentFiltered)]
    if not kept:
        raise next(found for found in read if isinstance(found, ContentFiltered))
    estimates = [estimate_tokens(choice.written) for choice in kept]
    completion = told if told is not None else sum(estimates)
    shares = [completion] if len(kept) == 1 else _split(completion, estimates)
    samples = tuple(Sample(choice.text, choice.finish, tokens) for choice, tokens in zip(kept, shares, strict=True))
    prompt = _count(usage.get("prompt_tokens"))
    return Answer(
        samples,
        prompt if prompt is not None else estimate_tokens(prompt_text),
        completion,
        estimated=told is None or prompt is None,
    )


def _read_choice(
    choice: Any, tokens: int | None, max_tokens: int, thinking: Thinking
) -> _Choice | ContentFiltered | str:
    """Text and finish of a choice; or that it is withheld; or what is wrong with it."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return "a choice has no message"
    finish, text = choice.get("finish_reason"), message.get("content")
    # Servers that know the model put its thinking beside the answer, under one of two names.
    apart = next((said for name in _THOUGHTS if isinstance(said := message.get(name), str) and said), "")
    if isinstance(message.get("refusal"), str) and message["refusal"] and not text:
        return ContentFiltered("the model refused to answer")
    if text is None and finish == "content_filter":
        return ContentFiltered("the endpoint's filter withheld the answer")
    silent = text is None
    if silent and (apart or finish in _CUT_OFF):
        text = ""  # all tokens went into the thinking, which may not be shown
    if not isinstance(text, str):
        return "a choice has no text"
    cut = silent or finish in _CUT_OFF or (finish not in _ENDED and tokens is not None and tokens >= max_tokens)
    # Half a surrogate pair is valid JSON, but no text that could be written to a file.
    text, apart = (part.encode("utf-8", "replace").decode() for part in (text, apart))
    answer, ending = thinking.applied(text, apart, "length" if cut else "stop", ended=not silent)
    return _Choice(answer, ending, apart + text)


def judge_refusal(
    status: int, headers: Mapping[str, str], body: bytes, key_name: str | None
) -> Trouble | RequestError | EndpointError:
    """What to do about a reply with an HTTP status other than 200.

    Args:
        status: The status.
        headers: The reply's headers.
        body: The reply's body.
        key_name: Name of the variable with the key, for messages.

    Returns:
        A `Trouble` where asking again can help, otherwise the exception to raise.
    """
    error = _Error.read(body)
    said = f"HTTP {status}: {error.message}"
    after_s = read_retry_after(headers)
    key = f"the key in {key_name}" if key_name else "a request without a key (api_key_env: null)"
    if status == 401:
        return EndpointError(f"the endpoint does not accept {key} ({said}); put a valid one into the environment")
    if status == 402 or error.codes & _OUT_OF_CREDIT:
        return EndpointError(f"the account has no credit left for {key} ({said}); top it up, or use another key")
    if status == 429 or (status == 503 and after_s is not None):
        return Trouble(said, "later", after_s)
    if status in (408, 409, 425) or status >= 500:
        return Trouble(said, "again", after_s)
    if status == 413:
        return PromptTooLong(said)
    if status in (400, 403, 422) and error.codes & _FILTERED:
        return ContentFiltered(said)
    if status in (400, 422):
        if error.codes & _TOO_LONG or _TOO_LONG_TEXT.search(error.message):
            return PromptTooLong(said)
        for name in ("n", "seed", "max_tokens"):
            if error.blames(name):
                return Trouble(said, "differently", blamed=name)
        return EndpointError(f"the endpoint refuses the request ({said})")
    if status == 403:
        return EndpointError(f"the endpoint does not let {key} use this model ({said})")
    if status in (404, 405):
        return EndpointError(f"the endpoint has no such model or address ({said}); check model and endpoint")
    if 300 <= status < 400:
        return EndpointError(f"the endpoint has moved to {shown(headers.get('location', '?'))} (HTTP {status})")
    return EndpointError(f"the endpoint refuses the request ({said})")


@dataclasses.dataclass(frozen=True)
class _Error:
    """The usual parts of an error's body; codes are lower case."""

    message: str
    codes: frozenset[str] = frozenset()
    param: str = ""

    @classmethod
    def read(cls, body: bytes) -> _Error:
        try:
            reply = json.loads(body.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return cls(shown(body) or "no text")
        inner = reply.get("error", reply) if isinstance(reply, dict) else reply
        if not isinstance(inner, dict):
            return cls(shown(str(inner)))
        said = inner.get("message", inner.get("detail"))
        nested = inner.get("innererror")
        codes = [inner.get("code"), inner.get("type"), nested.get("code") if isinstance(nested, dict) else None]
        param = inner.get("param")
        param = param.rsplit(".", 1)[-1].lower() if isinstance(param, str) else ""
        known = {code.lower() for code in codes if isinstance(code, str)} | ({param} & _TOO_LONG)
        return cls(shown(body if said is None else str(said)), frozenset(known), param)

    def blames(self, name: str) -> bool:
        """Whether a parameter of this name is what the endpoint objects to."""
        text = self.message
        quoted = re.search(rf"['\"`]{name}['\"`]", text) is not None
        stated = re.search(rf"(?<![\w.]){name} (is|must|should|has|greater|larger|not|>|=)", text) is not None
        return self.param == name if self.param else quoted or stated


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait: ``Retry-After-Ms``, or ``Retry-After`` as seconds or a date."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * scale
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        until = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.UTC)
    return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())


def _count(value: Any) -> int | None:
    """A count of tokens, or None for anything that can be none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _split(total: int, weights: list[int]) -> list[int]:
    """``total`` in whole shares like the weights; each share is an estimate, but they add up to what was told."""
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    ends, seen = [0], 0
    for weight in weights:
        seen += weight
        ends.append(total * seen // whole)
    return [end - start for start, end in itertools.pairwise(ends)]


def shown(text: bytes | str) -> str:
    """The beginning of a text on one line, without anything unprintable."""
    if isinstance(text, bytes):
        text = text[: 4 * _SHOWN].decode("utf-8", "replace")
    plain = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN]).split())
    return plain[:_SHOWN] + ("..." if len(plain) > _SHOWN else "")
