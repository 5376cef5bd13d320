"""Whether what an experiment asks for at once can ever lie on the nodes that there are.

    needs_of(experiment, nodes)           # what each role asks for, at the least and at the most
    look_at_room(experiment, nodes)

Roles take turns where they must (`fdd_ray.engines.room`), so each has to find room for its smallest number of engines
together with the map actors that ask them, and the workers of a fine-tuning for themselves. No more than that is
certain: what others run on the cluster at that time, nobody knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fdd_ray.doctor.findings import Finding, note, ok, problem
from fdd_ray.engines.base import EngineSettings
from fdd_ray.engines.placement import Shape, shape_of, shown
from fdd_ray.errors import EngineError, FddError, TrainingError
from fdd_ray.experiment import Experiment
from fdd_ray.labels import matches

_EPSILON: Final = 1e-6
_MANY: Final = 256


class Node(NamedTuple):
    """A node as placement sees it."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Need:
    """What one role asks of the cluster.

    Attributes:
        role: ``teacher``, ``student`` or ``fine-tuning``.
        unit: What one of it is called.
        shape: What one engine or worker reserves.
        least: How many there must be.
        most: How many are asked for.
        setting: The setting of that number.
        error: With what a run ends that finds no room.
    """

    role: str
    unit: str
    shape: Shape
    least: int
    most: int
    setting: str
    error: type[FddError]

    @property
    def gpus(self) -> float:
        """GPUs of one."""
        return self.shape.total().get("GPU", 0.0)


def needs_of(experiment: Experiment, nodes: Sequence[Node]) -> list[Need]:
    """What each role that a run has asks for.

    Args:
        experiment: The settings.
        nodes: The nodes that are up; they decide what the settings leave open, as they do in a run.
    """
    needs = [
        Need(role, "engine", _engine(settings, nodes), *settings.replicas, f"{role}.replicas", EngineError)
        for role, settings in roles_of(experiment).items()
    ]
    training = experiment.finetune
    gpus = training.gpus_per_worker
    if gpus is None:
        gpus = float(_has_gpus(training.label_selector, nodes))
    each = {"CPU": training.cpus_per_worker, "GPU": gpus, **training.resources}
    shape = Shape(({name: amount for name, amount in each.items() if amount},), dict(training.label_selector))
    return [*needs, Need("fine-tuning", "worker", shape, *training.workers, "finetune.workers", TrainingError)]


def roles_of(experiment: Experiment) -> dict[str, EngineSettings]:
    """The roles that a run asks, with their settings; a teacher that nobody asks is left out."""
    asks_teacher = experiment.rounds > 0 or experiment.rationales == "teacher"
    teacher = {"teacher": experiment.teacher} if experiment.teacher is not None and asks_teacher else {}
    return {**teacher, "student": experiment.student}


def look_at_room(
    experiment: Experiment, nodes: Sequence[Node], *, grows: bool, where: str, joined: bool = True
) -> Iterator[Finding]:
    """Whether each role finds room.

    Args:
        experiment: The settings.
        nodes: The nodes that are up.
        grows: Whether more nodes may come, of kinds that nobody here knows.
        where: What the nodes are called, such as ``this machine``.
        joined: Whether they are those of a cluster, and not just this machine.
    """
    needs = needs_of(experiment, nodes)
    yield _gpus(needs, nodes, where)
    if grows:
        yield from _undecided(experiment, nodes)
    flow = experiment.flow
    rows = Shape(({"CPU": flow.map_actors[0] * flow.cpus_per_map_actor},))
    for need in needs:
        beside = [] if need.role == "fine-tuning" else [rows]
        wanted = f"{_count(need.least, need.unit)} of {need.shape}"
        if fit([*[need.shape] * need.least, *beside], nodes):
            room = _most(need, beside, nodes)
            more = "" if room == need.most else f", and for {room} of the {need.most} that are asked for"
            yield ok(f"{need.role}: {where} has room for {wanted}{more}")
            continue
        found = f"{need.role}: {wanted}{' beside the map actors' if beside else ''} never fit into {where}"
        if not fit([need.shape] * need.least, nodes) and (why := _why(need, nodes)):
            found += f" ({why})"
        if grows:
            yield note(
                f"{found} as it is now; nodes that the autoscaler starts may have room",
                f"see that a node group has {need.shape}, and labels and resources as they are asked for",
            )
        else:
            more = (
                "give the cluster more nodes" if joined else "look at it from the cluster it is meant for (RAY_ADDRESS)"
            )
            yield problem(found, f"{more}, or {_ways(need)}", need.error)
    engines = [need for need in needs if need.unit == "engine" and any(any(b.values()) for b in need.shape.bundles)]
    together = [need.shape for need in engines for _ in range(need.least)]
    if len(engines) > 1 and all(fit([need.shape] * need.least, nodes) for need in engines) and not fit(together, nodes):
        yield note(
            f"teacher and student do not fit into {where} together, so their engines take turns and load anew at each"
            " change of stage",
            "good if that is meant; else give it more GPUs, or engines that take less",
        )


