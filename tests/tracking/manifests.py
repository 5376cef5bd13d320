"""A run directory whose stages did nothing but write manifests like those of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.store.manifest import Counts, Manifest, StageResult, Usage
from fdd_ray.store.run import Run, StageFolder
from fdd_ray.tracking import Tracker, Tracking

ACCURACY = {"pool": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}, "test": {"value": 0.25, "low": 0.1, "high": 0.6}}


def results(round: int) -> dict[str, StageResult]:
    """What the stages of a round found."""
    scored = {"accuracy": {name: {**found, "value": found["value"] + round / 8} for name, found in ACCURACY.items()}}
    teacher = {"teacher": {"prompt": 100 + round, "completion": 50}}
    return {
        "split": StageResult(Counts(10, 8, {"not_attempted": 2}), summary={"easy": 6, "hard": 2}),
        "synthesise": StageResult(Counts(20, 20), tokens=teacher, usage=Usage(money=1.5)),
        "curate": StageResult(Counts(20, 5, {"duplicate": 12}, 3)),
        "finetune": StageResult(
            Counts(30, 30), summary={"loss_first": 2.0, "loss_last": 0.5 / round, "steps": 12}, usage=Usage(money=0.25)
        ),
        "score": StageResult(Counts(12, 12), tokens={"student": {"prompt": 7, "completion": 9}}, summary=scored),
    }


def drive(directory: Path, rounds: int, finished: Callable[[Manifest], None], seed: int = 0) -> list[Manifest]:
    """Do, or find done, the untouched student's score and ``rounds`` rounds; ``seed`` is what split depends on."""
    found = []
    with Run(str(directory), finished=finished) as run:
        found.append(run.once("score", None, {}, lambda folder: results(1)["score"]))
        for round in range(1, rounds + 1):
            for stage, result in results(round).items():
                depends_on: dict[str, Any] = {"seed": seed, "inputs": [m.fingerprint for m in found[-1:]]}

                def work(folder: StageFolder, result: StageResult = result) -> StageResult:
                    return result

                found.append(run.once(stage, round, depends_on if found[1:] else {"seed": seed}, work))
    return found


def tracked(
    directory: Path, rounds: int, tracker: Tracker, *, stop_after: int | None = None, seed: int = 0
) -> list[Manifest]:
    """A driver with a tracker, which must have nothing to say; one that is stopped ends as Ctrl-C ends it."""
    told = 0

    def finished(manifest: Manifest) -> None:
        nonlocal told
        if told == stop_after:
            raise KeyboardInterrupt
        told += 1
        tracking.finished(manifest)

    try:
        with Tracking((tracker,), str(directory), "x", config={"seed": 3}, say=pytest.fail) as tracking:
            return drive(directory, rounds, finished, seed)
    except KeyboardInterrupt:
        return []


def set_aside(directory: Path, argument: str) -> None:
    """Set a stage and all after it aside, as ``--from-stage`` does."""
    with Run(str(directory)) as run:
        run.set_aside(argument)
