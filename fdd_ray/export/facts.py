"""What a run's own books say of one of its students: manifests, ledger, attempts and the resolved experiment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fdd_ray.engines.base import resolve_model
from fdd_ray.errors import ExperimentError, FddError, StoreError
from fdd_ray.prompts import PromptSet, load_prompts
from fdd_ray.report.attempts import Difference
from fdd_ray.report.scores import differences
from fdd_ray.report.status import read_status
from fdd_ray.store import files
from fdd_ray.store.manifest import EXPERIMENT, MANIFEST, Manifest, read_manifest

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_LICENSES = {"apache-2.0": ("Apache License", "Version 2.0"), "mit": ("MIT License", "Permission is hereby granted")}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of the student of one round.

    Attributes:
        directory: The run.
        round: Its round.
        best_on: The benchmark on which the round was chosen as the best one; empty if it was not.
        experiment: The resolved experiment, as plain values.
        experiment_text: The same as it is written down in the run.
        status: See `fdd_ray.report.status.read_status`; all rounds of the run.
        problems: The manifest of the problems stage.
        curated: Manifests of the curate stages that the student was made with, by round.
        finetuned: The manifest of its fine-tuning.
        gain: Its paired difference to the untouched base, by benchmark.
        versions: Of fdd_ray, that made the student's stages.
        prompts: The prompt set; None if it can no longer be read.
        prompts_changed: Whether the set has changed since the student was trained on it.
    """

    directory: str
    round: int
    best_on: str
    experiment: Mapping[str, Any]
    experiment_text: str
    status: Mapping[str, Any]
    problems: Manifest
    curated: Mapping[int, Manifest]
    finetuned: Manifest
    gain: Mapping[str, Difference]
    versions: tuple[str, ...]
    prompts: PromptSet | None
    prompts_changed: bool

    @property
    def student(self) -> str:
        """The folder or URL of the student."""
        return files.join(self.finetuned.path, str(self.finetuned.summary["student"]))

    @property
    def entry(self) -> Mapping[str, Any]:
        """What the status says of the student's round."""
        found: Mapping[str, Any] = self.status["rounds"][self.round]
        return found


def read_facts(directory: str, round: int | str | None = None, best_on: str = "") -> Facts:
    """The facts of the student of a round.

    Args:
        directory: The run, local or a URL.
        round: A round; ``best`` for the one with the highest accuracy on ``best_on``; None for the last one that
            is trained and scored, or merely trained if none is scored.
        best_on: A benchmark.

    Raises:
        StoreError: If there is no such run or round, or its books are torn.
        ExperimentError: If ``round`` and ``best_on`` do not fit.
    """
    directory = files.absolute(directory)
    status = read_status(directory)
    number = _choose(status, round, best_on, directory)
    finetuned = read_manifest(directory, number, "finetune")
    problems = read_manifest(directory, 0, "problems")
    if finetuned is None or problems is None:
        raise StoreError(f"round {number} of {directory} has no finished fine-tuning; {_trained(status)}")
    if not isinstance(finetuned.summary.get("student"), str):
        raise StoreError(
            f"{files.join(finetuned.path, MANIFEST)} does not name the student's folder; restore it, or do the stage"
            f" anew with --from-stage finetune:{number}"
        )
    curated = {n: read_manifest(directory, n, "curate") for n in range(1, number + 1)}
    text = (files.read_bytes(files.join(directory, EXPERIMENT)) or b"").decode("utf-8", "replace")
    experiment = _mapping(text, files.join(directory, EXPERIMENT))
    prompts, changed = _prompts(experiment, finetuned)
    gain = {
        name: difference
        for other, against, found in differences(status)
        if other == number and against == "base"
        for name, difference in found.items()
    }
    return Facts(
        directory=directory,
        round=number,
        best_on=best_on,
        experiment=experiment,
        experiment_text=text,
        status=status,
        problems=problems,
        curated={n: manifest for n, manifest in curated.items() if manifest is not None},
        finetuned=finetuned,
        gain=gain,
        versions=_versions(status, number),
        prompts=prompts,
        prompts_changed=changed,
    )


def license_of(model: str) -> str:
    """The licence that a model's folder on this machine names, as the hub writes it; empty if it names none.

    Looked at are the front matter of its README.md, and a LICENSE file if it is a common one.
    """
    try:
        folder = Path(resolve_model(model))
    except FddError:
        return ""
    readme, license_file = folder / "README.md", folder / "LICENSE"
    if readme.is_file():
        found = _FRONT_MATTER.match(readme.read_text("utf-8", "replace"))
        try:
            front = yaml.safe_load(found[1]) if found else None
        except yaml.YAMLError:
            front = None
        named = front.get("license") if isinstance(front, dict) else None
        if isinstance(named, str):
            return named
    if license_file.is_file():
        text = license_file.read_text("utf-8", "replace")[:2000]
        return next((name for name, words in _LICENSES.items() if all(word in text for word in words)), "")
    return ""


def _choose(status: Mapping[str, Any], round: int | str | None, best_on: str, directory: str) -> int:
    if (round == "best") != bool(best_on):
        raise ExperimentError("--round best needs --best-on BENCHMARK, and the other way round; name both or neither")
    rounds: list[dict[str, Any]] = status["rounds"]
    if round == "best":
        scores: dict[int, float] = {
            e["round"]: e["accuracy"][best_on]["value"] for e in rounds if best_on in e["accuracy"]
        }
        if not scores:
            known = sorted({name for entry in rounds for name in entry["accuracy"]})
            raise ExperimentError(f"no round is scored on {best_on!r}; there are: {', '.join(known) or 'none'}")
        return max(scores, key=lambda number: (scores[number], -number))
    if isinstance(round, int):
        return round
    trained: list[int] = [entry["round"] for entry in rounds if entry["distillation_set"] is not None]
    if not trained:
        raise StoreError(f"{directory} has no trained student yet; run it on")
    return max((number for number in trained if rounds[number]["accuracy"]), default=max(trained))


def _trained(status: Mapping[str, Any]) -> str:
    numbers = [str(entry["round"]) for entry in status["rounds"] if entry["distillation_set"] is not None]
    return f"those with one: {', '.join(numbers) or 'none yet'}; run it on, or name another round"


def _mapping(text: str, path: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StoreError(f"{path} is torn ({' '.join(str(error).split())[:200]}); restore it") from error
    if not isinstance(found, dict):
        raise StoreError(f"{path} is no resolved experiment; restore it")
    return found


def _prompts(experiment: Mapping[str, Any], finetuned: Manifest) -> tuple[PromptSet | None, bool]:
    """The prompt set, and whether its hash is no longer the one that the fine-tuning noted."""
    try:
        found = load_prompts(str(experiment.get("prompts", "default")))
    except ExperimentError:
        return None, True
    digest = hashlib.blake2b(json.dumps(found.texts, sort_keys=True).encode(), digest_size=6).hexdigest()
    noted = str(finetuned.depends_on.get("prompts", "")).rpartition("@")[2]
    return found, noted != digest


def _versions(status: Mapping[str, Any], number: int) -> tuple[str, ...]:
    found = set()
    for stage in status["stages"]:
        if stage["done"] and (stage["round"] or 0) <= number:
            content = files.read_json(os.path.join(stage["path"], MANIFEST))
            if isinstance(content, dict) and content.get("version"):
                found.add(str(content["version"]))
    return tuple(sorted(found))
