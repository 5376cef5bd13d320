from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from fdd_ray.checking import Asking, CheckSettings
from fdd_ray.errors import ExperimentError
from fdd_ray.flow import FlowSettings
from fdd_ray.progress import StageProgress
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Attempt, Completion, Problem, from_table, schema_of, to_table
from fdd_ray.settings import parse_settings
from fdd_ray.stages.score import POOL, ScoreRow, ScoreSettings, Task, majority_is_right, score, write_tasks
from fdd_ray.statistics import accuracy_of
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult
from tests.scripted import ScriptedAsker


def _row(asker: ScriptedAsker, **settings: object) -> ScoreRow:
    asking = Asking(asker, load_prompts("tiny"), CheckSettings(), "program", seed=1)
    row = ScoreRow(asking, ScoreSettings(**settings))  # type: ignore[arg-type]
    row.open()
    return row


async def test_pool_problems_get_several_attempts_and_benchmarks_one() -> None:
    asker = ScriptedAsker(lambda prompt, sampling: ["answer = 7", "answer = 8", "x", "answer = 7"][: sampling.n])
    row = _row(asker, attempts=4, temperature=0.5)
    pool = await row(Task("t-1", "p-1", POOL, "Q?", "7"))
    benchmark = await row(Task("t-2", "p-1", "gsm8k", "Q?", "7"))
    assert (pool.pass_rate, pool.outcome, len(pool.completions)) == (0.5, "kept", 4)
    assert (benchmark.pass_rate, len(benchmark.completions)) == (1.0, 1)
    assert asker.asked[1][1].temperature == 0.0


def test_an_attempt_that_failed_counts_as_not_solved() -> None:
    attempt = _row(ScriptedAsker(lambda prompt, sampling: []), attempts=1).failure(
        Task("t", "p", POOL, "Q", "1"), "engine"
    )
    assert (attempt.outcome, attempt.pass_rate) == ("failed", 0.0)


def test_one_problem_may_be_in_pool_and_benchmark_tasks(tmp_path: Path) -> None:
    problem = Problem.new("Q?", "1")
    folder = Run(str(tmp_path)).folder(0, "score")
    path = write_tasks(folder, {POOL: [problem], "b": [problem]})
    tasks = from_table(files.read_tables([path], schema_of(Task)), Task)
    assert [task.subject for task in tasks] == [POOL, "b"]
    assert tasks[0].problem_id == tasks[1].problem_id == problem.id
    assert tasks[0].id != tasks[1].id


async def test_majority_asks_benchmarks_once_more_and_keeps_every_sample() -> None:
    replies = {1: ["answer = 8"], 5: ["answer = 7", "answer = 8", "x", "answer = 7.0", "answer = 9"]}
    asker = ScriptedAsker(lambda prompt, sampling: replies[sampling.n])
    row = _row(asker, majority=5, majority_temperature=0.4)
    attempt = await row(Task("t-1", "p-1", "gsm8k", "Q?", "7"))
    assert (attempt.pass_rate, attempt.majority) == (0.0, True)
    assert [completion.text for completion in attempt.sampled] == replies[5]
    greedy, sampled = (sampling for _, sampling in asker.asked)
    assert (greedy.n, greedy.temperature) == (1, 0.0)
    assert (sampled.n, sampled.temperature) == (5, 0.4) and sampled.seed is not None
    assert attempt.completion_tokens == sum(c.tokens for c in (*attempt.completions, *attempt.sampled))
    assert attempt.prompt_tokens > 0
    pool = await row(Task("t-2", "p-1", POOL, "Q?", "7"))
    assert (pool.sampled, pool.majority) == ((), None)


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (["7", "8", "7"], True),
        (["8", "7", "8"], False),
        (["7", "8"], True),  # as many votes: the first given wins, whichever it is
        (["8", "7"], False),
        (["8", "7", "7.0", None, None, None], True),  # by value; no answer is no vote
        ([None, None], False),
    ],
)
def test_votes_are_counted_by_value_and_ties_go_to_the_first(answers: list[str | None], right: bool) -> None:
    def one(answer: str | None) -> Completion:
        verdict = "no_answer" if answer is None else "right" if float(answer) == 7 else "wrong_answer"
        return Completion(str(answer), answer, verdict, "stop", 1)

    assert majority_is_right([one(answer) for answer in answers]) is right


