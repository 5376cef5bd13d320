"""One run of the chaos harness: where it is made, what it is put through, and what came of it.

place = Range(world, Path("work"), SCRIPTED, seed=1)
reference = place.undisturbed()
line = disturbed(place, reference, Plan("engine", 0, 1, kills=3), deadline_s=300)
assert line["good"]
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
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

BLOCK_ROWS, BLOCKS, MAP_ACTORS = 8, 2, 2
REQUEST_S = 0.08
CHECKPOINT_STEPS = 5
# A row of synthesise asks twice, any other once.
BOUND = BLOCK_ROWS * BLOCKS * MAP_ACTORS * 2
_ENDS_BY_ITSELF = 3  # how often a driver that was not killed may give up before that is a failure
_POLL_S = 0.01
_SLOW_POLL_S = 0.25
_SETTLE_S = 15.0
_COMMON = [
    "benchmarks={test: {format: tiny, split: test, size: 16, seed: 2}}",
    "teach.min_kept=8",
    f"flow.block_rows={BLOCK_ROWS}",
    f"flow.blocks_in_flight={BLOCKS}",
    f"flow.map_actors=[1, {MAP_ACTORS}]",
    "flow.stall_deadline_s=120",
]
_ROUND = ["rounds=1", "pool.size=64", "feedback.new_problems=32"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is run.

    Attributes:
        settings: That differ from the tiny world's.
        simulated: Whether the simulated engine answers, or vLLM.
        scripted: Whether the scripted trainer trains, or Ray Train and DeepSpeed.
        exact: Whether two runs are the same in every row.
        starts_with: Stages that are taken over from the undisturbed run.
    """

    settings: Sequence[str]
    simulated: bool = True
    scripted: bool = True
    exact: bool = True
    starts_with: Sequence[str] = ()


