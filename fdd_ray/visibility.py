"""Whether all nodes of the cluster see the run directory, found out before anything is started.

    require_visible("s3://bucket/runs/gsm8k")    # or a StoreError that names the node, the place and the reason

Rows are read and written by whichever node has room. One that does not see the storage (a local path of another
machine, a share that is not mounted, credentials that are missing) would otherwise show after engines were loaded
and paid for. Nodes that join later are not asked: the first thing they read fails, and says where.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fdd_ray.errors import FddError, StoreError
from fdd_ray.store import files

DEADLINE_S = 180.0  # a node may first have to unpack the job's working directory
# A share may show a new file to another node a little later.
_LATE_S = 5.0
_POLL_S = 0.5
_SHOWN = 3


def require_visible(directory: str, deadline_s: float = DEADLINE_S) -> None:
    """Have each other live node read a file of this one in a folder, and write one that this one reads.

    Ray must be initialised. Nothing happens on a cluster of one node. The files are removed again.

    Args:
        directory: A run directory, as a path or URL.
        deadline_s: Seconds that all nodes together get.

    Raises:
        StoreError: If a node does not see it, or gives no answer.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    others = {id: node for id, node in _living().items() if id != here}
    if not others:
        return
    folder = files.join(directory, f".visible-{secrets.token_hex(8)}")
    try:
        files.write_bytes(files.join(folder, here), here.encode())
        unseen = _ask(folder, here, others, deadline_s)
    finally:
        with contextlib.suppress(StoreError):  # must not hide what went wrong
            files.remove(folder)
    if unseen:
        more = f"; and {len(unseen) - _SHOWN} more nodes" if len(unseen) > _SHOWN else ""
        raise StoreError(
            f"{directory} is not seen from {len(unseen)} of the {len(others)} other nodes of this cluster:"
            f" {'; '.join(unseen[:_SHOWN])}{more}. Nothing was started: name a storage that all nodes reach (an object"
            " store such as --set storage=s3://bucket/runs, or a share mounted at the same path on all of them), see"
            " that its credentials are in the environment in which each node's Ray is started, and run the same"
            " command again"
        )


def look(folder: str, mine: str, other: str, late_s: float = _LATE_S) -> str:
    """Why ``folder`` is not the one that ``other`` wrote its file in; nothing, once ours is beside it.

    Args:
        folder: Where the files are.
        mine: Name and content of our file.
        other: Those of the other's.
        late_s: Seconds that the other's may take to be seen.
    """
    try:
        if not _reads(folder, other, late_s):
            return f"{folder} as it is seen there does not hold what the driver wrote"
        files.write_bytes(files.join(folder, mine), mine.encode())
    except FddError as error:
        return str(error).partition("; ")[0]  # what to do about it is said once, for all nodes
    return ""


def _reads(folder: str, name: str, late_s: float) -> bool:
    deadline = time.monotonic() + late_s
    while files.read_bytes(files.join(folder, name)) != name.encode():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _look_there(folder: str, mine: str, other: str) -> tuple[str, str]:
    """Runs on another node."""
    return socket.gethostname(), look(folder, mine, other)


def _ask(folder: str, here: str, others: Mapping[str, Mapping[str, Any]], deadline_s: float) -> Sequence[str]:
    """The nodes that do not see it, each with the reason."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote: Any = ray.remote(_look_there)
    asked = {
        remote.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False), name="see the storage"
        ).remote(folder, id, here): id
        for id in others
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=deadline_s)
    wrong = dict.fromkeys(
        (asked[reference] for reference in silent),
        f"no answer within {deadline_s:g} s, look at `ray status` and Ray's logs there",
    )
    for reference in silent:
        ray.cancel(reference, force=True)
    for reference in answered:
        id = asked[reference]
        try:
            host, why = ray.get(reference)
        except ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            wrong[id] = f"a task there failed: {type(error).__name__}: {' '.join(lines[-2:])[:300]}"
            continue
        if not why and not _reads(folder, id, _LATE_S):
            why = f"it has a {folder} of its own: what it wrote there is not seen by the driver"
        if why:
            wrong[id] = f"from {host}, {why}"
    left = _living() if wrong else {}
    # A node that is gone by now needs to see nothing.
    return [f"node {others[id]['NodeManagerAddress']} ({id[:8]}): {why}" for id, why in wrong.items() if id in left]


def _living() -> dict[str, dict[str, Any]]:
    import ray

    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
