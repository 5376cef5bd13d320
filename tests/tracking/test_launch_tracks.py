"""``track`` from the command line, with a loop of one stage that needs no Ray."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fdd_ray import launch
from fdd_ray.cli import main
from fdd_ray.errors import DependencyError, ExperimentError
from fdd_ray.metrics import of_run
from fdd_ray.workshop import Workshop


@pytest.fixture(autouse=True)
def _one_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    def distill(workshop: Workshop, rounds: int) -> None:
        workshop.problems()

    monkeypatch.setattr(launch, "distill", distill)


def _run(tmp_path: Path, *more: str, name: str = "tracked") -> int:
    sets = [
        f"storage={tmp_path}",
        f"name={name}",
        "pool.size=60",
        "benchmarks={test: {format: tiny, split: test, size: 5}}",
    ]
    return main(["demo", *(part for text in sets for part in ("--set", text)), *more])


def _events(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "tracked" / "tensorboard").glob("events.out.tfevents.*"))


def test_tensorboard_is_written_without_being_asked_for(tmp_path: Path) -> None:
    assert _run(tmp_path) == 0
    (first,) = _events(tmp_path)
    assert _run(tmp_path) == 0
    assert _events(tmp_path) == [first]
    assert _run(tmp_path, "--from-stage", "problems") == 0
    (again,) = _events(tmp_path)
    assert again != first, "the old file went with the stage that was set aside"


def test_nothing_is_written_where_nothing_is_wanted(tmp_path: Path) -> None:
    assert _run(tmp_path, "--set", "track=[]") == 0
    assert not (tmp_path / "tracked" / "tensorboard").exists()


def test_the_run_can_go_on_with_other_trackers(tmp_path: Path) -> None:
    assert _run(tmp_path, "--set", "track=[]") == 0
    assert _run(tmp_path, "--set", "track=tensorboard") == 0
    assert len(_events(tmp_path)) == 1


def test_what_is_missing_is_said_before_the_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else find_spec(name))
    assert _run(tmp_path, "--set", "track=[tensorboard, mlflow]") == DependencyError.exit_code
    assert "track: mlflow is not installed" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "mlflow" else find_spec(name))
    assert _run(tmp_path, "--set", "track=[tensorboard, mlflow]") == ExperimentError.exit_code
    assert "export MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert _run(tmp_path, "--set", "track=[tensorbord]") == ExperimentError.exit_code
    assert "did you mean tensorboard?" in capsys.readouterr().err
    assert not (tmp_path / "tracked").exists()


def test_prometheus_is_told_of_stages_that_were_done_before_too(tmp_path: Path) -> None:
    assert _run(tmp_path, name="before") == 0
    metrics = of_run("before")
    key = ("fdd_stage_rows", (("stage", "problems"), ("round", "0"), ("role", "nobody"), ("outcome", "kept")))
    assert metrics._gauges.pop(key) == 65
    assert _run(tmp_path, name="before") == 0
    assert metrics._gauges[key] == 65
