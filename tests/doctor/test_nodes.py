"""What the answers of nodes mean, without Ray."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from fdd_ray.doctor.findings import Finding
from fdd_ray.doctor.host import Disk, Gpu
from fdd_ray.doctor.nodes import gpu_bytes, look_at_nodes, paths_of, variables_of
from fdd_ray.experiment import Experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.settings import read_settings
from tests.doctor.test_machine import GOOD

HERE = dataclasses.replace(GOOD, packages={"ray": "2.60.0", "torch": "2.13.0", "vllm": "0.32.0"})
API = "teacher={model: m, endpoint: 'http://127.0.0.1:1/v1', api_key_env: SOME_KEY}"


def experiment(*overrides: str) -> Experiment:
    return read_settings(Experiment, TINY_EXPERIMENT, overrides)


def node(number: int, facts: Any = HERE, **changes: Any) -> dict[str, Any]:
    plain = None if facts is None else json.loads(json.dumps(dataclasses.asdict(facts)))
    return {
        "id": f"{number:x}" * 8,
        "address": f"10.0.0.{number}",
        "resources": {"CPU": 8.0},
        "labels": {},
        "closed": [],
        "facts": plain,
        "error": "",
        **changes,
    }


def told(*nodes: dict[str, Any], unseen: str = "", grows: bool = False) -> dict[str, Any]:
    return {"nodes": list(nodes), "unseen": unseen, "grows": grows}


def bad(answer: dict[str, Any], *overrides: str) -> list[Finding]:
    return [f for f in look_at_nodes(answer, experiment(*overrides), HERE) if f.level != "ok"]


def test_nodes_that_are_alike_are_good() -> None:
    found = list(look_at_nodes(told(node(1), node(2), grows=True), experiment(), HERE))
    assert {f.level for f in found} == {"ok"}
    assert found[0].found == "2 nodes are up, and more may come"
    assert found[-1].found.endswith("is seen and written by all 2 nodes")


def test_a_storage_that_a_node_does_not_see() -> None:
    (finding,) = bad(told(node(1), node(2), unseen="/runs is not seen from 1 node: x. Nothing was started: share it"))
    assert (finding.level, finding.exit_code) == ("problem", 4)
    assert (finding.found, finding.next) == ("/runs is not seen from 1 node: x", "share it")


def test_a_node_that_cannot_be_reached_or_asked() -> None:
    (finding,) = bad(told(node(1, closed=[10001, 10002])))
    assert (finding.level, finding.exit_code) == ("problem", 5) and "port 10001, 10002" in finding.found
    (finding,) = bad(told(node(1, None, error="no answer within 90 s")))
    assert (finding.level, finding.exit_code) == ("problem", 5)
    assert "node 10.0.0.1 (11111111): it could not be asked (no answer within 90 s)" in finding.found


def test_a_nodes_own_troubles_are_named_with_it() -> None:
    full = dataclasses.replace(HERE, temporary=Disk("/tmp", 1 << 40, 1 << 30))
    (finding,) = bad(told(node(1), node(2, full)))
    assert finding.exit_code == 4 and finding.found.startswith("node 10.0.0.2 (22222222): /tmp")


def test_versions_that_differ_from_here() -> None:
    other = dataclasses.replace(HERE, packages={**HERE.packages, "torch": "2.14.0+cu130"}, python="3.12.1")
    found = bad(told(node(1, other)))
    assert [(f.level, f.exit_code) for f in found] == [("problem", 8), ("note", 0)]
    assert "torch 2.14.0+cu130 (2.13.0 here)" in found[1].found
    assert bad(told(node(1, dataclasses.replace(HERE, packages={**HERE.packages, "torch": "2.13.0+cpu"})))) == []


def test_a_key_that_a_node_does_not_have() -> None:
    assert variables_of(experiment(API)) == ["SOME_KEY"] and variables_of(experiment()) == []
    without = dataclasses.replace(HERE, variables={"SOME_KEY": False})
    (finding,) = bad(told(node(1, without)), API)
    assert (finding.level, finding.exit_code) == ("problem", 5) and "SOME_KEY is not set" in finding.found
    assert bad(told(node(1, dataclasses.replace(HERE, variables={"SOME_KEY": True}))), API) == []


def test_vllm_is_missed_only_where_engines_may_run() -> None:
    without = dataclasses.replace(HERE, packages={"ray": "2.60.0"})
    found = bad(told(node(1, without)))
    assert [(f.level, f.exit_code) for f in found] == [("problem", 8)] * 2  # for the teacher, for the student
    labels = ("teacher.label_selector={kind: gpu}", "student.label_selector={kind: gpu}")
    assert bad(told(node(1, without), node(2, labels={"kind": "gpu"})), *labels) == []
    assert bad(told(node(1, without, resources={"memory": 1.0})), *labels[:0]) == []  # a head without CPUs


def test_memory_of_the_gpus_that_a_role_may_get() -> None:
    small, large = (dataclasses.replace(HERE, gpus=(Gpu("x", mib),) * 2) for mib in (24_000, 80_000))
    answer = told(node(1, small, labels={"kind": "student"}), node(2, large, labels={"kind": "teacher"}), node(3, None))
    assert gpu_bytes(answer, {"kind": "teacher"}) == [80_000 << 20] * 2
    assert len(gpu_bytes(answer, {})) == 4


def test_what_is_the_same_on_many_nodes_is_said_once() -> None:
    without = dataclasses.replace(HERE, variables={"SOME_KEY": False})
    (finding,) = bad(told(*(node(number, without) for number in range(1, 7))), API)
    assert finding.found.startswith(
        "nodes 10.0.0.1 (11111111), 10.0.0.2 (22222222), 10.0.0.3 (33333333) and 3 more: SOME"
    )


def test_a_model_folder_that_a_node_does_not_have(tmp_path: Path) -> None:
    model = f"student.model={tmp_path}"
    assert paths_of(experiment(model)) == {"teacher": [], "student": [str(tmp_path)], "fine-tuning": [str(tmp_path)]}
    assert not any(paths_of(experiment()).values())  # what ships with the package is everywhere
    prompts = tmp_path / "prompts"
    assert paths_of(experiment(f"prompts={prompts}"))["fine-tuning"] == [str(prompts)]
    without = dataclasses.replace(HERE, paths={str(tmp_path): False})
    found = bad(told(node(1, without)), model)
    assert [(f.level, f.exit_code) for f in found] == [("problem", 6), ("problem", 5)]
    assert bad(told(node(1, dataclasses.replace(HERE, paths={str(tmp_path): True}))), model) == []
    elsewhere = (model, "student.label_selector={kind: gpu}", "finetune.label_selector={kind: gpu}")
    assert bad(told(node(1, without)), *elsewhere) == []
