"""Synthesise: the teacher writes a new problem from a parent, then solves it several times.

Nothing is paid for twice over: a question that asks nothing, varies nothing, or stands in a benchmark is
rejected, with its reason, before the teacher is asked to solve it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from fdd_ray.checking import Asking
from fdd_ray.curation.contamination import BenchmarkGuard, Contamination, ContaminationSettings
from fdd_ray.curation.questions import QuestionSettings, check_question, check_variation
from fdd_ray.curation.verdict import read_verdict
from fdd_ray.dataflow import FlowSettings, RowFunction, run_rows
from fdd_ray.engines.base import Reply, Sampling
from fdd_ray.overseer import Overseer
from fdd_ray.progress import StageProgress
from fdd_ray.prompts import read_new_problem
from fdd_ray.reasoning import RIGHT
from fdd_ray.reasoning.rationales import distinct_rationales
from fdd_ray.records import Kind, Outcome, Problem, Request, Variation, from_table, schema_of, stable_seed
from fdd_ray.settings import setting
from fdd_ray.store import files
from fdd_ray.store.run import StageFolder, StageResult

_MOST_VERDICT_TOKENS = 256


@dataclasses.dataclass(frozen=True)
class SynthesiseSettings:
    """How new problems and their solutions are sampled."""

    temperature: float = setting(0.8, "Sampling temperature of the new problem.", ge=0)
    top_p: float = setting(1.0, "Nucleus share when writing the new problem.", gt=0, le=1)
    max_problem_tokens: int = setting(512, "Longest new problem, in tokens.", ge=1)
    solutions: int = setting(3, "Solutions sampled for each new problem.", ge=1)
    solution_temperature: float = setting(0.7, "Sampling temperature of the solutions.", ge=0)
    max_solution_tokens: int = setting(512, "Longest solution, in tokens.", ge=1)
    second_solutions: int = setting(
        0,
        "Solutions of the other kind (chains where programs are distilled, and the reverse) that must agree on the"
        " same answer; 0: only one kind is asked for.",
        ge=0,
    )
    questions: QuestionSettings = setting(factory=QuestionSettings, help="What a new question must look like.")

    def __post_init__(self) -> None:
        most = max(self.solutions, self.second_solutions)
        if most > 1 and self.solution_temperature == 0:
            raise ValueError(f"{most} solutions at temperature 0 are all the same; raise solution_temperature")


@dataclasses.dataclass
class SynthesiseRow(RowFunction[Request, Variation]):
    """Two turns with the teacher and no barrier between them: write the problem, then solve it."""

    asking: Asking
    settings: SynthesiseSettings
    benchmarks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    contamination: ContaminationSettings = dataclasses.field(default_factory=ContaminationSettings)
    reads: ClassVar[type] = Request
    writes: ClassVar[type] = Variation
    role: ClassVar[str] = "teacher"

    def open(self) -> None:
        """Start the program runner of this process, and read the benchmarks."""
        kind = self.asking.kind
        self._second_kind: Kind = "chain" if kind == "program" else "program"
        self._checkers = {kind: self.asking.checker(kind), self._second_kind: self.asking.checker(self._second_kind)}
        schema = schema_of(Problem)
        problems = {
            name: from_table(files.read_tables([path], schema), Problem) for name, path in self.benchmarks.items()
        }
        self._guard = BenchmarkGuard(problems, self.contamination)

    async def __call__(self, row: Request) -> Variation:
        """The new problem with its sampled solutions, each run or read for its answer."""
        if row.origin == "seed":
            return await self._again(row)
        written = await self.asking.asker.ask(
            self.asking.prompts.vary(row.origin, row.parent_question),
            Sampling(
                temperature=self.settings.temperature,
                top_p=self.settings.top_p,
                max_tokens=self.settings.max_problem_tokens,
                seed=stable_seed(self.asking.seed, "write", row.id),
            ),
        )
        sample = written.samples[0]
        question = read_new_problem(sample.text)
        if sample.finish == "length":
            return self._variation(row, "rejected", "problem_truncated", sample.text, written)
        if question is None:
            return self._variation(row, "rejected", "no_problem", sample.text, written)
        checks = self.settings.questions
        trouble = check_question(question, checks) or check_variation(question, row.parent_question, row.origin, checks)
        if trouble:
            return self._variation(row, "rejected", trouble, question, written)
        leaked, leak, replies = await self._leak(row, question)
        if leak:
            variation = self._variation(row, "rejected", leaked, question, written, *replies)
            return dataclasses.replace(
                variation, evidence=f"{leak.benchmark}:{leak.problem_id}", similarity=leak.measure, span=leak.span
            )
        settings, kind = self.settings, self.asking.kind
        asked = [self._solve(row, question, kind, settings.solutions)]
        if settings.second_solutions:
            asked.append(self._solve(row, question, self._second_kind, settings.second_solutions))
        solved = await asyncio.gather(*asked)
        checked = await self._checkers[kind].check(solved[0].samples, None)
        second = [await self._checkers[self._second_kind].check(reply.samples, None) for reply in solved[1:]]
        return dataclasses.replace(
            self._variation(row, "kept", "", question, written, *replies, *solved),
            solutions=tuple(completion for completion, _ in checked),
            rationales=tuple(rationale for _, rationale in checked),
            second=tuple(completion for found in second for completion, _ in found),
            second_rationales=tuple(rationale for found in second for _, rationale in found),
        )

    async def _again(self, row: Request) -> Variation:
        """More rationales for a problem whose answer is known, without those it has already."""
        kind = self.asking.kind
        reply = await self._solve(row, row.parent_question, kind, self.settings.solutions)
        checked = await self._checkers[kind].check(reply.samples, row.parent_answer)
        right = [rationale if completion.verdict == RIGHT else "" for completion, rationale in checked]
        had = len(row.known)
        new = set(distinct_rationales([*row.known, *filter(None, right)], had + len(right))[had:])
        return dataclasses.replace(
            self._variation(row, "kept", "", row.parent_question, reply),
            solutions=tuple(completion for completion, _ in checked),
            rationales=tuple(text if text in new else "" for text in right),
        )

    async def _solve(self, row: Request, question: str, kind: Kind, solutions: int) -> Reply:
        first = kind == self.asking.kind
        return await self.asking.asker.ask(
            self.asking.prompts.solve(kind, question),
            Sampling(
                n=solutions,
                temperature=self.settings.solution_temperature,
                max_tokens=self.settings.max_solution_tokens,
                seed=stable_seed(self.asking.seed, "solve" if first else "solve again", row.id),
            ),
        )

    async def _leak(self, row: Request, question: str) -> tuple[str, Contamination | None, list[Reply]]:
        """The reason why ``question`` may not pass as new to the benchmarks, with the evidence, or no reason.

        The measures come first; what they let through and is still close is shown to the teacher, if so set.
        """
        found = self._guard.check(question)
        replies: list[Reply] = []
        if found:
            return f"in_benchmark: {found.reason}", found, replies
        for near in self._guard.for_judge(question):
            reply = await self.asking.asker.ask(
                self.asking.prompts.judge(question, near.question),
                Sampling(max_tokens=_MOST_VERDICT_TOKENS, seed=stable_seed(self.asking.seed, "judge", row.id)),
            )
            replies.append(reply)
            verdict = read_verdict(reply.samples[0].text)
            if verdict is not False:
                evidence = self._guard.judged_same(question, near)
                return "unjudged" if verdict is None else f"in_benchmark: {evidence.reason}", evidence, replies
        return "", None, replies

    def failure(self, row: Request, reason: str, outcome: Outcome = "failed") -> Variation:
        """A request that the teacher could not be asked."""
        return self._variation(row, outcome, reason, "")

    def _variation(self, row: Request, outcome: Outcome, reason: str, question: str, *replies: Reply) -> Variation:
        return Variation(
            id=row.id,
            parent_id=row.parent_id,
            origin=row.origin,
            round=row.round,
            outcome=outcome,
            reason=reason,
            question=question,
            kind=self.asking.kind,
            band=row.band,
            solutions=(),
            rationales=(),
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
        )


def synthesise(
    folder: StageFolder,
    requests: str,
    *,
    asking: Asking,
    settings: SynthesiseSettings,
    flow: FlowSettings,
    progress: StageProgress,
    benchmarks: Mapping[str, str],
    contamination: ContaminationSettings,
    overseer: Overseer | None = None,
) -> StageResult:
    """Let the teacher answer all requests of the Parquet file ``requests``.

    Args:
        folder: Gets the variations.
        requests: What is asked for.
        asking: The teacher.
        settings: How it is sampled, and what is worth solving.
        flow: How rows travel.
        progress: Told of rows as they are finished.
        overseer: Told of what is spent; it may end the stage early.
        benchmarks: Parquet files of the benchmarks' problems by name.
        contamination: What is too close to them.
    """
    function = SynthesiseRow(asking, settings, benchmarks, contamination)
    return run_rows(function, [requests], folder, flow, progress, overseer)
