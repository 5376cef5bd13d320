"""Engines that nobody asks are given back, and how many GPUs an engine has is never guessed: real Ray, logical GPUs."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from typing import Any

import pytest

from fdd_ray.engines.base import EngineSettings
from fdd_ray.engines.fleet import Fleet
from fdd_ray.engines.placement import gpus_of, has_gpus
from fdd_ray.errors import EngineError
from tests.engines.clusters import Node, add_node, cluster, eventually, in_own_process

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def _settings(**rest: Any) -> EngineSettings:
    given: dict[str, Any] = {"engine": "simulated", "cpus_per_replica": 0.1, "start_deadline_s": 120.0}
    return EngineSettings(**{"model": "tiny://teacher", **given, **rest})


def _free() -> float:
    import ray

    return float(ray.available_resources().get("GPU", 0.0))


@in_own_process
def test_engines_that_rest_are_given_back_unless_they_are_asked_again() -> None:
    with cluster(Node(gpus=2)):
        told: list[tuple[str, int, str]] = []

        def tell(fleet: Fleet, engines: int) -> None:
            told.append((fleet.role, engines, threading.current_thread().name))

        kept = Fleet("student", _settings(), "kept")
        kept.rest(tell)
        kept.start()
        kept.wait(print)
        kept.rest(tell)

        fleet = Fleet("teacher", _settings(idle_release_s=1.0), "idle")
        fleet.rest(tell)  # nothing to give back
        for _ in range(2):
            fleet.start()
            fleet.wait(print)
            for _ in range(4):  # asked again and again, never idle for long
                fleet.rest(tell)
                time.sleep(0.4)
                fleet.start()
            time.sleep(1.5)
            assert (fleet.placed, told) == (1, [])
            fleet.rest(tell)
            time.sleep(0.5)
            fleet.rest(tell)  # it rests already: its time goes on
            begun = time.monotonic()
            assert eventually(lambda: bool(told), 30)
            assert time.monotonic() - begun < 15 and not fleet.started
            assert told[0][:2] == ("teacher", 1) and told.pop()[2] != threading.current_thread().name
            assert eventually(lambda: _free() == 1), "its GPU is free, the other role's is not"
        fleet.start()
        fleet.rest(tell)
        fleet.release()
        time.sleep(1.5)
        assert told == [] and kept.placed == 1
        kept.release()


@in_own_process
def test_a_run_gives_idle_engines_back_and_pays_for_them_till_then() -> None:
    """The student is idle while the teacher writes; its engines are counted until they went, and start anew."""
    from fdd_ray.experiment import load_experiment
    from fdd_ray.launch import TINY_EXPERIMENT
    from fdd_ray.progress import Reporter
    from fdd_ray.store.run import Counts, Run, StageFolder, StageResult
    from fdd_ray.workshop import Workshop

    def train(folder: StageFolder) -> StageResult:
        with workshop._resources.training(print) as settings:
            assert settings.gpus_per_worker == 1, "there are GPUs"
            time.sleep(2)
        return StageResult(Counts(0, 0, {}, 0), ())

    overrides = [
        f"{role}.{key}"
        for role in ("teacher", "student")
        for key in ("engine=simulated", "kv_cache_mib=null", "replicas=1", "cpus_per_replica=0.1")
    ]
    overrides += ["pool={format: tiny, split: pool, size: 24, seed: 1}", "teach.min_kept=1", "flow.block_rows=4"]
    overrides += ["benchmarks={test: {format: tiny, split: test, size: 8, seed: 2}}", "flow.blocks_in_flight=1"]
    overrides += ["student.idle_release_s=1", "teacher.engine_args={seconds: 1.0}", "prices.gpu_hour=3600"]
    with tempfile.TemporaryDirectory() as folder, cluster(Node(cpus=2, gpus=2)):
        said = io.StringIO()
        experiment = load_experiment(TINY_EXPERIMENT, [*overrides, f"storage={folder}"])
        with Workshop(experiment, Run(experiment.directory), Reporter(said)) as workshop:
            problems = workshop.problems()
            scored = workshop.score(None, None, problems, pool=False)
            assert workshop._resources.student.placed == 1
            taught = workshop.teach(problems)
            assert not workshop._resources.student.started and workshop._resources.teacher is not None
            assert workshop._resources.teacher.placed == 1 and taught.counts.failed == scored.counts.failed == 0
            trained = workshop._resources.metered(train)(workshop.run.folder(0, "finetune"))
            workshop._resources.asking("student", print)
            assert workshop._resources.student.placed == 1
        assert said.getvalue().count("the student engines had nothing to do for 1 s") == 1
    # The teacher's GPU for the whole stage, and the student's until it was given back.
    assert taught.usage is not None and taught.usage.gpu_seconds == taught.usage.engine_seconds
    assert 0.3 < taught.usage.engine_seconds - taught.seconds < 0.8 * taught.seconds, taught
    # A worker's GPU while it trained; the teacher's engine was still there.
    assert trained.usage is not None and 1.9 < trained.usage.gpu_seconds - trained.usage.engine_seconds < 30
    assert trained.usage.money == pytest.approx(trained.usage.gpu_seconds, abs=0.1)


@in_own_process
def test_gpus_are_those_of_the_nodes_that_are_meant_and_are_never_guessed() -> None:
    def of(**settings: Any) -> int:
        return gpus_of(_settings(tensor_parallel=2, **settings), "teacher")

    with cluster(Node(cpus=0)) as own:
        assert of(gpus_per_replica=0) == 0 and of(gpus_per_replica=2) == 2
        with pytest.raises(EngineError, match=r"teacher\.gpus_per_replica is not given, and no node with a CPU is up"):
            of()
        with pytest.raises(EngineError, match=r"with the labels \{'tier': 'big'\} is up.*teacher\.gpus_per_replica=1"):
            Fleet("teacher", _settings(label_selector={"tier": "big"}), "none").start()
        add_node(own, Node(cpus=1, labels={"tier": "small"}))
        assert of() == of(label_selector={"tier": "small"}) == 0
        with pytest.raises(EngineError, match="is up yet"):
            of(label_selector={"tier": "big"})
        add_node(own, Node(cpus=1, gpus=2, labels={"tier": "big"}))
        assert of() == of(label_selector={"tier": "big"}) == 2
        assert of(label_selector={"tier": "small"}) == 0, "the GPUs are elsewhere"
        assert has_gpus({}, "finetune.gpus_per_worker") and not has_gpus({"tier": "small"}, "x")
