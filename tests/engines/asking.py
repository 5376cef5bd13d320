"""How the tests of the endpoint engine ask: an engine at a scripted endpoint, and what that says."""

from __future__ import annotations

from typing import Any

from fdd_ray.engines.base import EngineSettings, Reply, Sample
from fdd_ray.engines.limits import Limits
from fdd_ray.engines.openai import OpenAIEngine
from fdd_ray.prompts import Message
from tests.engines.endpoint import MODEL, ScriptedEndpoint, completion

KEY = "sk-canary-5f3a9c1e77"
CHAT: list[Message] = [{"role": "user", "content": "What is 3 + 4?"}]
GOOD = completion("answer = 7")
GOOD_REPLY = Reply((Sample("answer = 7", "stop", 5),), 7)


def engine_at(
    server: ScriptedEndpoint, limits: Limits | None = None, most_bytes: int = 1 << 20, **rest: Any
) -> OpenAIEngine:
    given = {"api_key_env": "TEST_API_KEY", "request_deadline_s": 5.0, "request_tries": 3, **rest}
    settings = EngineSettings(model=MODEL, endpoint=server.url, **given)
    return OpenAIEngine(settings, limits or Limits(None, None), back_off_s=0.01, most_bytes=most_bytes)


def in_turn(*said: Any) -> ScriptedEndpoint:
    """Says each in turn, and the last one for ever."""
    return ScriptedEndpoint(lambda asked, number: said[min(number, len(said) - 1)])


def choice(**message: Any) -> dict[str, Any]:
    return completion() | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
