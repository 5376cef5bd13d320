"""Roles that need the same GPU take turns: real stages and real Ray on logical GPUs, with the simulated engine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.engines.placement import Place, Shape
from fdd_ray.experiment import load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.progress import Reporter
from fdd_ray.store.run import Run
from fdd_ray.workshop import Workshop
from tests.engines.clusters import Node, cluster, eventually, in_own_process, node_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@contextmanager
def _workshop(*overrides: str) -> Iterator[Workshop]:
    engines = [
        f"{role}.{key}"
        for role in ("teacher", "student")
        for key in ("engine=simulated", "kv_cache_mib=null", "start_deadline_s=60", "cpus_per_replica=0.1")
    ]
    small = ["pool={format: tiny, split: pool, size: 24, seed: 1}", "teach.min_kept=1", "finetune.cpus_per_worker=0.5"]
    small += ["benchmarks={test: {format: tiny, split: test, size: 8, seed: 2}}"]
    with tempfile.TemporaryDirectory() as folder:
        experiment = load_experiment(TINY_EXPERIMENT, [*engines, *small, f"storage={folder}", *overrides])
        with Workshop(experiment, Run(experiment.directory), Reporter()) as workshop:
            yield workshop


def _free(name: str = "GPU") -> float:
    import ray

    return float(ray.available_resources().get(name, 0.0))


def _asked_for() -> int:
    """Placement groups that Ray still has or waits for."""
    from ray.util import placement_group_table

    return sum(group["state"] != "REMOVED" for group in placement_group_table().values())


@in_own_process
def test_teacher_student_and_training_take_turns_on_one_gpu() -> None:
    """The teacher asks for three GPUs where there is one, so two of its engines are always waiting for it."""
    with cluster(Node(gpus=1, cpus=2)), _workshop("teacher.replicas=[1, 3]", "student.replicas=[1, 2]") as workshop:
        resources = workshop._resources
        teacher, student = resources.teacher, resources.student
        assert teacher is not None
        problems = workshop.problems()
        begun = time.monotonic()
        scored = workshop.score(None, None, problems, pool=False)
        assert scored.counts.rows == 8 and scored.counts.failed == 0
        assert (student.placed, teacher.placed) == (1, 0)
        taught = workshop.teach(problems)
        assert taught.counts.kept > 12 and taught.counts.failed == 0
        assert (student.started, teacher.placed) == (False, 1)
        for _ in range(2):
            # What Ray Train will ask for comes at once, though engines were waiting for that very GPU.
            with resources.training(print):
                assert not teacher.started and not student.started and _asked_for() == 0
                place = Place(Shape(({"CPU": 0.5, "GPU": 1.0},)))
                assert eventually(lambda place=place: place.placed, 5)
                place.free()
            resources.asking("student", print)
            assert (student.placed, teacher.started) == (1, False)
            resources.asking("teacher", print)
            assert (student.started, teacher.placed) == (False, 1)
        assert time.monotonic() - begun < 200, "and nobody waited for a deadline"
    assert not teacher.started and not student.started


@in_own_process
def test_two_half_filled_nodes_do_not_keep_an_engine_of_two_gpus_waiting() -> None:
    """Enough GPUs are free in all, but not on one node: the role that is not asked gives way."""
    import ray

    with (
        cluster(Node(gpus=2, cpus=2), Node(gpus=2, cpus=2)),
        _workshop(
            "student.replicas=2", "teacher.replicas=1", "teacher.tensor_parallel=2", "teacher.across_nodes=false"
        ) as workshop,
    ):
        resources = workshop._resources
        assert resources.teacher is not None
        resources.start_ray()
        # Each student engine on a node of its own, as Ray may well put them.
        blocks = [Place(Shape(({"GPU": 1.0},), {"ray.io/node-id": node["NodeID"]})) for node in ray.nodes()]
        assert eventually(lambda: all(block.placed for block in blocks))
        resources.student.start()
        assert eventually(lambda: resources.student.placed == 2)
        for block in blocks:
            block.free()
        assert eventually(lambda: _free() == 2)
        assert len({node_of(actor) for actor in resources.student.client().actors}) == 2
        said: list[str] = []
        resources.asking("teacher", said.append)
        assert resources.teacher.placed == 1
        assert "the student engines give their GPUs back" in said


@in_own_process
def test_roles_with_room_for_both_stay_and_load_side_by_side() -> None:
    with cluster(Node(gpus=3, cpus=2)), _workshop("teacher.replicas=2") as workshop:
        resources = workshop._resources
        assert resources.teacher is not None
        said: list[str] = []
        resources.asking("student", said.append)
        assert eventually(lambda: resources.teacher is not None and resources.teacher.placed == 2)
        resources.asking("teacher", said.append)
        assert (resources.student.placed, resources.teacher.placed) == (1, 2)
        assert not [text for text in said if "back" in text]
        assert resources._reserved()[2] == 3
        # One worker: the student gives its GPU back, and the teacher, which has more, stays.
        with resources.training(said.append):
            assert (resources.student.placed, resources.teacher.placed) == (0, 2)
            assert eventually(lambda: _free() == 1)


@in_own_process
def test_a_role_on_other_nodes_keeps_its_engines() -> None:
    """Of two roles with nodes of their own neither gains anything by releasing the other."""
    from fdd_ray.engines.room import claim

    with (
        cluster(Node(), Node(gpus=1, labels={"tier": "big"}), Node(gpus=1, labels={"tier": "small"})),
        _workshop("teacher.label_selector={tier: big}", "student.label_selector={tier: small}") as workshop,
    ):
        resources = workshop._resources
        assert resources.teacher is not None
        resources.asking("teacher", print)
        resources.asking("student", print)
        place = Place(Shape(({"GPU": 1.0},), {"tier": "small"}))
        assert claim(lambda: place.placed, place.shape, [resources.teacher, resources.student], print)
        assert (resources.student.started, resources.teacher.placed) == (False, 1)
        place.free()


@in_own_process
def test_engines_beyond_the_least_leave_the_last_cpu_to_the_rows() -> None:
    """A whole stage on two CPUs, of which all replicas together would take both."""
    more = ("teacher.replicas=[1, 2]", "teacher.cpus_per_replica=1", "student.cpus_per_replica=1")
    with cluster(Node(cpus=2)), _workshop(*more, "flow.cpus_per_map_actor=0.5", "flow.stall_deadline_s=60") as workshop:
        resources = workshop._resources
        problems = workshop.problems()
        taught = workshop.teach(problems)
        assert taught.counts.kept > 12 and taught.counts.failed == 0
        assert resources.teacher is not None and resources.teacher.placed == 1
        scored = workshop.score(None, None, problems, pool=False)
        assert scored.counts.failed == 0


class _NotesItsNode:
    """A stand-in for the progress actor, called inside the worker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def update(self) -> _NotesItsNode:
        return self

    def remote(self, done: int, total: int, info: dict[str, Any]) -> None:
        import ray

        self.path.write_text(ray.get_runtime_context().get_node_id())


