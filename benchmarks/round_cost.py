"""The fixed cost of a round: everything in a run that is neither tokens nor gradient steps.

    python benchmarks/round_cost.py runs/tiny
    python benchmarks/round_cost.py --rounds 2 --size 96

The first reads the ledger and the manifests of a run that is finished or not; the second makes a small run of the tiny
experiment first. The time of the driver is divided, without rest and without counting anything twice, into pieces:

- work: ``tokens`` (a block of rows is in flight, so the engines have something to do; the checking of its rows and the
  writing of its part are in it) and ``steps`` (gradient steps).
- ``Ray start``, ``engine start``, ``weight reload``, ``waiting`` (for a place on the cluster): what a stage waited for.
- ``input``: what a stage does before it asks for rows (tasks, the distillation set, which starts a process).
- ``map actors``: from there to the first block at work. ``gaps``: no block is in flight between the first and the last.
- ``training start`` (Ray Train's controller and the workers, to the beginning of their loop), ``training preparation``
  (imports, model, examples, optimiser), ``training end`` (the workers' and controller's end, and whatever restarts
  cost).
- ``export`` of the student, ``manifest`` (the account of rows, hashes, the manifest itself), ``own work`` (stages that
  ask nobody: loading, splitting, curating), ``between`` (from one stage to the next), ``driver`` (from the driver's
  first event to its first stage, and from its last stage to its end: engines and Ray go).

A stage that was begun several times is counted as it was done at last; all of a driver that did not finish it is
``former tries``. Runs of older versions did not write all of this down: there ``tokens`` begin where rows are counted
or first written, ``input`` is all before, and ``training start`` is all of the training but its steps. What was
started beside other work is in the last table: engines that were asked for so long before anybody waited for them.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from measure import Ratio, publish, table

WORK = ("tokens", "steps")
FIXED = (
    "Ray start", "engine start", "weight reload", "waiting", "input", "map actors", "gaps", "training start",
    "training preparation", "training end", "export", "manifest", "own work", "between", "former tries", "driver",
)  # fmt: skip
_ROWS_BEGIN = ("rows counted", "part written")  # runs of old count no rows
_BEGINNINGS = ("run started", "run resumed")
RUN = "import sys; from fdd_ray.launch import run_experiment; run_experiment(sys.argv[1], sys.argv[2:])"

Event = Mapping[str, Any]


class Piece(NamedTuple):
    """Seconds of one kind, of a stage of a round (None: the base student) or, with stage "", of the driver."""

    round: int | None
    stage: str
    kind: str
    seconds: float


def account(events: Sequence[Event], trained: Mapping[int, Mapping[str, float]]) -> list[Piece]:
    """Where the time of the drivers of a run went; the pieces add up to it.

    Args:
        events: The ledger, in order of time.
        trained: What the manifest of each round's fine-tuning says of its seconds.
    """
    pieces: list[Piece] = []
    for driver in _drivers(events):
        at = driver[0]["time"]
        for number, stage in enumerate(_stages(driver)):
            before = stage[0]["time"] - at
            pieces.append(Piece(*_place(stage), "between", before) if number else Piece(None, "", "driver", before))
            pieces += _of_stage(stage, trained)
            at = stage[-1]["time"]
        pieces.append(Piece(None, "", "driver", driver[-1]["time"] - at))
    return pieces


def _drivers(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each driver; there is one at a time."""
    drivers: list[list[Event]] = []
    for event in events:
        if event["event"] in _BEGINNINGS or not drivers:
            drivers.append([])
        drivers[-1].append(event)
    return drivers


def _stages(driver: Sequence[Event]) -> list[list[Event]]:
    """The events of each stage that a driver worked on, from its beginning to its last."""
    stages: list[list[Event]] = []
    for event in driver:
        if event["event"] == "stage started":
            stages.append([event])
        elif stages and "stage" in event and _place([event]) == _place(stages[-1]):
            stages[-1].append(event)
    return stages


def _place(stage: Sequence[Event]) -> tuple[int | None, str]:
    return stage[0]["round"], stage[0]["stage"]


