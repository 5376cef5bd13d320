"""What an experiment's YAML may say: one typed, frozen object; each component owns its part.

    experiment = load_experiment("jobs/tiny.yaml", overrides=["finetune.epochs=3"])

Everything that can be checked without a cluster is checked here, before Ray starts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal

from fdd_ray.budget import BudgetSettings, PriceSettings
from fdd_ray.checking import CheckSettings
from fdd_ray.curation.contamination import ContaminationSettings
from fdd_ray.dataflow import FlowSettings
from fdd_ray.engines.base import EngineSettings, check_model
from fdd_ray.errors import ExperimentError
from fdd_ray.policy import FeedbackSettings
from fdd_ray.problems import SourceSettings
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Kind
from fdd_ray.settings import read_settings, setting
from fdd_ray.stages.curate import CurateSettings
from fdd_ray.stages.finetune import MixSettings
from fdd_ray.stages.score import POOL, ScoreSettings
from fdd_ray.stages.synthesise import SynthesiseSettings
from fdd_ray.stages.teach import TeachSettings
from fdd_ray.store import files
from fdd_ray.tracking import Tracker
from fdd_ray.training.lora import require_peft
from fdd_ray.training.settings import FinetuneSettings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All settings of a run."""

    name: str = setting(help="Name of the run, and of its folder under storage.")
    pool: tuple[SourceSettings, ...] = setting(help="Where the seed problems come from: one source or a list.")
    benchmarks: dict[str, tuple[SourceSettings, ...]] = setting(
        help="What the student is evaluated on, by name; none of it ever enters the pool."
    )
    student: EngineSettings = setting(help="The base student, and the engines that let it attempt problems.")
    teacher: EngineSettings | None = setting(
        None, "The teacher and its engines; not needed where rationales come from the data set and rounds is 0."
    )
    storage: str = setting("runs", "Folder or URL (s3://..., gs://...) for run directories; all nodes must reach it.")
    seed: int = setting(0, "Seed of everything that is drawn.", ge=0)
    rounds: int = setting(3, "Feedback rounds after the initialisation.", ge=0)
    kind: Kind = setting("program", "Rationales: Python programs, or chains of thought.")
    rationales: Literal["teacher", "from_dataset"] = setting(
        "teacher", "Who works the seed problems: the teacher, or the solutions that came with the data set."
    )
    prompts: str = setting("default", "Prompt set: default, tiny, or a folder of your own.")
    teach: TeachSettings = setting(factory=TeachSettings, help="How the teacher works the seed problems.")
    finetune: FinetuneSettings = setting(factory=FinetuneSettings, help="How the student is fine-tuned.")
    mix: MixSettings = setting(factory=MixSettings, help="What is distilled beside the teacher's rationales.")
    score: ScoreSettings = setting(factory=ScoreSettings, help="How the student attempts problems.")
    feedback: FeedbackSettings = setting(factory=FeedbackSettings, help="What is easy, and how much is asked for.")
    synthesise: SynthesiseSettings = setting(factory=SynthesiseSettings, help="How new problems are sampled.")
    decontaminate: ContaminationSettings = setting(
        factory=ContaminationSettings, help="What is too close to a benchmark problem to be in the pool."
    )
    curate: CurateSettings = setting(factory=CurateSettings, help="What a new problem must pass.")
    check: CheckSettings = setting(factory=CheckSettings, help="How rationales are checked.")
    budget: BudgetSettings = setting(factory=BudgetSettings, help="Where the run stops, to go on when it is raised.")
    prices: PriceSettings = setting(factory=PriceSettings, help="What the cluster costs, for the account.")
    track: tuple[Tracker, ...] = setting(
        ("tensorboard",), "Where scores, rows and cost are shown beside the run directory: tensorboard, wandb, mlflow."
    )
    flow: FlowSettings = setting(factory=FlowSettings, help="How rows travel through the cluster.")

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}; use letters, digits, dot, dash and underscore, at most 64")
        for name in self.benchmarks:
            if not _NAME.fullmatch(name) or name == POOL:
                raise ValueError(f"benchmarks.{name} cannot be called that; use letters, digits, dash, not {POOL!r}")
        if not self.pool:
            raise ValueError("pool is empty; name at least one source of problems")
        if self.teacher is None and (self.rounds > 0 or self.rationales == "teacher"):
            raise ValueError("teacher is missing: it writes the new problems of each round, and the rationales")
        if self.student.endpoint is not None:
            raise ValueError("student.endpoint: the student's weights change each round, so its engines are our own")
        if self.student.adapter is not None:
            raise ValueError("student.adapter: its weights change each round; merge the adapter into student.model")
        if self.student.chat_template_kwargs:
            raise ValueError("student.chat_template_kwargs: the student would be asked otherwise than it is trained")
        if self.rationales == "from_dataset" and self.kind != "chain":
            raise ValueError("rationales: from_dataset gives chains of thought; set kind: chain")

        self._check_feedback()
        if self.finetune.lora is not None:
            require_peft()

    def _check_feedback(self) -> None:
        """What the settings of one component ask of another's."""
        if self.mix.both_kinds and self.rationales == "from_dataset":
            raise ValueError("mix.both_kinds needs a teacher who writes both; set rationales: teacher")
        if self.mix.both_kinds and not self.synthesise.second_solutions:
            raise ValueError("mix.both_kinds needs solutions of both kinds; set synthesise.second_solutions: 1 or more")
        if len(self.feedback.bands) > 2 and self.score.attempts == 1:
            raise ValueError(
                f"feedback.bands: {len(self.feedback.bands)} bands, but one attempt is right or wrong, so that all but"
                " two stay empty; raise score.attempts (and score.temperature)"
            )

    @property
    def directory(self) -> str:
        """The run directory."""
        return files.join(files.absolute(self.storage), self.name)


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read and check an experiment file.

    Args:
        path: The YAML file.
        overrides: ``a.b=c`` strings that win over it.

    Raises:
        ExperimentError: With a line for each thing that is wrong.
    """
    experiment = read_settings(Experiment, path, overrides)
    wrong = []
    checks: list[Callable[[], object]] = [partial(check_prompts, experiment)]
    checks += [
        partial(_check_model, *role) for role in (("student", experiment.student), ("teacher", experiment.teacher))
    ]
    for check in checks:
        try:
            check()
        except ExperimentError as error:
            wrong += [f"{path}: {line}" for line in str(error).splitlines()]
    if wrong:
        raise ExperimentError("\n".join(wrong))
    return experiment


def check_prompts(experiment: Experiment) -> None:
    """See that the prompt set has what the settings ask of it.

    Raises:
        ExperimentError: With a line for each prompt that is missing.
    """
    prompts = load_prompts(experiment.prompts)
    wrong = []
    for prompt, key, wanted in [
        ("bridge", "feedback.bridge_after", experiment.feedback.bridge_after is not None),
        ("bridge", "feedback.bands", any(band.ask == "bridge" for band in experiment.feedback.bands)),
        ("judge", "decontaminate.judge", experiment.decontaminate.judge > 0),
    ]:
        try:
            if wanted:
                prompts.require(prompt, key)
        except ExperimentError as error:
            wrong.append(str(error))
    if wrong:
        raise ExperimentError("\n".join(wrong))


def _check_model(role: str, settings: EngineSettings | None) -> None:
    try:
        if settings is not None:
            check_model(settings)
    except ExperimentError as error:
        raise ExperimentError(f"{role}: {error}") from error
