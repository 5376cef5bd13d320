"""What ``fdd-ray status`` says of who drives a run: at work, finished, failed, interrupted or killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fdd_ray.report.status import driver_line, read_status
from fdd_ray.store import files
from fdd_ray.store.run import Run

_KILLED = "import os, sys; from fdd_ray.store.run import Run; Run(sys.argv[1]).__enter__(); os._exit(9)"


@pytest.fixture
def root(tmp_path: Path) -> str:
    files.write_bytes(str(tmp_path / "experiment.yaml"), b"name: x\n")
    return str(tmp_path)


def _killed(root: str) -> None:
    """A driver that takes up the run and dies without a word."""
    subprocess.run([sys.executable, "-c", _KILLED, root], check=False)


def test_a_finished_run_is_said_to_be_finished_and_when(root: str) -> None:
    with Run(root):
        pass
    status = read_status(root)
    assert not status["driver"]["alive"]
    ended = status["driver"]["ended"]
    assert (ended["reason"], ended["error"]) == ("finished", "") and abs(ended["time"] - time.time()) < 60
    day = time.strftime("%Y-%m-%d", time.gmtime(ended["time"]))
    line = driver_line(status, now=ended["time"] + 90)
    assert line.startswith(f"the run is finished, since {day} ") and line.endswith("(90 s ago)")


def test_a_run_at_work_is_not_finished_though_it_was_before(root: str) -> None:
    with Run(root):
        pass
    with Run(root):
        status = read_status(root)
        assert status["driver"]["alive"] and status["driver"]["ended"] is None
        assert driver_line(status).startswith(f"process {os.getpid()} on ") and "drives the run" in driver_line(status)


def test_a_driver_that_was_killed_is_told_as_dead_though_the_run_was_finished_before(root: str) -> None:
    with Run(root):
        pass
    _killed(root)
    status = read_status(root)
    assert not status["driver"]["alive"] and status["driver"]["ended"] is None
    line = driver_line(status)
    assert line.startswith("no driver has the run; process ") and "was the last, and gave its last sign" in line
    assert "killed" in line and "finished" not in line


def test_a_run_that_failed_says_why_without_control_characters(root: str) -> None:
    with pytest.raises(RuntimeError), Run(root):
        raise RuntimeError("engines \x1b[2J are gone")
    line = driver_line(read_status(root))
    assert "failed" in line and "RuntimeError: engines  [2J are gone" in line and line.isprintable()


def test_a_run_that_was_interrupted_goes_on_with_the_same_command(root: str) -> None:
    with pytest.raises(KeyboardInterrupt), Run(root):
        raise KeyboardInterrupt
    line = driver_line(read_status(root))
    assert line.startswith(f"no driver has the run; process {os.getpid()} on ") and "was interrupted" in line
    assert line.endswith("The same command goes on from there")


def test_a_run_that_nobody_drove_is_not_finished(root: str) -> None:
    status = read_status(root)
    assert status["driver"]["ended"] is None and driver_line(status) == "no driver has the run"
