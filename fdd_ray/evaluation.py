"""Evaluating a model on its own: any folder, hub id or endpoint, on any benchmarks, without a pool.

    settings = evaluation_settings("Qwen/Qwen2.5-0.5B", benchmarks={"gsm8k": SourceSettings("gsm8k", "test.jsonl")})
    found = evaluate(settings)
    found.accuracy["gsm8k"], found.directory

It is the score stage of a run, in a run directory of its own: every completion is kept, an evaluation that was
stopped goes on where it was, and one that is done is not done again. The directory's name depends on the
weights, the benchmark problems and the settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from fdd_ray.budget import PriceSettings
from fdd_ray.checking import Asking, CheckSettings
from fdd_ray.cluster import ray_session
from fdd_ray.dataflow import FlowSettings
from fdd_ray.engines.base import EngineSettings, check_model, resolve_model
from fdd_ray.engines.fleet import Fleet
from fdd_ray.errors import ExperimentError
from fdd_ray.experiment import Experiment
from fdd_ray.live.board import Board
from fdd_ray.live.reporter import reporting
from fdd_ray.live.view import EVALUATION
from fdd_ray.overseer import Overseer
from fdd_ray.problems import SourceSettings, load_problems
from fdd_ray.problems.load import LoadedProblems
from fdd_ray.progress import Reporter
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Kind, Problem, Rejection, content_id, to_table
from fdd_ray.settings import parse_settings, read_settings, setting, to_plain
from fdd_ray.stages import problems as load
from fdd_ray.stages.score import POOL, ScoreSettings, score, write_tasks
from fdd_ray.store import files
from fdd_ray.store.manifest import Counts, Manifest, StageResult, Usage, merge_counts
from fdd_ray.store.run import Run, StageFolder
from fdd_ray.store.spent import spent
from fdd_ray.visibility import require_visible

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """All settings of an evaluation; they mean what they mean in an experiment."""

    student: EngineSettings = setting(help="The model, and the engines or the endpoint that serve it.")
    benchmarks: dict[str, tuple[SourceSettings, ...]] = setting(help="What it is evaluated on, by name.")
    storage: str = setting("runs", "Folder or URL for the evaluation's directory; all nodes must reach it.")
    seed: int = setting(0, "Seed of everything that is drawn.", ge=0)
    kind: Kind = setting("program", "What the model is asked for: Python programs, or chains of thought.")
    prompts: str = setting("default", "Prompt set: default, tiny, or a folder of your own.")
    score: ScoreSettings = setting(factory=ScoreSettings, help="How problems are attempted.")
    check: CheckSettings = setting(factory=CheckSettings, help="How answers are checked.")
    prices: PriceSettings = setting(factory=PriceSettings, help="What the cluster costs, for the account.")
    flow: FlowSettings = setting(factory=FlowSettings, help="How rows travel through the cluster.")

    def __post_init__(self) -> None:
        if not self.benchmarks:
            raise ValueError("benchmarks is empty; name at least one, as in --benchmark gsm8k=test.jsonl")
        for name in self.benchmarks:
            if not _NAME.fullmatch(name) or name == POOL:
                raise ValueError(f"benchmarks.{name} cannot be called that; use letters, digits, dash, not {POOL!r}")


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        model: The model, as it was named.
        directory: Where all completions are.
        manifest: Of the score stage.
    """

    model: str
    directory: str
    manifest: Manifest

    @property
    def accuracy(self) -> dict[str, Any]:
        """By benchmark: ``value``, ``low``, ``high``, ``n`` of the greedy attempts."""
        return dict(self.manifest.summary["accuracy"])

    @property
    def by_steps(self) -> dict[str, Any]:
        """The same by benchmark and number of steps, where that is known."""
        return dict(self.manifest.summary["by_steps"])

    @property
    def majority(self) -> dict[str, Any]:
        """``k`` and ``accuracy`` by majority of sampled attempts; empty if it was not asked for."""
        return dict(self.manifest.summary.get("majority", {}))


