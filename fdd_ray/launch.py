"""Starting a run from an experiment file: what the command line and the submitted jobs share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from fdd_ray.engines.base import EngineSettings
from fdd_ray.engines.folders import parameters_of
from fdd_ray.errors import ExperimentError
from fdd_ray.experiment import Experiment, load_experiment
from fdd_ray.live.board import Board
from fdd_ray.live.reporter import reporting
from fdd_ray.live.view import planned
from fdd_ray.loop import distill
from fdd_ray.metrics import of_run
from fdd_ray.progress import Reporter
from fdd_ray.report.status import read_status
from fdd_ray.report.table import rounds_table
from fdd_ray.settings import to_plain
from fdd_ray.store.fork import write_fork
from fdd_ray.store.run import Manifest, Run
from fdd_ray.tracking import Tracking
from fdd_ray.workshop import Workshop

_SMALL = 1_000_000_000
TINY_EXPERIMENT = Path(__file__).parent / "tiny" / "tiny.yaml"


def run_experiment(path: str | Path, overrides: Iterable[str] = (), *, from_stage: str = "", fork: str = "") -> str:
    """Run an experiment to its end, print its table, and return the run directory.

    Args:
        path: The experiment file.
        overrides: ``a.b=c`` strings that win over it.
        from_stage: ``STAGE`` or ``STAGE:ROUND``: set it and all that follow aside, then do them anew.
        fork: A name under the same storage, or a path or URL: begin this new run with the finished stages
            that are the same under these settings, and leave the experiment's own run untouched.

    Raises:
        FddError: Whatever stopped it; the run directory stays whole and the same call goes on from there.
    """
    experiment = load_experiment(path, overrides)
    if fork:
        source = experiment.directory
        experiment = _renamed(experiment, fork)
        write_fork(experiment.directory, source)
    board = Board(experiment.name, experiment.directory, planned(experiment.rounds))
    with reporting(board) as reporter:
        reporter.say(f"experiment {experiment.name}: {experiment.directory}")
        if note := _note_on_size(experiment.student):
            reporter.say(note)
        with _workshop(experiment, reporter, board, from_stage=from_stage) as workshop:
            distill(workshop, experiment.rounds)
    print(rounds_table(read_status(experiment.directory)))
    reporter.say(f"finished: {experiment.directory}")
    return experiment.directory


def _note_on_size(student: EngineSettings) -> str:
    """A warning if the student has more parameters than the method is meant for, as far as its files tell."""
    folder = Path(student.model).expanduser()
    if student.engine == "simulated" or not folder.is_dir():
        return ""
    parameters = parameters_of(folder)
    if parameters is None or parameters <= _SMALL:
        return ""
    return (
        f"warning: the student has {parameters / 1e9:.2f} billion parameters; the method is meant for students of up"
        " to about 1 billion, and budgets, presets and plans here are made for those"
    )


def _renamed(experiment: Experiment, fork: str) -> Experiment:
    """The experiment as another run: under the same storage, or elsewhere if ``fork`` is a path."""
    storage, slash, name = fork.rstrip("/").rpartition("/")
    try:
        return dataclasses.replace(experiment, name=name, storage=(storage or "/") if slash else experiment.storage)
    except ValueError as error:
        raise ExperimentError(f"--fork {fork}: {error}") from error


def _shown(experiment: Experiment) -> dict[str, str | int]:
    """The settings by which runs are told apart at a tracking service."""
    return {
        "student": experiment.student.model,
        "teacher": experiment.teacher.model if experiment.teacher else "",
        "kind": experiment.kind,
        "policy": experiment.feedback.policy,
        "rounds": experiment.rounds,
        "seed": experiment.seed,
    }


@contextlib.contextmanager
def _workshop(
    experiment: Experiment, reporter: Reporter, board: Board, *, start_early: bool = True, from_stage: str = ""
) -> Iterator[Workshop]:
    """The workshop of a run whose lease is held."""

    def announce(manifest: Manifest) -> None:
        how = f"copied from {manifest.forked_from}" if manifest.forked_from else "done before, skipped"
        reporter.say(f"{manifest.label}: {how}")

    tracking = Tracking(
        experiment.track, experiment.directory, experiment.name, config=_shown(experiment), say=reporter.say
    )

    def finished(manifest: Manifest) -> None:
        board.finished(manifest)
        of_run(experiment.name).finished(manifest)
        tracking.finished(manifest)

    plain = yaml.safe_dump(to_plain(experiment), sort_keys=False, allow_unicode=True)
    with Run(experiment.directory, announce, plain, reporter.say, finished) as run, tracking:
        if from_stage:
            reporter.say(f"set aside, to be done anew: {', '.join(run.set_aside(from_stage))}")
        with Workshop(experiment, run, reporter, start_early=start_early) as workshop:
            yield workshop
