"""What the nodes of the cluster tell: joins Ray as a run does, asks each node once, and leaves.

Runs in a process of its own (see `fdd_ray.doctor.child`). No engine is started, nothing is reserved, and each wait
has a deadline. What the answer means is said by `fdd_ray.doctor.nodes`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from fdd_ray.cluster import ray_session
from fdd_ray.doctor import host
from fdd_ray.errors import StoreError
from fdd_ray.progress import Reporter
from fdd_ray.visibility import require_visible

_ANSWER_S: Final = 90.0  # a node may first have to unpack the job's working directory
_REACH_S: Final = 3.0
_AT_ONCE: Final = 32


def survey(question: dict[str, Any]) -> dict[str, Any]:
    """Join Ray and ask its nodes.

    Args:
        question: ``directory``: the run directory, or empty to leave storage out; ``variables``: names of environment
            variables that engines need; ``paths``: what must be there where they, or training, run.

    Returns:
        ``nodes``: for each that is up, its ``id``, ``address``, ``resources``, ``labels``, ``closed`` (ports that
        cannot be reached from here), ``facts`` (see `host.Facts`; null without an answer) and ``error``;
        ``unseen``: why the directory is not seen from all of them, or empty; ``grows``: whether more nodes may come.

    Raises:
        EngineError: If the cluster cannot be joined.
    """
    with ray_session(Reporter()):
        import ray

        up = [node for node in ray.nodes() if node["Alive"]]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            closed = list(threads.map(_closed_ports, up))
        told = _ask(up, question["variables"], question["paths"])
        unseen = ""
        if question["directory"]:
            try:
                require_visible(question["directory"], _ANSWER_S)
            except StoreError as error:
                unseen = str(error)
        return {
            "nodes": [
                {
                    "id": node["NodeID"],
                    "address": node["NodeManagerAddress"],
                    "resources": {name: float(amount) for name, amount in node["Resources"].items()},
                    "labels": dict(node.get("Labels") or {}),
                    "closed": ports,
                    **told[node["NodeID"]],
                }
                for node, ports in zip(up, closed, strict=True)
            ],
            "unseen": unseen,
            "grows": grows(),
        }


def grows() -> bool:
    """Whether something may start more nodes: Ray's autoscaler, as far as a driver can tell."""
    import ray
    from ray.core.generated import autoscaler_pb2

    # Ray notes the first on the head of `ray up`; in Kubernetes its operator may run an autoscaler.
    if Path("~/ray_bootstrap_config.yaml").expanduser().exists() or "KUBERNETES_SERVICE_HOST" in os.environ:
        return True
    with contextlib.suppress(Exception):  # Ray's own interface, which it may change
        raylet: Any = ray._raylet
        messages: Any = autoscaler_pb2
        client = raylet.GcsClient(ray.get_runtime_context().gcs_address)
        status = messages.GetClusterStatusReply.FromString(client.get_cluster_status())
        return bool(status.autoscaling_state.autoscaler_state_version)
    return False


def _closed_ports(node: dict[str, Any]) -> list[int]:
    """Ports of a node's Ray that cannot be reached from here."""
    address = str(node["NodeManagerAddress"])
    ports = [int(node.get(name) or 0) for name in ("NodeManagerPort", "ObjectManagerPort")]
    return [port for port in ports if port and host.listens(address, port, _REACH_S)]


def _look_there(variables: Sequence[str], paths: Sequence[str]) -> str:
    """Runs on a node."""
    return json.dumps(dataclasses.asdict(host.facts(variables, paths)))


def _ask(nodes: Sequence[dict[str, Any]], variables: Sequence[str], paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote: Any = ray.remote(_look_there)
    asked = {
        remote.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            name="fdd-ray doctor",
        ).remote(list(variables), list(paths)): str(node["NodeID"])
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    found: dict[str, dict[str, Any]] = {}
    for reference in silent:
        found[asked[reference]] = {"facts": None, "error": f"no answer within {_ANSWER_S:g} s"}
        ray.cancel(reference, force=True)
    for reference in answered:
        try:
            found[asked[reference]] = {"facts": json.loads(ray.get(reference)), "error": ""}
        except ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            why = f"{type(error).__name__}: {' '.join(lines[-2:])[:300]}"
            found[asked[reference]] = {"facts": None, "error": why}
    return found
