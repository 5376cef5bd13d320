"""The sections on what the student can do: accuracy by round, differences, by steps, by majority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fdd_ray.report.attempts import Difference
from fdd_ray.report.html.markup import Markup, folded, table, tag, text
from fdd_ray.report.html.plots import Point, figure, points
from fdd_ray.report.scores import DIFFERENCE, NOTE, difference_cells, majority_table, percent, steps_table

Differences = Sequence[tuple[int, str, Mapping[str, Difference]]]


def students(status: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The base and the rounds by name, in order."""
    return [("base", status["base"]), *((f"round {entry['round']}", entry) for entry in status["rounds"])]


def result(status: Mapping[str, Any], differences: Differences) -> Markup:
    """What the run came to, one sentence for each benchmark."""
    scored = [(name, entry["accuracy"]) for name, entry in students(status) if entry["accuracy"]]
    if not scored:
        return tag("p", "No student has been scored yet.")
    (first, before), (last, after) = scored[0], scored[-1]
    lines = []
    for benchmark in sorted(after):
        words = [f"{first} {percent(before.get(benchmark))} %"] if first != last else []
        words.append(f"{last} {percent(after[benchmark])} %")
        change = ""
        for number, against, found in differences:
            if (f"round {number}", against) == (last, first) and benchmark in found:
                change = f", a difference of {difference_cells(found[benchmark])[0]} points"
        told = f"{' → '.join(words)}{change} ({after[benchmark]['n']:,} problems)."
        lines.append(tag("li", tag("strong", text(benchmark, 80)), ": ", told))
    return tag("ul", *lines, class_="result")


def accuracy(status: Mapping[str, Any]) -> list[Markup]:
    """A plot with its table for each benchmark, and for the pool."""
    named = [(name, entry["accuracy"]) for name, entry in students(status)]
    benchmarks = sorted({benchmark for _, found in named for benchmark in found})
    drawn = [_panel(f"{benchmark}, greedy", named, benchmark) for benchmark in benchmarks]
    pool = [(name, {"pool": entry["pool"]}) for name, entry in students(status) if entry.get("pool")]
    if pool:
        drawn.append(_panel("The pool as it grows (not a benchmark)", pool, "pool"))
    if not drawn:
        return [tag("p", "No student has been scored yet.")]
    note = "Bars are 95 % Wilson intervals. The dashed line and its band are the untouched base, the control."
    return [tag("p", note, class_="quiet"), tag("div", *drawn, class_="figures")]


def _panel(title: str, named: Sequence[tuple[str, Mapping[str, Any]]], benchmark: str) -> Markup:
    series = [(name, found[benchmark]) for name, found in named if benchmark in found]
    placed = [Point(name.removeprefix("round "), f["value"], f["low"], f["high"]) for name, f in series]
    control = placed[0] if series[0][0] == "base" else None
    rows = [["", "accuracy % [95 %]", "problems"], *([name, percent(f), f"{f['n']:,}"] for name, f in series)]
    plot = points(placed, f"accuracy on {title}: {'; '.join(f'{name} {percent(f)}' for name, f in series)}", control)
    return figure(text(title, 80), plot, folded("as a table", table(rows, f"accuracy, {title}")))


def differences_section(differences: Differences) -> list[Markup]:
    """Each round against the base and against the round before."""
    rows = [
        [f"round {number}", against, text(name, 80), *difference_cells(found)]
        for number, against, by_benchmark in differences
        for name, found in by_benchmark.items()
    ]
    if not rows:
        return [tag("p", "There are no two scored students to compare yet.")]
    header = ["", "against", "benchmark", *DIFFERENCE]
    return [
        table([header, *rows], "differences between rounds"),
        tag("p", f"{NOTE[0].upper()}{NOTE[1:]}", class_="quiet"),
    ]


def by_steps(status: Mapping[str, Any]) -> list[Markup]:
    """Accuracy by steps and by majority, where they are known."""
    parts = []
    steps, majority = steps_table(status), majority_table(status)
    if steps:
        parts += [tag("h3", "By the number of steps that a problem takes"), table(steps, "accuracy by steps")]
    if majority:
        parts += [tag("h3", "By majority of sampled attempts"), table(majority, "accuracy by majority")]
    return parts or [tag("p", "Neither the steps of problems nor votes of sampled attempts are known for this run.")]
