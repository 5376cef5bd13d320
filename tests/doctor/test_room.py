"""Whether roles find room on nodes: engines, workers and map actors, with labels and over several nodes."""

from __future__ import annotations

from typing import Any

from fdd_ray.doctor.findings import Finding
from fdd_ray.doctor.room import Node, fit, look_at_room, needs_of
from fdd_ray.engines.placement import Shape
from fdd_ray.experiment import Experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.settings import read_settings


def experiment(*overrides: str) -> Experiment:
    return read_settings(Experiment, TINY_EXPERIMENT, overrides)


def node(cpus: float = 8, gpus: float = 0, **labels: str) -> Node:
    return Node({"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}, labels)


def look(settings: Experiment, *nodes: Node, **how: Any) -> list[Finding]:
    return list(look_at_room(settings, nodes, **{"grows": False, "where": "the cluster", **how}))


def bad(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level != "ok"]


ON_GPUS = ("teacher.gpus_per_replica=1", "student.gpus_per_replica=1", "finetune.gpus_per_worker=1")


def test_bundles_are_packed_as_a_person_would() -> None:
    one, two = Shape(({"GPU": 1.0},)), Shape(({"GPU": 2.0},))
    assert fit([one, one, two], [node(gpus=2), node(gpus=2)])
    assert not fit([two, two, one], [node(gpus=2), node(gpus=2)])
    assert not fit([two], [node(gpus=1), node(gpus=1)])
    assert fit([Shape(({"GPU": 1.0}, {"GPU": 1.0}))], [node(gpus=1), node(gpus=1)])
    labelled = Shape(({"CPU": 1.0},), {"tier": "big"})
    assert fit([labelled], [node(), node(tier="big")]) and not fit([labelled], [node(), node(tier="small")])
    assert fit([Shape(({"CPU": 6.0},)), labelled], [node(8), node(1, tier="big")])


def test_a_machine_that_is_large_enough() -> None:
    found = look(experiment(), node(2))
    assert bad(found) == [] and found[0].found == "no role asks for GPUs: all is computed on CPUs"
    assert any("room for 1 engine of 0.25 CPU" in f.found and f.found.startswith("teacher") for f in found)


def test_gpus_needed_at_once_by_role() -> None:
    found = look(experiment(*ON_GPUS, "teacher.replicas=[1, 6]", "finetune.workers=2"), node(32, 8))
    assert bad(found) == []
    assert found[0].found == (
        "GPUs needed at once: at least 2, of use up to 8 (teacher 1 to 6 x 1, student 1 x 1, fine-tuning 2 x 1);"
        " the cluster has 8"
    )
    small = look(experiment(*ON_GPUS, "teacher.replicas=[1, 6]"), node(32, 4))
    assert any("and for 4 of the 6 that are asked for" in f.found for f in small)


def test_a_machine_without_gpus_never_gives_them() -> None:
    found = bad(look(experiment(*ON_GPUS), node(8), joined=False, where="this machine"))
    assert [(f.level, f.exit_code) for f in found] == [("problem", 5), ("problem", 5), ("problem", 6)]
    assert "a node has at most 0 GPU" in found[0].found and "RAY_ADDRESS" in found[0].next


def test_too_few_cpus_beside_the_map_actors() -> None:
    wanted = experiment("teacher.cpus_per_replica=2", "flow.cpus_per_map_actor=0.5")
    (finding,) = [f for f in bad(look(wanted, node(2))) if f.level == "problem"]
    assert finding.found.startswith("teacher: 1 engine") and "beside the map actors" in finding.found
    assert "flow.cpus_per_map_actor" in finding.next
    assert not [f for f in bad(look(wanted, node(2), node(2))) if f.level == "problem"]


def test_an_engine_goes_over_several_nodes_only_where_it_may() -> None:
    wide = experiment("teacher.tensor_parallel=4", "teacher.gpus_per_replica=4")
    assert [f for f in look(wide, node(8, 2), node(8, 2)) if f.level == "problem"] == []
    shape = needs_of(wide, [node(8, 2), node(8, 2)])[0].shape
    assert len(shape.bundles) == 4 and shape.total()["GPU"] == 4
    assert len(needs_of(wide, [node(8, 4)])[0].shape.bundles) == 1
    tied = experiment("teacher.tensor_parallel=4", "teacher.gpus_per_replica=4", "teacher.across_nodes=false")
    (finding,) = [f for f in look(tied, node(8, 2), node(8, 2)) if f.level == "problem"]
    assert finding.exit_code == 5 and "a node has at most 2 GPU" in finding.found


def test_what_the_settings_leave_open_is_decided_by_the_nodes() -> None:
    open_settings = experiment("teacher.tensor_parallel=2")
    assert [need.gpus for need in needs_of(open_settings, [node(8, 4)])] == [2, 1, 1]
    assert [need.gpus for need in needs_of(open_settings, [node(8)])] == [0, 0, 0]
    elsewhere = experiment("teacher.label_selector={tier: big}", "teacher.tensor_parallel=2")
    assert needs_of(elsewhere, [node(8, 4), node(8, tier="big")])[0].gpus == 0


def test_labels_that_no_node_has() -> None:
    (finding,) = bad(look(experiment("student.label_selector={tier: big}"), node(8)))
    assert (finding.level, finding.exit_code) == ("problem", 5)
    assert "no node has the labels {'tier': 'big'}" in finding.found


def test_roles_that_take_turns_are_a_note() -> None:
    (finding,) = bad(look(experiment(*ON_GPUS), node(8, 1)))
    assert finding.level == "note" and "take turns" in finding.found
    assert bad(look(experiment(*ON_GPUS), node(8, 2))) == []


def test_a_cluster_that_grows_may_have_room_later() -> None:
    found = bad(look(experiment(*ON_GPUS), node(4), grows=True))
    assert [f.level for f in found] == ["note", "note", "note"] and "may have room" in found[0].found
    asked = look(experiment(), Node({}, {}), grows=True)
    undecided = [f for f in asked if f.level == "problem"]
    assert [f.found.split()[0] for f in undecided] == [
        "teacher.gpus_per_replica", "student.gpus_per_replica", "finetune.gpus_per_worker",
    ]  # fmt: skip
    decided = experiment(*(line.replace("=1", "=0") for line in ON_GPUS))
    assert [f.level for f in look(decided, Node({}, {}), grows=True) if f.level == "problem"] == []


def test_a_teacher_that_nobody_asks_needs_no_room() -> None:
    alone = experiment("rationales=from_dataset", "kind=chain", "rounds=0")
    assert [need.role for need in needs_of(alone, [node()])] == ["student", "fine-tuning"]
