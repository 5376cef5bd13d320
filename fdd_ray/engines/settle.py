"""Finishing a future that belongs to another thread: engines work in one, and are asked from an event loop."""

from __future__ import annotations

import asyncio
from typing import Any


def settle(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: Any = None,
    error: BaseException | None = None,
) -> None:
    """Finish a future from another thread, unless it was cancelled."""

    def finish() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    loop.call_soon_threadsafe(finish)
