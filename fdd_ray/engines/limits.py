"""What keeps requests to an endpoint within its limits.

`Limits` is shared by everybody who asks one endpoint: it paces requests and tokens, and pauses all of
them when the endpoint asks for it. In one process it is used as it is; a fleet makes a Ray actor of it,
which engines reach through `RemoteLimits`. `Window` belongs to one engine: it narrows how many requests
are in flight when the endpoint turns some away, so that nobody has to know its limits beforehand.

    limits = Limits(requests_per_minute=600, tokens_per_minute=None)
    await limits.reserve(tokens=900)        # returns when the request may be sent
    await limits.settle(unused=650)         # it took 250
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

# A sleeper that wakes this late is made up for; one that comes later starts anew, without a burst.
_LATE_S = 1.0
# Longest sleep before looking again whether tokens were given back or a pause was asked for.
_LOOK_S = 1.0


class Limiter(Protocol):
    """What an engine asks before and after each request."""

    async def reserve(self, tokens: int) -> None:
        """Wait until a request of at most ``tokens`` prompt and completion tokens may be sent."""
        ...

    async def settle(self, unused: int) -> None:
        """Give back tokens that were reserved but not used; negative if more were used."""
        ...

    async def pause(self, seconds: float) -> None:
        """Let nobody send for so long from now."""
        ...


class _Pace:
    """Spreads an amount per minute evenly: each taking delays the next one by its share of the minute.

    So any minute holds the limit, and at most one request more where requests are of several tokens.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._free_at = float("-inf")

    def wait_s(self, now: float) -> float:
        return self._free_at - now

    def take(self, now: float, amount: float, *, waited: bool) -> None:
        on_time = waited and now - self._free_at < _LATE_S
        self._free_at = (self._free_at if on_time else max(now, self._free_at)) + amount * self._seconds_each

    def give_back(self, now: float, amount: float) -> None:
        if amount < 0:
            self._free_at = max(now, self._free_at)
        self._free_at -= amount * self._seconds_each


class Limits:
    """The limits of one endpoint; first come, first served.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: Of prompts and completions together; None for no limit.
        clock: Seconds on a clock that never goes back.
        sleep: Sleeps on that clock.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = _Pace(requests_per_minute)
        self._tokens = _Pace(tokens_per_minute)
        self._paused_until = float("-inf")
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()

    async def reserve(self, tokens: int) -> None:
        """Wait until a request of at most ``tokens`` prompt and completion tokens may be sent."""
        async with self._turn:
            waited = False
            while (wait := self._wait_s(now := self._clock())) > 0:
                waited = True
                await self._sleep(min(wait, _LOOK_S))
            self._requests.take(now, 1, waited=waited)
            self._tokens.take(now, tokens, waited=waited)

    async def settle(self, unused: int) -> None:
        """Give back tokens that were reserved but not used; negative if more were used."""
        self._tokens.give_back(self._clock(), unused)

    async def pause(self, seconds: float) -> None:
        """Let nobody send for so long from now; a longer pause that is under way stays."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def _wait_s(self, now: float) -> float:
        return max(self._requests.wait_s(now), self._tokens.wait_s(now), self._paused_until - now)


class RemoteLimits:
    """`Limits` that live in a Ray actor, for engines in other processes.

    Args:
        actor: Handle of an actor made of `Limits`.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def reserve(self, tokens: int) -> None:
        """Wait until a request may be sent."""
        await self._call(lambda: self._actor.reserve.remote(tokens))

    async def settle(self, unused: int) -> None:
        """Give back tokens that were reserved but not used."""
        await self._call(lambda: self._actor.settle.remote(unused))

    async def pause(self, seconds: float) -> None:
        """Let nobody send for so long from now."""
        await self._call(lambda: self._actor.pause.remote(seconds))

    async def _call(self, call: Callable[[], Awaitable[None]]) -> None:
        from ray.exceptions import ActorUnavailableError

        while True:
            try:
                await call()
                return
            except ActorUnavailableError:  # its node was lost, and Ray starts it again elsewhere
                await asyncio.sleep(1.0)


class Window:
    """How many requests one engine has in flight: fewer when some are turned away, slowly more again.

    Args:
        most: The largest number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = float(most)
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._era = 0

    async def enter(self, *, first: bool = False) -> int:
        """Wait for a place, in front of everybody if ``first``; returns what `leave` is to be told."""
        if self._in_flight >= int(self.size) or self._waiting:
            place = asyncio.get_running_loop().create_future()
            if first:
                self._waiting.appendleft(place)
            else:
                self._waiting.append(place)
            self._let_in()
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._in_flight -= 1
                    self._let_in()
                raise
        else:
            self._in_flight += 1
        return self._era

    def leave(self, era: int, *, served: bool = False, turned_away: bool = False) -> None:
        """Give the place up. Requests that were sent together and turned away narrow the window once."""
        self._in_flight -= 1
        if turned_away and era == self._era:
            self.size = max(1.0, self.size / 2)
            self._era += 1
        elif served:
            self.size = min(float(self._most), self.size + 1.0 / self.size)
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._in_flight < int(self.size):
            place = self._waiting.popleft()
            if not place.done():
                self._in_flight += 1
                place.set_result(None)
