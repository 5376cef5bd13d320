"""Clusters of several nodes with logical GPUs and labels, each in a process of its own.

The session's own Ray (`ray_local`) stays untouched: a test that needs other nodes runs in another process.

    @in_own_process
    def test_something() -> None:
        with cluster(Node(gpus=2), Node(gpus=2)):
            ...
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_INSIDE = "FDD_RAY_TEST_IN_OWN_PROCESS"
_DEADLINE_S = 840.0
_TRIES = 3
# What an autoscaling configuration must have, and nodes of this machine do not need.
_NO_COMMANDS = (
    *("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
    *("cluster_synced_files", "rsync_exclude", "rsync_filter"),
)
_PR_SET_CHILD_SUBREAPER = 36
# A node that is gone is noticed in seconds.
_PULSE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 4,
}
_HEAD = "ray.head.default"


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
        with subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {_INSIDE: "1", "RAY_ADDRESS": "", "RAY_BACKEND_LOG_LEVEL": "fatal"},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=_DEADLINE_S)
            finally:
                if process.poll() is None:
                    _kill(process.pid)  # what it started would outlive it
        print(out)
        assert process.returncode == 0, f"{out[-4000:]}\n{err[-6000:]}"

    return run


def _kill(pid: int) -> None:
    """SIGKILL to a process and all that it started."""
    import psutil

    own = psutil.Process(pid)
    for process in [*own.children(recursive=True), own]:
        with contextlib.suppress(psutil.Error):
            process.kill()


def add_node(own: Any, node: Node) -> Any:
    """Let a node join a `cluster`."""
    return _patiently(lambda: own.add_node(**node.arguments()))


def _patiently(start: Callable[[], Any]) -> Any:
    """What Ray starts; where the machine is too busy for Ray's patience, it is started again."""
    import psutil

    for attempt in range(_TRIES):
        before = psutil.Process().children(recursive=True)
        try:
            return start()
        except Exception:  # Ray raises nothing more precise
            if attempt == _TRIES - 1:
                raise
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process not in before:
                        process.kill()
    raise AssertionError


@contextlib.contextmanager
def cluster(*nodes: Node, quick_to_notice: bool = False) -> Iterator[Any]:
    """A cluster of raylets on this machine, joined by this process; yields Ray's `Cluster`, to add nodes to.

    Args:
        nodes: What it has at first.
        quick_to_notice: Let Ray find out within seconds that a node was lost.
    """
    import ray
    from ray.cluster_utils import Cluster

    first, *rest = nodes
    more = {"include_dashboard": False} | ({"_system_config": _PULSE} if quick_to_notice else {})
    own = _patiently(lambda: Cluster(initialize_head=True, head_node_args=first.arguments() | more))
    try:
        for node in rest:
            add_node(own, node)
        ray.init(address=own.address, log_to_driver=False, logging_level=40)
        yield own
    finally:
        ray.shutdown()
        own.shutdown()


@contextlib.contextmanager
def autoscaling(groups: Mapping[str, Node], idle_s: float = 4.0) -> Iterator[Any]:
    """A cluster that grows from a head without CPUs: Ray's own autoscaler, with raylets of this machine as nodes.

    Not joined; its address is in ``RAY_ADDRESS`` meanwhile. (Ray's `AutoscalingCluster` is not used: it ends every
    Ray of this machine first.)

    Args:
        groups: Kinds of nodes by name, of which there are none at first.
        idle_s: Seconds without work after which a node goes.
    """
    import psutil
    import ray
    from ray._common.utils import get_ray_address_file
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
    from ray.cluster_utils import Cluster

    # The autoscaler's nodes outlive it: they shall become our children, to be ended with the cluster.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    note = Path(get_ray_address_file(None))
    before = note.read_bytes() if note.exists() else None
    port = _free_port()
    environment = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "autoscaling.json"
        config.write_text(json.dumps(_autoscaling(groups, f"{_own_address()}:{port}", idle_s)))
        arguments = Node(cpus=0).arguments() | {
            "gcs_server_port": port, "autoscaling_config": str(config), "include_dashboard": False,
        }  # fmt: skip
        try:
            with _environment(environment):
                own = _patiently(lambda: Cluster(initialize_head=True, head_node_args=arguments))
            _write_back(note, before)
            with _environment({"RAY_ADDRESS": str(own.address)}):
                yield own
        finally:
            ray.shutdown()
            family = psutil.Process().children(recursive=True)
            own.shutdown()
            _write_back(note, before)
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(family, timeout=20)


def _autoscaling(groups: Mapping[str, Node], address: str, idle_s: float) -> dict[str, Any]:
    """An autoscaling configuration as `ray up` takes it."""
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    types: dict[str, Any] = {
        name: {
            "resources": {"CPU": node.cpus, "GPU": node.gpus, **node.resources},
            "labels": node.labels,
            "node_config": {},
            "min_workers": 0,
            "max_workers": 4,
        }
        for name, node in groups.items()
    }
    types[_HEAD] = {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    return {
        "cluster_name": "fake",
        "max_workers": 8,
        "idle_timeout_minutes": idle_s / 60,
        "upscaling_speed": 100,
        "provider": {
            "type": "external",  # "fake_multinode" needs a file that Ray's wheel lacks
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,  # all nodes have one address
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": address,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
        },
        "auth": {},
        **{key: [] for key in _NO_COMMANDS},
        "file_mounts": {},
        "head_node_type": _HEAD,
        "available_node_types": types,
    }


def _own_address() -> str:
    from ray._private.services import get_node_ip_address

    return str(get_node_ip_address())


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("", 0))
        return int(own.getsockname()[1])


def _write_back(note: Path, before: bytes | None) -> None:
    """Ray notes a cluster as this machine's; no other program shall join a test's by accident."""
    if before is None:
        note.unlink(missing_ok=True)
    else:
        note.write_bytes(before)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def node_of(actor: Any) -> str:
    """The id of the node that an actor runs on."""
    from ray._private.state import actors

    return str(actors(actor._actor_id.hex())["Address"]["NodeID"])


def eventually(true: Callable[[], bool], seconds: float = 60.0, each_s: float = 0.2) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < end:
        time.sleep(each_s)
    return now
