"""How work travels through Ray Data: small items to map actors, small results back, and never a silent wait.

What is worked on stays on disk: an item says where it lies (a place in a Parquet file), a result says what
became of it (counts). The map actors read for themselves, so a stage asks the cluster for no more CPUs than
they have. Ray Data's own read tasks want a whole one each, and wait for ever where engines have taken the last.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from fdd_ray.errors import FddError, StageError
from fdd_ray.labels import this_node
from fdd_ray.settings import setting

_TICK_S = 1.0
_ASIDE_TRIES = 3
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """How rows travel."""

    block_rows: int = setting(64, "Rows that are written together; what a kill may lose of each block.", ge=1)
    blocks_in_flight: int = setting(8, "Blocks one map actor works on at once.", ge=1)
    map_actors: tuple[int, int] = setting((1, 4), "Map actors, [min, max]; they render, ask and check.", ge=1)
    cpus_per_map_actor: float = setting(0.25, "Logical CPUs one map actor reserves.", ge=0)
    row_tries: int = setting(
        3, "How often a row may take the worker down that it is alone in, before it is set down as failed.", ge=1
    )
    grace_s: float = setting(
        30.0, "Seconds that the rows in flight get to finish when the run is told to end (SIGTERM).", ge=0
    )
    stall_deadline_s: float = setting(3600.0, "Seconds without a finished block after which a stage fails.", gt=0)
    max_failed_share: float = setting(
        0.05, "Largest share of a stage's rows that may fail before the run stops.", ge=0, le=1
    )


def map_items(
    worker: type,
    arguments: tuple[Any, ...],
    items: Sequence[dict[str, Any]],
    flow: FlowSettings,
    label: str,
    *,
    calls: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, Any]]:
    """Results as they come, in any order.

    Args:
        worker: The callable class that runs in the map actors; it gets a table of one item and returns a table.
        arguments: What it is made with.
        items: What to work on, one block each; plain values.
        flow: How many actors, of what size, and how long to wait.
        label: What is being done, for messages.
        calls: Items one actor has in flight; with more than one, the class is called asynchronously.
        tick: Called every second while results are awaited.

    Raises:
        StageError: If nothing finishes for ``stall_deadline_s``, or Ray Data fails.
        FddError: What a worker raised.
    """
    return _watched(_results(worker, arguments, items, flow, calls), flow.stall_deadline_s, label, tick)


def aside(function: Callable[..., T], *arguments: Any, label: str, deadline_s: float) -> T:
    """Call a function in a process of its own, on this node: what holds a whole pool in memory holds it there.

    It reserves nothing. If its process dies it is called again, so it must not mind.

    Args:
        function: What to call; importable.
        *arguments: What with; picklable.
        label: What is being done, for messages.
        deadline_s: Seconds that it may take.

    Raises:
        FddError: What the function raised.
        StageError: If it raised anything else, its process died again and again, or it took too long.
    """
    import ray

    remote: Any = ray.remote(num_cpus=0, max_retries=_ASIDE_TRIES)(_call)
    reference = remote.options(label_selector=this_node()).remote(function, arguments)
    try:
        result: T = ray.get(reference, timeout=deadline_s)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        raise StageError(
            f"{label}: not finished after {deadline_s:.0f} s on the driver's node; look there for a storage that"
            " hangs or for memory that is short, or raise flow.stall_deadline_s"
        ) from None
    except ray.exceptions.RayError as error:
        raise _explained(error, label, "the process that did it") from None
    return result


def _call(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    return function(*arguments)


def _results(
    worker: type, arguments: tuple[Any, ...], items: Sequence[dict[str, Any]], flow: FlowSettings, calls: int
) -> Iterator[dict[str, Any]]:
    import ray
    from ray.data import ActorPoolStrategy

    least, most = flow.map_actors
    dataset = ray.data.from_items(list(items), override_num_blocks=len(items)).map_batches(
        worker,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(
            min_size=min(least, len(items)),
            max_size=min(most, len(items)),
            max_tasks_in_flight_per_actor=calls,
            max_concurrent_calls_per_actor=calls,
        ),
        num_cpus=flow.cpus_per_map_actor,
        fn_constructor_args=arguments,
    )
    yield from dataset.iter_rows()


def _watched(
    results: Iterator[dict[str, Any]], deadline_s: float, label: str, tick: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Pass results on, but fail when none comes for ``deadline_s``."""
    outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def drain() -> None:
        try:
            for result in results:
                outbox.put(result)
            outbox.put(None)
        except BaseException as error:
            outbox.put(error)

    threading.Thread(target=drain, name="flow", daemon=True).start()
    begun = time.monotonic()
    while True:
        tick()
        try:
            item = outbox.get(timeout=min(_TICK_S, deadline_s))
        except queue.Empty:
            waited = time.monotonic() - begun
            if waited < deadline_s:
                continue
            import ray

            raise StageError(
                f"{label}: no block was finished for {waited:.0f} s; free on the cluster:"
                f" {ray.available_resources()}. Look at `ray status` and the engines' logs; raise"
                " flow.stall_deadline_s if single blocks take that long"
            ) from None
        begun = time.monotonic()
        if item is None:
            return
        if isinstance(item, BaseException):
            raise _explained(item, label, "Ray Data")
        yield item


def _explained(error: BaseException, label: str, what: str) -> BaseException:
    """The error of ours inside the wrappers that Ray puts around it, or one that says what failed."""
    inner: BaseException | None = error
    while inner is not None:
        cause = getattr(inner, "cause", None)
        if isinstance(inner, FddError) and cause is None:  # Ray's wrapper passes for what it wraps
            return inner
        inner = cause or inner.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    failure = StageError(
        f"{label}: {what} failed: {lines[-1][:300] if lines else type(error).__name__}. What was written is"
        " kept; see the logs in Ray's log folder, mend the cause and run the same command again"
    )
    failure.__cause__ = error
    return failure