def _of_stage(stage: Sequence[Event], trained: Mapping[int, Mapping[str, float]]) -> list[Piece]:
    place, total = _place(stage), stage[-1]["time"] - stage[0]["time"]
    if stage[-1]["event"] != "stage finished":
        return [Piece(*place, "former tries", total)]
    if place[1] == "finetune":
        found = _of_training(stage, trained.get(place[0] or 0, {}))
    elif any(event["event"] in _ROWS_BEGIN for event in stage):
        found = _of_rows(stage)
    else:
        found = _waited(stage)
        found["own work"] = total - sum(found.values())
    return [Piece(*place, kind, seconds) for kind, seconds in found.items() if seconds]


def _of_rows(stage: Sequence[Event]) -> Counter[str]:
    """A stage that asks a role."""
    found = _waited(stage)
    parts = [event for event in stage if event["event"] == "part written"]
    counted = next((event["time"] for event in [*stage, *parts] if event["event"] in _ROWS_BEGIN), stage[0]["time"])
    found["input"] = counted - stage[0]["time"] - sum(found.values())
    at, kind = counted, "map actors"
    for begun, written in sorted(_block(part) for part in parts):
        # A block cannot have begun before its rows were counted; clocks of two nodes may differ.
        begun = max(begun, counted)
        found[kind] += max(0.0, begun - at)
        found["tokens"] += max(0.0, written - max(begun, at))
        at, kind = max(at, written), "gaps"
    found["manifest"] = stage[-1]["time"] - at
    return found


def _block(part: Event) -> tuple[float, float]:
    """When a block was begun and written; a run of old does not tell the former."""
    return part["time"] - part.get("seconds", math.inf), part["time"]


def _of_training(stage: Sequence[Event], seconds: Mapping[str, float]) -> Counter[str]:
    """A fine-tuning."""
    found = _waited(stage)
    total = stage[-1]["time"] - stage[0]["time"]
    steps, whole = seconds.get("seconds", 0.0), seconds.get("total_seconds", 0.0)
    preparation, export = (seconds.get(f"{key}_seconds", 0.0) for key in ("prepare", "export"))
    rest = max(0.0, whole - steps - preparation - export)
    start = min(rest, seconds.get("start_seconds", rest))  # it is looked at every second only
    found.update(
        {
            "steps": steps, "training start": start, "training preparation": preparation, "export": export,
            "training end": rest - start,
        }
    )  # fmt: skip
    found["input"] = total - sum(found.values())
    return found


def _waited(stage: Sequence[Event]) -> Counter[str]:
    """What a stage waited for, by kind."""
    kinds = {"engines": "engine start", "weights": "weight reload", "place": "waiting", "Ray": "Ray start"}
    found: Counter[str] = Counter()
    for event in stage:
        if event["event"] == "waited":
            found[kinds.get(str(event["what"]).split()[-1], "waiting")] += event["seconds"]
    return found


