from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fdd_ray.errors import StageError
from fdd_ray.records import Attempt, Feedback, Problem, Request, from_table, schema_of, to_table
from fdd_ray.stages.feedback import FeedbackSettings, draw_requests, split, wanted
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Run

POOL = {problem.id: problem for problem in (Problem.new(f"Question {i}?", str(i)) for i in range(10))}


def _attempt(problem: Problem, rate: float, outcome: str = "kept", subject: str = "pool") -> Attempt:
    return Attempt(
        f"t-{subject}-{problem.id}", problem.id, subject, problem.question, problem.answer, "program",
        outcome, "", rate, (), 0, 0,  # type: ignore[arg-type]
    )  # fmt: skip


def _feedback(easy: int, hard: int) -> list[Feedback]:
    ids = list(POOL)
    return [Feedback(ids[i], "easy" if i < easy else "hard", 0.0) for i in range(easy + hard)]


def test_split_reads_only_the_pools_attempts(tmp_path: Path) -> None:
    problems = list(POOL.values())
    rates = [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    attempts = [_attempt(problem, rate) for problem, rate in zip(problems, rates, strict=False)]
    attempts.append(_attempt(problems[6], 1.0, subject="benchmark"))
    attempts.append(_attempt(problems[7], 0.0, outcome="failed"))
    folder = Run(str(tmp_path)).folder(1, "split")
    path = folder.write("attempts.parquet", to_table(attempts, Attempt))
    settings = FeedbackSettings(new_problems=4, ask_share=1.5, easy_from=1.0)
    result = split(folder, [path], POOL, settings=settings, round=1, seed=0, subject="pool")
    assert result.counts == Counts(7, 6, {"not_attempted": 1}, 0)
    assert (result.summary["easy"], result.summary["hard"]) == (3, 3)
    assert result.summary["asked"] == {"complex": 3, "similar": 3}
    assert result.summary["wanted"] == {"complex": 2, "similar": 2}
    requests = from_table(files.read_tables([folder.file("requests.parquet")], schema_of(Request)), Request)
    easy, hard = {p.id for p in problems[:3]}, {p.id for p in problems[3:6]}
    assert {r.parent_id for r in requests if r.origin == "complex"} == easy
    assert {r.parent_id for r in requests if r.origin == "similar"} == hard


def test_a_lower_threshold_makes_more_easy(tmp_path: Path) -> None:
    problems = list(POOL.values())
    folder = Run(str(tmp_path)).folder(1, "split")
    path = folder.write("a.parquet", to_table([_attempt(problems[0], 0.5), _attempt(problems[1], 0.25)], Attempt))
    result = split(folder, [path], POOL, settings=FeedbackSettings(easy_from=0.5), round=1, seed=0, subject="pool")
    assert (result.summary["easy"], result.summary["hard"]) == (1, 1)


def test_no_attempts_are_an_error(tmp_path: Path) -> None:
    folder = Run(str(tmp_path)).folder(1, "split")
    path = folder.write("a.parquet", to_table([], Attempt))
    with pytest.raises(StageError, match="no pool problem was attempted"):
        split(folder, [path], POOL, settings=FeedbackSettings(), round=1, seed=0, subject="pool")


def test_parents_are_all_used_once_before_any_twice() -> None:
    requests = draw_requests(
        _feedback(4, 2), POOL, FeedbackSettings(new_problems=20, ask_share=1, complex_share=0.5), 1, 0
    )
    uses = Counter((r.origin, r.parent_id) for r in requests)
    assert sum(n for (origin, _), n in uses.items() if origin == "complex") == 10
    assert max(uses.values()) == 5 and min(n for (o, _), n in uses.items() if o == "complex") == 2
    assert len({r.id for r in requests}) == 20


def test_draws_are_repeatable_and_differ_by_round_and_seed() -> None:
    settings = FeedbackSettings(new_problems=3, ask_share=1)

    def draw(round: int, seed: int) -> list[str]:
        return [r.parent_id for r in draw_requests(_feedback(8, 2), POOL, settings, round, seed)]

    assert draw(1, 0) == draw(1, 0)
    assert draw(1, 0) != draw(2, 0) or draw(1, 0) != draw(1, 1)


@pytest.mark.parametrize(
    ("share", "easy", "hard", "expected"),
    [
        (None, 3, 1, (75, 25)),
        (0.5, 3, 1, (50, 50)),
        (0.5, 0, 4, (0, 100)),
        (0.5, 4, 0, (100, 0)),
        (0.0, 3, 1, (0, 100)),
    ],
)
def test_shares(share: float | None, easy: int, hard: int, expected: tuple[int, int]) -> None:
    quotas = wanted(FeedbackSettings(complex_share=share), 100, easy, hard)
    assert (quotas["complex"], quotas["similar"]) == expected


def test_bridges_are_asked_for_what_goes_unsolved_for_long(tmp_path: Path) -> None:
    problems = list(POOL.values())[:3]
    settings = FeedbackSettings(new_problems=4, ask_share=1.0, bridge_after=2)
    previous: list[str] = []
    asked = []
    for round, rates in [(1, (1.0, 0.0, 0.0)), (2, (0.0, 0.0, 0.5)), (3, (0.0, 1.0, 0.0))]:
        folder = Run(str(tmp_path)).folder(round, "split")
        attempts = [_attempt(problem, rate) for problem, rate in zip(problems, rates, strict=True)]
        path = folder.write("attempts.parquet", to_table(attempts, Attempt))
        result = split(folder, [path], POOL, settings=settings, round=round, seed=0, subject="pool", previous=previous)
        previous = [folder.file("part-0.parquet")]
        requests = from_table(files.read_tables([folder.file("requests.parquet")], schema_of(Request)), Request)
        asked.append({(problems.index(POOL[r.parent_id]), r.origin) for r in requests})
        assert sum(result.summary["wanted"].values()) == 4
        assert ("bridge" in result.summary["wanted"]) == (round > 1)
        for request in requests:
            assert (request.parent_question, request.round) == (POOL[request.parent_id].question, round)
    assert asked[0] == {(0, "complex"), (1, "similar"), (2, "similar")}
    # A right attempt in between starts the count anew: only the problem that was never solved gets a bridge.
    assert asked[1] == {(0, "similar"), (1, "bridge"), (2, "similar")}
    assert asked[2] == {(0, "bridge"), (1, "complex"), (2, "similar")}
