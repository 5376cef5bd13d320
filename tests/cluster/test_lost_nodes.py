"""Nodes that are lost in the middle of a stage, on raylets of this machine that get SIGKILL: nothing else is.

A run by its command, with simulated engines that log what they are asked and real fine-tuning, loses one node of
each kind; it ends by itself, as the same run did that lost none.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.launch import TINY_EXPERIMENT
from tests.engines.clusters import Node, add_node, cluster, eventually, in_own_process

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_BLOCK = 8
_ROLES = ("teacher", "student")
_CHECKPOINT_STEPS = 3
# Engines and workers reserve what is on their own nodes only, and map actors the CPUs of theirs.
_KINDS = {
    kind: Node(cpus=int(kind == "rows"), resources={} if kind == "rows" else {kind: 1.0}, labels={"kind": kind})
    for kind in ("teacher", "student", "trainer", "rows")
}
_ENGINES = ("engine=simulated", "kv_cache_mib=null", "cpus_per_replica=0", "start_deadline_s=300")
_SETTINGS = [
    "rounds=0",
    "pool.size=48",
    "benchmarks={test: {format: tiny, split: test, size: 40, seed: 2}}",
    "teach.min_kept=8",
    f"flow.block_rows={_BLOCK}",
    "flow.blocks_in_flight=1",
    "flow.stall_deadline_s=240",
    "finetune.epochs=48",
    f"finetune.checkpoint_steps={_CHECKPOINT_STEPS}",
    "finetune.cpus_per_worker=0",
    "finetune.gpus_per_worker=0",
    "finetune.resources={trainer: 1}",
    "finetune.label_selector={kind: trainer}",
    "teacher.replicas=[1, 2]",
    *(f"{role}.{key}" for role in _ROLES for key in _ENGINES),
    *(f"{role}.resources={{{role}: 1}}" for role in _ROLES),
    *(f"{role}.label_selector={{kind: {role}}}" for role in _ROLES),
]


@dataclasses.dataclass(frozen=True)
class Loss:
    """A node that is lost, and when: in the middle of a stage."""

    kind: str
    stage: str
    comes_back: bool
    due: Callable[[Path], bool]


def _begun(stage: Path) -> bool:
    """Some of its rows are written, and there are more to come."""
    return len(list(stage.glob("part-*.parquet"))) >= 2


def _has_checkpoint(stage: Path) -> bool:
    """Ray Train has noted one; what a worker has merely uploaded is not gone on from."""
    return any(stage.glob("checkpoints/*/checkpoint_manager_snapshot.json"))


LOSSES = [
    Loss("student", "base/score", True, _begun),  # the only engine: another node comes, as an autoscaler would see to
    Loss("teacher", "round-00/rationales", False, _begun),  # one of two: the other goes on
    Loss("trainer", "round-00/finetune", True, _has_checkpoint),
    Loss("rows", "round-00/score", True, _begun),  # all map actors
]


class _Nodes:
    """The nodes of a cluster by kind."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self._by_kind: dict[str, list[Any]] = {kind: [] for kind in _KINDS}

    def add(self, kind: str) -> None:
        self._by_kind[kind].append(add_node(self._own, _KINDS[kind]))

    def lose(self, kind: str) -> str:
        """SIGKILL to a node and all that runs there; returns its id."""
        node = self._by_kind[kind].pop(0)
        self._own.remove_node(node, allow_graceful=False)
        return str(node.node_id)

    def whole(self) -> None:
        """As many nodes as a run begins with."""
        for kind, nodes in self._by_kind.items():
            while len(nodes) < (2 if kind == "teacher" else 1):
                self.add(kind)


