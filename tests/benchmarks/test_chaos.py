"""The chaos harness: it sees what it is there to see, and a few kills of two kinds do no harm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STAGE = "round-00/rationales"
ACCOUNT = {"counts": {"rows": 2, "kept": 1, "rejected": {"wrong": 1}, "failed": 0}, "tokens": {}}


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The harness's checks; benchmarks are scripts, not a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import chaos_checks

    return chaos_checks


def _outcome(
    checks: Any, rows: tuple[str, ...] = ("a", "b"), calls: tuple[tuple[float, str], ...] = (), **changes: Any
) -> Any:
    counts: Mapping[str, Any] = ACCOUNT | {"counts": ACCOUNT["counts"] | changes}
    asked_by = {key: (STAGE, key) for key in ("a", "b")}
    made = [checks.Call(time, key) for time, key in (calls or ((1.0, "a"), (2.0, "b")))]
    return checks.Outcome({STAGE: Counter(rows)}, {STAGE: counts}, made, asked_by, {})


def test_a_run_that_is_the_same_is_found_the_same(checks: Any) -> None:
    assert checks.compare(_outcome(checks), _outcome(checks)) == []
    assert checks.unexplained(_outcome(checks)) == []


def test_every_difference_is_found(checks: Any) -> None:
    reference = _outcome(checks)
    for outcome, sign in [
        (_outcome(checks, rows=("a",)), "1 rows missing, 0 others"),
        (_outcome(checks, rows=("a", "b", "b")), "0 rows missing, 1 others"),
        (_outcome(checks, rows=("a", "c")), "1 rows missing, 1 others"),
        (_outcome(checks, kept=2), "do not add up"),
        (_outcome(checks, kept=0, failed=1), "1 failed"),
        (_outcome(checks, calls=((1.0, "a"), (2.0, "c"))), "1 requests that the reference did not make"),
    ]:
        assert any(sign in text for text in checks.compare(outcome, reference)), sign


def test_a_reference_that_is_none_is_refused(checks: Any) -> None:
    assert "1 requests that no row explains" in checks.unexplained(_outcome(checks, calls=((1.0, "c"),)))
    assert "1 requests made twice" in checks.unexplained(_outcome(checks, calls=((1.0, "a"), (2.0, "a"))))


def test_a_row_that_is_asked_after_it_was_written(checks: Any, tmp_path: Path) -> None:
    path = tmp_path / STAGE / "part-1.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a"]}), path)
    again = _outcome(checks, calls=((1.0, "a"), (2.0, "b"), (4.0, "a"), (5.0, "b")))
    assert len(checks.asked_after_written(again, {path: 3.0})) == 1
    assert checks.asked_after_written(again, {path: 6.0}) == []
    assert checks.repeated(again) == 2
    # At 3.5 the request for b was in flight: a was on disk.
    assert checks.rows_in_flight(again, {path: 3.0}, 3.5) == 1
    assert checks.rows_in_flight(again, {path: 3.0}, 2.5) == 2


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_killed_drivers_and_engines_do_no_harm(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, BENCHMARKS / "chaos.py", "--kind", "driver", "engine", "--kills", "2", "--per-run", "2",
         "--work", tmp_path / "work", "--output", tmp_path / "output"],
        capture_output=True, text=True, timeout=850,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for row in json.loads((tmp_path / "output" / "chaos-driver-engine.json").read_text())["rows"]:
        assert row["kills"] >= 2 and row["finished"] == row["exact"] == row["runs"]
        assert row["asked after written"] == row["left running"] == 0
