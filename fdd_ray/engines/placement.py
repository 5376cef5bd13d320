"""Where an engine runs: what it reserves on the cluster, within one node or over several.

Each engine has a `Place`, a Ray placement group: it says whether its resources are there yet, keeps them
together while the engine is started again, and can be given up before they ever came. An engine that fits
into a node is one bundle. One that does not is a bundle for each GPU, of which the first also has the
engine's own CPUs: vLLM's executor ``ray``, which finds the group that it runs in, puts a worker into each.

    place = Place(shape_of(settings, gpus=16, across=True), "teacher-0")
    place.placed                                   # False until 16 GPUs are free
    actor_class.options(**place.options())

What is tested: the bundles, on which nodes they land, that vLLM reads ranks and group as meant (on logical
GPUs). Not run: vLLM itself over several nodes, for want of GPUs.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fdd_ray.engines.base import EngineSettings
from fdd_ray.errors import EngineError
from fdd_ray.labels import matches

_LEAST_CPUS = 0.001  # Ray takes no bundle of nothing


@dataclasses.dataclass(frozen=True)
class Shape:
    """What one engine, or another claim on the cluster, reserves.

    Attributes:
        bundles: Resources that lie on one node each.
        labels: Node labels that all of them need, as Ray's label selectors.
    """

    bundles: tuple[dict[str, float], ...]
    labels: dict[str, str] = dataclasses.field(default_factory=dict)

    def total(self) -> dict[str, float]:
        """The resources of all bundles."""
        names = {name for bundle in self.bundles for name in bundle}
        return {name: sum(bundle.get(name, 0.0) for bundle in self.bundles) for name in sorted(names)}

    def __str__(self) -> str:
        first, rest = shown(self.bundles[0]), len(self.bundles) - 1
        more = f" and {rest} times {shown(self.bundles[1])} on any nodes" if rest else ""
        return f"{first}{' on one node' if len(self.bundles[0]) > 1 and not rest else ''}{more}" + (
            f", with the labels {self.labels}" if self.labels else ""
        )


def gpus_of(settings: EngineSettings, role: str) -> int:
    """GPUs of one engine on this cluster.

    Raises:
        EngineError: If that is not said, and cannot be seen either.
    """
    if settings.endpoint is not None:
        return 0
    if settings.gpus_per_replica is not None:
        return settings.gpus_per_replica
    return settings.model_parallel if has_gpus(settings.label_selector, f"{role}.gpus_per_replica") else 0


def has_gpus(selector: Mapping[str, str], key: str) -> bool:
    """Whether the nodes that something may run on have GPUs; those with its labels decide, if any is up.

    An autoscaling cluster has no node at first, and Ray does not tell a driver of what kinds they would be: what
    is meant to be on GPUs would be put on CPUs.

    Args:
        selector: The labels that are asked for.
        key: The setting that says it instead.

    Raises:
        EngineError: If no node is up from which it could be told.
    """
    # A head that is there for Ray alone says nothing of the nodes that work.
    if meant := [node for node in _nodes(selector) if selector or node.get("CPU", 0.0) or node.get("GPU", 0.0)]:
        return any(node.get("GPU", 0.0) > 0 for node in meant)
    if any(node.get("GPU", 0.0) > 0 for node in _nodes()):
        return True
    raise EngineError(
        f"{key} is not given, and no node {f'with the labels {dict(selector)} ' if selector else 'with a CPU '}is up"
        f" yet from which it could be told whether such nodes have GPUs; say how many each takes ({key}=1, or 0 for"
        " CPUs)"
    )


def goes_across(settings: EngineSettings, gpus: int) -> bool:
    """Whether an engine's GPUs may lie on several nodes: as the settings say, or if no node has enough."""
    if settings.across_nodes is not None or gpus < 2:
        return bool(settings.across_nodes) and gpus > 1
    most = max((node.get("GPU", 0.0) for node in _nodes(settings.label_selector)), default=0.0)
    return 0 < most < gpus


