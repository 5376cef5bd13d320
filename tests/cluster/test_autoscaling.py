"""A run on a cluster of nothing but a head: nodes come when a role is asked, and go when it has nothing to do.

Ray's own autoscaler (v2) starts and ends raylets of this machine as if they were a cloud's nodes. The run is a
whole one with `cluster/groups.yaml`: simulated engines on logical GPUs, and real fine-tuning.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.report.status import read_status
from fdd_ray.store.ledger import read_ledger
from tests.cluster.files import CLUSTER, ROLE, ROLES
from tests.engines.clusters import Node, autoscaling, eventually, in_own_process

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
_IDLE_NODE_S = 10.0
_IDLE_ENGINE_S = 2
_SETTINGS = [
    "rounds=1",
    "pool.size=24",
    "benchmarks={test: {format: tiny, split: test, size: 8, seed: 2}}",
    "teach.min_kept=1",
    "feedback.new_problems=4",
    "finetune.epochs=1",
    "finetune.gpus_per_worker=0",
    *(
        f"{role}.{key}"
        for role in ("teacher", "student")
        for key in ("engine=simulated", "kv_cache_mib=null", "replicas=1", "cpus_per_replica=0.1")
    ),
    *(f"{role}.{key}" for role in ("teacher", "student") for key in ("gpus_per_replica=1", "start_deadline_s=300")),
    *(f"{role}.idle_release_s={_IDLE_ENGINE_S}" for role in ("teacher", "student")),
]


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A node of a role that came (1) or went (-1), and when that was seen."""

    time: float
    role: str
    nodes: int


class _Watch:
    """What is looked at about twice a second: which nodes are up, and where placement groups lie.

    Attributes:
        scalings: Nodes as they came and went.
        places: At each look, of each placement group, its node's role.
    """

    def __init__(self) -> None:
        self.scalings: list[Scaling] = []
        self.places: list[dict[str, str]] = []
        self._up: dict[str, str] = {}

    def look(self) -> dict[str, str]:
        """The nodes that are up beside the head: their roles by id."""
        import ray
        from ray.util import placement_group_table

        nodes = [node for node in ray.nodes() if ROLE in node["Labels"]]
        up = {node["NodeID"]: node["Labels"][ROLE] for node in nodes if node["Alive"]}
        now = time.time()
        self.scalings += [Scaling(now, role, 1) for node, role in up.items() if node not in self._up]
        self.scalings += [Scaling(now, role, -1) for node, role in self._up.items() if node not in up]
        self._up = up
        self.places.append(
            {
                group["name"] or number: up[node]
                for number, group in placement_group_table().items()
                if group["state"] == "CREATED"
                for node in group["bundles_to_node_id"].values()
                if node in up
            }
        )
        return up


@in_own_process
def test_nodes_come_for_the_role_that_is_asked_and_go_when_it_has_nothing_to_do() -> None:
    import ray

    groups = {role: Node(cpus=1, gpus=int(role != "trainer"), labels={ROLE: role}) for role in ROLES}
    watch = _Watch()
    with tempfile.TemporaryDirectory() as name, autoscaling(groups, idle_s=_IDLE_NODE_S):
        folder = Path(name)
        ray.init(log_to_driver=False, logging_level=40)
        log = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs" / "monitor.log"
        assert not watch.look(), "it begins with nothing"
        _run(folder, watch)
        assert eventually(lambda: not watch.look(), 120, each_s=0.5), "it ends with nothing"
        for scaling in watch.scalings:
            print(f"{datetime.fromtimestamp(scaling.time):%H:%M:%S} {scaling.role} {scaling.nodes:+d}")
        said = set(re.findall(r"event_logger\.py:\d+ -- (Adding|Removing) 1 node\S* of type (\w+)", log.read_text()))
        assert said == {(what, role) for what in ("Adding", "Removing") for role in ROLES}
        _check_stages(read_ledger(str(folder / "grows")), watch.scalings, time.time())
        _check_places(watch.places)


def _run(folder: Path, watch: _Watch) -> None:
    """The run, by its command, while we watch."""
    experiment = folder / "grows.yaml"
    experiment.write_text(f"extends: [{TINY_EXPERIMENT}, {CLUSTER / 'groups.yaml'}]\nname: grows\nstorage: {folder}\n")
    command = [sys.executable, "-m", "fdd_ray.cli", "run", str(experiment), *(f"--set={one}" for one in _SETTINGS)]
    with (folder / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            begun = time.monotonic()
            while run.poll() is None and time.monotonic() - begun < 700:
                watch.look()
                time.sleep(0.5)
        finally:
            run.kill()
    said = (folder / "log").read_text()
    assert run.wait() == 0, said[-3000:]
    stages = read_status(str(folder / "grows"))["stages"]
    assert len(stages) == 10 and all(stage["counts"]["failed"] == 0 for stage in stages), stages
    assert f"the teacher engines had nothing to do for {_IDLE_ENGINE_S} s: they are given back" in said


def _check_stages(events: Sequence[Mapping[str, Any]], scalings: Sequence[Scaling], last: float) -> None:
    """Each role's nodes came in its stage, and went before its next one."""
    begun, ended = (
        {(event["stage"], event["round"]): event["time"] for event in events if event["event"] == f"stage {what}"}
        for what in ("started", "finished")
    )
    base = next(key for key in begun if key[0] == "score" and key[1] is None)

    def changes(role: str, sign: int, start: float, stop: float) -> int:
        return sum(
            one.nodes for one in scalings if one.role == role and one.nodes * sign > 0 and start <= one.time <= stop
        )

    def came(role: str, key: tuple[str, int | None]) -> bool:
        return changes(role, 1, begun[key] - 1, ended[key]) >= 1

    shown = f"{scalings}\n{begun}\n{ended}"
    assert came("student", base) and came("teacher", ("rationales", 0)), shown
    assert came("trainer", ("finetune", 0)) and came("student", ("score", 0)), shown
    assert came("teacher", ("synthesise", 1)), shown
    first = {role: min(one.time for one in scalings if one.role == role) for role in ROLES}
    assert first["student"] < first["teacher"] < first["trainer"], shown
    # The teacher's nodes are not kept while the student learns and is scored, nor the student's while it learns.
    assert changes("teacher", -1, ended["rationales", 0], begun["synthesise", 1]) == -1, shown
    assert changes("student", -1, ended[base], begun["score", 0]) == -1, shown
    assert changes("teacher", -1, ended["synthesise", 1], last) == -1, shown
    # One engine of each was asked for: never was a second node paid for.
    up: Counter[str] = Counter()
    for scaling in scalings:
        up[scaling.role] += scaling.nodes
        assert up[scaling.role] in (0, 1), shown


def _check_places(seen: Sequence[Mapping[str, str]]) -> None:
    """What a role reserved lay on its own nodes, so roles never held each other's GPUs."""
    held = {(group, role) for places in seen for group, role in places.items()}
    roles = {role: {where for group, where in held if f"-{role}-" in group} for role in ROLES[:2]}
    assert roles == {"teacher": {"teacher"}, "student": {"student"}}
    assert "trainer" in {where for group, where in held if not any(f"-{role}-" in group for role in ROLES[:2])}
    # The teacher and the student were not up at once for the whole run: each goes without the other.
    assert {frozenset(places.values()) for places in seen} >= {frozenset({"teacher"}), frozenset({"student"})}
