"""Score: the student attempts the pool and the benchmarks, in one pass over one set of engines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from fdd_ray.checking import RIGHT, Asking
from fdd_ray.dataflow import FlowSettings, RowFunction, run_rows
from fdd_ray.engines.base import Sampling
from fdd_ray.overseer import Overseer
from fdd_ray.progress import StageProgress
from fdd_ray.records import Attempt, Outcome, Problem, content_id, schema_of, stable_seed, to_table
from fdd_ray.settings import setting
from fdd_ray.store import files
from fdd_ray.store.run import StageFolder, StageResult

POOL = "pool"


@dataclasses.dataclass(frozen=True)
class ScoreSettings:
    """How the student attempts problems; benchmarks always get one greedy attempt."""

    attempts: int = setting(1, "Attempts at each pool problem.", ge=1)
    temperature: float = setting(0.0, "Sampling temperature of the attempts at the pool; 0 is greedy.", ge=0)
    max_tokens: int = setting(512, "Longest attempt, in tokens.", ge=1)

    def __post_init__(self) -> None:
        if self.attempts > 1 and self.temperature == 0:
            raise ValueError(f"{self.attempts} attempts at temperature 0 are all the same; raise temperature")


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One problem to be attempted; ``subject`` is ``pool`` or the name of a benchmark."""

    id: str
    problem_id: str
    subject: str
    question: str
    gold: str


class Accuracy(NamedTuple):
    """Share of right answers with its 95 % Wilson interval, over ``n`` problems."""

    value: float
    low: float
    high: float
    n: int


@dataclasses.dataclass
class ScoreRow(RowFunction[Task, Attempt]):
    """Ask the student one problem, once greedily or several times, and check its answers."""

    asking: Asking
    settings: ScoreSettings
    reads: ClassVar[type] = Task
    writes: ClassVar[type] = Attempt
    role: ClassVar[str] = "student"

    def open(self) -> None:
        """Start the program runner of this process."""
        self._checker = self.asking.checker()

    async def __call__(self, row: Task) -> Attempt:
        """The task with the student's attempts and its pass rate."""
        sampling = Sampling(max_tokens=self.settings.max_tokens)
        if row.subject == POOL:
            sampling = Sampling(
                n=self.settings.attempts,
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_tokens,
                seed=stable_seed(self.asking.seed, "score", row.id),
            )
        reply = await self.asking.asker.ask(self.asking.prompts.student(self.asking.kind, row.question), sampling)
        completions = tuple(found for found, _ in await self._checker.check(reply.samples, row.gold))
        right = sum(completion.verdict == RIGHT for completion in completions)
        return dataclasses.replace(
            self.failure(row, ""),
            outcome="kept",
            pass_rate=right / len(completions),
            completions=completions,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        )

    def failure(self, row: Task, reason: str, outcome: Outcome = "failed") -> Attempt:
        """An attempt that could not be made; it counts as not solved."""
        kind = self.asking.kind
        return Attempt(
            row.id, row.problem_id, row.subject, row.question, row.gold, kind, outcome, reason, 0.0, (), 0, 0
        )


def write_tasks(folder: StageFolder, subjects: Mapping[str, Sequence[Problem]]) -> str:
    """Write what is to be attempted and return the file; ``subjects`` maps pool and benchmarks to problems."""
    tasks = [
        Task(content_id("t", subject, problem.id), problem.id, subject, problem.question, problem.answer)
        for subject, problems in subjects.items()
        for problem in problems
    ]
    return folder.write("tasks.parquet", to_table(tasks, Task))


def score(
    folder: StageFolder,
    tasks: str,
    *,
    asking: Asking,
    settings: ScoreSettings,
    flow: FlowSettings,
    progress: StageProgress,
    overseer: Overseer | None = None,
) -> StageResult:
    """Let the student attempt all tasks; the summary holds the accuracy on each subject."""
    function = ScoreRow(asking, settings)
    result = run_rows(function, [tasks], folder, flow, progress, overseer)
    parts = [folder.file(name) for name in result.parts]
    table = files.read_tables(parts, schema_of(Attempt), ["subject", "pass_rate"])
    found: dict[str, list[float]] = {}
    for row in table.to_pylist():
        found.setdefault(row["subject"], []).append(row["pass_rate"])
    accuracy = {name: accuracy_of(rates)._asdict() for name, rates in sorted(found.items())}
    summary: dict[str, Any] = {**result.summary, "accuracy": accuracy}
    return dataclasses.replace(result, summary=summary)


def accuracy_of(pass_rates: Sequence[float]) -> Accuracy:
    """Mean pass rate with its 95 % Wilson score interval (E. B. Wilson, 1927)."""
    n = len(pass_rates)
    if n == 0:
        return Accuracy(0.0, 0.0, 1.0, 0)
    z = 1.959963984540054
    share = math.fsum(pass_rates) / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
    return Accuracy(round(share, 6), round(low, 6), round(high, 6), n)
