"""The status of a run: rounds, accuracy and stages, read from its manifests.

Works on a run that is live, dead or finished, local or on an object store.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.lease import read_holder
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.manifest import EXPERIMENT, STARTED, Manifest, read_manifest, round_name
from fdd_ray.store.spent import rows_in_parts, spent

STAGES = ("problems", "rationales", "split", "synthesise", "curate", "finetune", "score")
_POOL = "pool"
_DRIVERS = ("run started", "run resumed", "run ended")


def read_status(directory: str) -> dict[str, Any]:
    """What ``fdd-ray status --json`` prints.

    Returns:
        ``rounds``: one entry for each round that was begun, with ``round``, ``easy``, ``hard``, ``policy`` (null
        in round 0), ``asked`` = ``kept`` + ``rejected`` by reason + ``failed`` (of the rationales in round 0, of
        the new problems later), ``pool_read`` (in round 0: the same account of the rows of the pool's
        files), ``distillation_set`` and ``accuracy`` by benchmark (``value``, ``low``, ``high``,
        ``n``; 95 % Wilson intervals), ``by_steps`` (the same by benchmark and number of steps, where that is
        known) and ``majority`` (``k`` and ``accuracy``; empty if it was not asked for); ``base``: ``accuracy``,
        ``by_steps`` and ``majority`` of the untouched student; ``stages``: every stage that was begun, in order,
        with its folder as ``path``, ``done``, ``seconds``, ``counts`` and ``tokens``, or, while it is not done,
        ``rows_written`` (counted in its parts); ``driver``: who drives the run or drove it last
        (``alive``, ``host``, ``pid``, ``since`` and ``last_sign`` in seconds since 1970; null if nobody did;
        ``ended`` is None while it is at work and if it was killed, otherwise ``time``, ``reason`` (finished,
        interrupted, failed) and ``error``); ``spent``: see `fdd_ray.store.spent.Spent`.

    Raises:
        StoreError: If there is no run at ``directory``.
    """
    directory = files.absolute(directory)
    if not files.exists(files.join(directory, EXPERIMENT)):
        raise StoreError(f"there is no run at {directory}; give the folder of a run, such as runs/tiny")
    stages: list[dict[str, Any]] = []
    base = _stage(directory, None, "score", stages)
    rounds = []
    number = 0
    while True:
        found = {stage: _stage(directory, number, stage, stages) for stage in STAGES}
        if not any(entry["round"] == number for entry in stages):
            break
        rounds.append(_round(number, found))
        number += 1
    return {
        "rounds": rounds,
        "base": {"accuracy": _benchmarks(base, "accuracy"), **_more(base)},
        "stages": stages,
        "driver": read_driver(directory, read_ledger(directory)),
        "spent": dataclasses.asdict(spent(directory)),
    }


def driver_line(status: Mapping[str, Any], now: float | None = None) -> str:
    """Whether the run is finished, or a driver is at work on it, and when it last gave a sign, in one line."""
    driver = status["driver"]
    now = now or time.time()
    ended = driver["ended"]
    if ended is not None and ended["reason"] == "finished":
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ended["time"]))
        return f"the run is finished, since {when} ({now - ended['time']:.0f} s ago)"
    if driver["pid"] is None:
        return "no driver has the run"
    who = f"process {driver['pid']} on {driver['host']}"
    sign = f"and gave its last sign {now - driver['last_sign']:.0f} s ago"
    if driver["alive"]:
        return f"{who} drives the run, {sign}"
    if ended is None:
        return (
            f"no driver has the run; {who} was the last, {sign}: it was killed, or its host died. The same command"
            " goes on from there"
        )
    why = f": {_printable(ended['error'])}" if ended["error"] else ""
    how = "was interrupted" if ended["reason"] == "interrupted" else "failed"
    return (
        f"no driver has the run; {who} {how} {now - ended['time']:.0f} s ago{why}. The same command goes on from there"
    )


def read_driver(directory: str, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Who drives the run, by its lease, when it last gave a sign, and how it ended, by the events of its ledger."""
    holder = read_holder(directory)
    times = [float(event["time"]) for event in events[-1:]]
    alive = holder is not None and holder.seems_alive()
    known = {
        "host": holder.host if holder else None,
        "pid": holder.pid if holder else None,
        "since": holder.since if holder else None,
        "last_sign": max([holder.renewed, *times] if holder else times, default=None),
    }
    return {"alive": alive, **known, "ended": None if alive else _ended(events)}


def _ended(events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How the last driver ended; None for one that was killed, which could not say so."""
    last = next((event for event in reversed(events) if event["event"] in _DRIVERS), None)
    if last is None or last["event"] != "run ended":
        return None
    return {"time": float(last["time"]), "reason": str(last.get("reason")), "error": str(last.get("error", ""))}


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200]


def _stage(directory: str, round: int | None, stage: str, stages: list[dict[str, Any]]) -> Manifest | None:
    manifest = read_manifest(directory, round, stage)
    if manifest is not None:
        stages.append(
            {
                "stage": stage,
                "round": round,
                "path": manifest.path,
                "done": True,
                "seconds": manifest.seconds,
                "counts": dataclasses.asdict(manifest.counts),
                "tokens": dict(manifest.tokens),
            }
        )
        return manifest
    folder = files.join(directory, round_name(round), stage)
    if files.exists(files.join(folder, STARTED)):
        written = rows_in_parts(folder)
        stages.append({"stage": stage, "round": round, "path": folder, "done": False, "rows_written": written})
    return manifest


def _round(number: int, found: dict[str, Manifest | None]) -> dict[str, Any]:
    split, finetuned, scored = found["split"], found["finetune"], found["score"]
    counted = found["rationales"] if number == 0 else found["curate"]
    return {
        "round": number,
        "easy": split.summary["easy"] if split else None,
        "hard": split.summary["hard"] if split else None,
        "policy": split.summary.get("policy", "fdd") if split else None,
        "asked": counted.counts.rows if counted else None,
        "kept": counted.counts.kept if counted else None,
        "rejected": dict(counted.counts.rejected) if counted else {},
        "failed": counted.counts.failed if counted else None,
        "distillation_set": finetuned.counts.kept if finetuned else None,
        "accuracy": _benchmarks(scored, "accuracy"),
        **_more(scored),
        "pool": scored.summary["accuracy"].get(_POOL) if scored else None,
        "pool_read": dict(found["problems"].summary.get("pool", {})) if found["problems"] else {},
    }


def _benchmarks(scored: Manifest | None, key: str) -> dict[str, Any]:
    """What the summary of a score stage has under ``key`` for each benchmark; runs of old have not all of it."""
    found = scored.summary.get(key, {}) if scored else {}
    return {name: value for name, value in found.items() if name != _POOL}


def _more(scored: Manifest | None) -> dict[str, Any]:
    majority = scored.summary.get("majority", {}) if scored else {}
    return {"by_steps": _benchmarks(scored, "by_steps"), "majority": dict(majority)}
