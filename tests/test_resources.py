"""What a run notes of its waiting; nothing here needs Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdd_ray.experiment import load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.progress import Reporter
from fdd_ray.prompts import load_prompts
from fdd_ray.resources import Resources
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult
from fdd_ray.store.spent import spent


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    experiment = load_experiment(TINY_EXPERIMENT, [f"storage={tmp_path}"])
    return Resources(experiment, "x", load_prompts("tiny"), spent(experiment.directory), Reporter())


def test_waiting_is_noted_of_the_stage_at_work(resources: Resources, tmp_path: Path) -> None:
    def work(folder: StageFolder) -> StageResult:
        with resources._waiting("teacher engines", ahead=2.126):
            pass
        return StageResult(Counts())

    with Run(str(tmp_path / "tiny")) as run:
        run.once("synthesise", 1, {}, resources.metered(work))
        with resources._waiting("Ray"):  # between stages: nobody's
            pass
    (event,) = (event for event in read_ledger(run.directory) if event["event"] == "waited")
    assert (event["stage"], event["round"], event["what"], event["ahead"]) == ("synthesise", 1, "teacher engines", 2.13)
    assert 0 <= event["seconds"] < 60


def test_waiting_that_failed_is_not_noted(resources: Resources, tmp_path: Path) -> None:
    def work(folder: StageFolder) -> StageResult:
        with resources._waiting("teacher engines"):
            raise OSError("no engine")

    with Run(str(tmp_path / "tiny")) as run, pytest.raises(OSError, match="no engine"):
        run.once("synthesise", 1, {}, resources.metered(work))
    assert not [event for event in read_ledger(str(tmp_path / "tiny")) if event["event"] == "waited"]
