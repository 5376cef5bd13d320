"""What rows need that ask a model and check its words."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from fdd_ray.engines.base import Asker, Sample
from fdd_ray.prompts import PromptSet
from fdd_ray.reasoning.answers import Tolerance
from fdd_ray.reasoning.programs import ProgramLimits, ProgramRunner
from fdd_ray.reasoning.rationales import Checked, check_rationale
from fdd_ray.reasoning.second_opinion import SecondOpinionName, require_math_verify, second_opinion
from fdd_ray.records import Completion, Kind
from fdd_ray.settings import setting


@dataclasses.dataclass(frozen=True)
class CheckSettings:
    """How rationales are checked."""

    programs: ProgramLimits = setting(factory=ProgramLimits, help="Limits of every program that a model wrote.")
    tolerance: Tolerance = setting(factory=Tolerance, help="How far an answer may be from the known one.")
    second_opinion: SecondOpinionName = setting(
        "none", "Who is asked about answers in LaTeX that our own comparison cannot read; needs the extra latex."
    )

    def __post_init__(self) -> None:
        # Here, so that it is said before any engine starts.
        if self.second_opinion == "math_verify":
            require_math_verify()


@dataclasses.dataclass(frozen=True)
class Asking:
    """What every stage that asks a model needs.

    Attributes:
        asker: The engines of the role that is asked.
        prompts: The texts.
        checks: How rationales are checked.
        kind: Which kind of rationale is asked for.
        seed: The seed of the run.
    """

    asker: Asker
    prompts: PromptSet
    checks: CheckSettings
    kind: Kind
    seed: int

    def checker(self, kind: Kind | None = None) -> Checker:
        """A checker for the process in which this is called, by default of the run's own kind of rationale."""
        return Checker(kind or self.kind, self.checks)


class Checker:
    """Checks completions; one per process, opened where it is used.

    Args:
        kind: Which kind of rationale to expect.
        settings: How to check.
    """

    def __init__(self, kind: Kind, settings: CheckSettings) -> None:
        self._kind = kind
        self._settings = settings
        self._runner = ProgramRunner(settings.programs)
        self._second = second_opinion(settings.second_opinion)

    async def check(self, samples: Sequence[Sample], gold: str | None) -> list[tuple[Completion, str]]:
        """Each sample with its verdict, and the rationale that would be distilled from it.

        Args:
            samples: What the engine returned.
            gold: The known answer; None if there is none yet.
        """
        # Programs block for up to their time limit; a thread keeps the other rows going.
        return await asyncio.to_thread(lambda: [self._one(sample, gold) for sample in samples])

    def _one(self, sample: Sample, gold: str | None) -> tuple[Completion, str]:
        if sample.finish == "length":
            return Completion(sample.text, None, "truncated", sample.finish, sample.tokens), ""
        checked: Checked = check_rationale(
            self._kind, sample.text, gold, self._runner, self._settings.tolerance, self._second
        )
        completion = Completion(
            sample.text, checked.answer, checked.verdict, sample.finish, sample.tokens, checked.detail
        )
        return completion, checked.rationale
