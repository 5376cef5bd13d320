"""What all benchmarks share: timing side by side, and writing results as JSON and a Markdown table.

Figures are medians over repeats with their spread; what is compared is run in turns in one process or one
script, so that both sides meet the same machine.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """Seconds of several repeats of one thing."""

    median: float
    low: float
    high: float
    repeats: int


class Ratio(NamedTuple):
    """How two sides that took turns in one script compare; kept by `publish` for `bench.py`.

    Attributes:
        what: What is compared with what.
        median: The ratio of the medians.
        low: The lowest that repeats of the two sides give.
        high: The highest.
        goal: What it is to reach; None where it is only watched.
        at_most: Whether less is better, so that the goal is the most it may be.
    """

    what: str
    median: float
    low: float
    high: float
    goal: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self.goal is None:
            return None
        return self.median <= self.goal if self.at_most else self.median >= self.goal


def ratio(
    what: str, one: Sequence[float], other: Sequence[float], goal: float | None = None, at_most: bool = False
) -> Ratio:
    """``one`` divided by ``other``, each the same figure of every repeat of one side."""
    median = statistics.median(one) / statistics.median(other)
    return Ratio(what, median, min(one) / max(other), max(one) / min(other), goal, at_most)


def time_in_turns(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Time each side ``repeats`` times, the sides taking turns.

    Args:
        sides: What to run, by name.
        repeats: How often each is run; caches are warmed by one run of each that is not counted if it is
            more than 1.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + (repeats > 1)):
        for name, side in sides.items():
            begun = time.perf_counter()
            side()
            if repeat or repeats == 1:
                seconds[name].append(time.perf_counter() - begun)
    return {name: Timing(statistics.median(s), min(s), max(s), len(s)) for name, s in seconds.items()}


def peak_memory_mib() -> float:
    """The most memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """``rows`` as a Markdown table; the keys of the first are the header."""
    header = list(rows[0])
    cells = [[_cell(row.get(name, "")) for name in header] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def publish(
    name: str, rows: Sequence[Mapping[str, object]], output: Path, ratios: Sequence[Ratio] = (), **settings: Any
) -> None:
    """Print ``rows`` as a table and write them, with ratios, machine and settings, to ``output/name.json``."""
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    output.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "machine": machine, "settings": settings, "rows": list(rows)}
    content["ratios"] = [one._asdict() for one in ratios]
    (output / f"{name}.json").write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    print(table(rows))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
