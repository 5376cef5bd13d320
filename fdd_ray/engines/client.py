"""What rows ask a role's engines through: the engine with the fewest requests in flight, or another if it dies.

`FleetClient` is handed out by `fdd_ray.engines.fleet.Fleet` and travels to the processes in which rows run.
Engines that come up later get requests from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import re
import time
from collections.abc import Sequence
from typing import Any

from fdd_ray.engines.base import EndpointError, EngineSettings, Reply, RequestError, Sampling
from fdd_ray.errors import EngineError
from fdd_ray.prompts import Message

_BACK_OFF_S = 1.0
_SUSPECT_FROM = 2  # engines that died with a request before it is asked without other suspects


@dataclasses.dataclass
class FleetClient:
    """Asks the engines of a role; one per process, used by many rows at once.

    Args:
        role: The role, for messages.
        weights: The weights that shall answer.
        settings: The role's settings (deadlines and tries).
        actors: Handles of the engine actors.
    """

    role: str
    weights: str
    settings: EngineSettings
    actors: tuple[Any, ...]
    _lanes: list[_Lane] = dataclasses.field(default_factory=list, init=False, repr=False)
    _suspects: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock, init=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.role, self.weights, self.settings, self.actors)

    async def ask(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat, from the engine with the fewest requests in flight.

        An engine that dies takes all its requests with it, and one of them may be the cause. One that was
        there twice is a suspect: suspects are asked one after the other, so that whichever kills engines
        soon runs out of tries, and the others do not.

        Raises:
            RequestError: If the request itself cannot be served; it is not tried again.
            EngineError: If no engine answered within the tries and the deadline.
        """
        from ray.exceptions import RayActorError, RayTaskError

        # An engine that asks an endpoint keeps the deadline itself, for it knows when a request was sent.
        deadline_s = self.settings.request_deadline_s if self.settings.endpoint is None else None
        trouble = "no engine was free"
        deaths = 0
        for attempt in range(self.settings.request_tries):
            try:
                async with self._suspects if deaths >= _SUSPECT_FROM else contextlib.nullcontext():
                    return await self._ask_once(messages, sampling, deadline_s)
            except RayTaskError as error:
                if isinstance(error.cause, (RequestError, EndpointError)):
                    raise error.cause from None
                trouble = f"the engine failed: {cause_of(error)}"
            except RayActorError as error:
                deaths += 1
                trouble = f"the engine died: {cause_of(error)}"
            except TimeoutError:
                trouble = f"no answer within {self.settings.request_deadline_s:.0f} s"
            await asyncio.sleep(_BACK_OFF_S * 2**attempt * random.uniform(0.5, 1.5))
        raise EngineError(f"{self.role}: gave up after {self.settings.request_tries} tries: {trouble}")

    async def _ask_once(self, messages: Sequence[Message], sampling: Sampling, deadline_s: float | None) -> Reply:
        from ray.exceptions import RayActorError

        lane = await self._pick()
        lane.in_flight += 1
        try:
            reference = lane.actor.generate.remote(self.weights, list(messages), sampling)
            async with asyncio.timeout(deadline_s):
                reply: Reply = await reference
            return reply
        except RayActorError:
            lane.lost()
            raise
        finally:
            lane.in_flight -= 1

    async def _pick(self) -> _Lane:
        """The serving engine with the fewest requests in flight; waits for one if none serves."""
        if not self._lanes:
            self._lanes = [_Lane(actor) for actor in self.actors]
        begun = time.monotonic()
        while time.monotonic() - begun < self.settings.start_deadline_s:
            for lane in self._lanes:
                lane.watch()
            serving = [lane for lane in self._lanes if lane.serving]
            if serving:
                return min(serving, key=lambda lane: lane.in_flight)
            if all(lane.gone for lane in self._lanes):
                raise EngineError(
                    f"all {self.role} engines are dead and out of restarts; see their logs in Ray's log"
                    f" folder, or raise {self.role}.max_restarts"
                )
            await asyncio.sleep(0.2)
        raise EngineError(f"no {self.role} engine served within start_deadline_s = {self.settings.start_deadline_s:g}")


class _Lane:
    """One engine as a client sees it: serving, starting (again), or gone for good."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.in_flight = 0
        self.serving = False
        self.gone = False
        self._watcher: asyncio.Task[None] | None = None

    def lost(self) -> None:
        """Note that the engine died; it serves again once it answers."""
        self.serving = False

    def watch(self) -> None:
        """Make sure that someone is waiting for the engine to come up."""
        if not self.serving and not self.gone and (self._watcher is None or self._watcher.done()):
            self._watcher = asyncio.ensure_future(self._await_ready())

    async def _await_ready(self) -> None:
        from ray.exceptions import ActorUnavailableError, RayActorError

        try:
            await self.actor.ready.remote()
            self.serving = True
        except ActorUnavailableError:
            await asyncio.sleep(1.0)  # it is being started again
        except RayActorError:
            self.gone = True


def cause_of(error: BaseException) -> str:
    """What an error says at its end: its last line that names an exception, and what follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [i for i, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception)\b", line)]
    said = lines[named[-1] : named[-1] + 4] if named else lines[-1:]
    return " ".join(said)[:400] or type(error).__name__
