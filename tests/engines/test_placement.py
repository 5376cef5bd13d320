"""Where engines land, on logical GPUs of raylets on this machine; the engine itself is the simulated one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fdd_ray.engines.base import EngineSettings, Reply, Sampling
from fdd_ray.engines.fleet import Fleet
from fdd_ray.engines.placement import Shape, shape_of, shown
from fdd_ray.engines.vllm import engine_arguments
from fdd_ray.errors import EngineError
from fdd_ray.labels import matches
from fdd_ray.prompts import load_prompts
from fdd_ray.tiny import make_problems
from tests.engines.clusters import Node, cluster, eventually, in_own_process, node_of

PROMPTS = load_prompts("tiny")
QUESTION = next(iter(make_problems("pool", 1, 3))).question


def _settings(**rest: Any) -> EngineSettings:
    given: dict[str, Any] = {"engine": "simulated", "cpus_per_replica": 0.1, "start_deadline_s": 60.0}
    return EngineSettings(**{"model": "tiny://teacher", **given, **rest})


def _ask(fleet: Fleet) -> Reply:
    async def ask() -> Reply:
        return await fleet.client().ask(PROMPTS.solve("program", QUESTION), Sampling())

    return asyncio.run(ask())


def _placed(fleet: Fleet) -> list[dict[str, Any]]:
    """What Ray says of each replica's placement group."""
    from ray.util import placement_group_table

    return [placement_group_table(replica.place.group) for replica in fleet._replicas]


def test_an_engine_within_a_node_is_one_bundle_and_one_across_nodes_is_one_for_each_gpu() -> None:
    settings = _settings(tensor_parallel=2, pipeline_parallel=3, resources={"teacher": 1.0}, label_selector={"a": "b"})
    assert shape_of(settings, 6, across=False).bundles == ({"CPU": 0.1, "teacher": 1.0, "GPU": 6.0},)
    across = shape_of(settings, 6, across=True)
    assert across.bundles == ({"CPU": 0.1, "teacher": 1.0, "GPU": 1.0}, *({"GPU": 1.0},) * 5)
    assert across.labels == {"a": "b"} and across.total()["GPU"] == 6
    assert shape_of(_settings(), 0, across=False).bundles == ({"CPU": 0.1},)
    # Ray takes no empty bundle, and an engine may reserve nothing.
    assert shape_of(_settings(cpus_per_replica=0.0), 0, across=False).bundles == ({"CPU": 0.001},)


@pytest.mark.parametrize(
    ("across", "pipeline", "backend"), [(True, 2, "ray"), (False, 2, "mp"), (None, 2, "mp"), (None, 1, None)]
)
def test_vllm_is_told_how_its_gpus_lie(across: bool | None, pipeline: int, backend: str | None) -> None:
    settings = EngineSettings("hub/model", pipeline_parallel=pipeline, across_nodes=across)
    arguments = engine_arguments(settings, "hub/model", on_gpu=True)
    assert arguments["pipeline_parallel_size"] == pipeline
    assert arguments.get("distributed_executor_backend") == backend
    on_cpu = engine_arguments(settings, "hub/model", on_gpu=False)
    assert on_cpu["pipeline_parallel_size"] == 1 and "distributed_executor_backend" not in on_cpu


def test_vllm_knows_the_arguments_by_these_names() -> None:
    from vllm import EngineArgs

    settings = EngineSettings(
        "hub/model", tensor_parallel=2, pipeline_parallel=2, across_nodes=True, quantization="fp8", gpus_per_replica=4
    )
    arguments = EngineArgs(**engine_arguments(settings, "hub/model", on_gpu=True))
    assert (arguments.pipeline_parallel_size, arguments.distributed_executor_backend) == (2, "ray")
    assert arguments.quantization == "fp8"


def test_gpus_are_tensor_times_pipeline() -> None:
    assert EngineSettings("x", tensor_parallel=2, pipeline_parallel=4, gpus_per_replica=8).model_parallel == 8
    with pytest.raises(ValueError, match="2 x 4; an engine uses one GPU for each of these ranks"):
        EngineSettings("x", tensor_parallel=2, pipeline_parallel=4, gpus_per_replica=2)
    with pytest.raises(ValueError, match="pipeline_parallel, across_nodes: an endpoint decides"):
        EngineSettings("x", endpoint="https://h/v1", pipeline_parallel=2, across_nodes=True)