def fit(shapes: Iterable[Shape], nodes: Sequence[Node]) -> bool:
    """Whether all of these find a place together on empty nodes.

    The largest bundles are placed first, each on the node where it leaves least, which is how a person would pack.
    """
    free = [dict(node.resources) for node in nodes]
    bundles = [(bundle, shape.labels) for shape in shapes for bundle in shape.bundles]
    bundles.sort(key=lambda item: (-item[0].get("GPU", 0.0), -len(item[1]), -sum(item[0].values())))
    for bundle, labels in bundles:
        fitting = [
            place
            for place, node in zip(free, nodes, strict=True)
            if matches(node.labels, labels)
            and all(place.get(name, 0.0) + _EPSILON >= amount for name, amount in bundle.items())
        ]
        if not fitting:
            return False
        best = min(fitting, key=lambda place: (place.get("GPU", 0.0), place.get("CPU", 0.0)))
        for name, amount in bundle.items():
            best[name] = best.get(name, 0.0) - amount
    return True


def _most(need: Need, beside: list[Shape], nodes: Sequence[Node]) -> int:
    """How many of those that are asked for find room."""
    for count in range(min(need.most, _MANY), need.least, -1):
        if fit([*[need.shape] * count, *beside], nodes):
            return count if need.most <= _MANY or count < _MANY else need.most
    return need.least


def _engine(settings: EngineSettings, nodes: Sequence[Node]) -> Shape:
    """What an engine reserves, as `fdd_ray.engines.fleet` decides it on a cluster that is up."""
    gpus = settings.gpus_per_replica
    if settings.endpoint is not None:
        gpus = 0
    elif gpus is None:
        gpus = settings.model_parallel if _has_gpus(settings.label_selector, nodes) else 0
    across = bool(settings.across_nodes) and gpus > 1
    if settings.across_nodes is None and gpus > 1:
        most = max((node.resources.get("GPU", 0.0) for node in _meant(settings.label_selector, nodes)), default=0.0)
        across = 0 < most < gpus
    return shape_of(settings, gpus, across)


def _meant(selector: Mapping[str, str], nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if matches(node.labels, selector)]


def _has_gpus(selector: Mapping[str, str], nodes: Sequence[Node]) -> bool:
    return any(node.resources.get("GPU", 0.0) > 0 for node in _meant(selector, nodes))


def _gpus(needs: Sequence[Need], nodes: Sequence[Node], where: str) -> Finding:
    """How many GPUs are needed at once, in one line."""
    there = sum(node.resources.get("GPU", 0.0) for node in nodes)
    if not any(need.gpus for need in needs):
        none = "no role asks for GPUs"
        return ok(f"{none}: all is computed on CPUs" if not there else f"{none}, though {where} has {there:g}")
    parts = [_part(need) for need in needs if need.gpus]
    least = max(need.least * need.gpus for need in needs)
    most = max(
        sum(need.most * need.gpus for need in needs if need.unit == "engine"),
        sum(need.most * need.gpus for need in needs if need.role != "student"),
    )
    return ok(
        f"GPUs needed at once: at least {least:g}, of use up to {most:g} ({', '.join(parts)}); {where} has {there:g}"
    )


def _part(need: Need) -> str:
    count = f"{need.least}" if need.least == need.most else f"{need.least} to {need.most}"
    return f"{need.role} {count} x {need.gpus:g}"


def _undecided(experiment: Experiment, nodes: Sequence[Node]) -> Iterator[Finding]:
    """What is not said, and cannot be seen while the nodes that it is meant for are not up."""
    asked: list[tuple[str, Any, Mapping[str, str]]] = [
        (f"{role}.gpus_per_replica", settings.gpus_per_replica, settings.label_selector)
        for role, settings in roles_of(experiment).items()
        if settings.endpoint is None
    ]
    asked.append(("finetune.gpus_per_worker", experiment.finetune.gpus_per_worker, experiment.finetune.label_selector))
    for key, value, selector in asked:
        working = [
            node for node in _meant(selector, nodes) if selector or any(node.resources.get(n) for n in ("CPU", "GPU"))
        ]
        if value is None and not working and not _has_gpus({}, nodes):
            yield problem(
                f"{key} is not given, and no node is up yet from which it could be told whether such nodes have GPUs",
                f"set it: {key}=1, or 0 for CPUs",
                EngineError,
            )


def _why(need: Need, nodes: Sequence[Node]) -> str:
    """What is short for a single one."""
    meant = _meant(need.shape.labels, nodes)
    if not meant:
        return f"no node has the labels {need.shape.labels}"
    for bundle in need.shape.bundles:
        lacking = [
            name for name, amount in bundle.items() if all(n.resources.get(name, 0) + _EPSILON < amount for n in meant)
        ]
        if lacking:
            most = {name: max(node.resources.get(name, 0.0) for node in meant) for name in lacking}
            return f"a node has at most {shown(most)}"
    total = {name: sum(node.resources.get(name, 0.0) for node in meant) for name in need.shape.total()}
    return f"all nodes that it may use have {shown(total)} together"


def _ways(need: Need) -> str:
    """Settings that make it ask for less."""
    if need.role == "fine-tuning":
        return "lower finetune.workers, finetune.gpus_per_worker or finetune.cpus_per_worker"
    role = need.role
    return f"lower {role}.replicas, {role}.cpus_per_replica, {role}.tensor_parallel or flow.cpus_per_map_actor"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
