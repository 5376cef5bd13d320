"""Rationales: the teacher (or the data set) works the seed problems, and only verified work is kept."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from fdd_ray.checking import Asking, Checker, CheckSettings
from fdd_ray.dataflow import FlowSettings, RowFunction, run_rows
from fdd_ray.engines.base import Sample, Sampling
from fdd_ray.errors import StageError
from fdd_ray.overseer import Overseer
from fdd_ray.progress import StageProgress
from fdd_ray.reasoning import RIGHT
from fdd_ray.reasoning.rationales import distinct_rationales
from fdd_ray.records import Completion, Kind, Outcome, Problem, Taught, from_table, schema_of, stable_seed, to_table
from fdd_ray.settings import setting
from fdd_ray.store import files
from fdd_ray.store.run import Manifest, StageFolder, StageResult, count_outcomes


@dataclasses.dataclass(frozen=True)
class TeachSettings:
    """How rationales for the seed problems are made."""

    samples: int = setting(1, "Rationales the teacher writes for each problem.", ge=1)
    keep: int = setting(1, "Most distinct verified rationales kept for each problem.", ge=1)
    temperature: float = setting(0.0, "Sampling temperature; 0 is greedy.", ge=0)
    top_p: float = setting(1.0, "Nucleus share of the sampling.", gt=0, le=1)
    max_tokens: int = setting(512, "Longest rationale, in tokens.", ge=1)
    min_kept: int = setting(32, "Fewest problems with a verified rationale that a student is fine-tuned on.", ge=1)

    def __post_init__(self) -> None:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} samples at temperature 0 are all the same; raise temperature")


@dataclasses.dataclass
class TeachRow(RowFunction[Problem, Taught]):
    """Ask the teacher for rationales of one problem and keep those that reach the known answer."""

    asking: Asking
    settings: TeachSettings
    both_kinds: bool = False
    reads: ClassVar[type] = Problem
    writes: ClassVar[type] = Taught
    role: ClassVar[str] = "teacher"

    def open(self) -> None:
        """Start the program runners of this process."""
        kind = self.asking.kind
        self._kinds: list[Kind] = [kind]
        if self.both_kinds:
            self._kinds.append("chain" if kind == "program" else "program")
        self._checkers = {kind: self.asking.checker(kind) for kind in self._kinds}

    async def __call__(self, row: Problem) -> Taught:
        """The problem with the teacher's rationales, verified ones apart."""
        answers = await asyncio.gather(*(self._work(row, kind) for kind in self._kinds))
        taught = [
            _taught(row, kind, self.settings.keep, checked, prompt_tokens)
            for kind, (checked, prompt_tokens) in zip(self._kinds, answers, strict=True)
        ]
        return _together(*taught)

    async def _work(self, row: Problem, kind: Kind) -> tuple[list[tuple[Completion, str]], int]:
        name = "teach" if kind == self.asking.kind else "teach again"
        sampling = Sampling(
            n=self.settings.samples,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            max_tokens=self.settings.max_tokens,
            seed=stable_seed(self.asking.seed, name, row.id),
        )
        reply = await self.asking.asker.ask(self.asking.prompts.solve(kind, row.question), sampling)
        return await self._checkers[kind].check(reply.samples, row.answer), reply.prompt_tokens

    def failure(self, row: Problem, reason: str, outcome: Outcome = "failed") -> Taught:
        """A problem that the teacher could not be asked about."""
        return Taught(row.id, row.question, row.answer, self.asking.kind, outcome, reason, (), (), 0, 0)


def _taught(
    problem: Problem, kind: Kind, keep: int, checked: Sequence[tuple[Completion, str]], prompt_tokens: int
) -> Taught:
    completions = tuple(completion for completion, _ in checked)
    right = [rationale for completion, rationale in checked if completion.verdict == RIGHT]
    outcome: Outcome = "kept" if right else "rejected"
    # With several samples, the most frequent reason speaks for the row; ties go to the first seen.
    reason = "" if right else Counter(completion.verdict for completion in completions).most_common(1)[0][0]
    return Taught(
        id=problem.id,
        question=problem.question,
        answer=problem.answer,
        kind=kind,
        outcome=outcome,
        reason=reason,
        rationales=tuple(distinct_rationales(right, keep)),
        completions=completions,
        prompt_tokens=prompt_tokens,
        completion_tokens=sum(completion.tokens for completion in completions),
    )


def _together(first: Taught, second: Taught | None = None) -> Taught:
    """One row for both kinds; it is kept if either has a right rationale."""
    if second is None:
        return first
    kept = second.outcome == "kept"
    return dataclasses.replace(
        first,
        outcome="kept" if kept else first.outcome,
        reason="" if kept else first.reason,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
        second=second.rationales,
        second_completions=second.completions,
    )


def teach(
    folder: StageFolder,
    problems: Sequence[str],
    *,
    asking: Asking,
    settings: TeachSettings,
    flow: FlowSettings,
    progress: StageProgress,
    overseer: Overseer | None = None,
    both_kinds: bool = False,
) -> StageResult:
    """Let the teacher work all problems of the Parquet files ``problems``, in both kinds if so told."""
    function = TeachRow(asking, settings, both_kinds)
    return run_rows(function, problems, folder, flow, progress, overseer)


async def take_solutions(
    folder: StageFolder, problems: Sequence[str], *, checks: CheckSettings, kind: Kind
) -> StageResult:
    """Take the solutions that came with the data set as rationales, held to the same check."""
    checker = Checker(kind, checks)
    tally: Counter[tuple[str, str]] = Counter()
    parts = []
    for number, table in enumerate(files.iter_tables(problems, schema_of(Problem))):
        rows = [await _take(problem, checker, kind) for problem in from_table(table, Problem)]
        tally.update((row.outcome, row.reason) for row in rows)
        parts.append(f"part-{number}.parquet")
        folder.write(parts[-1], to_table(rows, Taught))
    return StageResult(count_outcomes(tally), tuple(parts))


async def _take(problem: Problem, checker: Checker, kind: Kind) -> Taught:
    if problem.solution is None:
        return Taught(problem.id, problem.question, problem.answer, kind, "rejected", "no_solution_given", (), (), 0, 0)
    checked = await checker.check([Sample(problem.solution, "stop", 0)], problem.answer)
    return _taught(problem, kind, 1, checked, 0)


def require_enough(taught: Manifest, settings: TeachSettings) -> None:
    """Stop the run if too few problems have a verified rationale to fine-tune on.

    Raises:
        StageError: With the reasons why the others were rejected.
    """
    counts = taught.counts
    if counts.kept >= settings.min_kept:
        return
    raise StageError(
        f"only {counts.kept} of {counts.rows} problems have a verified rationale, and teach.min_kept ="
        f" {settings.min_kept} are needed to fine-tune on (rejected: {counts.reasons}; failed: {counts.failed})."
        f" Use a stronger teacher, more teach.samples or rationales=from_dataset; all completions are in {taught.path}"
    )
