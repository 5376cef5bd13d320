"""``compare``, ``export`` and ``plan`` with arguments and folders that are wrong."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fdd_ray.store.run import Counts, Run, StageFolder, StageResult
from fdd_ray.tiny import model_path

from .harness import Case, Make, Place
from .run_cases import begun, cut, edited, removed, wrote

Change = Callable[[Path], Any]
_STUDENT = "round-00/finetune/student"


def compared(*arguments: str, **changes: Any) -> Make:
    """A comparison of a good experiment."""
    feedback = {"rounds": 1, "teacher": {"model": "tiny://teacher"}}
    return lambda place: ["compare", place.experiment(**feedback | changes), *arguments]


def compared_before(noted: str | dict[str, Any], *arguments: str) -> Make:
    """A comparison in a folder that says this of one before."""

    def make(place: Place) -> Sequence[str]:
        place.write("runs/case-compare/comparison.json", noted if isinstance(noted, str) else json.dumps(noted))
        return compared(*arguments)(place)

    return make


def looked_at(noted: str) -> Make:
    """The table of a comparison whose folder says this."""

    def make(place: Place) -> Sequence[str]:
        path = place.write("runs/old-compare/comparison.json", noted)
        return ["compare", str(path.parent)]

    return make


def exported(change: Change = lambda run: None, *arguments: str, output: str = "out") -> Make:
    """An export of a run with a finished student, after a change of the run's folder."""

    def make(place: Place) -> Sequence[str]:
        trained(place)
        change(place.run)
        return ["export", str(place.run), str(place.folder / output), *arguments]

    return make


def trained(place: Place) -> None:
    """A run whose first fine-tuning is done; its student is the tiny one."""

    def work(folder: StageFolder) -> StageResult:
        shutil.copytree(model_path("student"), folder.file("student"))
        return StageResult(Counts(3, 3), summary={"student": "student"})

    begun(place)
    with Run(str(place.run)) as run:
        run.once("finetune", 0, {"prompts": "tiny"}, work)


def _unfinished(place: Place) -> Sequence[str]:
    begun(place)
    return ["export", str(place.run), "out"]


def _onto_a_file(place: Place) -> Sequence[str]:
    trained(place)
    return ["export", str(place.run), str(place.write("out", "mine"))]


def _onto_a_folder(place: Place) -> Sequence[str]:
    trained(place)
    place.write("out/notes.txt", "mine")
    return ["export", str(place.run), str(place.folder / "out"), "--force"]


def planned(*arguments: str, **changes: Any) -> Make:
    """A plan of a good experiment after changes."""
    return lambda place: ["plan", place.experiment(**changes), *arguments]


def _plan_of_text(text: str) -> Make:
    return lambda place: ["plan", str(place.write("x.yaml", text))]


def _plan_of_rows(content: str | bytes) -> Make:
    def make(place: Place) -> Sequence[str]:
        place.write("pool.jsonl", content)
        return ["plan", place.experiment()]

    return make


def _plan_of_run(change: Change) -> Make:
    def make(place: Place) -> Sequence[str]:
        with contextlib.redirect_stderr(io.StringIO()):
            arguments = begun(place)
        change(place.run)
        return ["plan", *arguments[1:]]

    return make


def _without_pool(place: Place) -> Sequence[str]:
    path = place.experiment()
    (place.folder / "pool.jsonl").unlink()
    return ["plan", path]


_TWO = {"arms": {"fdd": ["feedback.policy=fdd"]}, "seeds": [0]}

