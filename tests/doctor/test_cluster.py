"""The doctor on clusters of several nodes: it joins them, asks each node, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence

import pytest

from fdd_ray.doctor.child import ask
from fdd_ray.doctor.examination import Subject, examine
from fdd_ray.doctor.findings import Finding, exit_code
from fdd_ray.launch import TINY_EXPERIMENT
from tests.engines.clusters import Node, autoscaling, cluster, in_own_process

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
_SURVEY = "fdd_ray.doctor.survey:survey"


def _look(*overrides: str) -> list[Finding]:
    """What is found of the tiny experiment in the groups that need the nodes."""
    found = examine(Subject(str(TINY_EXPERIMENT), overrides))
    for finding in found:
        print(finding)
    return [finding for finding in found if finding.group in ("ports", "cluster", "room")]


def _problems(found: Sequence[Finding]) -> list[tuple[str, int]]:
    return [(finding.group, finding.exit_code) for finding in found if finding.level == "problem"]


@in_own_process
def test_nodes_are_asked_and_left_as_they_were() -> None:
    import ray

    with cluster(Node(cpus=2), Node(gpus=2), Node(cpus=1, labels={"tier": "big"})) as own:
        os.environ["RAY_ADDRESS"] = own.address
        with tempfile.TemporaryDirectory() as folder:
            good = _look(
                f"storage={folder}/runs", "teacher.gpus_per_replica=1", "teacher.replicas=[1, 4]",
                "student.label_selector={tier: big}",
            )  # fmt: skip
            assert os.listdir(folder) == []
        assert _problems(good) == []
        texts = [finding.found for finding in good]
        assert any("the cluster that a run would join answers" in text for text in texts)
        assert "3 nodes are up" in texts
        assert any(text.startswith("nodes ") and text.count("(") == 3 and " CPUs, " in text for text in texts)
        assert any(text.endswith("is seen and written by all 3 nodes") for text in texts)
        assert any(text.startswith("teacher: the cluster has room for 1 engine") for text in texts)
        assert any("and for 2 of the 4 that are asked for" in text for text in texts)

        # What the nodes do not have: a key, a storage that is not each process's own, labels, GPUs.
        with socket.create_server(("127.0.0.1", 0)) as server:
            endpoint = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
            bad = _look(
                "storage=memory://runs",
                f"teacher={{model: m, endpoint: '{endpoint}', api_key_env: DOCTOR_TEST_KEY}}",
                "student.label_selector={tier: huge}",
                "finetune.gpus_per_worker=3",
            )
        told = _problems(bad)
        assert told.count(("cluster", 5)) == 1
        missed = next(finding for finding in bad if "DOCTOR_TEST_KEY is not set where Ray was started" in finding.found)
        assert missed.found.startswith("nodes ") and missed.found.count("(") == 3
        assert ("cluster", 4) in told and ("room", 5) in told and ("room", 6) in told
        unseen = next(finding for finding in bad if finding.exit_code == 4)
        assert "is not seen from 2 of the 2 other nodes" in unseen.found and "name a storage" in unseen.next
        assert any("no node has the labels {'tier': 'huge'}" in finding.found for finding in bad)
        assert exit_code(bad) == 5

        assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"] == 5
        from ray._private.state import actors

        assert [actor for actor in actors().values() if actor["State"] == "ALIVE"] == []
        assert ray.util.placement_group_table() == {}


@in_own_process
def test_a_cluster_that_grows_is_known_as_one() -> None:
    with autoscaling({"trainer": Node(gpus=1)}):
        told = ask(_SURVEY, {"directory": "", "variables": [], "paths": ["/", "/no/such/folder"]}, 300)
    assert told["grows"] and len(told["nodes"]) == 1 and told["unseen"] == ""
    assert told["nodes"][0]["facts"]["paths"] == {"/": True, "/no/such/folder": False}
