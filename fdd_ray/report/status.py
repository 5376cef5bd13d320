"""The status of a run: rounds, accuracy and stages, read from its manifests.

Works on a run that is live, dead or finished, local or on an object store.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.run import EXPERIMENT, Manifest, read_manifest, round_name

STAGES = ("problems", "rationales", "split", "synthesise", "curate", "finetune", "score")
_POOL = "pool"


def read_status(directory: str) -> dict[str, Any]:
    """What ``fdd-ray status --json`` prints.

    Returns:
        ``rounds``: one entry for each round that was begun, with ``round``, ``easy``, ``hard`` (null in
        round 0), ``asked`` = ``kept`` + ``rejected`` by reason + ``failed`` (of the rationales in round 0, of
        the new problems later), ``distillation_set`` and ``accuracy`` by benchmark (``value``, ``low``, ``high``,
        ``n``; 95 % Wilson intervals); ``base``: the untouched student's ``accuracy``; ``stages``: every
        stage that was begun, in order, with ``done``, ``seconds``, ``counts`` and ``tokens``.

    Raises:
        StoreError: If there is no run at ``directory``.
    """
    directory = files.absolute(directory)
    if not files.exists(files.join(directory, EXPERIMENT)):
        raise StoreError(f"there is no run at {directory}; give the folder of a run, such as runs/tiny")
    written = _rows_written(directory)
    stages: list[dict[str, Any]] = []
    base = _stage(directory, None, "score", stages, written)
    rounds = []
    number = 0
    while True:
        found = {stage: _stage(directory, number, stage, stages, written) for stage in STAGES}
        if not any(entry["round"] == number for entry in stages):
            break
        rounds.append(_round(number, found))
        number += 1
    return {"rounds": rounds, "base": {"accuracy": _accuracy(base)}, "stages": stages}


def _stage(
    directory: str,
    round: int | None,
    stage: str,
    stages: list[dict[str, Any]],
    written: dict[tuple[str, int | None], int],
) -> Manifest | None:
    manifest = read_manifest(directory, round, stage)
    if manifest is not None:
        stages.append(
            {
                "stage": stage,
                "round": round,
                "done": True,
                "seconds": manifest.seconds,
                "counts": dataclasses.asdict(manifest.counts),
                "tokens": dict(manifest.tokens),
            }
        )
    elif files.exists(files.join(directory, round_name(round), stage, "started.json")):
        stages.append({"stage": stage, "round": round, "done": False, "rows_written": written.get((stage, round), 0)})
    return manifest


def _round(number: int, found: dict[str, Manifest | None]) -> dict[str, Any]:
    split, finetuned, scored = found["split"], found["finetune"], found["score"]
    counted = found["rationales"] if number == 0 else found["curate"]
    accuracy = _accuracy(scored)
    return {
        "round": number,
        "easy": split.summary["easy"] if split else None,
        "hard": split.summary["hard"] if split else None,
        "asked": counted.counts.rows if counted else None,
        "kept": counted.counts.kept if counted else None,
        "rejected": dict(counted.counts.rejected) if counted else {},
        "failed": counted.counts.failed if counted else None,
        "distillation_set": finetuned.counts.kept if finetuned else None,
        "accuracy": {name: value for name, value in accuracy.items() if name != _POOL},
        "pool": accuracy.get(_POOL),
    }


def _accuracy(scored: Manifest | None) -> dict[str, Any]:
    return dict(scored.summary["accuracy"]) if scored else {}


def _rows_written(directory: str) -> dict[tuple[str, int | None], int]:
    rows: dict[tuple[str, int | None], int] = {}
    for event in read_ledger(directory):
        if event["event"] == "part written":
            key = (str(event["stage"]), event["round"])
            rows[key] = rows.get(key, 0) + int(event["rows"])
    return rows
