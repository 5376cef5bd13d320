"""The PodMonitor finds the pods that the other manifests make, and Prometheus may reach what it is sent to."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .files import CLUSTER, manifest

METRICS_PORT = 8080  # KubeRay's default, which it adds as a port named metrics


def _documents() -> tuple[dict[str, Any], dict[str, Any]]:
    monitor, policy = yaml.safe_load_all((CLUSTER / "kuberay" / "monitoring.yaml").read_text())
    return monitor, policy


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_it_reads_every_pod_of_ray(name: str) -> None:
    monitor, policy = _documents()
    spec = manifest(name)["spec"]
    spec = spec.get("rayClusterSpec", spec)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        for chosen in (monitor["spec"]["selector"], policy["spec"]["podSelector"]):
            assert chosen["matchLabels"].items() <= labels.items()
        assert "metrics-export-port" not in group["rayStartParams"], "monitoring.yaml counts on KubeRay's default"
        for container in group["template"]["spec"]["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            assert "metrics" not in ports, "KubeRay adds it"


def test_kinds_and_ports() -> None:
    monitor, policy = _documents()
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": METRICS_PORT}]
    (source,) = rule["from"]
    assert source["podSelector"]["matchLabels"], "nobody else comes in"
