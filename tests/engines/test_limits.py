"""The shared limits on a clock that the test moves, and the window of one engine."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random

import pytest

from fdd_ray.engines.limits import Limits, Window


class Clock:
    """Time that passes only in sleep: the one who sleeps shortest is woken first."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._ids = itertools.count()
        self._late_s = late_s

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._ids), woken))
        await asyncio.sleep(0)
        if not woken.is_set():
            at, _, first = heapq.heappop(self._sleepers)
            self.now = max(self.now, at + self._late_s)
            first.set()
        await woken.wait()


async def _releases(limits: Limits, clock: Clock, amounts: list[int]) -> list[float]:
    """When each of some requests, all there at once, is let through."""

    async def one(amount: int) -> float:
        await limits.reserve(amount)
        return clock.now

    return await asyncio.gather(*(one(amount) for amount in amounts))


def _most_in_a_minute(times: list[float], amounts: list[int]) -> int:
    # A nanosecond of rounding decides no limit.
    return max(
        sum(amount for at, amount in zip(times, amounts, strict=True) if start <= at < start + 60 - 1e-6)
        for start in times
    )


@pytest.mark.parametrize("per_minute", [1, 7, 60, 500])
async def test_no_minute_holds_more_requests_than_allowed_and_none_is_wasted(per_minute: int) -> None:
    clock = Clock()
    amounts = [1] * (3 * per_minute + 1)
    times = await _releases(Limits(per_minute, None, clock, clock.sleep), clock, amounts)
    assert times == sorted(times), "first come, first served"
    assert _most_in_a_minute(times, amounts) == per_minute
    assert times[-1] - times[0] == pytest.approx(180, abs=0.01)


async def test_no_minute_holds_more_tokens_than_allowed_and_one_request() -> None:
    clock, draw = Clock(), random.Random(3)
    amounts = [draw.randint(1, 900) for _ in range(200)]
    times = await _releases(Limits(None, 6000, clock, clock.sleep), clock, amounts)
    assert _most_in_a_minute(times, amounts) <= 6000 + max(amounts)
    assert times[-1] - times[0] == pytest.approx(sum(amounts[:-1]) / 100, abs=0.01)


async def test_nobody_overtakes_one_who_waits() -> None:
    clock, order = Clock(), []
    limits = Limits(None, 6000, clock, clock.sleep)

    async def one(name: str) -> None:
        await limits.reserve(1)
        order.append(name)

    await limits.reserve(3000)  # half a minute
    async with asyncio.TaskGroup() as group:
        group.create_task(one("first"))
        await asyncio.sleep(0)  # it sleeps
        clock.now += 30
        await one("second")  # finds the way free before the first one wakes
    assert order == ["first", "second"]


async def test_a_request_larger_than_a_minute_gets_through() -> None:
    clock = Clock()
    times = await _releases(Limits(None, 100, clock, clock.sleep), clock, [1000, 1])
    assert times[1] - times[0] == pytest.approx(600)


async def test_time_without_requests_is_not_saved_up() -> None:
    clock = Clock()
    limits = Limits(60, None, clock, clock.sleep)
    await limits.reserve(1)
    clock.now += 600
    times = await _releases(limits, clock, [1, 1, 1])
    assert [round(at - times[0], 6) for at in times] == [0, 1, 2]


async def test_waking_late_does_not_lower_the_rate() -> None:
    """A busy machine wakes everybody 0.05 s late; 600 a minute are still 600."""
    clock = Clock(late_s=0.05)
    times = await _releases(Limits(600, None, clock, clock.sleep), clock, [1] * 601)
    assert times[-1] - times[0] < 61


async def test_tokens_given_back_are_there_for_others_and_too_many_used_are_missing() -> None:
    clock = Clock()
    limits = Limits(None, 6000, clock, clock.sleep)
    begun = clock.now
    await limits.reserve(3000)  # half a minute
    await limits.settle(2000)
    await limits.reserve(100)
    assert clock.now - begun == pytest.approx(10)
    await limits.settle(-500)
    await limits.reserve(1)
    assert clock.now - begun == pytest.approx(16)


async def test_a_pause_holds_everybody_and_a_shorter_one_does_not_end_it() -> None:
    clock = Clock()
    limits = Limits(None, None, clock, clock.sleep)
    begun = clock.now
    await limits.pause(20)
    await limits.pause(3)
    times = await _releases(limits, clock, [1, 1, 1])
    assert [at - begun for at in times] == pytest.approx([20, 20, 20])


async def test_one_who_gives_up_waiting_does_not_block_the_others() -> None:
    limits = Limits(600, None)
    await limits.reserve(1)
    waiting = [asyncio.create_task(limits.reserve(1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    async with asyncio.timeout(2):
        await asyncio.gather(*waiting[1:])


async def test_without_limits_nobody_waits() -> None:
    clock = Clock()
    assert set(await _releases(Limits(None, None, clock, clock.sleep), clock, [10**9] * 50)) == {1000.0}


async def test_the_window_narrows_once_for_requests_sent_together_and_widens_again() -> None:
    window = Window(16)
    eras = [await window.enter() for _ in range(16)]
    for era in eras:
        window.leave(era, turned_away=True)
    assert window.size == 8
    for _ in range(200):
        window.leave(await window.enter(), served=True)
    assert window.size == 16
    for _ in range(9):
        window.leave(await window.enter(), turned_away=True)
    assert window.size == 1, "one at a time is the least"
    window.leave(await window.enter())


async def test_the_window_lets_in_in_order_those_who_come_again_first() -> None:
    window, order = Window(1), []
    held = await window.enter()

    async def come(name: str, first: bool) -> None:
        era = await window.enter(first=first)
        order.append(name)
        window.leave(era)

    tasks = []
    for name, first in (("a", False), ("b", False), ("again", True)):
        tasks.append(asyncio.create_task(come(name, first)))
        await asyncio.sleep(0)
    window.leave(held)
    await asyncio.gather(*tasks)
    assert order == ["again", "a", "b"]


async def test_a_cancelled_waiter_leaves_its_place_to_others() -> None:
    window = Window(1)
    held = await window.enter()
    waiting = [asyncio.create_task(window.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    window.leave(held)
    waiting[1].cancel()  # its place was just given to it
    async with asyncio.timeout(2):
        await waiting[2]
