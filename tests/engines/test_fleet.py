"""Real vLLM engines as real Ray actors, on the tiny models."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdd_ray.checking import Asking, CheckSettings
from fdd_ray.dataflow import FlowSettings
from fdd_ray.engines.base import EngineSettings, PromptTooLong, Reply, Sampling
from fdd_ray.engines.fleet import Fleet
from fdd_ray.errors import EngineError
from fdd_ray.progress import StageProgress
from fdd_ray.prompts import Message, load_prompts
from fdd_ray.records import Problem, Taught, from_table, schema_of, to_table
from fdd_ray.stages.teach import TeachSettings, teach
from fdd_ray.store import files
from fdd_ray.store.run import Run
from fdd_ray.tiny import make_problems, model_path

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("ray_local")]
PROMPTS = load_prompts("tiny")
TOO_LONG = PROMPTS.solve("program", "apples " * 600)
QUESTIONS = [problem.question for problem in make_problems("pool", 24, seed=5)]


@pytest.fixture(scope="module")
def teacher(ray_local: None) -> Iterator[Fleet]:
    """Two engines of the tiny teacher."""
    settings = EngineSettings(
        model="tiny://teacher", replicas=(2, 2), cpus_per_replica=0.25, max_num_seqs=64, kv_cache_mib=64
    )
    fleet = Fleet("teacher", settings, f"test-{os.getpid()}")
    fleet.start()
    fleet.wait(lambda text: None)
    yield fleet
    fleet.release()


def _ask(fleet: Fleet, sampling: Sampling, chats: list[list[Message]] | None = None) -> list[Reply]:
    client = fleet.client()
    chats = chats or [PROMPTS.solve("program", question) for question in QUESTIONS]

    async def all_of_them() -> list[Reply]:
        return list(await asyncio.gather(*(client.ask(chat, sampling) for chat in chats)))

    return asyncio.run(all_of_them())


def _pids(fleet: Fleet) -> list[int]:
    import ray

    fleet.wait(lambda text: None)
    return ray.get([actor.ready.remote() for actor in fleet.client().actors])


def test_seeded_samples_repeat_and_differ_among_themselves(teacher: Fleet) -> None:
    """Asked for new problems, of which the teacher has many in it; its solutions hardly vary."""

    def write(seed: int) -> list[Reply]:
        sampling = Sampling(n=3, temperature=1.0, max_tokens=40, seed=seed)
        return _ask(teacher, sampling, [PROMPTS.vary("similar", question) for question in QUESTIONS])

    first = write(7)
    assert first == write(7) != write(8)
    assert all(len({sample.text for sample in reply.samples}) == 3 for reply in first)
    assert all(
        sample.finish in ("stop", "length") and sample.tokens <= 40 for reply in first for sample in reply.samples
    )


def test_a_prompt_that_is_too_long_is_refused_and_the_engine_lives_on(teacher: Fleet) -> None:
    with pytest.raises(PromptTooLong, match="the model takes 512"):
        _ask(teacher, Sampling(), [TOO_LONG])
    assert len(_ask(teacher, Sampling(max_tokens=8))) == len(QUESTIONS)


def test_weights_loaded_in_place_answer_like_a_fresh_engine(teacher: Fleet, tmp_path: Path) -> None:
    """The engines are given weights that differ in every tensor, and back; each must speak as those do."""
    import torch
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(model_path("teacher"), other)
    generator = torch.Generator().manual_seed(0)
    weights = load_file(other / "model.safetensors")
    for name, tensor in weights.items():
        noise = torch.randn(tensor.shape, generator=generator) * tensor.float().std()
        weights[name] = (tensor.float() + 0.4 * noise).to(tensor.dtype)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})

    greedy = Sampling(max_tokens=32)
    before = _ask(teacher, greedy)
    teacher.use(str(other))
    changed = _ask(teacher, greedy)
    fresh = Fleet("fresh", EngineSettings(model=str(other), cpus_per_replica=0.1, kv_cache_mib=64), f"f-{os.getpid()}")
    fresh.start()
    fresh.wait(lambda text: None)
    expected = _ask(fresh, greedy)
    fresh.release()
    teacher.use("tiny://teacher")
    assert changed != before
    assert changed == expected
    assert _ask(teacher, greedy) == before


def test_an_engine_killed_in_the_middle_loses_and_doubles_no_row(teacher: Fleet, tmp_path: Path) -> None:
    problems = [Problem.new(item.question, item.answer) for item in make_problems("pool", 300, seed=11)]
    folder = Run(str(tmp_path)).folder(0, "rationales")
    source = folder.write("problems.parquet", to_table(problems, Problem))
    before = _pids(teacher)
    killed = threading.Event()

    def kill_one() -> None:
        while not folder.parts():
            time.sleep(0.05)
        os.kill(before[0], signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill_one, daemon=True).start()
    result = teach(
        folder,
        [source],
        asking=Asking(teacher.client(), PROMPTS, CheckSettings(), "program", seed=0),
        settings=TeachSettings(samples=2, temperature=0.7, max_tokens=90),
        flow=FlowSettings(block_rows=16, blocks_in_flight=6, map_actors=(1, 1), cpus_per_map_actor=0.1),
        progress=StageProgress("teach"),
    )
    assert killed.is_set()
    rows = from_table(files.read_tables([folder.file(name) for name in folder.parts()], schema_of(Taught)), Taught)
    assert Counter(row.id for row in rows) == Counter(problem.id for problem in problems)
    result.counts.check("here")
    assert result.counts.failed == 0 and result.counts.kept > 200
    after = _pids(teacher)
    assert after[0] != before[0] and after[1] == before[1]


def test_a_restarted_engine_answers_with_the_weights_it_is_asked_for(teacher: Fleet, tmp_path: Path) -> None:
    """A restart brings back the first weights; the request's own weights must win."""
    other = tmp_path / "student"
    shutil.copytree(model_path("teacher"), other)
    from safetensors.torch import load_file, save_file

    weights = {name: tensor * 0 for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    teacher.use(str(other))
    nonsense = _ask(teacher, Sampling(max_tokens=4))
    for pid in _pids(teacher):
        os.kill(pid, signal.SIGKILL)
    again = _ask(teacher, Sampling(max_tokens=4))
    teacher.use("tiny://teacher")
    sense = _ask(teacher, Sampling(max_tokens=4))
    assert again == nonsense != sense


def test_an_engine_in_a_process_of_its_own_serves_reloads_and_leaves_nothing_behind(teacher: Fleet) -> None:
    """The form that GPUs use, here on a CPU."""
    import psutil

    settings = EngineSettings(
        model="tiny://student", cpus_per_replica=0.1, max_num_seqs=32, kv_cache_mib=64, in_process=False
    )
    fleet = Fleet("student", settings, f"own-{os.getpid()}")
    fleet.start()
    (pid,) = _pids(fleet)
    children = psutil.Process(pid).children(recursive=True)
    assert children
    greedy = Sampling(max_tokens=24)
    student = _ask(fleet, greedy)
    assert student != _ask(teacher, greedy)
    with pytest.raises(PromptTooLong):
        _ask(fleet, Sampling(), [TOO_LONG])
    (child,) = (child for child in children if "EngineCore" in " ".join(child.cmdline()))
    child.kill()
    assert _ask(fleet, greedy) == student, "a dead engine takes its actor down, and both come back"
    (after,) = _pids(fleet)
    assert after != pid
    children += psutil.Process(after).children(recursive=True)
    fleet.release()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_an_engine_that_finds_no_place_is_an_error_that_says_so() -> None:
    settings = EngineSettings(model="tiny://teacher", resources={"unobtainium": 1.0}, start_deadline_s=6)
    fleet = Fleet("teacher", settings, f"none-{os.getpid()}")
    fleet.start()
    with pytest.raises(
        EngineError, match=r"0 of 1 teacher engines .* needs .*1 unobtainium on one node, the cluster has .*CPU"
    ):
        fleet.wait(lambda text: None)
    fleet.release()


def test_a_model_that_cannot_be_loaded_is_an_error_that_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model_path("teacher"), broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    settings = EngineSettings(model=str(broken), cpus_per_replica=0.1, max_restarts=0, start_deadline_s=120)
    fleet = Fleet("teacher", settings, f"broken-{os.getpid()}")
    fleet.start()
    with pytest.raises(EngineError, match="did not start"):
        fleet.wait(lambda text: None)
    fleet.release()
