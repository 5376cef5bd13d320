"""The table of all benchmarks: goals, and what has become worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, which is not part of a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench

    return bench


@pytest.fixture
def measure(bench: Any) -> Any:
    """What all benchmarks share."""
    import measure

    return measure


def test_a_ratio_is_of_medians_and_spreads_over_all_repeats(measure: Any) -> None:
    found = measure.ratio("rows/s", [10.0, 12.0, 11.0], [5.0, 5.5, 4.0])
    assert found == ("rows/s", 11 / 5, 10 / 5.5, 12 / 4, None, False)


@pytest.mark.parametrize(
    ("median", "goal", "at_most", "met"),
    [(1.3, 1.3, False, True), (1.29, 1.3, False, False), (0.6, 0.6, True, True), (0.61, 0.6, True, False)],
)
def test_a_goal_is_met_or_not(measure: Any, median: float, goal: float, at_most: bool, met: bool) -> None:
    assert measure.Ratio("x", median, median, median, goal, at_most).met is met
    assert measure.Ratio("x", median, median, median, None, at_most).met is None


@pytest.mark.parametrize(
    ("low", "high", "at_most", "worse"),
    [
        (0.7, 0.89, False, True),  # even the best is more than a tenth below
        (0.7, 0.91, False, False),
        (1.3, 1.5, False, False),  # better
        (1.11, 1.4, True, True),
        (1.09, 1.4, True, False),
        (0.5, 0.6, True, False),
    ],
)
def test_worse_is_what_even_the_best_repeat_says(
    bench: Any, measure: Any, low: float, high: float, at_most: bool, worse: bool
) -> None:
    found = measure.Ratio("x", (low + high) / 2, low, high, None, at_most)
    assert bench.worse(found, {"median": 1.0}) is worse


def _script(folder: Path, name: str, ratio: float) -> tuple[str, ...]:
    """A benchmark that publishes this ratio."""
    path = folder / f"{name}.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from pathlib import Path\nfrom measure import Ratio, publish\n"
        f"publish({name!r}, [{{'a': 1}}], Path(sys.argv[sys.argv.index('--output') + 1]),\n"
        f"        [Ratio('rows/s', {ratio}, {ratio}, {ratio}, 1.0)])\n",
        encoding="utf-8",
    )
    return (str(path),)


def test_all_are_run_compared_and_stored(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)", encoding="utf-8")
    found = {"good": (_script(tmp_path, "good", 2.0), "good"), "broken": ((str(broken),), "broken")}
    monkeypatch.setattr(bench, "BENCHES", {name: bench.Bench(*what, 1) for name, what in found.items()})
    arguments = ["--output", str(tmp_path / "out"), "--stored", str(tmp_path / "stored.json")]
    assert bench.main([*arguments, "--store", "--only", "good"]) == 0
    assert json.loads((tmp_path / "stored.json").read_text())["good: rows/s"]["median"] == 2.0
    # It becomes slower: without going on it is run again, and warned of; one that fails is named.
    _script(tmp_path, "good", 0.9)
    assert bench.main([*arguments, "--go-on", "--only", "good"]) == 0
    assert "WARNING" not in capfd.readouterr().out
    assert bench.main(arguments) == 1
    told = capfd.readouterr()
    assert "WARNING: good: rows/s: 0.9, was 2" in told.out and "bench: failed: broken" in told.err
    (row,) = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert (row["median"], row["goal"], row["met"], row["stored"], row["worse"]) == (0.9, ">= 1", "no", "2", "worse")
    assert "| good | rows/s | 0.9 |" in (tmp_path / "out" / "bench.md").read_text()


def test_one_that_does_not_end_is_ended(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    waiting = tmp_path / "waiting.py"
    waiting.write_text("import time; time.sleep(600)", encoding="utf-8")
    monkeypatch.setattr(bench, "BENCHES", {"waiting": bench.Bench((str(waiting),), "waiting", 1)})
    assert bench.main(["--output", str(tmp_path), "--deadline-minutes", "0.02"]) == 1
    assert "not finished within 0.02 minutes" in capfd.readouterr().out


def test_every_benchmark_of_the_table_is_there(bench: Any) -> None:
    for found in bench.BENCHES.values():
        assert (BENCHMARKS / found.script[0]).is_file()
        assert set(found.foreign) <= set(bench.FOREIGN)
