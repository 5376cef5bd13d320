"""How many workers train at a time, where that may change: ``finetune.workers: [min, max]``.

Ray Train restarts a group of workers at another size, from the latest step checkpoint, when its scaling policy says
so. Its own policy asks for that at any moment, which costs every step since the checkpoint, and counts what nodes
have in all: also nodes with other labels, and what engines hold. So this one decides, inside Ray Train's controller:

    a node goes     the workers that are left, and those that fit into what is free now, go on
    a node comes    at the next step checkpoint the group is restarted with more workers, if it has trained long
                    enough for that (``grow_after_s``) and has enough steps left to gain by it

A node that goes away is no fault of the fine-tuning, and does not count against ``finetune.max_failures``.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import ray
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2._internal.util import time_monotonic
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from fdd_ray.labels import matches

logger = logging.getLogger("ray.train")

_PAUSE_S = 0.5  # the controller asks again and again, without a pause of its own
_SETTLE_S = 5.0  # wait so long for more than min: nodes come one after another, freed resources are seen late
_REACH_S = 2.0
_WORTH = 5  # growing must save this part of grow_after_s, which by default is a restart: a minute


class ElasticTrainer(TorchTrainer):
    """Ray Train's trainer with the policies of this module."""

    def __init__(self, *args: Any, grow_after_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._grow_after_s = grow_after_s

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        config: Any = self.scaling_config
        arguments["scaling_policy"] = GrowAtCheckpoints(config, self._grow_after_s)
        arguments["failure_policy"] = ForgiveLostNodes(self.run_config.failure_config)
        return super()._initialize_and_run_controller(**arguments)


class GrowAtCheckpoints(ScalingPolicy):
    """Start with what fits; grow at a step checkpoint.

    Args:
        scaling_config: With ``num_workers=(min, max)``.
        grow_after_s: Seconds that a group trains before it may grow; 0: it never does.
    """

    def __init__(self, scaling_config: ScalingConfig, grow_after_s: float) -> None:
        super().__init__(scaling_config)
        self._grow_after_s = grow_after_s
        self._group: WorkerGroupState | None = None
        self._checkpoints: Counter[int] = Counter()  # of the group, by rank
        self._waiting_since: float | None = None

    def _get_num_workers_for_resource_request(self) -> int:
        return self.scaling_config.max_workers

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """The size to start with, once there is room for the smallest group."""
        self._maybe_send_resource_request()  # type: ignore[no-untyped-call]
        config, now = self.scaling_config, time.monotonic()
        nodes = reachable_nodes()
        fitting = min(config.max_workers, held(self._group, nodes) + self._free(nodes))
        if fitting < config.min_workers:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        ready = self._waiting_since is not None and now - self._waiting_since >= _SETTLE_S
        if fitting < config.max_workers and not ready:
            time.sleep(_PAUSE_S)
            return NoopDecision()
        self._waiting_since = None
        logger.info("Training starts with %d of %d workers.", fitting, config.max_workers)
        return self._resize(fitting)

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """A larger size, if a checkpoint has just been saved and growing pays."""
        self._maybe_send_resource_request()  # type: ignore[no-untyped-call]
        if worker_group_state is not self._group:
            self._group, self._checkpoints = worker_group_state, Counter()
        size = worker_group_state.num_workers
        seconds_left = self._left_at_checkpoint(size, worker_group_status)
        if seconds_left is None or not self._grow_after_s or size >= self.scaling_config.max_workers:
            return NoopDecision()
        if time_monotonic() - worker_group_state.start_time < self._grow_after_s:
            return NoopDecision()
        grown = min(self.scaling_config.max_workers, size + self._free(reachable_nodes()))
        saved = seconds_left * (1 - size / grown)
        if grown == size or saved < self._grow_after_s / _WORTH:
            return NoopDecision()
        logger.info("Training is restarted with %d workers instead of %d.", grown, size)
        return self._resize(grown)

    def _left_at_checkpoint(self, size: int, status: WorkerGroupPollStatus) -> float | None:
        """The seconds that are left at this pace, if all workers have now saved one checkpoint more."""
        before = min(self._checkpoints[rank] for rank in range(size))
        seconds = None
        for rank, worker in status.worker_statuses.items():
            report = worker.training_report
            if report is not None and report.checkpoint is not None:
                self._checkpoints[rank] += 1
                seconds = float(report.metrics["seconds_left"])
        return seconds if min(self._checkpoints[rank] for rank in range(size)) > before else None

    def _resize(self, workers: int) -> ResizeDecision:
        return ResizeDecision(workers, self.scaling_config._resources_per_worker_not_none)

    def _free(self, nodes: Mapping[str, Mapping[str, Any]]) -> int:
        """Workers that fit into what is free on these nodes now."""
        from ray._private.state import available_resources_per_node

        config, free = self.scaling_config, available_resources_per_node()
        selector = config.label_selector or {}
        assert isinstance(selector, dict)
        return sum(
            places(free.get(name, {}), config._resources_per_worker_not_none, config.max_workers)
            for name, node in nodes.items()
            if matches(node.get("Labels") or {}, selector)
        )


class ForgiveLostNodes(DefaultFailurePolicy):
    """Counts failures as Ray Train does, but not one that came with the loss of a node."""

    def __init__(self, failure_config: Any) -> None:
        super().__init__(failure_config)
        self._gone = gone_nodes()

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Retry or give up."""
        gone = gone_nodes()
        lost, self._gone = gone - self._gone, gone
        if lost and isinstance(training_failed_error, WorkerGroupError):
            logger.info("Training goes on without the nodes %s.", ", ".join(sorted(lost)))
            return FailureDecision.RETRY
        return super().make_decision(training_failed_error)


def places(free: Mapping[str, float], each: Mapping[str, float], most: int) -> int:
    """How many workers that reserve ``each`` fit into ``free``; at most ``most``, as many as reserve nothing."""
    return min([most, *(math.floor(free.get(name, 0.0) / need + 1e-6) for name, need in each.items() if need)])


def held(group: WorkerGroupState | None, nodes: Mapping[str, Any]) -> int:
    """Workers of a group whose place is still reserved, and on a node that is there: Ray Train frees it later."""
    if group is None:
        return 0
    table: Any = ray.util.placement_group_table(group.placement_group_handle.placement_group)
    if table.get("state") == "REMOVED":
        return 0
    return sum(node in nodes for node in table.get("bundles_to_node_id", {}).values())


def reachable_nodes() -> dict[str, dict[str, Any]]:
    """The nodes that are up and are to stay, by id."""
    from ray._private.state import state

    draining = state.get_draining_nodes()
    return {
        node["NodeID"]: node
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in draining and _answers(node)
    }


def gone_nodes() -> set[str]:
    """The ids of the nodes that were part of the cluster and are not there now."""
    return {node["NodeID"] for node in ray.nodes()} - reachable_nodes().keys()


def _answers(node: Mapping[str, Any]) -> bool:
    """Whether something listens where the node's manager should. Ray itself notices a dead node many seconds late."""
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=_REACH_S):
            return True
    except OSError:
        return False
