"""Clusters of several nodes with logical GPUs and labels, each in a process of its own.

The session's own Ray (`ray_local`) stays untouched: a test that needs other nodes runs in another process.

    @in_own_process
    def test_something() -> None:
        with cluster(Node(gpus=2), Node(gpus=2)):
            ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_INSIDE = "FDD_RAY_TEST_IN_OWN_PROCESS"


@dataclasses.dataclass(frozen=True)
class Node:
    """A node as a test wants it."""

    gpus: int = 0
    cpus: float = 2
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    resources: dict[str, float] = dataclasses.field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "resources": dict(self.resources),
            "labels": dict(self.labels),
        }


def in_own_process(test: Callable[..., None]) -> Callable[[], None]:
    """Run a test function without arguments in a fresh Python process; its failure is the test's failure."""

    @functools.wraps(test)
    def run() -> None:
        if os.environ.get(_INSIDE) == "1":
            test()
            return
        code = f"import {test.__module__} as m; m.{test.__name__}()"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {_INSIDE: "1", "RAY_ADDRESS": "", "RAY_BACKEND_LOG_LEVEL": "fatal"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=420,
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"

    return run


@contextlib.contextmanager
def cluster(*nodes: Node) -> Iterator[Any]:
    """A cluster of raylets on this machine, joined by this process; yields Ray's `Cluster`, to add nodes to."""
    import ray
    from ray.cluster_utils import Cluster

    first, *rest = nodes
    own = Cluster(initialize_head=True, head_node_args=first.arguments() | {"include_dashboard": False})
    try:
        for node in rest:
            own.add_node(**node.arguments())
        ray.init(address=own.address, log_to_driver=False, logging_level=40)
        yield own
    finally:
        ray.shutdown()
        own.shutdown()


def node_of(actor: Any) -> str:
    """The id of the node that an actor runs on."""
    from ray._private.state import actors

    return str(actors(actor._actor_id.hex())["Address"]["NodeID"])


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.2)
    return now
