from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.errors import StageError
from fdd_ray.policy import FeedbackSettings
from fdd_ray.records import Attempt, Curated, Problem, Request, Taught, from_table, schema_of, to_table
from fdd_ray.stages.feedback import split
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Run

POOL = {problem.id: problem for problem in (Problem.new(f"Question {i}?", str(i)) for i in range(10))}


def _attempt(problem: Problem, rate: float, outcome: str = "kept", subject: str = "pool") -> Attempt:
    return Attempt(
        f"t-{subject}-{problem.id}", problem.id, subject, problem.question, problem.answer, "program",
        outcome, "", rate, (), 0, 0,  # type: ignore[arg-type]
    )  # fmt: skip


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
    assert result.summary["wanted"] == {"easy": 2, "hard": 2}
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
        assert ("bridge" in result.summary["asked"]) == (round > 1)
        for request in requests:
            assert (request.parent_question, request.round) == (POOL[request.parent_id].question, round)
    assert asked[0] == {(0, "complex"), (1, "similar"), (2, "similar")}
    # A right attempt in between starts the count anew: only the problem that was never solved gets a bridge.
    assert asked[1] == {(0, "similar"), (1, "bridge"), (2, "similar")}
    assert asked[2] == {(0, "bridge"), (1, "complex"), (2, "similar")}


def test_more_rationales_know_those_that_there_are(tmp_path: Path) -> None:
    problems = list(POOL.values())[:2]
    folder = Run(str(tmp_path)).folder(1, "split")

    def write(name: str, rows: list[Any], row_type: type) -> str:
        return folder.write(name, to_table(rows, row_type))

    attempts = write("attempts.parquet", [_attempt(problem, 1.0) for problem in problems], Attempt)
    first, second = problems
    taught = write(
        "taught.parquet",
        [Taught(first.id, first.question, "0", "program", "kept", "", ("answer = 0",), (), 0, 0)],
        Taught,
    )
    more = Curated(
        "r-1", first.id, "seed", 1, "kept", "", first.id, first.question, "0", "program", ("answer = 1 - 1",),
        1, 1.0, 1, "",
    )  # fmt: skip
    curated = write("curated.parquet", [more, dataclasses.replace(more, id="r-2", outcome="rejected")], Curated)
    settings = FeedbackSettings(policy="more_rationales", new_problems=2, ask_share=1)
    for chosen, expected in [
        (settings, {first.id: ("answer = 0", "answer = 1 - 1"), second.id: ()}),
        (dataclasses.replace(settings, distinct_rationales=False), {first.id: (), second.id: ()}),
    ]:
        result = split(
            folder, [attempts], POOL, settings=chosen, round=2, seed=0, subject="pool", taught=[taught],
            curated=[curated],
        )  # fmt: skip
        requests = from_table(files.read_tables([folder.file("requests.parquet")], schema_of(Request)), Request)
        known = {request.parent_id: request.known for request in requests}
        # Every seed of the pool is one to ask from, attempted or not.
        assert {id: texts for id, texts in known.items() if id in expected}.items() <= expected.items()
        assert result.summary["wanted"] == {"seeds": 2}
        assert all(request.origin == "seed" for request in requests)
