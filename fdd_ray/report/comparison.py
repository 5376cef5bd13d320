"""A comparison of arms over seeds as a table and a plot.

    found = read_comparison("runs/tiny-compare")
    print(comparison_table(found))
    write_plot(found)           # comparison.png and comparison.svg beside the runs

Intervals are 95 % t intervals over seeds, so they say how much a result would move with other seeds: which parents
are drawn, what the teacher samples, in which order is trained (and which problems are in the pool, unless the pool has
a seed of its own). Differences are taken seed by seed.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.report.status import read_status
from fdd_ray.report.table import align
from fdd_ray.statistics import MeanInterval, mean_interval
from fdd_ray.store import files

ARMS = "comparison.json"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One of the things compared: a name, and the settings (``a.b=c``) in which it differs."""

    name: str
    overrides: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ArmRun:
    """One finished run of a comparison.

    Attributes:
        arm: Its arm.
        seed: Its seed.
        accuracy: By benchmark, the accuracy of the base and after each round from 0 on, in percent.
        examples: Rows of the distillation set after the last round.
        teacher_tokens: Tokens of the teacher after the initialisation.
        hours: Hours of all stages after the initialisation.
    """

    arm: str
    seed: int
    accuracy: Mapping[str, tuple[float, ...]]
    examples: int
    teacher_tokens: int
    hours: float

    def gain(self, benchmark: str) -> float:
        """Points gained since the initialisation."""
        values = self.accuracy[benchmark]
        return values[-1] - values[1]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All finished runs of a comparison; ``missing`` are those that are not finished."""

    folder: str
    arms: tuple[str, ...]
    runs: tuple[ArmRun, ...]
    missing: tuple[str, ...]

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that all runs were scored on."""
        return sorted(set.intersection(*(set(run.accuracy) for run in self.runs))) if self.runs else []

    def of(self, arm: str) -> dict[int, ArmRun]:
        """The runs of an arm by seed."""
        return {run.seed: run for run in self.runs if run.arm == arm}

    def as_plain(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "folder": self.folder,
            "runs": [dataclasses.asdict(run) for run in self.runs],
            "missing": list(self.missing),
            "table": [dataclasses.asdict(row) for row in summarise(self)],
        }


@dataclasses.dataclass(frozen=True)
class Row:
    """What is said of one arm on one benchmark, in percentage points, with 95 % t intervals over seeds."""

    arm: str
    benchmark: str
    seeds: int
    examples: tuple[int, ...]
    first: MeanInterval
    last: MeanInterval
    gain: MeanInterval
    difference: MeanInterval | None
    tokens_per_point: float | None
    hours_per_point: float | None


def read_comparison(folder: str) -> Comparison:
    """The runs of a comparison, finished or not.

    Raises:
        StoreError: If there is no comparison in the folder.
    """
    folder = files.absolute(folder)
    noted = read_arms(folder)
    if noted is None:
        raise StoreError(f"there is no comparison in {folder}; give the folder that fdd-ray compare named")
    arms, seeds = noted
    runs, missing = [], []
    for arm in arms:
        for seed in seeds:
            name = f"{arm}-seed{seed}"
            run = _read_run(files.join(folder, name), arm, seed)
            if run is None:
                missing.append(name)
            else:
                runs.append(run)
    return Comparison(folder, tuple(arms), tuple(runs), tuple(missing))


def read_arms(folder: str) -> tuple[dict[str, list[str]], list[int]] | None:
    """What is compared in a folder: the settings of each arm by name, and the seeds; None where nothing is.

    Raises:
        StoreError: If what is written down there is torn, or was not written by a comparison.
    """
    path = files.join(folder, ARMS)
    noted = files.read_json(path)
    if noted is None:
        return None
    arms, seeds = (noted.get("arms"), noted.get("seeds")) if isinstance(noted, dict) else (None, None)
    whole = (
        isinstance(arms, dict)
        and all(isinstance(given, list) and all(isinstance(one, str) for one in given) for given in arms.values())
        and isinstance(seeds, list)
        and all(type(seed) is int for seed in seeds)
    )
    if not whole:
        raise StoreError(
            f"{path} does not say which arms and seeds are compared; restore it, or remove it and run the same"
            " comparison again, which keeps its finished runs"
        )
    return arms, seeds  # type: ignore[return-value]  # seen above


def _read_run(directory: str, arm: str, seed: int) -> ArmRun | None:
    try:
        status = read_status(directory)
    except StoreError:
        return None
    scored = [status["base"]["accuracy"], *(entry["accuracy"] for entry in status["rounds"])]
    if len(scored) < 2 or not all(scored) or not all(stage["done"] for stage in status["stages"]):
        return None
    accuracy = {name: tuple(100 * entry[name]["value"] for entry in scored) for name in scored[0]}
    later = [stage for stage in status["stages"] if stage["round"]]
    return ArmRun(
        arm,
        seed,
        accuracy,
        status["rounds"][-1]["distillation_set"],
        sum(sum(stage["tokens"].get("teacher", {}).values()) for stage in later),
        sum(stage["seconds"] for stage in later) / 3600,
    )