def shape_of(settings: EngineSettings, gpus: int, across: bool) -> Shape:
    """What one engine reserves.

    Args:
        settings: The role's settings.
        gpus: Its GPUs; 0 on a CPU.
        across: Whether they may lie on several nodes.
    """
    first = {"CPU": settings.cpus, **settings.resources}
    if gpus:
        first["GPU"] = 1.0 if across else float(gpus)
    first = {name: amount for name, amount in first.items() if amount} or {"CPU": _LEAST_CPUS}
    further = ({"GPU": 1.0},) * (gpus - 1 if across else 0)
    return Shape((first, *further), dict(settings.label_selector))


class Place:
    """Resources that are asked for, and held from when they are there until they are freed.

    Args:
        shape: What is asked for.
        name: Shown by Ray's tools; nothing else on the cluster may have it. None by default.
    """

    def __init__(self, shape: Shape, name: str = "") -> None:
        from ray.util import placement_group

        selectors = [dict(shape.labels) for _ in shape.bundles] if shape.labels else None
        self.shape = shape
        self.group: Any = placement_group(
            [dict(bundle) for bundle in shape.bundles], strategy="PACK", name=name, bundle_label_selector=selectors
        )

    @property
    def placed(self) -> bool:
        """Whether the resources are there; they stay, unless their node is lost, and are asked for again then."""
        from ray.util import placement_group_table

        return bool(placement_group_table(self.group).get("state") == "CREATED")

    def options(self) -> dict[str, Any]:
        """Ray's options of the actor that runs here. Over several nodes the GPUs are left to its workers."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        rest = dict(self.shape.bundles[0])
        cpus, gpus = rest.pop("CPU", 0.0), rest.pop("GPU", 0.0)
        across = len(self.shape.bundles) > 1
        return {
            "num_cpus": cpus,
            "num_gpus": 0 if across else gpus,
            "resources": rest,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, 0),
        }

    def free(self) -> None:
        """Give the resources back, or stop asking for them. Actors in it must have ended."""
        from ray.util import remove_placement_group

        remove_placement_group(self.group)


def within(done: Callable[[], bool], seconds: float, each_s: float = 0.2) -> bool:
    """Whether something becomes true within some time."""
    end = time.monotonic() + seconds
    while not (now := done()) and time.monotonic() < end:
        time.sleep(each_s)
    return now


def may_meet(one: Shape, other: Shape) -> bool:
    """Whether the two could want the same node of the cluster, as far as labels and resources tell."""
    return any(
        all(node.get(name, 0.0) > 0 for name in {*mine, *theirs})
        for node in _nodes(one.labels, other.labels)
        for mine in (one.bundles[0], one.bundles[-1])
        for theirs in (other.bundles[0], other.bundles[-1])
    )


def fits(shapes: Iterable[Shape]) -> bool:
    """Whether the cluster, as it is now, would have the resources of all of these together."""
    import ray

    totals = [shape.total() for shape in shapes]
    there = ray.cluster_resources()
    needed = {name: sum(total.get(name, 0.0) for total in totals) for total in totals for name in total}
    return all(amount <= float(there.get(name, 0.0)) + 1e-6 for name, amount in needed.items())


def shown(resources: Mapping[str, float]) -> str:
    """Resources as people read them, without those that Ray keeps for itself."""
    hidden = re.compile(r"node:|memory|object_store_memory|bundle_group_|.*_group_[0-9a-f]{8}|.*_group_\d+_")
    parts = [f"{value:g} {name}" for name, value in sorted(resources.items()) if not hidden.match(name)]
    return ", ".join(parts) or "nothing"


def cluster_shown() -> str:
    """What the cluster has, what of it is free, and the most GPUs of a node."""
    import ray

    most = max((node.get("GPU", 0.0) for node in _nodes()), default=0.0)
    node = f", at most {most:g} GPUs on a node" if most else ""
    return f"the cluster has {shown(ray.cluster_resources())}{node}, of it free {shown(ray.available_resources())}"


def _nodes(*selectors: Mapping[str, str]) -> Sequence[dict[str, float]]:
    """The resources of the nodes that are up and have the labels."""
    import ray

    return [
        node["Resources"]
        for node in ray.nodes()
        if node["Alive"] and all(matches(node.get("Labels", {}), selector) for selector in selectors)
    ]