CASES = [
    # Comparisons.
    Case("a comparison of nothing", lambda _: ["compare", "none.yaml"], 2,
         "cannot read the experiment none.yaml", "give the path of a YAML file"),
    Case("a comparison of one arm", compared("--policies", "fdd"), 2,
         "given: ['fdd']", "needs two arms or more"),
    Case("an unknown policy", compared("--policies", "fdd", "hardest"), 2,
         "--policies hardest: there is no such policy", "there are fdd, hard_only"),
    Case("a policy twice", compared("--policies", "fdd", "fdd"), 2,
         "given: ['fdd', 'fdd']", "each with a name of its own"),
    Case("an arm without settings", compared("--policies", "fdd", "--arm", "long"), 2,
         "--arm long: give a name, then settings", "such as --arm long"),
    Case("an arm with an unknown setting", compared("--policies", "fdd", "--arm", "long", "finetune.epoch=9"), 2,
         "finetune.epoch is not a setting", "did you mean finetune.epochs?"),
    Case("an arm with a wrong value", compared("--policies", "fdd", "--arm", "long", "finetune.epochs=many"), 2,
         "finetune.epochs is 'many'", "it must be a whole number"),
    Case("an arm that leaves", compared("--policies", "fdd", "--arm", "../up", "finetune.epochs=9"), 2,
         "an arm cannot be called '../up'", "use letters, digits and underscore"),
    Case("a seed twice", compared("--seeds", "1", "1"), 2,
         "given: [1, 1]", "needs seeds, each once"),
    Case("a comparison of a negative seed", compared("--seeds", "-1"), 2,
         "seed is -1", "allowed: at least 0"),
    Case("a comparison without rounds", compared(rounds=0), 2,
         "rounds is 0, and feedback matters from round 1 on", "raise rounds"),
    Case("a comparison that was another", compared_before(_TWO, "--policies", "random", "fdd"), 2,
         "compares with the arm 'fdd'", "name it first again"),
    Case("a comparison with another arm of that name",
         compared_before({"arms": {"fdd": ["finetune.epochs=9"]}, "seeds": [0]}), 2,
         "has an arm 'fdd' with other settings", "give the arm another"),
    Case("a torn comparison", compared_before('{"arms": {"fd'), 4,
         "comparison.json is torn or not JSON", "restore it"),
    Case("a comparison of numbers", compared_before({"arms": 3, "seeds": 4}), 4,
         "comparison.json does not say which arms", "run the same comparison again"),
    Case("a comparison to look at that is empty", looked_at("{}"), 4,
         "comparison.json does not say which arms", "restore it, or remove it"),
    Case("a comparison to look at that is a list", looked_at("[]"), 4,
         "comparison.json does not say which arms", "restore it, or remove it"),
    Case("a comparison to look at that is torn", looked_at('{"arms'), 4,
         "comparison.json is torn or not JSON", "restore it"),
    # Exports.
    Case("an export of nothing", lambda _: ["export", "none", "out"], 4,
         "there is no run at", "give the folder of a run"),
    Case("an export before the training", _unfinished, 4,
         "has no trained student yet", "run it on"),
    Case("an export of an unknown round", exported(lambda run: None, "--round", "7"), 4,
         "round 7 of", "those with one: 0; run it on, or name another round"),
    Case("an export of the best", exported(lambda run: None, "--round", "best"), 2,
         "--round best needs --best-on BENCHMARK", "name both or neither"),
    Case("an export of the best on nothing", exported(lambda run: None, "--round", "best", "--best-on", "svamp"), 2,
         "no round is scored on 'svamp'", "there are: none"),
    Case("an export without weights", exported(removed(f"{_STUDENT}/model.safetensors")), 4,
         "model.safetensors is not what round 0 finetune wrote", "--from-stage finetune:0"),
    Case("an export of cut weights", exported(cut(f"{_STUDENT}/model.safetensors")), 4,
         "expected 1857752 bytes; found 928876 bytes", "--from-stage finetune:0"),
    Case("an export of other weights", exported(wrote(f"{_STUDENT}/config.json", "{}")), 4,
         "config.json is not what round 0 finetune wrote", "--from-stage finetune:0"),
    Case("an export without a student", exported(edited("round-00/finetune/manifest.json", summary={})), 4,
         "finetune/manifest.json does not name the student's folder", "--from-stage finetune:0"),
    Case("an export with a torn manifest", exported(cut("round-00/finetune/manifest.json")), 4,
         "finetune/manifest.json is torn", "restore it"),
    Case("an export of a torn experiment", exported(wrote("experiment.yaml", "name: [")), 4,
         "experiment.yaml is torn", "restore it"),
    Case("an export of a list", exported(wrote("experiment.yaml", "- 1\n")), 4,
         "experiment.yaml is no resolved experiment", "restore it"),
    Case("an export into the run", exported(output="runs/case/out"), 4,
         "out lies in the run itself", "export to a folder outside"),
    Case("an export to a URL", lambda place: [trained(place), "export", str(place.run), "s3://bucket/x"][1:], 4,
         "s3://bucket/x is a URL", "export to a folder on this machine"),
    Case("an export onto a file", _onto_a_file, 4,
         "out exists", "name another folder"),
    Case("an export onto notes", _onto_a_folder, 4,
         "out is no model folder", "move it away, or name another folder"),
    # Evaluations.
    Case("an evaluation on nothing", lambda _: ["evaluate", "tiny://student"], 2,
         "nothing to evaluate on", "give --benchmark NAME=FILE"),
    Case("an evaluation on an experiment's nothing",
         lambda place: ["evaluate", "tiny://student", "--experiment", place.experiment()], 2,
         "x.yaml names no benchmarks to evaluate on", "give --benchmark NAME=FILE"),
    # Plans.
    Case("a plan of nothing", lambda _: ["plan", "none.yaml"], 2,
         "cannot read the experiment none.yaml", "give the path of a YAML file"),
    Case("a plan of a list", _plan_of_text("- 1\n"), 2,
         "x.yaml:1: an experiment is a mapping of settings, not a list", "write key: value lines"),
    Case("a plan of broken YAML", _plan_of_text("name: [\n"), 2,
         "x.yaml:2: this is not YAML", "correct the line"),
    Case("a plan without a pool", _without_pool, 3,
         "pool: there is no file", "check the path"),
    Case("a plan of a pool of zeros", _plan_of_rows(bytes(100)), 3,
         "pool.jsonl has no usable problem in 1 rows", "check that it is the right file"),
    Case("a plan of an empty pool", _plan_of_rows(""), 3,
         "pool.jsonl has no usable problem in 0 rows", "check that it is the right file"),
    Case("a plan of a pool of other rows", _plan_of_rows('{"a": 1}\n'), 3,
         "pool.jsonl has no usable problem in 1 rows", "check that it is the right file"),
    Case("a plan with a size of nothing", planned("--size", "gsm8k=100"), 2,
         "--size gsm8k=...: there is no such pool or benchmark", "there are: pool"),
    Case("a plan of a run with a torn manifest", _plan_of_run(cut("round-00/problems/manifest.json")), 4,
         "problems/manifest.json is torn", "restore it"),
    Case("a plan of a run with wrong counts",
         _plan_of_run(edited("round-00/rationales/manifest.json", counts={"rows": "x"})), 4,
         "'rows' in counts is 'x'", "set the stage aside"),
    Case("a plan of a run with an event of noon", _plan_of_run(wrote("ledger/x.jsonl", '{"time": "noon"}\n')), 4,
         "ledger/x.jsonl:1: this is no event", "remove the line"),
]  # fmt: skip
