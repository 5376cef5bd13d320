"""The workshop: each stage as one call, done once, with its inputs, its engines and its progress line.

`fdd_ray.loop` says in which order the stages run; this module wires a stage to the run directory, to
the fleets of engines and to the settings it depends on. Ray starts when the first stage needs it: a
run whose stages are all done needs none.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fdd_ray.cluster import progress_board
from fdd_ray.engines.base import EngineSettings, resolve_model
from fdd_ray.experiment import Experiment
from fdd_ray.flow import aside
from fdd_ray.pool import pool_problems
from fdd_ray.progress import Reporter
from fdd_ray.prompts import load_prompts
from fdd_ray.resources import Resources, Work
from fdd_ray.settings import to_plain
from fdd_ray.stages import curate, feedback, finetune, score, synthesise, teach
from fdd_ray.stages import problems as load
from fdd_ray.store import files
from fdd_ray.store.run import Manifest, Run, StageFolder, StageResult
from fdd_ray.store.spent import spent
from fdd_ray.training import finetune as train

# What of an engine's settings its words depend on; the rest is about where and how fast it runs.
_MODEL_KEYS = (
    "model",
    "revision",
    "engine",
    "endpoint",
    "answers_as",
    "dtype",
    "max_model_len",
    "engine_args",
    "quantization",
    "adapter",
    "sampling",
    "chat_template_kwargs",
    "thinking",
    "thinking_open",
    "thinking_close",
)
# What of fine-tuning only says where it runs and how it is kept safe.
_NOT_THE_RESULT = (
    "cpus_per_worker",
    "gpus_per_worker",
    "threads",
    "resources",
    "label_selector",
    "checkpoint_steps",
    "max_failures",
    "grow_after_s",
    "start_deadline_s",
)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Problems:
    """The seed problems and the benchmarks of a run: where they lie."""

    manifest: Manifest
    benchmarks: tuple[str, ...]

    @property
    def seed_file(self) -> str:
        """The Parquet file with the seed problems."""
        return files.join(self.manifest.path, load.POOL_FILE)

    @property
    def benchmark_files(self) -> dict[str, str]:
        """The Parquet file of each benchmark by name."""
        return {name: files.join(self.manifest.path, load.benchmark_file(name)) for name in self.benchmarks}


class Workshop:
    """Everything a run works with; a context manager that ends what it started.

    Args:
        experiment: The settings.
        run: The run directory.
        reporter: Where progress is shown.
        start_early: Load what later stages need while earlier ones are at work, where there is room.
    """

    def __init__(self, experiment: Experiment, run: Run, reporter: Reporter, *, start_early: bool = True) -> None:
        self.experiment = experiment
        self.run = run
        self.reporter = reporter
        self._prompts = load_prompts(experiment.prompts)
        run_id = f"{experiment.name}-{hashlib.blake2b(run.directory.encode(), digest_size=4).hexdigest()}"
        before = spent(run.directory)
        self._resources = Resources(experiment, run_id, self._prompts, before, reporter, start_early=start_early)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *exc: object) -> None:
        self._resources.close()

    # -- stages ---------------------------------------------------------------------------------

    def problems(self) -> Problems:
        """Load the pool and the benchmarks; what is too close to a benchmark is rejected."""
        experiment = self.experiment
        # The judge is asked about new problems only.
        contamination = _without(to_plain(experiment.decontaminate), "judge", "judge_from")
        depends_on = {
            "seed": experiment.seed,
            "pool": to_plain(experiment.pool),
            "benchmarks": to_plain(experiment.benchmarks),
            "decontaminate": contamination,
        }

        def work(folder: StageFolder) -> StageResult:
            with self.reporter.stage(folder.label) as progress:
                return load.load(
                    folder,
                    pool=experiment.pool,
                    benchmarks=experiment.benchmarks,
                    contamination=experiment.decontaminate,
                    seed=experiment.seed,
                    least=experiment.teach.min_kept,
                    say=progress.waiting,
                )

        manifest = self._once("problems", 0, depends_on, work)
        return Problems(manifest, tuple(experiment.benchmarks))

    def teach(self, problems: Problems) -> Manifest:
        """Rationales for the seed problems, from the teacher or the data set."""
        experiment = self.experiment
        depends_on = self._common() | {
            "rationales": experiment.rationales,
            "check": to_plain(experiment.check),
            "inputs": [problems.manifest.fingerprint],
        }

        def from_teacher(folder: StageFolder) -> StageResult:
            with self.reporter.stage(folder.label) as progress:
                return teach.teach(
                    folder,
                    [problems.seed_file],
                    asking=self._resources.asking("teacher", progress.waiting),
                    settings=experiment.teach,
                    flow=experiment.flow,
                    progress=progress,
                    overseer=self._resources.overseer,
                    both_kinds=experiment.mix.both_kinds,
                )

        def from_dataset(folder: StageFolder) -> StageResult:
            with self.reporter.stage(folder.label):
                return asyncio.run(
                    teach.take_solutions(folder, [problems.seed_file], checks=experiment.check, kind=experiment.kind)
                )

        if experiment.rationales == "teacher":
            depends_on |= {"teach": to_plain(experiment.teach), "teacher": _model(experiment.teacher)}
            del depends_on["teach"]["min_kept"]
            if experiment.mix.both_kinds:
                depends_on["mix.both_kinds"] = True
        manifest = self._once(
            "rationales", 0, depends_on, from_teacher if experiment.rationales == "teacher" else from_dataset
        )
        teach.require_enough(manifest, experiment.teach)
        return manifest

    def finetune(
        self,
        round: int,
        taught: Manifest,
        curated: Sequence[Manifest],
        previous: Manifest | None,
        scored: Manifest | None = None,
    ) -> Manifest:
        """Fine-tune the student of a round on the distillation set so far.

        Args:
            round: The round.
            taught: The rationales of the seed problems.
            curated: What each round accepted.
            previous: The student before.
            scored: Its attempts, of which right ones are mixed in if so set.
        """
        experiment = self.experiment
        settings = experiment.finetune
        continued = settings.start_from == "previous" and previous is not None
        depends_on = self._common() | {
            "finetune": _without(to_plain(settings), *_NOT_THE_RESULT),
            "student": _model(experiment.student),
            "inputs": [m.fingerprint for m in (taught, *curated, *([previous] if continued and previous else []))],
        }
        base = student_of(previous) if continued and previous else resolve_model(experiment.student.model)
        own = scored if experiment.mix.own_rationales else None
        if own is not None:
            depends_on |= {"mix": to_plain(experiment.mix), "inputs": [*depends_on["inputs"], own.fingerprint]}

        def work(folder: StageFolder) -> StageResult:
            mixed = (own.outputs, experiment.mix) if own is not None else ()
            write = functools.partial(finetune.write_examples, subject=score.POOL, seed=experiment.seed)
            with self.reporter.stage(folder.label, "steps") as progress:
                progress.waiting("writing the distillation set")
                written = self._aside(write, folder, taught.outputs, _outputs(curated), *mixed)
                progress.waiting("starting the workers")
                with self._resources.training(progress.waiting) as placed, progress_board(progress) as board:
                    trained = train(
                        placed,
                        base_model=base,
                        examples=[written.path],
                        prompts=experiment.prompts,
                        output=folder.file(finetune.STUDENT),
                        work_dir=folder.file("checkpoints"),
                        run_name="train",
                        seed=experiment.seed,
                        trust_remote_code=experiment.student.trust_remote_code,
                        revision=None if continued else experiment.student.revision,
                        progress=board,
                        watch=self._resources.require_budget,
                    )
                    progress.update(trained.steps)
            return finetune.result_of(written, trained)

        return self._once("finetune", round, depends_on, work)

    def score(
        self,
        round: int | None,
        student: Manifest | None,
        problems: Problems,
        curated: Sequence[Manifest] = (),
        *,
        pool: bool = True,
    ) -> Manifest:
        """Let a student attempt the benchmarks and the pool.

        Args:
            round: The round; None for the base student.
            student: The stage that made it; None for the base student.
            problems: The seed problems and the benchmarks.
            curated: What each round so far accepted into the pool.
            pool: Whether the pool is attempted.
        """
        experiment = self.experiment
        depends_on = self._common() | {
            "score": experiment.score.depends_on(),
            "check": to_plain(experiment.check),
            "student": _model(experiment.student),
            "inputs": [problems.manifest.fingerprint] + ([student.fingerprint] if student else []),
        }

        def work(folder: StageFolder) -> StageResult:
            subjects = {score.POOL: pool_problems(problems.seed_file, _outputs(curated))} if pool else {}
            subjects |= {name: pool_problems(path, ()) for name, path in problems.benchmark_files.items()}
            with self.reporter.stage(folder.label) as progress:
                tasks = score.write_tasks(folder, subjects)
                self._resources.student.use(student_of(student) if student else experiment.student.model)
                return score.score(
                    folder,
                    tasks,
                    asking=self._resources.asking("student", progress.waiting),
                    settings=experiment.score,
                    flow=experiment.flow,
                    progress=progress,
                    overseer=self._resources.overseer,
                )

        return self._once("score", round, depends_on, work)

    def split(
        self,
        round: int,
        scored: Manifest,
        problems: Problems,
        previous: Manifest | None,
        taught: Manifest,
        curated: Sequence[Manifest],
    ) -> Manifest:
        """Easy and hard, by the student's own attempts; and what to ask of the teacher."""
        experiment = self.experiment
        # Only further rationales for seed problems depend on those that there are.
        had = (taught, *curated) if experiment.feedback.policy == "more_rationales" else ()
        depends_on = {
            "seed": experiment.seed,
            "feedback": _without(to_plain(experiment.feedback), "exact"),
            "inputs": [manifest.fingerprint for manifest in (scored, *([previous] if previous else []), *had)],
        }

        def work(folder: StageFolder) -> StageResult:
            split = functools.partial(
                feedback.split_files,
                settings=experiment.feedback,
                round=round,
                seed=experiment.seed,
                subject=score.POOL,
                previous=previous.outputs if previous else (),
                taught=taught.outputs,
            )
            with self.reporter.stage(folder.label):
                return self._aside(split, folder, scored.outputs, problems.seed_file, _outputs(curated))

        return self._once("split", round, depends_on, work)

    def synthesise(self, round: int, split: Manifest, problems: Problems) -> Manifest:
        """New problems with sampled solutions: complex ones from easy parents, similar ones from hard."""
        experiment = self.experiment
        depends_on = self._common() | {
            "synthesise": to_plain(experiment.synthesise),
            "check": to_plain(experiment.check),
            "decontaminate": to_plain(experiment.decontaminate),
            "teacher": _model(experiment.teacher),
            "inputs": [split.fingerprint],
        }

        def work(folder: StageFolder) -> StageResult:
            asked = sum(split.summary["asked"].values())
            self._resources.overseer.meter.require_problems(folder.label, asked)
            with self.reporter.stage(folder.label) as progress:
                return synthesise.synthesise(
                    folder,
                    files.join(split.path, "requests.parquet"),
                    asking=self._resources.asking("teacher", progress.waiting),
                    settings=experiment.synthesise,
                    flow=experiment.flow,
                    progress=progress,
                    overseer=self._resources.overseer,
                    benchmarks=problems.benchmark_files,
                    contamination=experiment.decontaminate,
                )

        return self._once("synthesise", round, depends_on, work)

    def curate(
        self, round: int, split: Manifest, variations: Manifest, curated: Sequence[Manifest], problems: Problems
    ) -> Manifest:
        """Accept the variations that are agreed on, new, and in no benchmark."""
        settings = self.experiment.feedback
        depends_on = {
            "curate": to_plain(self.experiment.curate),
            "new_problems": settings.new_problems,
            **({} if settings.distinct_rationales else {"distinct_rationales": False}),
            "inputs": [problems.manifest.fingerprint, variations.fingerprint],
        }
        quotas = split.summary["wanted"]

        def work(folder: StageFolder) -> StageResult:
            self._resources.start_ray()
            with self.reporter.stage(folder.label) as progress:
                return curate.curate(
                    folder,
                    variations.outputs,
                    pool=[problems.seed_file],
                    accepted=_outputs(curated),
                    benchmarks=problems.benchmark_files,
                    settings=self.experiment.curate,
                    quotas=quotas,
                    flow=self.experiment.flow,
                    progress=progress,
                    distinct_rationales=settings.distinct_rationales,
                )

        manifest = self._once("curate", round, depends_on, work)
        if settings.exact:
            curate.require_all(manifest, settings.new_problems)
        return manifest

    # -- wiring ---------------------------------------------------------------------------------

    def _common(self) -> dict[str, Any]:
        texts = json.dumps(self._prompts.texts, sort_keys=True).encode()
        prompts = f"{self.experiment.prompts}@{hashlib.blake2b(texts, digest_size=6).hexdigest()}"
        return {"seed": self.experiment.seed, "kind": self.experiment.kind, "prompts": prompts}

    def _aside(self, function: Callable[..., T], folder: StageFolder, *inputs: Any) -> T:
        """Make a stage's folder in a process of its own."""
        self._resources.start_ray()
        deadline_s = self.experiment.flow.stall_deadline_s
        return aside(function, folder, *inputs, label=folder.label, deadline_s=deadline_s)

    def _once(self, stage: str, round: int | None, depends_on: Mapping[str, Any], work: Work) -> Manifest:
        return self.run.once(stage, round, depends_on, self._resources.metered(work))


def student_of(finetuned: Manifest) -> str:
    """The folder of the student that a finetune stage made."""
    return files.join(finetuned.path, str(finetuned.summary["student"]))


def _outputs(stages: Sequence[Manifest]) -> list[str]:
    return [path for manifest in stages for path in manifest.outputs]


def _model(settings: EngineSettings | None) -> dict[str, Any]:
    plain = to_plain(settings) if settings is not None else {}
    return {key: plain[key] for key in _MODEL_KEYS if key in plain}


def _without(plain: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in keys}
