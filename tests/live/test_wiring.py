"""What a run tells the live view, by the way of its resources; nothing here needs Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdd_ray.experiment import load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.live.board import Board
from fdd_ray.live.reporter import LiveReporter
from fdd_ray.live.view import planned
from fdd_ray.prompts import load_prompts
from fdd_ray.resources import Resources
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult
from fdd_ray.store.spent import spent

TOKENS = {"teacher": {"prompt": 700, "completion": 50}}


def _resources(storage: Path, reporter: LiveReporter) -> Resources:
    sets = [f"storage={storage}", "teacher.prompt_price=1000", "prices.cpu_hour=0"]
    experiment = load_experiment(TINY_EXPERIMENT, sets)
    return Resources(experiment, "x", load_prompts("tiny"), spent(experiment.directory), reporter)


def test_cost_begins_with_what_the_run_cost_before_and_grows(tmp_path: Path) -> None:
    depends_on = {"teacher": {"model": "tiny://teacher"}}
    with Run(str(tmp_path / "tiny")) as run:
        run.once("rationales", 0, depends_on, lambda folder: StageResult(Counts(), tokens=TOKENS))
    board = Board("tiny", str(tmp_path / "tiny"), planned(1))
    reporter = LiveReporter(board)
    resources = _resources(tmp_path, reporter)
    assert board.view().tokens == {"teacher": (700, 50)}
    assert board.view().money == pytest.approx(0.7)

    def work(folder: StageFolder) -> StageResult:
        resources.overseer.spent("teacher", 300, 5)
        resources.overseer.spent("student", 40, 4)
        (working,) = (stage for stage in board.view().stages if stage.state == "working")
        assert (working.stage, working.round) == ("synthesise", 1)
        return StageResult(Counts())

    resources.metered(work)(Run(str(tmp_path / "tiny")).folder(1, "synthesise"))
    assert board.view().tokens == {"teacher": (1000, 55), "student": (40, 4)}
    assert board.view().money == pytest.approx(1.0)