SCRIPTED = Experiment([*_COMMON, *_ROUND])
# Checkpoints often, so that nearly every kill has one to go on from.
TRAINED = Experiment(
    [*_COMMON, "rounds=0", "pool.size=64", "finetune.epochs=25", f"finetune.checkpoint_steps={CHECKPOINT_STEPS}",
     "finetune.max_failures=20"],
    scripted=False,
    starts_with=("round-00/problems", "base/score", "round-00/rationales"),
)  # fmt: skip
REAL = Experiment(
    [*_COMMON, *_ROUND, "teacher.replicas=1", "finetune.epochs=4", f"finetune.checkpoint_steps={CHECKPOINT_STEPS}",
     "finetune.max_failures=20"],
    simulated=False, scripted=False, exact=False,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one run is put through: ``kills`` of ``kind`` (or mixed), in the ``number``th run of a series."""

    kind: str
    number: int
    seed: int
    kills: int


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill: after so many requests, and so many seconds more.

    A worker is killed when it is so many seconds old, or, with ``checkpoint``, once one of that step is there.
    """

    kind: str
    requests: int
    seconds: float
    checkpoint: int = 0


@dataclasses.dataclass(frozen=True)
class Reference:
    """The undisturbed run.

    Attributes:
        outcome: What came of it.
        seconds: How long it took.
        asked: The second of each request.
        trained: Seconds that a training worker lived.
        steps: Steps of the shortest fine-tuning.
    """

    outcome: Outcome
    seconds: float
    asked: Sequence[float]
    trained: float
    steps: int

    def moments(self, plan: Plan, rng: random.Random) -> list[Moment]:
        """One kill in each of equal parts of the run: half of them uniformly in time, half in requests.

        Time also hits what lies between the stages; requests always hit rows that are being worked on.
        """
        found = []
        for i in range(plan.kills):
            kind = plan.kind if plan.kind != "mixed" else rng.choice(("driver", "engine", "raylet", "worker"))
            share = (i + rng.random()) / plan.kills
            if rng.random() < 0.5:
                requests, delay = int(share * len(self.asked)), rng.uniform(0.0, REQUEST_S)
            else:
                start, stop = (0.0, self.seconds) if kind == "driver" else (self.asked[0] - 1.0, self.asked[-1])
                second = start + (stop - start) * share
                requests = bisect.bisect(self.asked, second)
                delay = second - (self.asked[requests - 1] if requests else 0.0)
            checkpoint = 0
            if kind == "worker":
                requests, delay = 0 if plan.kind == kind else requests, rng.uniform(0.0, 0.9 * self.trained)
                # By age alone, a machine that is busier than it was would have them all killed at their start.
                checkpoint = rng.randrange(2) * max(1, int(share * (self.steps - CHECKPOINT_STEPS)))
            found.append(Moment(kind, requests, delay, checkpoint))
        return found


class Range:
    """Where runs are made, each in the same folder: what the simulated engine says depends on paths."""

    def __init__(self, world: World, work: Path, experiment: Experiment, seed: int) -> None:
        self.world = world
        self.experiment = experiment
        self.folder = work / "now"
        self.run = self.folder / "run"
        self.calls = self.folder / "calls"
        self._begun = work / "begun"
        self._seed = seed

    def fresh(self, begun: bool = True) -> Driver:
        """A clean folder and a driver that was not started."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.calls.mkdir(parents=True)
        for stage in self.experiment.starts_with if begun else ():
            shutil.copytree(self._begun / stage, self.run / stage)
        self.world.whole()
        environment = {"CHAOS_TRAINER": "scripted"} if self.experiment.scripted else {}
        if not self.experiment.simulated:
            environment["CHAOS_CALLS"] = str(self.calls)
        return Driver(self.world, self.folder, ["demo", *self._arguments()], environment)

    def undisturbed(self, deadline_s: float = 900.0) -> Reference:
        """Run it without a kill.

        Raises:
            SystemExit: If it does not finish, or is no reference: then there is nothing to measure.
        """
        driver = self.fresh(begun=False)
        begun, clock = time.time(), time.monotonic()
        driver.start()
        lives: dict[int, tuple[float, float]] = {}
        while driver.code is None and time.monotonic() - clock < deadline_s:
            time.sleep(_SLOW_POLL_S)
            for process in self.world.victims("worker") if not self.experiment.scripted else ():
                lives.setdefault(process.pid, (time.time(), 0.0))
                lives[process.pid] = (lives[process.pid][0], time.time())
        seconds = time.monotonic() - clock
        if driver.code != 0:
            driver.kill()
            raise SystemExit(f"the undisturbed run ended with {driver.code}: {driver.last_words()}")
        outcome = read_outcome(self.run, self.calls)
        if wrong := unexplained(outcome) + compare(outcome, outcome) + check_records(self.run):
            raise SystemExit(f"the undisturbed run is no reference: {'; '.join(wrong)}")
        shutil.rmtree(self._begun, ignore_errors=True)
        for stage in self.experiment.starts_with:
            shutil.copytree(self.run / stage, self._begun / stage)
        trained = max((end - start for start, end in lives.values()), default=0.0)
        steps = min(outcome.accounts[stage]["summary"]["steps"] for stage in outcome.trained)
        return Reference(outcome, seconds, [call.time - begun for call in outcome.calls], trained, steps)

    def due(self, moment: Moment, reached: float) -> bool:
        """Whether it is time; ``reached`` is when its number of requests was."""
        if moment.kind != "worker":
            return time.monotonic() - reached >= moment.seconds
        if moment.checkpoint:
            return self.checkpoint() >= moment.checkpoint
        time.sleep(_SLOW_POLL_S)
        return any(time.time() - each.create_time() >= moment.seconds for each in self.world.victims("worker"))

    def asked(self) -> int:
        """Requests logged so far."""
        return sum(path.read_bytes().count(b"\n") for path in self.calls.glob("*.log"))

    def checkpoint(self) -> int:
        """The step of the newest checkpoint of the fine-tuning at work; 0 without one."""
        steps = [0]
        for path in self.run.glob("*/finetune/checkpoints/*/*/fdd_state.json"):
            try:
                steps.append(json.loads(path.read_text(encoding="utf-8"))["step"])
            except (OSError, ValueError):  # being written, or removed
                continue
        return max(steps)

    def _arguments(self) -> list[str]:
        settings = [f"storage={self.folder}", "name=run", f"seed={self._seed}", *self.experiment.settings]
        if self.experiment.simulated:
            engine = f"{{seconds: {REQUEST_S}, spread: 1.0, calls: {self.calls}}}"
            for role in ("teacher", "student"):
                settings += [f"{role}.engine=simulated", f"{role}.replicas=2", f"{role}.engine_args={engine}"]
        return [part for setting in settings for part in ("--set", setting)]


def disturbed(place: Range, reference: Reference, plan: Plan, deadline_s: float) -> dict[str, Any]:
    """One run with kills; what came of it as a line of the series."""
    rng = random.Random(f"{plan.seed}/{plan.kind}/{plan.number}")
    driver = place.fresh()
    watcher = Watcher(place.run)
    moments = reference.moments(plan, rng)
    kills: list[dict[str, Any]] = []
    gave_up: list[str] = []
    trouble, reached = "", 0.0
    clock = time.monotonic()
    watcher.start()
    driver.start()
    # Asked once in each turn: it may end between two questions.
    while (code := driver.code) != 0 and not trouble:
        time.sleep(_POLL_S)
        place.world.mend()
        if time.monotonic() - clock > deadline_s:
            trouble = f"not finished after {deadline_s:.0f} s in {stage_at(place.run)}: {driver.last_words()}"
        elif code is not None:
            gave_up.append(driver.last_words())
            if len(gave_up) > _ENDS_BY_ITSELF:
                trouble = f"gave up {len(gave_up)} times"
            else:
                driver.start()
        elif moments and place.asked() >= moments[0].requests:
            reached = reached or time.monotonic()
            if place.due(moments[0], reached):
                moment = {"stage": stage_at(place.run), "checkpoint": place.checkpoint(), "time": time.time()}
                victim = place.world.kill(moments[0].kind, driver, rng)
                if victim:
                    kills.append({"victim": victim, "after": time.monotonic() - clock, **moment})
                    if moments.pop(0).kind == "driver":
                        driver.start()
                    reached = 0.0
    seconds = time.monotonic() - clock
    driver.kill()
    line: dict[str, Any] = {**dataclasses.asdict(plan), "killed": kills, "seconds": round(seconds, 2)}
    line |= {"starts": driver.starts, "gave_up": gave_up, "lost_s": round(seconds - reference.seconds, 2)}
    strays = [f"{process.pid} {' '.join(process.cmdline())[:80]}" for process in place.world.strays(_SETTLE_S)]
    line |= {"trouble": trouble, "strays": strays, "left": len(moments)}
    return line | judge(place, reference, line, watcher.end())


def judge(place: Range, reference: Reference, line: Mapping[str, Any], written: Mapping[Path, float]) -> dict[str, Any]:
    """What is to be said of a run that ended, as more of its line."""
    if line["trouble"]:
        return {"good": False}
    outcome = read_outcome(place.run, place.calls)
    experiment = place.experiment
    wrong = compare(outcome, reference.outcome, exact=experiment.exact)
    wrong += check_records(place.run, len(experiment.starts_with))
    again = asked_after_written(outcome, written)
    in_flight = [rows_in_flight(outcome, written, kill["time"]) for kill in line["killed"]]
    trained = [outcome.trained[stage] for stage in sorted(outcome.trained)]
    # The checkpoint that is being taken over when a worker is killed may not count yet; the one before it does.
    known = max((kill["checkpoint"] for kill in line["killed"] if "RayTrainWorker" in kill["victim"]), default=0)
    if known and max(entry["resumed_from"] for entry in trained) < known - CHECKPOINT_STEPS:
        wrong.append(f"a checkpoint of step {known} was there, but training went on from {trained}")
    good = not (wrong or again or line["strays"]) and repeated(outcome) <= sum(in_flight)
    return {
        "wrong": wrong,
        "again": again,
        "repeated": repeated(outcome),
        "in_flight": in_flight,
        "trained": trained,
        "good": good,
    }
