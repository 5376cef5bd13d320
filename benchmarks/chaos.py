"""Chaos: runs of the tiny world whose driver, engines, training workers or Ray nodes are killed at random moments.

    python benchmarks/chaos.py --kind driver engine raylet --kills 50 --seed 1
    python benchmarks/chaos.py --kind worker --kills 10
    python benchmarks/chaos.py --kind mixed --kills 10
    python benchmarks/chaos.py --half

Each run is resumed by giving the same command again, until it is finished, and is then held against an
undisturbed one: the same rows with the same contents in every stage, the same accounts, no row asked again
that had been written, nothing left running. Moments are drawn uniformly over the undisturbed run (half of them
over its time, half over its requests), as places in its sequence of requests, so that a busy machine does not
shift them. The simulated engine answers; ``worker`` kills those of Ray Train and DeepSpeed and compares the
weights, and ``mixed`` kills all four kinds in turn while vLLM answers (which never writes quite the same twice,
so that only the accounts are compared).

Every run adds a line to ``chaos-KIND.jsonl`` in the output folder; ``--go-on`` counts those that are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos_half import half
from chaos_range import BOUND, REAL, SCRIPTED, TRAINED, Plan, Range, disturbed
from chaos_world import KINDS, World
from measure import publish


def series(world: World, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs until there were enough kills of one kind."""
    experiment = {"worker": TRAINED, "mixed": REAL}.get(kind, SCRIPTED)
    place = Range(world, options.work.resolve(), experiment, options.seed)
    path = Path(options.output) / f"chaos-{kind}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    if options.go_on and path.exists():
        lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    else:
        path.unlink(missing_ok=True)
    reference = place.undisturbed()
    print(f"{kind}: undisturbed {reference.seconds:.1f} s, {len(reference.asked)} requests", flush=True)
    while (done := sum(len(line["killed"]) for line in lines)) < options.kills:
        plan = Plan(kind, len(lines), options.seed, min(options.per_run, options.kills - done))
        line = disturbed(place, reference, plan, options.deadline + 60.0 * plan.kills)
        lines.append(line)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        stages = ", ".join(kill["stage"] for kill in line["killed"])
        verdict = "exact" if line["good"] else f"NOT GOOD: {_complaint(line)}"
        print(
            f"{kind} {plan.number}: {len(line['killed'])} kills ({stages}), {line['starts']} starts,"
            f" {line['seconds']:.0f} s, {line.get('repeated')} repeated: {verdict}",
            flush=True,
        )
        if not line["good"]:
            kept = place.folder.with_name(f"{kind}-{plan.number}")
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place.folder, kept)
    return lines


def _complaint(line: dict[str, Any]) -> str:
    many = line.get("repeated", 0) > sum(line.get("in_flight", []))
    said = [line["trouble"], *line.get("wrong", []), *line.get("again", [])[:3], *line["strays"]]
    return "; ".join(part for part in [*said, "more repeated than in flight" if many else ""] if part)[:1500]


def summary(kind: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table."""
    kills = sum(len(line["killed"]) for line in lines)
    whole = [line for line in lines if not line["trouble"]]
    in_flight = [number for line in whole for number in line["in_flight"]]
    each = [line["repeated"] / len(line["killed"]) for line in whole if line["killed"]]
    return {
        "killed": kind,
        "kills": kills,
        "runs": len(lines),
        "commands given again": sum(line["starts"] - 1 for line in lines),
        "gave up by itself": sum(len(line["gave_up"]) for line in lines),
        "finished": len(whole),
        "exact": sum(not line["wrong"] for line in whole),
        "asked after written": sum(len(line["again"]) for line in whole),
        "repeated / kill": statistics.fmean(each) if each else 0.0,
        "most / kill": max(each, default=0.0),
        "in flight / kill": statistics.fmean(in_flight) if in_flight else 0.0,
        "kills with rows in flight": sum(number > 0 for number in in_flight),
        "allowed / kill": BOUND,
        "s lost / kill": sum(line["lost_s"] for line in lines) / max(kills, 1),
        "left running": sum(bool(line["strays"]) for line in lines),
    }


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=(*KINDS, "mixed"), default=["driver"])
    parser.add_argument("--kills", type=int, default=10, help="kills of each kind")
    parser.add_argument("--per-run", type=int, default=1, help="kills in one run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=180.0, help="seconds for a run, and 60 more for each kill")
    parser.add_argument("--work", type=Path, default=Path("/tmp/fdd-chaos"), help="where runs are made")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--half", action="store_true", help="only this: killed at half of the teacher's stage")
    parser.add_argument("--simulated", action="store_true", help="--half without vLLM")
    parser.add_argument("--size", type=int, default=300, help="problems of --half")
    parser.add_argument("--go-on", action="store_true", help="count the runs that are in the output folder")
    options = parser.parse_args()
    rows, good = [], True
    with World() as world:
        if options.half:
            row = half(
                world, options.work.resolve(), options.seed, size=options.size, simulated=options.simulated,
                deadline_s=options.deadline * 4,
            )  # fmt: skip
            publish("chaos-half", [row], options.output, seed=options.seed)
            return 0 if not row["asked after written"] else 1
        for kind in options.kind:
            lines = series(world, kind, options)
            rows.append(summary(kind, lines))
            good = good and all(line["good"] for line in lines)
    publish(f"chaos-{'-'.join(options.kind)}", rows, options.output, seed=options.seed, per_run=options.per_run)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
