"""When a group of workers starts, grows, or is left alone; and which failures count. No Ray runs here."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision
from ray.train.v2.api.config import FailureConfig, ScalingConfig
from ray.train.v2.api.exceptions import WorkerGroupError

from fdd_ray.training import elastic
from fdd_ray.training.elastic import ForgiveLostNodes, GrowAtCheckpoints


class Cluster:
    """What the policies see of a cluster, and a clock."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.free, self.held = 1000.0, 0, 0
        self.gone: set[str] = set()
        patch.setattr(GrowAtCheckpoints, "_maybe_send_resource_request", lambda _: None)
        patch.setattr(GrowAtCheckpoints, "_free", lambda _, nodes: self.free)
        patch.setattr(elastic, "reachable_nodes", dict)
        patch.setattr(elastic, "held", lambda group, nodes: self.held)
        patch.setattr(elastic, "gone_nodes", lambda: set(self.gone))
        patch.setattr(elastic, "time_monotonic", lambda: self.now)
        patch.setattr(elastic, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def policy(least: int = 1, most: int = 4, grow_after_s: float = 100.0) -> GrowAtCheckpoints:
    return GrowAtCheckpoints(ScalingConfig(num_workers=(least, most), resources_per_worker={"CPU": 1}), grow_after_s)


def size(decision: Any) -> int | None:
    """The workers that a decision asks for; None if it leaves all as it is."""
    if isinstance(decision, ResizeDecision):
        return decision.num_workers
    assert isinstance(decision, NoopDecision)
    return None


class Group:
    """A group of workers that trains."""

    def __init__(self, policy: GrowAtCheckpoints, workers: int, start_time: float) -> None:
        self.policy, self.workers = policy, workers
        self.state: Any = SimpleNamespace(num_workers=workers, start_time=start_time)

    def polled(self, *reports: float | None) -> int | None:
        """What the policy says to checkpoints of some workers, each with the seconds that are left."""
        statuses = {
            rank: SimpleNamespace(
                training_report=None
                if seconds is None
                else SimpleNamespace(checkpoint="there", metrics={"seconds_left": seconds})
            )
            for rank, seconds in enumerate(reports)
        }
        status: Any = SimpleNamespace(worker_statuses=statuses)
        return size(self.policy.make_decision_for_running_worker_group(self.state, status))


def started(policy: GrowAtCheckpoints, nodes: Cluster, tries: int = 30) -> tuple[int | None, float]:
    """The size that a group starts with, and how long that took."""
    began = nodes.now
    for _ in range(tries):
        chosen = size(policy.make_decision_for_non_running_worker_group())
        if chosen is not None:
            return chosen, nodes.now - began
    return None, nodes.now - began


def test_it_starts_at_once_with_max_soon_with_less_and_never_below_min(nodes: Cluster) -> None:
    nodes.free = 9
    assert started(policy(), nodes) == (4, 0)
    nodes.free, nodes.held = 1, 2  # what the last group holds is freed when the next one starts
    chosen, seconds = started(policy(), nodes)
    assert chosen == 3 and 4 <= seconds <= 6
    nodes.free = nodes.held = 0
    waiting = policy(least=2)
    assert started(waiting, nodes)[0] is None
    nodes.free = 1
    assert started(waiting, nodes)[0] is None
    nodes.free = 2
    assert started(waiting, nodes)[0] == 2


def test_it_grows_when_all_workers_have_saved_a_checkpoint_and_not_before(nodes: Cluster) -> None:
    group = Group(policy(), 2, nodes.now)
    nodes.free = 5
    nodes.now += 101
    assert group.polled(None, None) is None
    assert group.polled(900.0, None) is None  # the other one is still writing
    assert group.polled(None, None) is None
    assert group.polled(None, 900.0) == 4
    assert group.polled(None, None) is None


def test_it_does_not_grow_too_soon_nor_for_nothing(nodes: Cluster) -> None:
    group = Group(policy(), 2, nodes.now)
    nodes.free = 2
    nodes.now += 99
    assert group.polled(900.0, 900.0) is None  # has not trained for grow_after_s
    nodes.now += 2
    assert group.polled(39.0, 39.0) is None  # four workers would save half of that, less than a fifth of grow_after_s
    nodes.free = 0
    assert group.polled(900.0, 900.0) is None  # no room
    nodes.free = 1
    assert group.polled(900.0, 900.0) == 3
    again = Group(group.policy, 3, nodes.now)
    assert again.polled(900.0, 900.0, 900.0) is None  # the clock starts anew with each group
    nodes.now += 101
    assert again.polled(900.0, 900.0, 900.0) == 4
    full = Group(group.policy, 4, nodes.now)
    nodes.now += 101
    assert full.polled(900.0, 900.0, 900.0, 900.0) is None


def test_zero_never_grows(nodes: Cluster) -> None:
    group = Group(policy(grow_after_s=0.0), 2, nodes.now)
    nodes.free = 2
    nodes.now += 1e6
    assert group.polled(1e6, 1e6) is None


def test_failures_that_come_with_the_loss_of_a_node_do_not_count(nodes: Cluster) -> None:
    nodes.gone = {"gone before"}
    failures = ForgiveLostNodes(FailureConfig(max_failures=1))
    error = WorkerGroupError("a worker died", {0: RuntimeError("connection closed by peer")})
    for number in range(5):
        nodes.gone.add(f"node {number}")
        assert failures.make_decision(error) is FailureDecision.RETRY
    assert failures.make_decision(error) is FailureDecision.RETRY  # the first that counts
    assert failures.make_decision(error) is FailureDecision.RAISE


def test_workers_that_fit_into_what_is_free() -> None:
    assert elastic.places({"CPU": 7.0, "GPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}, 9) == 2
    assert elastic.places({"CPU": 7.0}, {"CPU": 2.0, "GPU": 1.0}, 9) == 0
    assert elastic.places({"GPU": 0.3}, {"GPU": 0.1}, 9) == 3  # 0.3 / 0.1 is a little less than 3
    assert elastic.places({"CPU": 7.0}, {"CPU": 1.0}, 4) == elastic.places({}, {}, 4) == 4


@contextlib.contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_node_is_there_as_long_as_its_manager_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private.state import state

    def node(name: str, port: int, alive: bool = True) -> dict[str, Any]:
        return {"NodeID": name, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port, "Alive": alive}

    with listening() as dead:
        pass
    with listening() as port:
        found = [node("up", port), node("dead", dead), node("leaving", port), node("known dead", port, alive=False)]
        monkeypatch.setattr(ray, "nodes", lambda: found)
        monkeypatch.setattr(type(state), "get_draining_nodes", lambda _: {"leaving": 0})
        assert elastic.reachable_nodes().keys() == {"up"}
        assert elastic.gone_nodes() == {"dead", "leaving", "known dead"}
