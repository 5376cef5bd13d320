"""What the chaos harness breaks: a Ray cluster of several nodes on this machine, and a driver that works on it.

    with World() as world:
        driver = Driver(world, Path("work"), command)
        driver.start()
        world.kill("engine", driver, random.Random(1))

The cluster outlives the runs, so that a run costs seconds. The head has no CPUs: engines and map actors are
on the nodes that may be lost. Only descendants of this process are ever killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

KINDS = ("driver", "engine", "raylet", "worker")
_PR_SET_CHILD_SUBREAPER = 36
_STORE_BYTES = 100 << 20
_NODE_TRIES = 4
_PULSE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}
_VICTIMS = {"engine": "EngineActor", "worker": "RayTrainWorker"}
# Ray's own processes, which stay; a ray::IDLE worker waits for the next run.
_SYSTEM = (
    *("raylet", "gcs_server", "log_monitor", "dashboard", "monitor", "Agent", "agent", "ray::IDLE", "forkserver"),
    *("resource_tracker", "_StatsActor", "ActorLocationTracker", "_AutoscalingCoordinatorActor"),
    "_UsageCollectionActor",
)


class World:
    """A head node and ``nodes`` nodes of two CPUs; a context manager."""

    def __init__(self, nodes: int = 2) -> None:
        self._size = nodes
        self._nodes: list[Any] = []
        self._due: list[float] = []

    def __enter__(self) -> World:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        from ray._common.utils import get_ray_address_file
        from ray.cluster_utils import Cluster

        # What loses its parent becomes our child, so that nothing that was left behind can hide.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        note = Path(get_ray_address_file(None))
        before = note.read_bytes() if note.exists() else None
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_system_config": _PULSE,
            },
        )
        # Ray notes the cluster as this machine's; no other program shall join it by accident.
        if before is None:
            note.unlink(missing_ok=True)
        else:
            note.write_bytes(before)
        for _ in range(self._size):
            self.add_node()
        self.address = str(self._cluster.address)
        return self

    def __exit__(self, *exc: object) -> None:
        self._cluster.shutdown()
        for process in self.strays(0.0):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def add_node(self) -> None:
        """Let a node of two CPUs join; on a machine that is too busy for Ray's patience, try again."""
        for attempt in range(_NODE_TRIES):
            before = {process.pid for process in psutil.Process().children(recursive=True)}
            try:
                self._nodes.append(self._cluster.add_node(num_cpus=2, object_store_memory=_STORE_BYTES))
                return
            except Exception:  # Ray raises nothing more precise
                if attempt == _NODE_TRIES - 1:
                    raise
                for process in psutil.Process().children():
                    with contextlib.suppress(psutil.Error):
                        if process.pid not in before and "raylet" in _title(process):
                            process.kill()

    def mend(self) -> None:
        """Let nodes join in place of those that were lost some time ago; to be called often."""
        while self._due and self._due[0] <= time.monotonic():
            self._due.pop(0)
            self.add_node()

    def victims(self, kind: str) -> list[psutil.Process]:
        """The processes of engines or training workers."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and _is(process, _VICTIMS[kind]):
                    found.append(process)
        return found

    def kill(self, kind: str, driver: Driver, rng: random.Random) -> str:
        """Kill one of ``kind`` without warning; returns whom, or nothing if there is none."""
        if kind == "driver":
            return driver.kill()
        if kind == "raylet":
            if not self._nodes:
                return ""
            node = self._nodes.pop(rng.randrange(len(self._nodes)))
            self._cluster.remove_node(node, allow_graceful=False)
            self._due.append(time.monotonic() + rng.uniform(0.5, 3.0))
            return f"node {node.unique_id[-8:]}"
        processes = sorted(self.victims(kind), key=lambda process: process.pid)
        if not processes:
            return ""
        process = rng.choice(processes)
        with contextlib.suppress(psutil.NoSuchProcess):
            whom = f"{_title(process)} {process.pid}"  # said before: the dead may be gone at once
            process.kill()
            return whom
        return ""

    def strays(self, patience_s: float) -> list[psutil.Process]:
        """What runs although no driver does, once ``patience_s`` have passed; Ray's own processes apart."""
        deadline = time.monotonic() + patience_s
        while True:
            reap()
            left = []
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.status() != psutil.STATUS_ZOMBIE and not any(s in _title(process) for s in _SYSTEM):
                        left.append(process)
            if not left or time.monotonic() >= deadline:
                return left
            time.sleep(0.2)

    def whole(self) -> None:
        """Wait until all nodes are there, and no more."""
        while self._due:
            self.mend()
            time.sleep(0.1)
        self._cluster.wait_for_nodes(60)


class Driver:
    """The process that drives a run, started as often as it takes.

    Args:
        world: The cluster it joins.
        folder: Where it works; its output goes to ``driver.log`` there.
        arguments: Of the fdd-ray command.
        environment: Beside ours.
    """

    def __init__(self, world: World, folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._command = [sys.executable, str(Path(__file__).with_name("chaos_driver.py")), *arguments]
        self._environment = {**os.environ, **environment, "RAY_ADDRESS": world.address}
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        """Give the command (again)."""
        self.starts += 1
        with (self._folder / "driver.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, process_group=0, cwd=self._folder
            )

    @property
    def code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll() if self._process is not None else None

    def kill(self) -> str:
        """SIGKILL to its process group; nothing if it has ended."""
        process = self._process
        if process is None or process.poll() is not None:
            return ""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"driver {process.pid}"

    def last_words(self) -> str:
        """The end of its output."""
        log = self._folder / "driver.log"
        return log.read_text(errors="replace")[-1500:] if log.exists() else ""


def reap() -> None:
    """Bury orphans that ended, which became our children."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


def _is(process: psutil.Process, actor: str) -> bool:
    """Whether this is a Ray worker of an actor class: its title is ray::NAME:CLASS.method, or ray::CLASS."""
    title = _title(process)
    return title.startswith("ray::") and actor in title


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()).strip() or process.name()
