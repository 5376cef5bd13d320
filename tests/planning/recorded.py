"""A finished run of the tiny world as it was measured, to be laid out as a run directory again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fdd_ray.experiment import Experiment
from fdd_ray.settings import to_plain
from fdd_ray.store.manifest import fingerprint, round_name

# What `fdd-ray demo` took on two CPU cores: rows, tokens and seconds of its 20 stages, from their manifests.
STAGES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "tiny_run.json").read_text())


def rounds_after(last: int) -> list[dict[str, Any]]:
    """The stages of all rounds after ``last``."""
    return [stage for stage in STAGES if stage["round"] is not None and stage["round"] > last]


def lay_out(experiment: Experiment, stages: Sequence[dict[str, Any]]) -> Path:
    """Write manifests of these stages where the experiment's run lies; returns the run directory."""
    directory = Path(experiment.directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "experiment.yaml").write_text(yaml.safe_dump(to_plain(experiment)))
    for stage in stages:
        folder = directory / round_name(stage["round"]) / stage["stage"]
        folder.mkdir(parents=True)
        more = {"depends_on": {}, "parts": [], "fingerprint": fingerprint(stage["stage"], stage["round"], {})}
        (folder / "manifest.json").write_text(json.dumps({**stage, **more}))
    return directory


def tokens(stages: Sequence[dict[str, Any]], role: str) -> int:
    """Prompt and completion tokens of a role."""
    return sum(sum(stage["tokens"].get(role, {}).values()) for stage in stages)


def trained(stages: Sequence[dict[str, Any]]) -> int:
    """Tokens that fine-tuning saw."""
    return sum(stage["summary"]["tokens"] for stage in stages if stage["stage"] == "finetune")