@pytest.mark.parametrize(
    ("selector", "met"),
    [
        ({}, True),
        ({"tier": "big"}, True),
        ({"tier": "small"}, False),
        ({"tier": "!small"}, True),
        ({"tier": "!big"}, False),
        ({"tier": "in(small, big)"}, True),
        ({"tier": "!in(small,big)"}, False),
        ({"zone": "!a"}, True),
        ({"zone": "a"}, False),
        ({"tier": "big", "zone": "a"}, False),
    ],
)
def test_label_selectors(selector: dict[str, str], met: bool) -> None:
    assert matches({"tier": "big"}, selector) is met


def test_what_ray_keeps_for_itself_is_not_shown() -> None:
    group = "a8fe95e10a21bbce07e05f11195c01000000"
    own = {"node:10.0.0.1": 1.0, "memory": 1e9, f"GPU_group_0_{group}": 1.0, f"bundle_group_{group}": 1000.0}
    assert shown({"GPU": 2.0, "CPU": 0.5, "my_group": 1.0, f"CPU_group_{group}": 0.5, **own}) == (
        "0.5 CPU, 2 GPU, 1 my_group"
    )
    assert "2 GPU and 3 times 1 GPU on any nodes" in str(Shape(({"GPU": 2.0}, *({"GPU": 1.0},) * 3)))


@pytest.mark.cluster
@pytest.mark.slow
@in_own_process
def test_an_engine_larger_than_a_node_goes_over_several_and_a_smaller_one_does_not() -> None:
    """With vLLM's own functions: the group is found from within the actor, and ranks follow the nodes."""
    import ray
    from vllm.platforms import current_platform
    from vllm.v1.executor.ray_utils import get_bundles_sorted_by_node

    current_platform.ray_device_key = "GPU"  # as on a GPU; this process is the test's own
    with cluster(Node(), Node(gpus=2), Node(gpus=2)):
        fleet = Fleet("teacher", _settings(tensor_parallel=2, pipeline_parallel=2), "across")
        fleet.start()
        fleet.wait(print)
        (group,) = _placed(fleet)
        nodes = list(group["bundles_to_node_id"].values())
        assert len(nodes) == 4 and sorted(nodes.count(node) for node in set(nodes)) == [2, 2]
        (actor,) = fleet.client().actors
        assert node_of(actor) == group["bundles_to_node_id"][0]
        assert ray.available_resources().get("GPU", 0) == 0
        (replica,) = fleet._replicas
        ranks = [node for _, node, _ in get_bundles_sorted_by_node(replica.place.group)]
        # A tensor-parallel pair shares a node; the pipeline goes from one node to the other.
        assert ranks[0] == ranks[1] != ranks[2] == ranks[3]
        assert _inside(replica.place) == (replica.place.group.id.hex(), [])
        assert _ask(fleet).samples[0].text
        fleet.release()
        assert eventually(lambda: ray.available_resources().get("GPU", 0) == 4)

        pair = Fleet("teacher", _settings(tensor_parallel=2), "within")
        pair.start()
        pair.wait(print)
        (group,) = _placed(pair)
        assert len(group["bundles_to_node_id"]) == 1
        assert len(_inside(pair._replicas[0].place, free_first=pair)[1]) == 2
        pair.release()


def _inside(place: Any, free_first: Fleet | None = None) -> tuple[str, list[int]]:
    """What an actor in an engine's place sees: the group that vLLM would find, and its own GPUs."""
    import ray
    from ray.util import get_current_placement_group

    class Looks:
        def look(self) -> tuple[str, list[int]]:
            group = get_current_placement_group()
            return group.id.hex() if group else "", list(ray.get_gpu_ids())

    if free_first is not None:
        ray.kill(free_first._replicas[0].actor)
    options = place.options() | {"num_cpus": 0}
    actor = ray.remote(Looks).options(**options).remote()
    found: tuple[str, list[int]] = ray.get(actor.look.remote(), timeout=60)
    ray.kill(actor)
    return found


@pytest.mark.cluster
@pytest.mark.slow
@in_own_process
def test_more_gpus_than_there_are_is_an_error_that_says_what_is_awaited_and_what_there_is() -> None:
    with cluster(Node(gpus=2), Node(gpus=1)):
        for across, awaited in ((None, r"1 GPU and 7 times 1 GPU on any nodes"), (False, r"0\.1 CPU, 8 GPU on one")):
            settings = _settings(tensor_parallel=4, pipeline_parallel=2, across_nodes=across, start_deadline_s=6.0)
            fleet = Fleet("teacher", settings, f"none-{across}")
            fleet.start()
            said: list[str] = []
            expected = (
                rf"0 of 1 teacher engines .*0 have found a place.*needs .*{awaited}.*has .* 3 GPU, at most 2 GPUs"
            )
            with pytest.raises(EngineError, match=expected):
                fleet.wait(said.append)
            assert "free" in said[0] and "_group_" not in said[0]
            fleet.release()
            assert not fleet.started