def evaluation_settings(
    model: str,
    *,
    experiment: str | Path | None = None,
    overrides: Iterable[str] = (),
    benchmarks: Mapping[str, SourceSettings] | None = None,
    endpoint: str | None = None,
    api_key_env: str | None = None,
    kind: str | None = None,
    prompts: str | None = None,
    majority: int | None = None,
) -> Evaluation:
    """The settings of an evaluation, checked.

    Args:
        model: A Hugging Face model folder or its URL, a hub id, ``tiny://student``, or a name at ``endpoint``.
        experiment: An experiment file whose benchmarks, prompts, engine and checks are taken; its pool and its
            teacher are not looked at.
        overrides: ``a.b=c`` strings that win over it; without an experiment, over the settings of `Evaluation`.
        benchmarks: Take these in place of the experiment's.
        endpoint: Base URL of an OpenAI-compatible endpoint that serves the model.
        api_key_env: Name of the environment variable with its key; None sends no key.
        kind: ``program`` or ``chain``.
        prompts: A prompt set.
        majority: Samples for accuracy by majority.

    Raises:
        ExperimentError: If something in it is wrong.
    """
    plain: dict[str, Any] = {"student": {}, "score": {}}
    overrides = list(overrides)
    if experiment is not None:
        # What is said of the student's engines cannot be said of an endpoint, and the other way round.
        later = [text for text in overrides if endpoint is not None and text.startswith("student.")]
        found = read_settings(Experiment, experiment, [text for text in overrides if text not in later])
        plain = {field.name: to_plain(getattr(found, field.name)) for field in dataclasses.fields(Evaluation)}
        overrides = later
    if benchmarks is not None:
        plain["benchmarks"] = {name: to_plain(source) for name, source in benchmarks.items()}
    if endpoint is not None:
        plain["student"] = {"endpoint": endpoint, "api_key_env": api_key_env}
    elif api_key_env is not None:
        raise ExperimentError("--api-key-env is of use with --endpoint only; leave it out, or give --endpoint URL")
    plain["student"]["model"] = model
    for key, value in (("kind", kind), ("prompts", prompts)):
        if value is not None:
            plain[key] = value
    if majority is not None:
        plain["score"]["majority"] = majority
    if "benchmarks" not in plain and not any(text.startswith("benchmarks") for text in overrides):
        raise ExperimentError("nothing to evaluate on; give --benchmark NAME=FILE or --experiment FILE.yaml")
    if not model:
        raise ExperimentError("evaluate: the model is empty; give a folder, a hub id, or tiny://student")
    if experiment is not None and not plain["benchmarks"]:
        raise ExperimentError(
            f"{experiment} names no benchmarks to evaluate on; add some, or give --benchmark NAME=FILE"
        )
    settings = parse_settings(Evaluation, yaml.safe_dump(plain, allow_unicode=True), "evaluate", overrides)
    load_prompts(settings.prompts)
    check_model(settings.student)
    return settings


