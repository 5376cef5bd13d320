"""What the report says of scores, from attempts on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.errors import StoreError
from fdd_ray.records import Attempt, to_table
from fdd_ray.report.attempts import Tried, compare, read_attempts
from fdd_ray.report.scores import NOTE, by_steps_table, differences_table, steps_table
from fdd_ray.report.status import read_status
from fdd_ray.report.table import details
from fdd_ray.stages.score import POOL
from fdd_ray.statistics import accuracy_of, paired_bootstrap
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult


def attempt(subject: str, number: int, rate: float) -> Attempt:
    return Attempt(f"t-{subject}-{number}", f"p-{number}", subject, "Q", "1", "chain", "kept", "", rate, (), 1, 1)


def scored(run: Run, round: int | None, rates: Mapping[str, Sequence[float]], **summary: Any) -> None:
    """A finished score stage with these pass rates by benchmark, in two parts."""

    def work(folder: StageFolder) -> StageResult:
        rows = [attempt(name, n, rate) for name, found in rates.items() for n, rate in enumerate(found)]
        folder.write("part-a.parquet", to_table(rows[::2], Attempt))
        folder.write("part-b.parquet", to_table(rows[1::2], Attempt))
        accuracy = {name: accuracy_of(found)._asdict() for name, found in rates.items()}
        counts = Counts(len(rows), len(rows))
        return StageResult(counts, ("part-a.parquet", "part-b.parquet"), summary={"accuracy": accuracy, **summary})

    run.once("score", round, {}, work)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    run = Run(str(tmp_path))
    files.write_bytes(str(tmp_path / "experiment.yaml"), b"name: x\n")
    for stage in ("problems", "rationales", "finetune"):
        run.once(stage, 0, {}, lambda folder: StageResult(Counts(1, 1)))
    scored(run, None, {"b": [0.0] * 40})
    scored(run, 0, {"b": [1.0] * 10 + [0.0] * 30, "c": [1.0], POOL: [1.0] * 3})
    scored(run, 1, {"b": [0.0] * 2 + [1.0] * 18 + [0.0] * 20, "c": [1.0], POOL: [0.0] * 3})
    return str(tmp_path)


def test_each_round_is_compared_with_base_and_the_one_before(directory: str) -> None:
    table = differences_table(read_status(directory))
    cells = {tuple(row[:3]): row[3:] for row in table[1:]}
    assert set(cells) == {
        ("round 0", "base", "b"), ("round 1", "base", "b"), ("round 1", "round 0", "b"), ("round 1", "round 0", "c"),
    }  # fmt: skip
    difference, no_gain, gained, lost, p, problems = cells["round 1", "round 0", "b"]
    assert difference.startswith("+20.0 [") and (gained, lost, problems) == ("10", "2", "40")
    assert p == "0.039"  # 2 * (1 + 12 + 66) / 4096
    found = paired_bootstrap([0.0] * 28 + [1.0] * 2 + [0.0] * 10, [0.0] * 30 + [1.0] * 10, seed=5)
    low, high = (float(end) for end in difference[len("+20.0 [") : -1].split(", "))
    assert abs(low - 100 * found.low) <= 2.6 and abs(high - 100 * found.high) <= 2.6
    assert float(no_gain.removesuffix(" %")) == pytest.approx(100 * found.not_better, abs=0.5)
    assert cells["round 1", "round 0", "c"][0] == "+0.0 [+0.0, +0.0]"
    assert cells["round 0", "base", "b"][1] == "0.0 %"


def test_the_report_tells_differences_and_what_they_are_not(directory: str) -> None:
    text = details(read_status(directory))
    assert "difference % [95 %]" in text and NOTE in text
    assert "steps" not in text.splitlines()[0]


def test_only_shared_problems_with_the_same_answer_are_compared() -> None:
    before = {"b": {"p-1": Tried("1", 0.0), "p-2": Tried("2", 0.0), "p-3": Tried("3", 1.0)}, "only": {}}
    after = {"b": {"p-1": Tried("1", 1.0), "p-2": Tried("9", 1.0), "p-4": Tried("4", 1.0)}}
    (found,) = compare(before, after).values()
    assert (found.paired.n, found.paired.gained, found.unpaired) == (1, 1, 3)
    assert compare({"b": {"p-1": Tried("1", 0.0)}}, {"b": {"p-2": Tried("1", 0.0)}}) == {}


def test_attempts_at_the_pool_are_not_compared(directory: str) -> None:
    assert set(read_attempts(f"{directory}/round-01/score")) == {"b", "c"}
    with pytest.raises(StoreError, match=r"is no finished score stage: it has no manifest\.json"):
        read_attempts(f"{directory}/round-02/score")


def test_accuracy_by_steps(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    files.write_bytes(str(tmp_path / "experiment.yaml"), b"name: x\n")

    def one(right: int, n: int) -> dict[str, float]:
        return accuracy_of([1.0] * right + [0.0] * (n - right))._asdict()

    scored(run, None, {"b": [0.0]}, by_steps={"b": {"1": one(1, 4), "8": one(1, 1), "11": one(0, 3)}})
    assert steps_table(read_status(str(tmp_path))) == [
        ["benchmark", "steps", "1", "8+"],
        ["b", "problems", "4", "4"],
        ["b", "base %", "25.0", "25.0"],
    ]
    assert by_steps_table([("x", {})]) == []


def test_majority_is_told_beside_the_greedy_accuracy(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    files.write_bytes(str(tmp_path / "experiment.yaml"), b"name: x\n")
    scored(run, None, {"b": [1.0, 0.0]}, majority={"k": 5, "accuracy": {"b": accuracy_of([1.0, 1.0])._asdict()}})
    text = details(read_status(str(tmp_path)))
    (line,) = (line for line in text.splitlines() if "majority@5" in line)
    assert line.split()[:2] == ["base", "b"] and "50.0 [" in line and "100.0 [" in line