@pytest.mark.cluster
@pytest.mark.slow
@in_own_process
def test_roles_land_on_the_nodes_with_their_labels() -> None:
    import ray

    with cluster(Node(), Node(gpus=1, labels={"tier": "big"}), Node(gpus=1, labels={"tier": "small"})):
        labels = {node["NodeID"]: node["Labels"].get("tier") for node in ray.nodes()}
        for _ in range(2):  # in either order, so that it is not luck
            for role, tier in (("teacher", "big"), ("student", "small")):
                selector = {"tier": "in(big, huge)" if role == "teacher" else tier}
                fleet = Fleet(role, _settings(replicas=(1, 1), label_selector=selector), f"{role}-labels")
                fleet.start()
                fleet.wait(print)
                assert [labels[node_of(actor)] for actor in fleet.client().actors] == [tier]
                fleet.release()
        nowhere = Fleet("teacher", _settings(label_selector={"tier": "none"}, start_deadline_s=5.0), "nowhere")
        nowhere.start()
        with pytest.raises(EngineError, match=r"with the labels \{'tier': 'none'\}"):
            nowhere.wait(lambda text: None)


@pytest.mark.cluster
@pytest.mark.slow
@in_own_process
def test_work_starts_at_the_smallest_number_and_a_node_that_comes_later_gets_work() -> None:
    import ray

    with cluster(Node(gpus=1)) as own:
        settings = _settings(replicas=(1, 2), engine_args={"seconds": 0.2}, max_num_seqs=4)
        fleet = Fleet("teacher", settings, "later")
        fleet.start()
        fleet.wait(print)
        assert fleet.placed == 1 and fleet.has_least and len(fleet.client().actors) == 2
        client = fleet.client()

        async def work() -> tuple[list[int], list[int]]:
            """Requests in flight of each engine, before and after the second node has come."""
            chat = PROMPTS.solve("program", QUESTION)

            async def some(number: int) -> list[int]:
                asked = [asyncio.ensure_future(client.ask(chat, Sampling())) for _ in range(number)]
                await asyncio.sleep(0.1)
                in_flight = [lane.in_flight for lane in client._lanes]
                await asyncio.gather(*asked)
                return in_flight

            await some(1)
            before = await some(8)
            own.add_node(num_cpus=1, num_gpus=1)  # in the main thread, as Ray wants it
            for _ in range(300):
                await some(1)
                if all(lane.serving for lane in client._lanes):
                    break
            return before, await some(8)

        before, after = asyncio.run(work())
        assert sorted(before) == [0, 8] and after == [4, 4]
        assert fleet.placed == 2
        assert len({node_of(actor) for actor in fleet.client().actors}) == 2
        fleet.release()
        assert eventually(lambda: ray.available_resources().get("GPU", 0) == 2)


@pytest.mark.cluster
@pytest.mark.slow
@in_own_process
def test_an_engine_that_refuses_other_weights_starts_anew_with_them() -> None:
    import json
    import tempfile
    from pathlib import Path

    import ray

    with tempfile.TemporaryDirectory() as name, cluster(Node(gpus=2)):
        (Path(name) / "simulated.json").write_text(json.dumps({"right": 0.0}))
        for reloads in (False, True):
            settings = _settings(
                engine_args={"reloads": reloads}, replicas=(2, 2), max_restarts=0, label_selector={}, model="x-teacher"
            )
            fleet = Fleet("student", settings, f"refuses-{reloads}")
            fleet.start()
            fleet.wait(print)
            before = ray.get([actor.ready.remote() for actor in fleet.client().actors])
            right = _ask(fleet).samples[0].text
            said: list[str] = []
            fleet.use(name)
            fleet.wait(said.append)
            after = ray.get([actor.ready.remote() for actor in fleet.client().actors])
            assert _ask(fleet).samples[0].text != right
            assert (set(after) & set(before) == set()) is not reloads
            assert len([text for text in said if "does not load other weights in place" in text]) == 2 * (not reloads)
            fleet.release()