def evaluate(settings: Evaluation, reporter: Reporter | None = None) -> Evaluated:
    """Let the model attempt the benchmarks, unless that was done before.

    Raises:
        FddError: Whatever stopped it; the same call goes on from there.
    """
    problems = {
        name: load_problems(sources, seed=settings.seed, name=f"benchmark {name}")
        for name, sources in settings.benchmarks.items()
    }
    weights, asked = _weights_digest(settings.student), _problems_digest(problems)
    plain = to_plain(settings)
    name = f"evaluate-{content_id('m', weights, asked, json.dumps(plain, sort_keys=True))}"
    directory = os.path.join(settings.storage, name)
    prompts = load_prompts(settings.prompts)
    shared = {
        "seed": settings.seed,
        "kind": settings.kind,
        "prompts": content_id("t", json.dumps(prompts.texts, sort_keys=True)),
    }

    described = yaml.safe_dump({"name": name, **plain}, sort_keys=False, allow_unicode=True)
    board = Board(f"evaluation of {settings.student.model}", files.absolute(directory), EVALUATION)
    with ExitStack() as stack:
        told = reporter or stack.enter_context(reporting(board))

        def announce(manifest: Manifest) -> None:
            told.say(f"{manifest.label}: done before, skipped")

        run = stack.enter_context(Run(directory, announce, described, told.say, board.finished))
        for role, counts in spent(run.directory).by_role.items():
            told.spent(role, counts["prompt"], counts["completion"])
        told.say(
            f"evaluating {settings.student.model} (prompts: {settings.prompts}, kind: {settings.kind}): {run.directory}"
        )
        read = run.once("problems", 0, {**shared, "asked": asked}, lambda folder: _keep_problems(folder, problems))

        def work(folder: StageFolder) -> StageResult:
            begun = time.monotonic()
            fleet = Fleet("student", settings.student, f"{name}-{content_id('d', run.directory)}")
            overseer = Overseer(
                grace_s=settings.flow.grace_s,
                say=told.say,
                tell=lambda role, prompt, completion, money: told.spent(role, prompt, completion),
            )
            with told.at_work("score", None), told.stage(f"score of {settings.student.model}") as progress:
                tasks = write_tasks(folder, {name: found.problems for name, found in problems.items()})
                _check_endpoint(settings.student)
                stack.enter_context(ray_session(told))
                overseer.watch_for_sigterm()
                require_visible(run.directory)
                stack.callback(fleet.release)
                fleet.start()
                fleet.wait(progress.waiting)
                for note in fleet.notes:
                    told.say(note)
                result = score(
                    folder,
                    tasks,
                    asking=Asking(fleet.client(), prompts, settings.check, settings.kind, settings.seed),
                    settings=settings.score,
                    flow=settings.flow,
                    progress=progress,
                    overseer=overseer,
                )
            return dataclasses.replace(result, usage=_usage(settings, fleet, result, time.monotonic() - begun))

        depends_on = {
            **shared,
            "score": settings.score.depends_on(),
            "check": to_plain(settings.check),
            "student": {"model": settings.student.model, "weights": weights},
            "inputs": [read.fingerprint],
        }
        return Evaluated(settings.student.model, run.directory, run.once("score", None, depends_on, work))


def _keep_problems(folder: StageFolder, problems: Mapping[str, LoadedProblems]) -> StageResult:
    """Write down what was asked, and which rows of the benchmarks' files were no problems."""
    accounts = []
    for name, found in problems.items():
        folder.write(load.benchmark_file(name), to_table(found.problems, Problem))
        folder.write(f"benchmark-{name}-rejections.parquet", to_table(found.rejections, Rejection))
        accounts.append(Counts(found.read, len(found.problems), dict(sorted(found.reasons.items()))))
    sizes = {name: len(found.problems) for name, found in problems.items()}
    return StageResult(merge_counts(accounts), summary={"sizes": sizes})


def _usage(settings: Evaluation, fleet: Fleet, result: StageResult, seconds: float) -> Usage:
    """What the engines reserved and the tokens cost."""
    student = settings.student
    engine_seconds = student.replicas[1] * seconds
    cpu_seconds, gpu_seconds = engine_seconds * student.cpus, engine_seconds * fleet.gpus_per_replica()
    tokens = result.tokens.get("student", {})
    money = student.cost(tokens.get("prompt", 0), tokens.get("completion", 0))
    return Usage(
        engine_seconds=round(engine_seconds, 2),
        cpu_seconds=round(cpu_seconds, 2),
        gpu_seconds=round(gpu_seconds, 2),
        money=round(money + settings.prices.of(cpu_seconds, gpu_seconds), 6),
    )


def _check_endpoint(student: EngineSettings) -> None:
    """Say that an endpoint does not serve before Ray is started; see `fdd_ray.resources`."""
    if student.endpoint is not None and (student.api_key_env is None or student.api_key_env in os.environ):
        from fdd_ray.engines.openai import check_endpoint

        check_endpoint(student)


def _weights_digest(student: EngineSettings) -> str:
    """A hash of a model folder's weights, so that other weights under an old name are another model."""
    digest = hashlib.blake2b(digest_size=16)
    if student.endpoint is None:
        for path in sorted(Path(resolve_model(student.model)).glob("*.safetensors")):
            with path.open("rb") as file:
                while chunk := file.read(1 << 24):
                    digest.update(chunk)
    return digest.hexdigest()


def _problems_digest(problems: Mapping[str, LoadedProblems]) -> str:
    """A hash of what is asked and of the known answers."""
    asked = [[name, problem.id, problem.answer] for name, found in problems.items() for problem in found.problems]
    return content_id("q", json.dumps(asked))
