"""What a plan is: every stage of an experiment in order and what it takes, with what that rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

from fdd_ray.experiment import Experiment
from fdd_ray.planning.estimates import NO_TOKENS, Tokens
from fdd_ray.planning.ranges import ZERO, Range, total
from fdd_ray.store.manifest import stage_label
from fdd_ray.store.spent import Spent

State = Literal["done", "unfinished", "to do"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the planner is told that no experiment says.

    Attributes:
        device: What computes: a key of `fdd_ray.planning.speeds.DEVICES`; None: a GPU, a CPU for miniatures.
        teacher_tokens_per_second: Completion tokens a second of one teacher engine (of an endpoint: of all).
        student_tokens_per_second: Completion tokens a second of one student engine.
        training_tokens_per_second: Trained tokens a second of one fine-tuning worker.
        sizes: Problems of ``pool`` and of benchmarks by name, where they are not to be found out.
    """

    device: str | None = None
    teacher_tokens_per_second: float | None = None
    student_tokens_per_second: float | None = None
    training_tokens_per_second: float | None = None
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """A stage: what it took if it is done, what is left of it if not. Seconds of GPUs and CPUs are reserved ones."""

    stage: str
    round: int | None
    state: State
    rows: Range = ZERO
    rows_written: int = 0
    teacher: Tokens = NO_TOKENS
    student: Tokens = NO_TOKENS
    trained: Range = ZERO
    seconds: Range = ZERO
    gpu_seconds: Range = ZERO
    cpu_seconds: Range = ZERO
    money: Range = ZERO

    @property
    def label(self) -> str:
        """How the stage is called in messages."""
        return stage_label(self.stage, self.round)

    @property
    def teacher_tokens(self) -> Range:
        """Prompt and completion tokens of the teacher."""
        return self.teacher.prompt + self.teacher.completion


@dataclasses.dataclass(frozen=True)
class Total:
    """The sum of several stages."""

    teacher_prompt: Range
    teacher_completion: Range
    student_tokens: Range
    trained: Range
    seconds: Range
    gpu_seconds: Range
    money: Range

    @property
    def teacher_tokens(self) -> Range:
        """Prompt and completion tokens of the teacher."""
        return self.teacher_prompt + self.teacher_completion


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an experiment will take.

    Attributes:
        experiment: Its settings.
        stages: All stages in order.
        spent: What its run cost so far; None where there is no run.
        assumptions: What the estimates rest on, in words.
        warnings: What should be looked at before the run, in words.
    """

    experiment: Experiment
    stages: tuple[StagePlan, ...]
    spent: Spent | None
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def remaining(self) -> Total:
        """What is still to be done."""
        return sum_of(stage for stage in self.stages if stage.state != "done")


def sum_of(stages: Iterable[StagePlan]) -> Total:
    """The sum of stages."""
    found = list(stages)
    return Total(
        total(stage.teacher.prompt for stage in found),
        total(stage.teacher.completion for stage in found),
        total(stage.student.prompt + stage.student.completion for stage in found),
        total(stage.trained for stage in found),
        total(stage.seconds for stage in found),
        total(stage.gpu_seconds for stage in found),
        total(stage.money for stage in found),
    )
