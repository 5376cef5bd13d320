"""The work that all sides of `teacher_stage` do: its settings, its rows, and how answers are drawn."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from fdd_ray.engines.base import EngineSettings, Sampling
from fdd_ray.engines.vllm import engine_arguments
from fdd_ray.experiment import Experiment, load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.prompts import PromptSet, load_prompts
from fdd_ray.records import Problem, Request, content_id, stable_seed
from fdd_ray.tiny import make_problems

# What a model other than the tiny teacher is asked with, in place of the tiny world's settings.
_ANY_MODEL = (
    "prompts=default",
    "teach={}",
    "synthesise={}",
    "flow={}",
    "teacher.cpus_per_replica=1",
    "teacher.max_num_seqs=256",
    "teacher.kv_cache_mib=null",
)


def experiment_of(
    model: str, replicas: int, gpus_per_replica: int, storage: str, sets: Sequence[str] = ()
) -> Experiment:
    """The settings of all sides.

    Args:
        model: The teacher: a folder, a hub id, or tiny://teacher.
        replicas: Engines.
        gpus_per_replica: GPUs of one engine, which share each layer; 0 for an engine on CPUs.
        storage: Where run directories go.
        sets: ``a.b=c`` strings that win over everything.
    """
    changes = [
        "name=teacher-stage",
        f"storage={storage}",
        f"teacher.model={model}",
        f"teacher.replicas={replicas}",
        f"teacher.gpus_per_replica={gpus_per_replica}",
        f"teacher.tensor_parallel={max(1, gpus_per_replica)}",
    ]
    return load_experiment(TINY_EXPERIMENT, [*changes, *(() if model.startswith("tiny://") else _ANY_MODEL), *sets])


def teacher_of(experiment: Experiment) -> EngineSettings:
    """The teacher's settings, which are always there."""
    assert experiment.teacher is not None
    return experiment.teacher


def plain_arguments(settings: EngineSettings) -> dict[str, Any]:
    """vLLM's arguments of one engine, without what only fdd_ray needs of it (new weights in place)."""
    arguments = engine_arguments(settings, settings.model, bool(settings.gpus_per_replica))
    return {name: value for name, value in arguments.items() if name != "worker_extension_cls"}


@functools.lru_cache(maxsize=1)
def prompts_of(name: str) -> PromptSet:
    """A prompt set, read once in each process."""
    return load_prompts(name)


def make_pool(size: int, first: int = 0) -> list[Problem]:
    """``size`` problems from the ``first`` on; all different, and the same every time."""
    drawn = make_problems("pool", first + size, seed=1)[first:]
    return [Problem.new(problem.question, problem.answer, source="teacher_stage") for problem in drawn]


def make_requests(pool: Sequence[Problem]) -> list[Request]:
    """A request for each problem: by turns for a more complex variation and for a similar problem."""
    requests = []
    for index, parent in enumerate(pool):
        origin = "similar" if index % 2 else "complex"
        id = content_id("r", origin, parent.id)
        requests.append(Request(id, parent.id, parent.question, parent.answer, origin, 1, 1))
    return requests


def rationale_sampling(experiment: Experiment, id: str) -> Sampling:
    """As `fdd_ray.stages.teach` draws a rationale; a test holds the two together."""
    settings = experiment.teach
    seed = stable_seed(experiment.seed, "teach", id)
    return Sampling(settings.samples, settings.temperature, settings.top_p, settings.max_tokens, seed)


def question_sampling(experiment: Experiment, id: str) -> Sampling:
    """As `fdd_ray.stages.synthesise` draws a new problem."""
    settings = experiment.synthesise
    seed = stable_seed(experiment.seed, "write", id)
    return Sampling(1, settings.temperature, settings.top_p, settings.max_problem_tokens, seed)


def solution_sampling(experiment: Experiment, id: str) -> Sampling:
    """As `fdd_ray.stages.synthesise` draws the solutions of a new problem."""
    settings = experiment.synthesise
    seed = stable_seed(experiment.seed, "solve", id)
    return Sampling(
        settings.solutions, settings.solution_temperature, max_tokens=settings.max_solution_tokens, seed=seed
    )


def vllm_sampling(settings: EngineSettings, sampling: Sampling) -> dict[str, Any]:
    """The arguments of vLLM's SamplingParams for a draw."""
    return {
        "n": sampling.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        # A greedy draw has no seed, as in fdd_ray.
        **({"seed": sampling.seed} if sampling.temperature > 0 else {}),
        **settings.sampling.given(),
    }


def one_of(sampling: dict[str, Any], index: int) -> dict[str, Any]:
    """The draw of one of ``n`` samples alone: vLLM gives the sample at an index the seed plus that index."""
    seed = {"seed": sampling["seed"] + index} if "seed" in sampling else {}
    return {**sampling, "n": 1, **seed}
