"""The manifests: fields that KubeRay knows, and Ray's own reader of RayClusters and its scheduler take them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from .files import CLUSTER, ROLE, ROLES, launched, manifest
from .test_ray_up import demand

# Fields of KubeRay 1.6.0's RayCluster and RayJob (ray.io/v1) that the manifests may use, by hand from its API types.
CLUSTER_FIELDS = {
    "rayVersion",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "authOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
AUTOSCALER_FIELDS = {"version", "upscalingMode", "idleTimeoutSeconds", "resources", "env", "imagePullPolicy"}
AUTH_FIELDS = {"mode", "secretName"}
HEAD_FIELDS = {"rayStartParams", "labels", "resources", "template", "serviceType"}
WORKER_FIELDS = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "idleTimeoutSeconds",
    "labels",
    "resources",
    "rayStartParams",
    "template",
    "numOfHosts",
}
JOB_FIELDS = {
    "entrypoint",
    "submissionMode",
    "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished",
    "activeDeadlineSeconds",
    "preRunningDeadlineSeconds",
    "backoffLimit",
    "submitterConfig",
    "submitterPodTemplate",
    "rayClusterSpec",
}
# Of a pod and a container (Kubernetes core/v1), those used here.
POD_FIELDS = {"securityContext", "containers", "volumes", "tolerations", "terminationGracePeriodSeconds"}
CONTAINER_FIELDS = {"name", "image", "securityContext", "envFrom", "ports", "resources", "volumeMounts"}


def cluster_spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = manifest(name)["spec"]
    return spec if name == "raycluster" else spec["rayClusterSpec"]


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def derived(name: str) -> dict[str, Any]:
    """What Ray's autoscaler makes of the cluster."""
    custom = {"metadata": {"name": "fdd-ray", "namespace": "fdd-ray"}, "spec": cluster_spec(name)}
    config: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(custom)
    return config


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_every_field_is_one_that_kuberay_knows(name: str) -> None:
    document, spec = manifest(name), cluster_spec(name)
    assert document["apiVersion"] == "ray.io/v1"
    assert document["kind"] == {"raycluster": "RayCluster", "rayjob": "RayJob"}[name]
    assert set(spec) <= CLUSTER_FIELDS
    assert set(spec["autoscalerOptions"]) <= AUTOSCALER_FIELDS
    assert set(spec["authOptions"]) <= AUTH_FIELDS
    assert set(spec["headGroupSpec"]) <= HEAD_FIELDS
    for group in spec["workerGroupSpecs"]:
        assert {"groupName", "minReplicas", "maxReplicas", "template"} <= set(group) <= WORKER_FIELDS
    for group in groups(spec):
        pod = group["template"]["spec"]
        assert set(pod) <= POD_FIELDS
        assert all(set(container) <= CONTAINER_FIELDS for container in pod["containers"])
        # KubeRay refuses labels here, and wants strings.
        assert "labels" not in group["rayStartParams"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    if name == "rayjob":
        assert set(document["spec"]) <= JOB_FIELDS


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_ray_reads_the_groups_and_nothing_runs_idle(name: str) -> None:
    config = derived(name)
    types = config["available_node_types"]
    assert set(types) == {"headgroup", *ROLES}
    assert types["headgroup"]["resources"]["CPU"] == 0
    for role in ROLES:
        assert types[role]["labels"] == {ROLE: role} and types[role]["min_workers"] == 0
        assert types[role]["resources"]["GPU"] >= 1
    assert config["idle_timeout_minutes"] == 10
    assert launched(config, []) == {}


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_each_role_starts_its_own_pods_and_enough_of_them(name: str) -> None:
    config, wanted = derived(name), demand()
    for role in ROLES:
        assert set(launched(config, wanted[role])) == {role}
    assert "infeasible" not in launched(config, [bundle for role in ROLES for bundle in wanted[role]])


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_authentication_is_on_and_comes_from_a_secret(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token", "secretName": "fdd-ray-token"}
    assert spec["rayVersion"] == "2.60.0"
    for group in groups(spec):
        container = group["template"]["spec"]["containers"][0]
        assert container["envFrom"] == [{"secretRef": {"name": "fdd-ray-keys", "optional": True}}]
        assert "env" not in container


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_pods_are_bounded_unprivileged_and_guarded(name: str) -> None:
    common = list(yaml.safe_load_all((CLUSTER / "kuberay" / "common.yaml").read_text()))
    claim, policy = common
    guarded = policy["spec"]["podSelector"]["matchLabels"].items()
    for group in groups(cluster_spec(name)):
        template = group["template"]
        assert guarded <= template["metadata"]["labels"].items()
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        container = template["spec"]["containers"][0]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        limits = container["resources"]["limits"]
        assert limits == container["resources"]["requests"] and {"cpu", "memory"} <= set(limits)
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_gpu_pods_may_land_on_spot_nodes(name: str) -> None:
    for group in cluster_spec(name)["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        assert int(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) >= 1
        tolerated = {toleration["key"] for toleration in pod["tolerations"]}
        assert {"nvidia.com/gpu", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= tolerated


def test_the_job_ends_with_its_cluster_and_has_the_same_one() -> None:
    job = manifest("rayjob")["spec"]
    assert job["rayClusterSpec"] == manifest("raycluster")["spec"]
    assert job["shutdownAfterJobFinishes"] is True and job["ttlSecondsAfterFinished"] <= 600
    assert job["activeDeadlineSeconds"] > 0
    mount = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]
    assert f"storage={mount['mountPath']}/runs" in job["entrypoint"]
    image = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    assert job["submitterPodTemplate"]["spec"]["containers"][0]["image"] == image
