"""Room on the cluster for what comes next: engines of different roles never wait for each other's GPUs.

Whoever needs room, the engines of a role or the workers of a fine-tuning, asks for a `Place` and then claims it:
engines of other roles that have found no place are given up at once, for they might take what becomes free; those
that run are released one role after the other, until the place is there.

    place = Place(shape)
    claim(lambda: place.placed, shape, others=[student, teacher], report=print)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fdd_ray.engines.fleet import Fleet
from fdd_ray.engines.placement import Place, Shape, fits, may_meet, within

# What was just given back is counted as free, and placed anew, within moments.
_SETTLE_S = 5.0


def claim(placed: Callable[[], bool], shape: Shape, others: Sequence[Fleet], report: Callable[[str], None]) -> bool:
    """Have engines of other roles give back what somebody needs.

    Args:
        placed: Whether what was asked for is there.
        shape: What one of it needs, and where.
        others: Who may hold it, in the order in which they are to give it back.
        report: Told who does.

    Returns:
        Whether it is there. If not, no engine is in its way, and only more nodes can help.
    """
    for fleet in others:
        fleet.shed()
    for fleet in others:
        if within(placed, 0):
            return True
        if fleet.started and may_meet(shape, fleet.shape()) and not within(placed, _SETTLE_S):
            if not _holds_what_is_short(fleet, shape):
                continue
            what = "GPUs" if fleet.gpus_per_replica() else "resources"
            report(f"the {fleet.role} engines give their {what} back")
            fleet.release()
    return within(placed, _SETTLE_S)


def room_for(fleets: Iterable[Fleet], *further: Shape) -> bool:
    """Whether the cluster, as it is now, has what all replicas of these fleets and ``further`` need together."""
    shapes = [fleet.shape() for fleet in fleets for _ in range(fleet.settings.replicas[1])]
    return fits([*shapes, *further])


def leave_room(fleet: Fleet, others: Sequence[Fleet], shape: Shape, report: Callable[[str], None]) -> None:
    """See that what works with a fleet's engines finds a place beside them.

    Where the cluster is too small for both, other roles give way, then engines beyond the smallest allowed number.
    """
    if _is_free(shape) or within(lambda: _is_free(shape), _SETTLE_S):
        return
    place = Place(shape)
    try:
        if not claim(lambda: place.placed, shape, others, report):
            fleet.shed()
            while fleet.drop_one():
                report(f"one {fleet.role} engine less, to leave {shape} to the rows")
                if within(lambda: place.placed, _SETTLE_S):
                    break
    finally:
        place.free()


def _is_free(shape: Shape) -> bool:
    import ray

    free = ray.available_resources()
    return all(amount <= float(free.get(name, 0.0)) + 1e-6 for name, amount in shape.total().items())


def _holds_what_is_short(fleet: Fleet, shape: Shape) -> bool:
    """Whether a fleet has any of what there is too little of; if there is enough, but not in one place, of all."""
    import ray

    free: dict[str, Any] = ray.available_resources()
    need, held = shape.total(), fleet.shape().total()
    short = {name for name, amount in need.items() if float(free.get(name, 0.0)) + 1e-6 < amount} or set(need)
    return bool(short & {name for name, amount in held.items() if amount})