def test_one_vote_is_no_majority() -> None:
    with pytest.raises(ExperimentError, match="majority"):
        parse_settings(ScoreSettings, "majority: 1")


def test_tasks_say_how_many_steps_they_take(tmp_path: Path) -> None:
    worked = Problem.new("Q?", "7", solution="3 + 1 = 4\n4 + 3 = 7\n#### 7")
    folder = Run(str(tmp_path)).folder(0, "score")
    tasks = from_table(files.read_tables([write_tasks(folder, {"b": [worked, Problem.new("R?", "1")]})],
                                         schema_of(Task)), Task)  # fmt: skip
    assert [task.steps for task in tasks] == [2, None]


@pytest.mark.parametrize("majority", [None, 3])
def test_the_summary_has_accuracy_by_steps_and_by_majority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, majority: int | None
) -> None:
    """From the rows on disk, whatever order they come in; a row that failed is not solved."""
    folder = Run(str(tmp_path)).folder(0, "score")
    problems = [Problem.new(f"Q{n}?", "1", solution=f"{'x' + chr(10)}" * (1 + n % 2) + "#### 1") for n in range(6)]
    tasks = write_tasks(folder, {POOL: problems[:2], "b": problems})
    row = _row(ScriptedAsker(lambda prompt, sampling: []), majority=majority)

    def rows(function: object, inputs: object, folder: StageFolder, *rest: object) -> StageResult:
        attempts = []
        for number, task in enumerate(from_table(files.read_tables([tasks], schema_of(Task)), Task)):
            attempt = row.failure(task, "engine")
            if number % 3:  # of b: problems 2 and 5 fail, 0, 1, 3, 4 are solved
                voted = None if majority is None or task.subject == POOL else number < 5
                attempt = dataclasses.replace(attempt, outcome="kept", pass_rate=1.0, majority=voted)
            attempts.append(attempt)
        folder.write("part-a.parquet", to_table(attempts[::-1], Attempt))
        return StageResult(Counts(8, 5, {}, 3), ("part-a.parquet",), summary={"failures": {}})

    monkeypatch.setattr("fdd_ray.stages.score.run_rows", rows)
    result = score(folder, tasks, asking=row.asking, settings=row.settings, flow=FlowSettings(),
                   progress=StageProgress("score"))  # fmt: skip
    found = result.summary
    solved = {2: 1.0, 3: 0.0, 4: 1.0, 5: 1.0, 6: 0.0, 7: 1.0}  # task number: pass rate of b, in the order of problems
    assert found["accuracy"]["b"]["value"] == round(sum(solved.values()) / 6, 6)
    assert found["accuracy"]["b"]["n"] == 6 and found["accuracy"][POOL]["n"] == 2
    one, two = found["by_steps"]["b"]["1"], found["by_steps"]["b"]["2"]
    assert (one["n"], two["n"]) == (3, 3)
    assert one["value"] == round((1 + 1 + 0) / 3, 6) and two["value"] == round((0 + 1 + 1) / 3, 6)
    if majority is None:
        assert "majority" not in found
    else:
        assert found["majority"]["k"] == 3 and set(found["majority"]["accuracy"]) == {"b"}
        assert found["majority"]["accuracy"]["b"]["value"] == round(2 / 6, 6)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Wilson score intervals with z = 1.959964, worked by hand from the formula's two roots.
    [(0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (5, 10, 0.236593, 0.763407), (50, 100, 0.403832, 0.596168)],
)
def test_wilson_intervals(right: int, n: int, low: float, high: float) -> None:
    found = accuracy_of([1.0] * right + [0.0] * (n - right))
    assert found.value == right / n and found.n == n
    assert math.isclose(found.low, low, abs_tol=2e-6)
    assert math.isclose(found.high, high, abs_tol=2e-6)


def test_no_attempts_say_nothing() -> None:
    assert accuracy_of([]) == (0.0, 0.0, 1.0, 0)


def test_a_run_from_before_majority_goes_on() -> None:
    """Switched off it is no part of what the stage depends on; switched on, it is."""
    assert set(ScoreSettings().depends_on()) == {"attempts", "temperature", "max_tokens"}
    assert ScoreSettings(majority=4).depends_on()["majority"] == 4
    assert ScoreSettings(majority=4).depends_on()["majority_temperature"] == 0.7
