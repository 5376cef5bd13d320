"""A whole run whose directory is on an S3-compatible store: stopped by its budget, resumed, finished."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.records import Taught, from_table, schema_of
from fdd_ray.report.status import read_status
from fdd_ray.store import files

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_a_run_on_an_object_store_is_stopped_resumed_and_finished(s3_storage: str, tmp_path: Path) -> None:
    """The teacher is simulated to count its calls; the student is real: its weights go to the store and back."""
    calls = tmp_path / "calls"
    settings = [
        f"storage={s3_storage}",
        "rounds=0",
        "pool.size=100",
        "benchmarks={test: {format: tiny, split: test, size: 20, seed: 2}}",
        "teacher.engine=simulated",
        f"teacher.engine_args={{calls: {calls}}}",
        "teach.max_tokens=300",
        "finetune.epochs=1",
        "flow.block_rows=8",
        "flow.blocks_in_flight=2",
    ]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fdd_ray.cli", "run", str(TINY_EXPERIMENT)]
        command += [f"--set={item}" for item in (*settings, *more)]
        return subprocess.run(command, capture_output=True, text=True, timeout=500)

    stopped = run("budget.teacher_tokens=1500")
    assert stopped.returncode == 9, stopped.stderr[-3000:]
    finished = run()
    assert finished.returncode == 0, finished.stderr[-3000:]
    directory = f"{s3_storage}/tiny"
    folder = f"{directory}/round-00/rationales"
    parts = [f"{folder}/{name}" for name in files.list_names(folder, ".parquet") if name.startswith("part-")]
    rows = from_table(files.read_tables(parts, schema_of(Taught)), Taught)
    assert len(rows) == 100 == len({row.id for row in rows})
    asked = Counter(line.split()[1] for log in calls.iterdir() for line in log.read_text().splitlines())
    assert len(asked) == 100 and set(asked.values()) == {1}, "no row was asked twice"
    status = read_status(directory)
    assert all(stage["done"] for stage in status["stages"])
    assert status["rounds"][0]["accuracy"]["test"]["n"] == 20