@in_own_process
def test_a_run_that_loses_a_node_of_each_kind_ends_as_one_that_loses_none() -> None:
    sys.path.insert(0, str(BENCHMARKS))
    import chaos_checks as checks

    with tempfile.TemporaryDirectory() as name, cluster(Node(cpus=0), quick_to_notice=True) as own:
        folder = Path(name)
        nodes = _Nodes(own)
        nodes.whole()
        with _driver(folder, own.address) as driver:
            driver.wait(700)
        reference = checks.read_outcome(folder / "run", folder / "calls")
        assert driver.returncode == 0, _said(folder)
        assert not checks.unexplained(reference) + checks.compare(reference, reference)

        for place in ("run", "calls"):  # what an engine says depends on paths, so the next run takes this one's place
            (folder / place).rename(folder / f"{place}-before")
        watcher = checks.Watcher(folder / "run")
        watcher.start()
        with _driver(folder, own.address) as driver:
            for loss in LOSSES:
                _lose(loss, nodes, folder / "run", driver)
            driver.wait(700)
        written = watcher.end()
        assert driver.returncode == 0, _said(folder)
        outcome = checks.read_outcome(folder / "run", folder / "calls")
        assert checks.compare(outcome, reference) == []
        assert checks.check_records(folder / "run") == []
        assert checks.asked_after_written(outcome, written) == []
        # Each loss but the trainer's had rows in its hands, and cost no more than the block that they were in.
        assert 0 < checks.repeated(outcome) <= _BLOCK * (len(LOSSES) - 1), checks.repeated(outcome)
        (trained,) = outcome.trained.values()
        assert trained["restarts"] >= 1 and trained["resumed_from"] >= _CHECKPOINT_STEPS
        print(f"repeated {checks.repeated(outcome)} requests; {trained}")


def _lose(loss: Loss, nodes: _Nodes, run: Path, driver: subprocess.Popen[bytes]) -> None:
    """Wait for a loss's moment; let it happen, and another node come if there is to be one."""
    import ray

    stage = run / loss.stage
    assert eventually(lambda: loss.due(stage) or driver.poll() is not None, 300, each_s=0.02), loss
    assert not (stage / "manifest.json").exists(), f"{loss.stage} was over before its node could be lost"
    lost = nodes.lose(loss.kind)
    assert eventually(lambda: not any(node["Alive"] and node["NodeID"] == lost for node in ray.nodes()))
    if loss.comes_back:
        nodes.add(loss.kind)


@contextmanager
def _driver(folder: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    engine = f"{{seconds: 0.6, spread: 0.3, calls: {folder}/calls}}"
    settings = [*_SETTINGS, f"storage={folder}", "name=run", *(f"{r}.engine_args={engine}" for r in _ROLES)]
    command = [sys.executable, "-m", "fdd_ray.cli", "run", str(TINY_EXPERIMENT), *(f"--set={one}" for one in settings)]
    with (folder / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"RAY_ADDRESS": address})
        try:
            yield run
        finally:
            run.kill()
            run.wait()


def _said(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")[-3000:]


@in_own_process
def test_a_role_whose_node_was_lost_takes_the_room_of_one_that_is_not_asked() -> None:
    """The only other GPU is held by a role that has nothing to do: nobody waits for a node that may never come."""
    from fdd_ray.engines.base import EngineSettings
    from fdd_ray.engines.fleet import Fleet
    from fdd_ray.engines.room import claim

    settings = EngineSettings("tiny://teacher", engine="simulated", cpus_per_replica=0.1, start_deadline_s=120)
    with cluster(Node(cpus=0), quick_to_notice=True) as own:
        fleets = []
        for role in ("teacher", "student"):
            node = add_node(own, Node(cpus=1, gpus=1))
            fleets.append((Fleet(role, settings, "lost"), node))
            fleets[-1][0].start()
            fleets[-1][0].wait(print)
        (teacher, node), (student, _) = fleets
        own.remove_node(node, allow_graceful=False)
        assert eventually(lambda: not teacher.has_least), "what it held is gone"
        said: list[str] = []
        assert claim(lambda: teacher.has_least, teacher.shape(), [student], said.append)
        assert said == ["the student engines give their GPUs back"]
        teacher.wait(print)
        assert (teacher.placed, student.started) == (1, False)
        teacher.release()
