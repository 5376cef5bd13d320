"""What the tests of cluster/ share: its files, read, and Ray's own scheduler run on them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CLOUDS = ("aws", "gcp", "azure")
ROLES = ("teacher", "student", "trainer")
ROLE = "fdd-ray/role"


def cloud(name: str) -> dict[str, Any]:
    """A `ray up` file as it stands."""
    plain: dict[str, Any] = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    return plain


def manifest(name: str) -> dict[str, Any]:
    """The one document of a manifest of kuberay/."""
    plain: dict[str, Any] = yaml.safe_load((CLUSTER / "kuberay" / f"{name}.yaml").read_text())
    return plain


def launched(config: dict[str, Any], demand: list[dict[str, Any]], failed: tuple[str, ...] = ()) -> Counter[str]:
    """What Ray's autoscaler (v2) would start for a demand on a cluster of nothing but the head.

    Args:
        config: An autoscaling configuration that is prepared and valid.
        demand: Placement groups of one bundle: ``{"resources": {...}, "labels": {...}}``.
        failed: Node types of which a launch has just failed.

    Returns:
        Nodes to launch by type; ``infeasible`` counts the demand that nothing fits.
    """
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import GangResourceRequest
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    wanted = LabelSelectorOperator.Value("LABEL_OPERATOR_IN")
    gangs = []
    for bundle in demand:
        selector = [(key, wanted, [value]) for key, value in bundle["labels"].items()]
        request = ResourceRequestUtil.make(bundle["resources"], label_selectors=[selector])
        gang = GangResourceRequest(requests=[request])
        gang.bundle_selectors.add(resource_requests=[request])
        gangs.append(gang)
    settings = AutoscalingConfig(config, skip_content_hash=True)
    types = settings.get_node_type_configs()
    types.pop(settings.get_head_node_type())  # it is up, and has nothing to give
    reply = ResourceDemandScheduler(_Silent()).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            max_num_nodes=settings.get_max_num_worker_nodes(),
            gang_resource_requests=gangs,
            recoverable_resource_availabilities=dict.fromkeys(failed, 0.0),
        )
    )
    found = Counter({launch.instance_type: launch.count for launch in reply.to_launch})
    if reply.infeasible_gang_resource_requests:
        found["infeasible"] = len(reply.infeasible_gang_resource_requests)
    return found


class _Silent:
    """Stands for Ray's logger of events."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None
