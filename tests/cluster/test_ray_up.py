"""The `ray up` files: Ray's own schema, loader and scheduler take them; they are closed, and small when idle."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from ray._private.label_utils import validate_node_label_syntax, validate_node_labels
from ray.autoscaler._private.util import prepare_config, validate_config

from fdd_ray.engines.placement import shape_of
from fdd_ray.experiment import Experiment, load_experiment

from .files import CLOUDS, CLUSTER, ROLE, ROLES, ROOT, cloud, launched

# CPUs and GPUs of the machines that are named (EC2, Compute Engine, Azure), written by hand, to be held to one table.
MACHINES = {
    "g6.12xlarge": (48, 4),
    "g6.2xlarge": (8, 1),
    "g6e.12xlarge": (48, 4),
    "g2-standard-48": (48, 4),
    "g2-standard-8": (8, 1),
    "a2-ultragpu-2g": (24, 2),
    "Standard_NC96ads_A100_v4": (96, 4),
    "Standard_NC48ads_A100_v4": (48, 2),
    "Standard_NC24ads_A100_v4": (24, 1),
}


def prepared(name: str) -> dict[str, Any]:
    """As `ray up` has it before it calls a cloud."""
    config: dict[str, Any] = prepare_config(cloud(name))
    validate_config(config)
    return config


def experiment() -> Experiment:
    return load_experiment(CLUSTER / "experiment.yaml")


def demand() -> dict[str, list[dict[str, Any]]]:
    """What the roles of experiment.yaml ask a cluster for at most."""
    plan = experiment()
    assert plan.teacher is not None
    found = {}
    for role, settings in (("teacher", plan.teacher), ("student", plan.student)):
        shape = shape_of(settings, settings.gpus_per_replica or 0, across=False)
        found[role] = [{"resources": shape.bundles[0], "labels": shape.labels}] * settings.replicas[1]
    train = plan.finetune
    each = {"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}
    found["trainer"] = [{"resources": each, "labels": train.label_selector}] * train.workers[1]
    return found


def node_types(name: str) -> dict[str, dict[str, Any]]:
    types: dict[str, dict[str, Any]] = cloud(name)["available_node_types"]
    return types


def machine(node: dict[str, Any]) -> str:
    config = node["node_config"]
    config = config.get("azure_arm_parameters", config)
    return str(next(config[key] for key in ("InstanceType", "machineType", "vmSize") if key in config))


def is_spot(node: dict[str, Any]) -> bool:
    """Whether the provider will ask its cloud for spot capacity."""
    config = node["node_config"]
    return (
        config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or config.get("scheduling", {}).get("provisioningModel") == "SPOT"
        or config.get("azure_arm_parameters", {}).get("priority") == "Spot"
    )


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_takes_the_file_and_all_commands_are_ours(name: str) -> None:
    config = prepared(name)
    assert config["head_node_type"] == "head"
    text = " ".join(config["head_setup_commands"] + config["worker_setup_commands"])
    assert "setup.sh head" in text and "setup.sh worker" in text
    assert "3.0.0.dev0" not in text  # Ray's defaults install a nightly build


@pytest.mark.parametrize("name", CLOUDS)
def test_nothing_but_an_idle_head_runs_while_nobody_asks(name: str) -> None:
    config = prepared(name)
    assert launched(config, []) == {}
    assert config["idle_timeout_minutes"] == 10
    assert config["provider"].get("cache_stopped_nodes", False) is False
    head = config["available_node_types"]["head"]
    assert head["resources"] == {"CPU": 0} and head["max_workers"] == 0 and not is_spot(head)
    assert all(node["min_workers"] == 0 for node in config["available_node_types"].values())


@pytest.mark.parametrize("name", CLOUDS)
def test_each_role_starts_its_own_spot_nodes_and_enough_of_them(name: str) -> None:
    config, wanted = prepared(name), demand()
    for role in ROLES:
        started = launched(config, wanted[role])
        assert set(started) == {f"{role}_spot"}, (role, started)
    everything = launched(config, [bundle for role in ROLES for bundle in wanted[role]])
    assert "infeasible" not in everything
    assert sum(everything.values()) <= config["max_workers"]


@pytest.mark.parametrize("name", CLOUDS)
def test_after_a_failed_spot_launch_on_demand_nodes_are_started(name: str) -> None:
    config, wanted = prepared(name), demand()
    for role in ROLES:
        started = launched(config, wanted[role], failed=(f"{role}_spot",))
        assert set(started) == {f"{role}_on_demand"}, (role, started)


@pytest.mark.parametrize("name", CLOUDS)
def test_an_unknown_group_starts_nothing(name: str) -> None:
    assert launched(prepared(name), [{"resources": {"GPU": 1}, "labels": {ROLE: "teecher"}}]) == {"infeasible": 1}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_group_is_one_kind_of_machine_bought_in_two_ways(name: str) -> None:
    types = node_types(name)
    assert set(types) == {"head", *(f"{role}_{way}" for role in ROLES for way in ("spot", "on_demand"))}
    for role in ROLES:
        spot, own = types[f"{role}_spot"], types[f"{role}_on_demand"]
        assert is_spot(spot) and not is_spot(own)
        assert machine(spot) == machine(own) and spot["resources"] == own["resources"]
        assert (spot["resources"]["CPU"], spot["resources"]["GPU"]) == MACHINES[machine(spot)]
        assert spot["priority"] > own["priority"] and spot["max_workers"] == own["max_workers"]
        assert spot["labels"] == {ROLE: role, "fdd-ray/market": "spot"}
        assert own["labels"] == {ROLE: role, "fdd-ray/market": "on-demand"}


@pytest.mark.parametrize("name", CLOUDS)
def test_labels_are_labels_to_ray(name: str) -> None:
    for node in node_types(name).values():
        validate_node_label_syntax(node["labels"])
        validate_node_labels(node["labels"])


def test_the_fragment_names_groups_that_exist() -> None:
    plan = experiment()
    assert plan.teacher is not None
    selectors = {
        "teacher": plan.teacher.label_selector,
        "student": plan.student.label_selector,
        "trainer": plan.finetune.label_selector,
    }
    for role, selector in selectors.items():
        assert selector == {ROLE: role}
        for name in CLOUDS:
            assert [node for node in node_types(name).values() if selector.items() <= node["labels"].items()]


@pytest.mark.parametrize("name", CLOUDS)
def test_nodes_start_with_authentication_and_the_dashboard_stays_inside(name: str) -> None:
    config = prepared(name)
    for kind in ("head", "worker"):
        for command in config[f"{kind}_start_ray_commands"]:
            assert command.startswith(". ~/fdd_ray/cluster/environment.sh && ")
    start = config["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start and "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    assert "0.0.0.0" not in start
    assert "export RAY_AUTH_MODE=token" in (CLUSTER / "environment.sh").read_text()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("name", CLOUDS)
def test_files_that_are_copied_to_the_nodes_exist(name: str) -> None:
    mounts = cloud(name)["file_mounts"]
    own = {local for local in mounts.values() if not local.startswith("~")}
    assert own and all((ROOT / local).exists() for local in own)
    assert {"pyproject.toml", "constraints.txt", "fdd_ray", "cluster"} <= own
    assert set(mounts.values()) - own == {"~/.ray/auth_token", "~/.fdd_ray.env"}


def test_no_node_is_open() -> None:
    for name in CLOUDS:
        assert cloud(name)["provider"]["use_internal_ips"] is True
    for node in node_types("aws").values():  # or Ray makes a security group that opens port 22 to the world
        config = node["node_config"]
        assert config["SecurityGroupIds"] and config["SubnetIds"]
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"])
    for node in node_types("gcp").values():
        interfaces = node["node_config"]["networkInterfaces"]
        assert interfaces and not any("accessConfigs" in interface for interface in interfaces)
    for name in ("aws", "gcp"):
        auth = cloud(name)["auth"]
        assert auth["ssh_proxy_use_node_id"] is True and "%h" in auth["ssh_proxy_command"]


def test_nodes_have_roles_of_their_own() -> None:
    aws, gcp = node_types("aws"), node_types("gcp")
    assert aws["head"]["node_config"]["IamInstanceProfile"] == {"Name": "fdd-ray-head"}
    for name in set(aws) - {"head"}:
        assert aws[name]["node_config"]["IamInstanceProfile"] == {"Name": "fdd-ray-worker"}
        assert gcp[name]["node_config"]["serviceAccounts"][0]["email"].startswith("fdd-ray-worker@")


@pytest.mark.parametrize("name", ["aws_head", "aws_worker"])
def test_policies_allow_named_actions_on_named_things(name: str) -> None:
    policy = json.loads((CLUSTER / "policies" / f"{name}.json").read_text())
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert all(re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action) for action in statement["Action"]), statement["Sid"]
        only_reads = all(action.startswith("ec2:Describe") for action in statement["Action"])
        assert statement["Resource"] != "*" or (only_reads and "Condition" in statement), statement["Sid"]
    if name == "aws_worker":
        services = {action.split(":")[0] for item in policy["Statement"] for action in item["Action"]}
        assert services == {"s3"}
