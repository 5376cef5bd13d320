"""Score: the student attempts the pool and the benchmarks, in one pass over one set of engines.

Each benchmark problem gets one greedy attempt, which is its accuracy. With ``score.majority: 8`` it gets eight
sampled ones besides: the answer that most of them give is the model's (majority@8). Samples without an answer
do not vote; of answers with as many votes, the one that was given first wins, in the order of the samples.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from fdd_ray.checking import Asking
from fdd_ray.dataflow import FlowSettings, RowFunction, run_rows
from fdd_ray.engines.base import Reply, Sampling
from fdd_ray.overseer import Overseer
from fdd_ray.problems.steps import known_steps
from fdd_ray.progress import StageProgress
from fdd_ray.reasoning import RIGHT, canonical
from fdd_ray.records import Attempt, Completion, Outcome, Problem, content_id, schema_of, stable_seed
from fdd_ray.settings import setting, to_plain
from fdd_ray.statistics import accuracy_of
from fdd_ray.store import files
from fdd_ray.store.ids import find, packed
from fdd_ray.store.run import StageFolder, StageResult

POOL = "pool"
TASKS_FILE = "tasks.parquet"


@dataclasses.dataclass(frozen=True)
class ScoreSettings:
    """How the student attempts problems; benchmark problems always get one greedy attempt."""

    attempts: int = setting(1, "Attempts at each pool problem.", ge=1)
    temperature: float = setting(0.0, "Sampling temperature of the attempts at the pool; 0 is greedy.", ge=0)
    max_tokens: int = setting(512, "Longest attempt, in tokens.", ge=1)
    majority: int | None = setting(
        None,
        "Sampled attempts at each benchmark problem besides the greedy one, for accuracy by majority (majority@k);"
        " default: none. Of answers with as many votes the first given wins.",
        ge=2,
    )
    majority_temperature: float = setting(0.7, "Sampling temperature of these attempts.", gt=0)

    def __post_init__(self) -> None:
        if self.attempts > 1 and self.temperature == 0:
            raise ValueError(f"{self.attempts} attempts at temperature 0 are all the same; raise temperature")

    def depends_on(self) -> dict[str, Any]:
        """What a score stage's result depends on; majority is not part of it while it is off."""
        plain: dict[str, Any] = to_plain(self)
        if self.majority is None:
            del plain["majority"], plain["majority_temperature"]
        return plain


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One problem to be attempted.

    ``subject`` is ``pool`` or the name of a benchmark; ``steps`` is how many steps it takes, where that is known.
    """

    id: str
    problem_id: str
    subject: str
    question: str
    gold: str
    steps: int | None = None


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
        prompt = self.asking.prompts.student(self.asking.kind, row.question)
        replies = [await self.asking.asker.ask(prompt, sampling)]
        completions = await self._checked(replies[0], row)
        sampled: tuple[Completion, ...] = ()
        if row.subject != POOL and self.settings.majority is not None:
            votes = Sampling(
                n=self.settings.majority,
                temperature=self.settings.majority_temperature,
                max_tokens=self.settings.max_tokens,
                seed=stable_seed(self.asking.seed, "majority", row.id),
            )
            replies.append(await self.asking.asker.ask(prompt, votes))
            sampled = await self._checked(replies[1], row)
        right = sum(completion.verdict == RIGHT for completion in completions)
        return dataclasses.replace(
            self.failure(row, ""),
            outcome="kept",
            pass_rate=right / len(completions),
            completions=completions,
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
            sampled=sampled,
            majority=majority_is_right(sampled) if sampled else None,
        )

    async def _checked(self, reply: Reply, row: Task) -> tuple[Completion, ...]:
        return tuple(found for found, _ in await self._checker.check(reply.samples, row.gold))

    def failure(self, row: Task, reason: str, outcome: Outcome = "failed") -> Attempt:
        """An attempt that could not be made; it counts as not solved."""
        kind = self.asking.kind
        return Attempt(
            row.id, row.problem_id, row.subject, row.question, row.gold, kind, outcome, reason, 0.0, (), 0, 0
        )


def write_tasks(folder: StageFolder, subjects: Mapping[str, Iterable[Problem]]) -> str:
    """Write what is to be attempted and return the file; ``subjects`` maps pool and benchmarks to problems."""
    tasks = (
        Task(
            content_id("t", subject, problem.id),
            problem.id,
            subject,
            problem.question,
            problem.answer,
            known_steps(problem),
        )
        for subject, problems in subjects.items()
        for problem in problems
    )
    folder.write_rows(TASKS_FILE, tasks, Task)
    return folder.file(TASKS_FILE)


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
    """Let the student attempt all tasks.

    The summary holds by subject: ``accuracy``; ``by_steps``, the accuracy on the problems of each number of steps,
    where that is known; and ``majority``, the accuracy of the sampled attempts by majority, where there are any. A
    problem that could not be attempted counts as not solved in all of them.
    """
    function = ScoreRow(asking, settings)
    result = run_rows(function, [tasks], folder, flow, progress, overseer)
    found = _Tally(_Steps(tasks))
    columns = ["id", "subject", "pass_rate", "majority"]
    for table in files.iter_tables([folder.file(name) for name in result.parts], schema_of(Attempt), columns):
        found.add(*(table.column(name).to_pylist() for name in columns))
    summary: dict[str, Any] = {
        **result.summary,
        "accuracy": {subject: _accuracy(rates) for subject, rates in sorted(found.rates.items())},
        "by_steps": {
            subject: {str(steps): _accuracy(rates) for steps, rates in sorted(by_steps.items(), key=_text)}
            for subject, by_steps in sorted(found.by_steps.items())
        },
    }
    if settings.majority is not None:
        votes = {subject: _accuracy(rates) for subject, rates in sorted(found.votes.items())}
        summary["majority"] = {"k": settings.majority, "accuracy": votes}
    return dataclasses.replace(result, summary=summary)


class _Steps:
    """How many steps each task takes, in little memory: there may be a million tasks."""

    def __init__(self, tasks: str) -> None:
        import numpy as np

        ids, steps = [packed(())], [np.array([], dtype=np.int32)]
        for table in files.iter_tables([tasks], schema_of(Task), ["id", "steps"]):
            known = table.drop_null()
            ids.append(packed(id.encode() for id in known.column("id").to_pylist()))
            steps.append(np.array(known.column("steps").to_pylist(), dtype=np.int32))
        found = np.concatenate(ids)
        order = np.argsort(found)
        self._ids, self._steps = found[order], np.concatenate(steps)[order]

    def of(self, ids: Sequence[str]) -> list[int | None]:
        """By task; None where it is not known."""
        places = find(self._ids, packed(id.encode() for id in ids))
        return [None if place < 0 else int(self._steps[place]) for place in places.tolist()]


class _Tally:
    """Pass rates by subject, and by number of steps, eight bytes each."""

    def __init__(self, steps: _Steps) -> None:
        self._steps = steps
        self.rates: dict[str, array[float]] = {}
        self.votes: dict[str, array[float]] = {}
        self.by_steps: dict[str, dict[int, array[float]]] = {}

    def add(
        self, ids: Sequence[str], subjects: Sequence[str], rates: Sequence[float], votes: Sequence[bool | None]
    ) -> None:
        for subject, rate, vote, steps in zip(subjects, rates, votes, self._steps.of(ids), strict=True):
            self.rates.setdefault(subject, array("d")).append(rate)
            if subject != POOL:
                self.votes.setdefault(subject, array("d")).append(float(bool(vote)))
            if steps is not None:
                self.by_steps.setdefault(subject, {}).setdefault(steps, array("d")).append(rate)


def _accuracy(rates: Sequence[float]) -> dict[str, float]:
    return dict(accuracy_of(rates)._asdict())


def _text(item: tuple[int, object]) -> str:
    return str(item[0])


def majority_is_right(sampled: Sequence[Completion]) -> bool:
    """Whether the answer that most samples give is right; of those with as many votes, the first given counts."""
    votes: dict[str, int] = {}
    verdicts: dict[str, str] = {}
    for completion in sampled:
        if completion.answer is not None:
            answer = canonical(completion.answer)
            votes[answer] = votes.get(answer, 0) + 1
            verdicts.setdefault(answer, completion.verdict)
    if not votes:
        return False
    return verdicts[max(votes, key=lambda answer: votes[answer])] == RIGHT