@in_own_process
def test_the_workers_of_a_fine_tuning_land_on_the_nodes_with_their_labels() -> None:
    """For real: Ray Train and DeepSpeed; the head is the only node without the label, and would have room."""
    import pyarrow.parquet as pq
    import ray

    from fdd_ray.records import Example, to_table
    from fdd_ray.tiny import model_path
    from fdd_ray.training import FinetuneSettings, finetune
    from tests.training.conftest import tiny_examples

    with tempfile.TemporaryDirectory() as name, cluster(Node(cpus=2), Node(cpus=1, labels={"use": "train"})):
        folder = Path(name)
        pq.write_table(to_table(tiny_examples(40), Example), folder / "examples.parquet")
        settings = FinetuneSettings(
            epochs=1, max_length=256, micro_batch_rows=4, batch_tokens=1024, cpus_per_worker=0.5, checkpoint_steps=0,
            label_selector={"use": "train"},
        )  # fmt: skip
        finetune(
            settings,
            base_model=str(model_path("student")),
            examples=[str(folder / "examples.parquet")],
            prompts="tiny",
            output=str(folder / "student"),
            work_dir=str(folder / "work"),
            run_name="labels",
            seed=7,
            progress=_NotesItsNode(folder / "node"),
        )
        labels = {node["NodeID"]: node["Labels"].get("use") for node in ray.nodes()}
        assert labels[(folder / "node").read_text()] == "train"