def overlapped(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Engines that were waited for or asked for beforehand: how long beforehand, and how long the wait still was."""
    return [
        {"round": name_of(event["round"]), "stage": event["stage"], "what": event["what"],
         "asked for before s": round(event["ahead"], 1), "waited s": round(event["seconds"], 1)}
        for event in events
        if event["event"] == "waited" and "ahead" in event
    ]  # fmt: skip


def by_stage(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """A row for each stage, in order: its seconds, how many of them are work, and the rest by kind."""
    kinds = [kind for kind in FIXED if any(piece.kind == kind for piece in pieces)]
    found: dict[tuple[int | None, str], Counter[str]] = {}
    for piece in pieces:
        found.setdefault((piece.round, piece.stage), Counter())[piece.kind] += piece.seconds
    return [_row(name_of(round), stage or "driver", seconds, kinds) for (round, stage), seconds in found.items()]


def by_round(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """A row for each round, and one for the whole: base and round 0 together are what comes before the first round."""
    kinds = [kind for kind in FIXED if any(piece.kind == kind for piece in pieces)]
    found: dict[str, Counter[str]] = {}
    for piece in pieces:
        name = "driver" if not piece.stage else "0 and base" if not piece.round else str(piece.round)
        found.setdefault(name, Counter())[piece.kind] += piece.seconds
    total: Counter[str] = sum(found.values(), Counter())
    return [_row(name, "", seconds, kinds) for name, seconds in [*found.items(), ("all", total)]]


def ratios(pieces: Sequence[Piece]) -> list[Ratio]:
    """What share of the feedback rounds is fixed cost: the median of the rounds."""
    seconds: dict[int, Counter[bool]] = {}
    for piece in pieces:
        if piece.round:
            seconds.setdefault(piece.round, Counter())[piece.kind in WORK] += piece.seconds
    shares = [found[False] / sum(found.values()) for found in seconds.values()]
    what = "fixed cost of a round, to all of it"
    return [Ratio(what, median(shares), min(shares), max(shares), at_most=True)] if shares else []


def _row(round: str, stage: str, seconds: Counter[str], kinds: Sequence[str]) -> dict[str, Any]:
    total = sum(seconds.values())
    fixed = total - sum(seconds[kind] for kind in WORK)
    return {
        "round": round, **({"stage": stage} if stage else {}), "s": _tenth(total), "tokens": _tenth(seconds["tokens"]),
        "steps": _tenth(seconds["steps"]), "fixed": _tenth(fixed),
        "fixed share": _tenth(100 * fixed / total if total else 0.0) + " %",
        **{kind: _tenth(seconds[kind]) for kind in kinds},
    }  # fmt: skip


def _tenth(seconds: float) -> str:
    return f"{seconds:.1f}"


def name_of(round: int | None) -> str:
    """How tables call a round; None: the base student."""
    return "base" if round is None else str(round)


def read(directory: str) -> tuple[list[dict[str, Any]], dict[int, Mapping[str, float]]]:
    """The events of a run, and the seconds of its fine-tunings by round."""
    from fdd_ray.store.ledger import read_ledger
    from fdd_ray.store.manifest import read_manifest

    events = read_ledger(directory)
    rounds = {event["round"] for event in events if event.get("stage") == "finetune"}
    manifests = {number: read_manifest(directory, number, "finetune") for number in rounds}
    return events, {number: found.summary for number, found in manifests.items() if found is not None}


def run(options: argparse.Namespace, storage: Path) -> tuple[str, float]:
    """A small run of the tiny experiment; its directory, and the seconds from its process's start to its end."""
    from fdd_ray.launch import TINY_EXPERIMENT

    half = max(1, options.size // 2)
    changes = [
        "name=round-cost",
        f"storage={storage}",
        f"rounds={options.rounds}",
        f"pool={{format: tiny, split: pool, size: {options.size}, seed: 1}}",
        f"feedback.new_problems={half}",
        f"benchmarks.in_distribution.size={half}",
        f"benchmarks.out_of_distribution.size={half}",
        f"teach.min_kept={min(32, half)}",
        *options.set,
    ]
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", RUN, str(TINY_EXPERIMENT), *changes], check=True, stdout=sys.stderr)
    return str(storage / "round-cost"), time.monotonic() - begun


def main(arguments: Sequence[str] | None = None) -> None:
    """Account for a run's time and publish it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="", help="a run directory or URL; default: a new run")
    parser.add_argument("--rounds", type=int, default=2, help="feedback rounds of the new run")
    parser.add_argument("--size", type=int, default=96, help="problems in its pool; half as many in all else")
    parser.add_argument("--set", action="append", default=[], help="key=value, as for fdd-ray run")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="where the JSON goes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="round-cost-") as folder:
        directory, wall_s = (options.run, None) if options.run else run(options, Path(folder))
        events, trained = read(directory)
    pieces = account(events, trained)
    stages, ahead = by_stage(pieces), overlapped(events)
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    rounds = by_round(pieces)
    publish(
        "round_cost", stages, options.output, ratios(pieces), **settings, wall_s=wall_s, overlapped=ahead,
        by_round=rounds,
    )  # fmt: skip
    print(f"\n{table(rounds)}")
    if ahead:
        print(f"\n{table(ahead)}")
    if wall_s is not None:
        known = sum(piece.seconds for piece in pieces)
        print(f"\nbefore the first and after the last event (imports, the process's end): {wall_s - known:.1f} s")


if __name__ == "__main__":
    main()