def summarise(found: Comparison) -> list[Row]:
    """A row for each benchmark and arm; differences are to the first arm, seed by seed."""
    rows = []
    for benchmark in found.benchmarks:
        reference = found.of(found.arms[0])
        for arm in found.arms:
            runs = found.of(arm)
            if not runs:
                continue
            both = [seed for seed in runs if seed in reference and arm != found.arms[0]]
            differences = [
                runs[seed].accuracy[benchmark][-1] - reference[seed].accuracy[benchmark][-1] for seed in both
            ]
            gains = [run.gain(benchmark) for run in runs.values()]
            points = sum(gains)
            rows.append(
                Row(
                    arm,
                    benchmark,
                    len(runs),
                    tuple(sorted({run.examples for run in runs.values()})),
                    mean_interval([run.accuracy[benchmark][1] for run in runs.values()]),
                    mean_interval([run.accuracy[benchmark][-1] for run in runs.values()]),
                    mean_interval(gains),
                    mean_interval(differences) if differences else None,
                    sum(run.teacher_tokens for run in runs.values()) / points if points > 0 else None,
                    sum(run.hours for run in runs.values()) / points if points > 0 else None,
                )
            )
    return rows


def comparison_table(found: Comparison, *, markdown: bool = False) -> str:
    """The rows of `summarise` as text, with what the reader must know of them."""
    header = ["benchmark", "arm", "seeds", "distillation set", "round 0 %", "last round % [95 %]", "points gained"]
    header += [f"against {found.arms[0]} [95 %]", "teacher tokens / point", "minutes / point"]
    cells = [header]
    for row in summarise(found):
        cells.append(
            [
                row.benchmark,
                row.arm,
                str(row.seeds),
                " or ".join(str(number) for number in row.examples),
                f"{row.first.mean:.1f}",
                _interval(row.last),
                f"{row.gain.mean:+.1f}",
                _interval(row.difference, "+") if row.difference else "",
                f"{row.tokens_per_point:,.0f}" if row.tokens_per_point is not None else "none gained",
                f"{60 * row.hours_per_point:.2f}" if row.hours_per_point is not None else "none gained",
            ]
        )
    lines = [_markdown(cells) if markdown else align(cells)]
    lines.append(
        f"Intervals: Student's t over seeds. Against {found.arms[0]}: seed by seed, over the seeds that both have."
        " Tokens and minutes: of all rounds after round 0, on the machine as it was."
    )
    sizes = {number for run in found.runs for number in [run.examples]}
    if len(sizes) > 1:
        lines.append(f"NOT OF EQUAL SIZE: the distillation sets have {min(sizes)} to {max(sizes)} rows.")
    if found.missing:
        lines.append(f"not finished: {', '.join(found.missing)}")
    return "\n".join(lines)


def write_plot(found: Comparison) -> list[str]:
    """Draw accuracy by round, a panel for each benchmark, and return the files written (PNG and SVG)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not found.runs:
        return []
    benchmarks = found.benchmarks
    figure, panels = pyplot.subplots(1, len(benchmarks), figsize=(5.5 * len(benchmarks), 4.2), squeeze=False)
    for panel, benchmark in zip(panels[0], benchmarks, strict=True):
        for number, arm in enumerate(found.arms):
            series = [run.accuracy[benchmark] for run in found.of(arm).values()]
            if not series:
                continue
            rounds = range(-1, len(series[0]) - 1)
            means = [mean_interval(values) for values in zip(*series, strict=True)]
            colour = f"C{number}"
            for values in series:
                panel.plot(rounds, values, color=colour, alpha=0.25, linewidth=0.8)
            # Side by side, or the intervals of one arm would hide those of another.
            places = [round + 0.05 * (number - (len(found.arms) - 1) / 2) for round in rounds]
            reach = [
                (mean.mean - mean.low, mean.high - mean.mean)
                if mean.low is not None and mean.high is not None
                else (0, 0)
                for mean in means
            ]
            panel.errorbar(
                places,
                [mean.mean for mean in means],
                yerr=list(zip(*reach, strict=True)),
                color=colour,
                marker="o",
                capsize=3,
                label=arm,
            )
        every = [value for run in found.runs for value in run.accuracy[benchmark]]
        panel.set_ylim(max(0.0, min(every) - 8), min(100.0, max(every) + 8))  # few seeds have endless intervals
        panel.set_title(benchmark)
        panel.set_xlabel("round")
        panel.set_xticks(list(rounds), ["base", *(str(round) for round in rounds if round >= 0)])
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("greedy accuracy, %")
    panels[0][0].legend(title="mean, 95 % over seeds (thin: each seed)", fontsize="small")
    figure.tight_layout()
    written = []
    for suffix in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=150)
        path = files.join(found.folder, f"comparison.{suffix}")
        files.write_bytes(path, buffer.getvalue())
        written.append(path)
    pyplot.close(figure)
    return written


def _interval(value: MeanInterval, sign: str = "") -> str:
    if value.low is None or value.high is None:
        return f"{value.mean:{sign}.1f}"
    return f"{value.mean:{sign}.1f} [{value.low:{sign}.1f}, {value.high:{sign}.1f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
