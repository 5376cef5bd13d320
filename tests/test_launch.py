"""``run --from-stage`` and ``run --fork`` from the command line, with stages that need no Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fdd_ray import launch
from fdd_ray.cli import main
from fdd_ray.engines.base import EngineSettings
from fdd_ray.errors import ExperimentError, StoreError
from fdd_ray.experiment import load_experiment
from fdd_ray.report.status import read_status
from fdd_ray.store import files
from fdd_ray.store.lease import Lease, read_holder
from fdd_ray.store.run import Counts, StageFolder, StageResult
from fdd_ray.workshop import Workshop


@pytest.fixture(autouse=True)
def _without_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's real first stage, and a second one that depends on it and on a setting."""

    def distill(workshop: Workshop, rounds: int) -> None:
        problems = workshop.problems()
        depends_on = {
            "finetune": {"epochs": workshop.experiment.finetune.epochs},
            "inputs": [problems.manifest.fingerprint],
        }

        def work(folder: StageFolder) -> StageResult:
            files.write_bytes(folder.file("student.txt"), str(workshop.experiment.finetune.epochs).encode())
            return StageResult(Counts())

        workshop.run.once("finetune", 0, depends_on, work)

    monkeypatch.setattr(launch, "distill", distill)


def _run(tmp_path: Path, *more: str) -> int:
    sets = [f"storage={tmp_path}", "pool.size=60", "benchmarks.in_distribution.size=20"]
    return main(["demo", *(part for text in sets for part in ("--set", text)), *more])


def _student(run: Path) -> str:
    return (run / "round-00" / "finetune" / "student.txt").read_text()


def test_changed_settings_are_refused_with_both_ways_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path) == 0
    assert _run(tmp_path, "--set", "finetune.epochs=4") == StoreError.exit_code
    text = capsys.readouterr().err
    assert "round 0 finetune was done with other settings: finetune.epochs: 5 -> 4" in text
    assert "--from-stage finetune:0" in text and "--fork NEW_RUN" in text


def test_from_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path) == 0
    assert _run(tmp_path, "--from-stage", "finetun:0", "--set", "finetune.epochs=4") == StoreError.exit_code
    assert "Those there are: problems:0, finetune:0" in capsys.readouterr().err
    assert _run(tmp_path, "--from-stage", "finetune", "--set", "finetune.epochs=4") == 0
    text = capsys.readouterr().err
    assert "set aside, to be done anew: finetune:0" in text and "round 0 problems: done before, skipped" in text
    assert _student(tmp_path / "tiny") == "4"
    (kept,) = (tmp_path / "tiny" / "superseded").glob("*/round-00/finetune/student.txt")
    assert kept.read_text() == "5"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_fork(tmp_path: Path, elsewhere: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path) == 0
    new = tmp_path / "other" / "fork" if elsewhere else tmp_path / "fork"
    assert _run(tmp_path, "--fork", str(new) if elsewhere else "fork", "--set", "finetune.epochs=4") == 0
    text = capsys.readouterr().err
    assert f"round 0 problems: copied from {tmp_path}/tiny" in text
    assert "round 0 finetune: the first stage that is not copied" in text and "finetune.epochs: 5 -> 4" in text
    assert (_student(tmp_path / "tiny"), _student(new)) == ("5", "4")
    assert "name: fork\n" in (new / "experiment.yaml").read_text()
    assert read_status(str(new))["stages"][0]["done"]


def test_a_fork_with_a_name_that_no_run_may_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path) == 0
    assert _run(tmp_path, "--fork", "a b") == ExperimentError.exit_code
    assert "--fork a b: name is 'a b'" in capsys.readouterr().err


def test_the_two_ways_are_not_gone_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        _run(tmp_path, "--fork", "a", "--from-stage", "b")


def test_the_lease_is_held_while_a_run_goes_on_and_then_given_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path) == 0
    holder = read_holder(str(tmp_path / "tiny"))
    assert holder is not None and holder.released
    other = Lease(str(tmp_path / "tiny"))
    other.take()
    assert _run(tmp_path) == StoreError.exit_code
    assert "is in use by process" in capsys.readouterr().err
    other.release()
    assert _run(tmp_path) == 0
    assert main(["status", str(tmp_path / "tiny")]) == 0
    assert "the run is finished, since " in capsys.readouterr().out


def test_a_url_may_be_the_place_of_a_fork(tmp_path: Path) -> None:
    experiment = load_experiment(launch.TINY_EXPERIMENT, [f"storage={tmp_path}"])
    assert launch._renamed(experiment, "s3://bucket/runs/new").directory == "s3://bucket/runs/new"
    assert launch._renamed(experiment, "new").directory == f"{tmp_path}/new"


@pytest.mark.parametrize(("rows", "warned"), [(1001, True), (999, False)])
def test_a_large_student_is_a_warning(tmp_path: Path, rows: int, warned: bool) -> None:
    size = rows * 1_000_000
    header = json.dumps({"w": {"dtype": "U8", "shape": [rows, 1_000_000], "data_offsets": [0, size]}}).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # nothing of it is written: the file is sparse
    note = launch._note_on_size(EngineSettings(model=str(tmp_path)))
    assert note.startswith("warning: the student has 1.00 billion parameters") is warned
    assert bool(note) is warned
