"""Chaos: runs of the tiny world whose driver, engines, training workers or Ray nodes are killed at random moments.

    python benchmarks/chaos.py --kind driver engine raylet --kills 50 --seed 1
    python benchmarks/chaos.py --kind worker --kills 10
    python benchmarks/chaos.py --half

Each run is resumed by giving the same command again, until it is finished, and is then held against an
undisturbed one: the same rows with the same contents in every stage, the same accounts, no row asked again
that had been written, nothing left running. Moments are drawn uniformly over the undisturbed run, as places
in its sequence of requests, so that a busy machine does not shift them. The simulated engine answers;
``worker`` kills those of Ray Train and DeepSpeed (see chaos_training), ``--real`` and ``--half`` use vLLM.

Every run adds a line to ``chaos-KIND.jsonl`` in the output folder; ``--go-on`` counts those that are there.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos_checks import (
    Outcome,
    Watcher,
    asked_after_written,
    check_records,
    compare,
    read_outcome,
    repeated,
    rows_in_flight,
    stage_at,
    unexplained,
)
from chaos_world import Driver, World
from measure import publish

BLOCK_ROWS, BLOCKS, MAP_ACTORS = 8, 2, 2
# A row of synthesise asks twice, any other once.
BOUND = BLOCK_ROWS * BLOCKS * MAP_ACTORS * 2
_ENDS_BY_ITSELF = 3  # how often a driver that was not killed may give up before that is a failure
_POLL_S = 0.01
_SETTLE_S = 15.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one run is put through.

    Attributes:
        kind: Whom to kill.
        number: Of the run in its series.
        seed: Of the series.
        kills: How many, one in each of as many equal parts of the run.
    """

    kind: str
    number: int
    seed: int
    kills: int

    @property
    def rng(self) -> random.Random:
        """The draws of this run."""
        return random.Random(f"{self.seed}/{self.kind}/{self.number}")


@dataclasses.dataclass(frozen=True)
class Reference:
    """The undisturbed run: what came of it, how long it took, and the seconds at which it asked."""

    outcome: Outcome
    seconds: float
    asked: Sequence[float]

    def moments(self, plan: Plan, rng: random.Random) -> list[tuple[int, float]]:
        """When to kill: after so many requests, and so many seconds more."""
        start, stop = (0.0, self.seconds) if plan.kind == "driver" else (self.asked[0] - 1.0, self.asked[-1])
        step = (stop - start) / plan.kills
        found = []
        for i in range(plan.kills):
            second = rng.uniform(start + i * step, start + (i + 1) * step)
            requests = bisect.bisect(self.asked, second)
            found.append((requests, second - (self.asked[requests - 1] if requests else 0.0)))
        return found


