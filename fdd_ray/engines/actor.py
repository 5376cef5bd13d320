"""The Ray actor that holds one engine.

Loading a model and dying are the two things that matter here. An engine that breaks takes its
process down (``os._exit``), so that Ray starts the actor again instead of asking a broken engine for
ever; a request carries the weights it wants, so that an actor that was started again never answers
with the weights it first came up with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fdd_ray.engines.base import EngineSettings, Reply, Sampling
from fdd_ray.prompts import Message

if TYPE_CHECKING:
    from fdd_ray.engines.vllm import Engine

EXIT_ENGINE_DEAD = 70


@runtime_checkable
class Checkable(Protocol):
    """An engine that can say whether what stands behind it serves."""

    async def check(self) -> tuple[str, ...]:
        """What the user should know; raises `fdd_ray.engines.base.EndpointError` if it does not serve."""
        ...


class EngineActor:
    """One engine of a role; made a Ray actor by `fdd_ray.engines.fleet`.

    Args:
        settings: The role's settings.
        on_gpu: Whether this actor was given GPUs.
        weights: What to load first.
        limits: With an endpoint, the actor that keeps its limits.
    """

    def __init__(self, settings: EngineSettings, on_gpu: bool, weights: str, limits: Any = None) -> None:
        self._weights = weights
        self._engine = _build(settings, on_gpu, weights, limits)
        self._reloading = asyncio.Lock()

    async def ready(self) -> int:
        """Returns (the process id) once the engine is loaded."""
        return os.getpid()

    async def check(self) -> tuple[str, ...]:
        """Once the engine serves: what the user should know of it. An endpoint is asked something to find out.

        Raises:
            EndpointError: If the endpoint does not serve the model.
        """
        return await self._engine.check() if isinstance(self._engine, Checkable) else ()

    async def generate(self, weights: str, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat, by the weights asked for."""
        if weights != self._weights:
            await self.use(weights)
        return await self._engine.generate(messages, sampling)

    async def use(self, weights: str) -> None:
        """Make sure that the engine has these weights."""
        async with self._reloading:
            if weights != self._weights:
                await self._engine.reload(weights)
                self._weights = weights

    async def close(self) -> None:
        """End the engine's own processes, so that they give back what they hold before the actor is killed."""
        _end_children()


def _build(settings: EngineSettings, on_gpu: bool, weights: str, limits: Any) -> Engine:
    if settings.endpoint is not None:
        from fdd_ray.engines.limits import RemoteLimits
        from fdd_ray.engines.openai import OpenAIEngine

        return OpenAIEngine(settings, RemoteLimits(limits))
    if settings.engine == "simulated":
        from fdd_ray.engines.simulated import SimulatedEngine

        return SimulatedEngine(settings, weights, _leave)
    if settings.engine == "transformers":
        from fdd_ray.engines.transformers import TransformersEngine

        return TransformersEngine(settings, on_gpu, weights, _leave)
    from fdd_ray.engines import vllm

    in_process = not on_gpu if settings.in_process is None else settings.in_process
    build = vllm.InProcessEngine if in_process else vllm.ProcessEngine
    return build(vllm.engine_arguments(settings, weights, on_gpu), settings, _leave)


def _leave(error: BaseException) -> None:
    print(f"the engine is dead, leaving so that it is started again: {error!r}", file=sys.stderr, flush=True)
    _end_children()
    os._exit(EXIT_ENGINE_DEAD)


def _end_children() -> None:
    """Kill the processes that this one started: vLLM's engine and its workers outlive a parent that is killed."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
