"""What the scores of a run's rounds say: differences between rounds, accuracy by steps, accuracy by majority.

Each table is a list of rows of cells, the first of which is its header; it is empty where there is nothing to
tell. Differences are read from the attempts themselves, problem by problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fdd_ray.report.attempts import Difference, compare, read_attempts

Table = list[list[str]]
_LONG = 8  # problems of so many steps and more share a column
NOTE = (
    "differences: paired over the same problems; 95 % intervals and the share of resamples without a gain from a"
    " bootstrap of 10,000; p: exact McNemar test. Nothing here corrects for choosing the best of several rounds."
)


def differences(status: Mapping[str, Any]) -> Iterator[tuple[int, str, dict[str, Difference]]]:
    """For each round that is scored: its number, what it is compared with, and the difference by benchmark.

    Args:
        status: What `fdd_ray.report.status.read_status` returns.
    """
    folders = {s["round"]: s["path"] for s in status["stages"] if s["stage"] == "score" and s["done"]}
    attempts = {number: read_attempts(folder) for number, folder in folders.items()}
    for number in sorted(number for number in attempts if number is not None):
        if None in attempts:
            yield number, "base", compare(attempts[None], attempts[number])
        if number - 1 in attempts:
            yield number, f"round {number - 1}", compare(attempts[number - 1], attempts[number])


def differences_table(status: Mapping[str, Any]) -> Table:
    """Each round against the base and against the round before."""
    rows = [
        [f"round {number}", against, name, *difference_cells(found)]
        for number, against, by_benchmark in differences(status)
        for name, found in by_benchmark.items()
    ]
    return [["", "against", "benchmark", *DIFFERENCE], *rows] if rows else []


DIFFERENCE = ("difference % [95 %]", "no gain in", "gained", "lost", "p", "problems")


def difference_cells(found: Difference) -> list[str]:
    """A difference as cells under `DIFFERENCE`."""
    paired = found.paired
    low, high = f"{100 * paired.low:+.1f}", f"{100 * paired.high:+.1f}"
    return [
        f"{100 * paired.difference:+.1f} [{low}, {high}]",
        f"{100 * paired.not_better:.1f} %",
        str(paired.gained),
        str(paired.lost),
        f"{paired.p_value:.2g}",
        str(paired.n),
    ]


def steps_table(status: Mapping[str, Any]) -> Table:
    """Accuracy of base and rounds by the number of steps that problems take, where that is known."""
    return by_steps_table([(name, entry["by_steps"]) for name, entry in _students(status)])


def by_steps_table(students: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Accuracy by steps of several students, given as (name, accuracy by steps by benchmark)."""
    merged = {(name, benchmark): _merged(by_steps) for name, found in students for benchmark, by_steps in found.items()}
    columns = sorted({steps for found in merged.values() for steps in found})
    rows = []
    for benchmark in sorted({benchmark for _, benchmark in merged}):
        mine = {name: found for (name, other), found in merged.items() if other == benchmark}
        sizes = {steps: n for found in mine.values() for steps, (_, n) in found.items()}
        rows.append([benchmark, "problems", *(str(sizes.get(steps, "")) for steps in columns)])
        for name, found in mine.items():
            cells = (f"{100 * found[steps][0]:.1f}" if steps in found else "" for steps in columns)
            rows.append([benchmark, f"{name} %", *cells])
    header = [f"{steps}+" if steps == _LONG else str(steps) for steps in columns]
    return [["benchmark", "steps", *header], *rows] if rows else []


def _merged(by_steps: Mapping[str, Mapping[str, float]]) -> dict[int, tuple[float, int]]:
    """(accuracy, problems) by number of steps, those of many steps together."""
    sums: dict[int, tuple[float, int]] = {}
    for text, found in by_steps.items():
        steps = min(int(text), _LONG)
        right, n = sums.get(steps, (0.0, 0))
        sums[steps] = (right + found["value"] * found["n"], n + int(found["n"]))
    return {steps: (right / n, n) for steps, (right, n) in sums.items()}


def majority_table(status: Mapping[str, Any]) -> Table:
    """Accuracy by majority of sampled attempts, beside the greedy one, where it was asked for."""
    return by_majority_table([(name, entry) for name, entry in _students(status)])


def by_majority_table(students: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Accuracy by majority of several students, given as (name, its ``accuracy`` and ``majority``)."""
    rows = []
    for name, entry in students:
        for benchmark, found in sorted(entry["majority"].get("accuracy", {}).items()):
            greedy = entry["accuracy"][benchmark]
            k = f"majority@{entry['majority']['k']}"
            rows.append([name, benchmark, percent(greedy), k, percent(found), str(found["n"])])
    return [["", "benchmark", "greedy % [95 %]", "", "majority % [95 %]", "problems"], *rows] if rows else []


def percent(accuracy: Mapping[str, float] | None) -> str:
    """An accuracy with its interval, in percent; empty for None."""
    if accuracy is None:
        return ""
    return f"{100 * accuracy['value']:.1f} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"


def _students(status: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [("base", status["base"]), *((f"round {entry['round']}", entry) for entry in status["rounds"])]