class Range:
    """Where runs are made, each in the same folder: what the simulated engine says depends on paths."""

    def __init__(self, world: World, work: Path, seed: int) -> None:
        self.world = world
        self.folder = work / "now"
        self.run = self.folder / "run"
        self.calls = self.folder / "calls"
        self._seed = seed

    def fresh(self) -> Driver:
        """An empty folder and a driver that was not started."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.calls.mkdir(parents=True)
        self.world.whole()
        return Driver(self.world, self.folder, ["demo", *self._settings()], {"CHAOS_TRAINER": "scripted"})

    def undisturbed(self, deadline_s: float = 300.0) -> Reference:
        """Run it without a kill."""
        driver = self.fresh()
        begun, clock = time.time(), time.monotonic()
        driver.start()
        while driver.code is None and time.monotonic() - clock < deadline_s:
            time.sleep(_POLL_S)
        seconds = time.monotonic() - clock
        if driver.code != 0:
            driver.kill()
            raise SystemExit(f"the undisturbed run ended with {driver.code}: {driver.last_words()}")
        outcome = read_outcome(self.run, self.calls)
        if wrong := unexplained(outcome) + compare(outcome, outcome) + check_records(self.run):
            raise SystemExit(f"the undisturbed run is no reference: {'; '.join(wrong)}")
        return Reference(outcome, seconds, [call.time - begun for call in outcome.calls])

    def asked(self) -> int:
        """Requests logged so far."""
        return sum(path.read_bytes().count(b"\n") for path in self.calls.glob("*.log"))

    def _settings(self) -> list[str]:
        engine = f"{{seconds: 0.08, spread: 1.0, calls: {self.calls}}}"
        settings = [
            f"storage={self.folder}",
            "name=run",
            f"seed={self._seed}",
            "rounds=1",
            "pool.size=64",
            "benchmarks={test: {format: tiny, split: test, size: 16, seed: 2}}",
            "feedback.new_problems=32",
            "teach.min_kept=8",
            f"flow.block_rows={BLOCK_ROWS}",
            f"flow.blocks_in_flight={BLOCKS}",
            f"flow.map_actors=[1, {MAP_ACTORS}]",
            "flow.stall_deadline_s=90",
        ]
        for role in ("teacher", "student"):
            settings += [f"{role}.engine=simulated", f"{role}.replicas=2", f"{role}.engine_args={engine}"]
        return [part for setting in settings for part in ("--set", setting)]


def disturbed(place: Range, reference: Reference, plan: Plan, deadline_s: float) -> dict[str, Any]:
    """One run with kills; what came of it as a line of the series."""
    rng = plan.rng
    driver = place.fresh()
    watcher = Watcher(place.run)
    moments = reference.moments(plan, rng)
    kills: list[dict[str, Any]] = []
    gave_up: list[str] = []
    clock = time.monotonic()
    watcher.start()
    driver.start()
    reached = 0.0
    trouble = ""
    while True:
        if time.monotonic() - clock > deadline_s:
            trouble = f"not finished after {deadline_s:.0f} s in {stage_at(place.run)}: {driver.last_words()}"
            driver.kill()
            break
        if driver.code == 0:
            break
        if driver.code is not None:
            gave_up.append(driver.last_words())
            if len(gave_up) > _ENDS_BY_ITSELF:
                trouble = f"gave up {len(gave_up)} times"
                break
            driver.start()
        time.sleep(_POLL_S)
        if not moments or place.asked() < moments[0][0]:
            reached = 0.0
            continue
        reached = reached or time.monotonic()
        if time.monotonic() - reached < moments[0][1]:
            continue
        moment, stage = time.time(), stage_at(place.run)
        victim = place.world.kill(plan.kind, driver, rng)
        if victim:
            kills.append({"victim": victim, "stage": stage, "time": moment, "after": time.monotonic() - clock})
            moments.pop(0)
            reached = 0.0
            if plan.kind == "driver":
                driver.start()
    seconds = time.monotonic() - clock
    line: dict[str, Any] = {**dataclasses.asdict(plan), "killed": kills, "seconds": round(seconds, 2)}
    line |= {"starts": driver.starts, "gave_up": gave_up, "lost_s": round(seconds - reference.seconds, 2)}
    strays = [f"{process.pid} {' '.join(process.cmdline())[:80]}" for process in place.world.strays(_SETTLE_S)]
    written = watcher.end()
    if not trouble:
        outcome = read_outcome(place.run, place.calls)
        line["wrong"] = compare(outcome, reference.outcome) + check_records(place.run)
        line["again"] = asked_after_written(outcome, written)
        line["repeated"] = repeated(outcome)
        line["in_flight"] = sum(rows_in_flight(outcome, written, kill["time"]) for kill in kills)
    line |= {"trouble": trouble, "strays": strays}
    line["good"] = not (trouble or line["wrong"] or line["again"] or strays or line["repeated"] > line["in_flight"])
    return line


def series(place: Range, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs until there were enough kills of one kind."""
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
    many = line.get("repeated", 0) > line.get("in_flight", 0)
    said = [line["trouble"], *line.get("wrong", []), *line.get("again", [])[:3], *line["strays"]]
    return "; ".join(part for part in [*said, "more repeated than in flight" if many else ""] if part)[:1500]


def summary(kind: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table."""
    kills = sum(len(line["killed"]) for line in lines)
    whole = [line for line in lines if not line["trouble"]]
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
        "in flight / kill": sum(line["in_flight"] for line in whole) / max(kills, 1),
        "allowed / kill": BOUND,
        "s lost / kill": sum(line["lost_s"] for line in lines) / max(kills, 1),
        "left running": sum(bool(line["strays"]) for line in lines),
    }


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=("driver", "engine", "raylet"), default=["driver"])
    parser.add_argument("--kills", type=int, default=10, help="kills of each kind")
    parser.add_argument("--per-run", type=int, default=1, help="kills in one run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=180.0, help="seconds for a run, and 60 more for each kill")
    parser.add_argument("--work", type=Path, default=Path("/tmp/fdd-chaos"), help="where runs are made")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--go-on", action="store_true", help="count the runs that are in the output folder")
    options = parser.parse_args()
    rows, good = [], True
    with World() as world:
        place = Range(world, options.work.resolve(), options.seed)
        for kind in options.kind:
            lines = series(place, kind, options)
            rows.append(summary(kind, lines))
            good = good and all(line["good"] for line in lines)
    publish(f"chaos-{'-'.join(options.kind)}", rows, options.output, seed=options.seed, per_run=options.per_run)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
