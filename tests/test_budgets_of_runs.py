"""Whole runs that end early and go on, from the command line, with the simulated engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fdd_ray.report.status import read_status
from fdd_ray.store.spent import spent

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def _command(tmp_path: Path, *more: str) -> list[str]:
    engine = f"engine: simulated, engine_args: {{seconds: 0.05, calls: {tmp_path}/calls}}, cpus_per_replica: 0.1"
    experiment = tmp_path / "x.yaml"
    experiment.write_text(
        f"""
name: x
storage: {tmp_path}
prompts: tiny
rounds: 1
pool: {{format: tiny, split: pool, size: 120, seed: 1}}
benchmarks: {{test: {{format: tiny, split: test, size: 8, seed: 2}}}}
decontaminate: {{ngram: null, containment: null}}
teacher: {{model: "tiny://teacher", {engine}}}
student: {{model: "tiny://student", {engine}}}
teach: {{max_tokens: 200}}
flow: {{block_rows: 4, blocks_in_flight: 2, map_actors: 1, cpus_per_map_actor: 0.1}}
"""
    )
    return [sys.executable, "-m", "fdd_ray.cli", "run", str(experiment), *(f"--set={item}" for item in more)]


def _asked(tmp_path: Path) -> Counter[str]:
    lines = [line for log in (tmp_path / "calls").iterdir() for line in log.read_text().splitlines()]
    return Counter(line.split()[1] for line in lines)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_a_budget_ends_the_run_and_raising_it_goes_on(tmp_path: Path) -> None:
    first = _run(_command(tmp_path, "budget.teacher_tokens=1500"))
    assert first.returncode == 9, first.stderr[-2000:]
    assert "budget.teacher_tokens = 1,500 is used up" in first.stderr and "same command again" in first.stderr
    tokens = spent(str(tmp_path / "x")).tokens["tiny://teacher"]
    block = 8 * 80  # rows in flight, and more tokens than any row has
    assert 1500 <= tokens["prompt"] + tokens["completion"] <= 1500 + 2 * block
    again = _run(_command(tmp_path, "budget.teacher_tokens=1500"))
    assert again.returncode == 9, "what was spent before counts"
    assert spent(str(tmp_path / "x")).tokens["tiny://teacher"] == tokens, "nothing more was paid for"
    raised = _run(_command(tmp_path, "budget.teacher_tokens=1000000", "budget.problems_per_round=10"))
    assert raised.returncode == 9 and "budget.problems_per_round = 10" in raised.stderr, raised.stderr[-2000:]
    stages = {(stage["stage"], stage["round"]): stage for stage in read_status(str(tmp_path / "x"))["stages"]}
    assert stages["rationales", 0]["done"] and stages["rationales", 0]["counts"]["rows"] == 120
    assert set(_asked(tmp_path).values()) == {1}, "no request was made twice in three runs"


def test_a_spot_notice_lets_the_rows_in_flight_finish(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        _command(tmp_path, "rounds=0"), stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    parts = tmp_path / "x" / "round-00" / "rationales"
    deadline = time.monotonic() + 200
    while not (parts.is_dir() and len(list(parts.glob("part-*"))) >= 2):
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline, "the teacher stage did not begin"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 130 and "rows in flight are being finished" in said, said[-2000:]
    stages = {(stage["stage"], stage["round"]): stage for stage in read_status(str(tmp_path / "x"))["stages"]}
    written = stages["rationales", 0]["rows_written"]
    assert 8 <= written < 120
    base = stages["score", None]["counts"]["rows"]
    assert sum(_asked(tmp_path).values()) == base + written, "everything that was asked was written"
