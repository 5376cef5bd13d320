"""Watching a run from outside: its live view, read from its ledger and manifests every few seconds.

    watch("runs/tiny", sys.stdout)

Works on a run that is live, dead or finished, local or on an object store; it ends by itself when the run does.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

import yaml

from fdd_ray.errors import StoreError
from fdd_ray.live.paint import Paint
from fdd_ray.live.screen import Screen
from fdd_ray.live.view import DONE, EVALUATION, RunState, StageView, View, done_view, planned
from fdd_ray.progress import Reporter, Standing, can_redraw, duration
from fdd_ray.report.status import driver_line, read_driver
from fdd_ray.store import files
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.manifest import EXPERIMENT, Found, find_stages, stage_label
from fdd_ray.store.spent import rows_in_parts, spent

EVERY_S: Final = 3.0
_LINE_EVERY_S: Final = 10.0
_MOST_ROUNDS: Final = 1000
_Events = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was read at one moment.

    Attributes:
        view: The run.
        driver: Who drives it, in a sentence; see `fdd_ray.report.status.driver_line`.
        at_work: Whether somebody does.
    """

    view: View
    driver: str
    at_work: bool


def look(directory: str, now: float | None = None) -> Seen:
    """Read a run once.

    Args:
        directory: The run directory.
        now: Seconds since 1970.

    Raises:
        StoreError: If there is no run, or what is there cannot be read.
    """
    directory, now = files.absolute(directory), now or time.time()
    experiment = files.read_bytes(files.join(directory, EXPERIMENT))
    if experiment is None:
        raise StoreError(f"there is no run at {directory}; give the folder of a run, such as runs/tiny")
    events = read_ledger(directory)
    driver = read_driver(directory, events)
    found = find_stages(directory)
    name, stages = _plan(experiment, directory)
    shown = {(stage.round, stage.stage): stage for stage in stages}
    unfinished = [item for item in found if item.manifest is None]
    for item in found:
        if item.manifest is not None:
            done = done_view(item.manifest)
            state = done.state if done.state == "copied" else "done"
            shown[item.round, item.stage] = dataclasses.replace(done, state=state)
        else:
            works = driver["alive"] and item is unfinished[-1]
            shown[item.round, item.stage] = _unfinished(item, events, now, works=works)
    begun = [event["time"] for event in events if event["event"] in ("run started", "run resumed")]
    ends = [event["time"] for event in events if event["event"] in ("stage finished", "part written")]
    until = now if driver["alive"] else driver["last_sign"] or now
    cost = spent(directory)
    standing = next((s.standing for s in shown.values() if s.state == "working" and s.standing is not None), None)
    view = View(
        name=name,
        directory=directory,
        state=_state(driver),
        seconds=max(0.0, until - begun[-1]) if begun else 0.0,
        stages=tuple(sorted(shown.values(), key=lambda stage: -1 if stage.round is None else stage.round)),
        tokens={role: (counts["prompt"], counts["completion"]) for role, counts in cost.by_role.items()},
        money=cost.money,
        quiet_s=max(0.0, now - max([*ends[-1:], *begun[-1:]])) if driver["alive"] and begun else None,
        longest_s=standing.longest_s if standing is not None else None,
    )
    return Seen(view, driver_line({"driver": driver}, now), bool(driver["alive"]))


def watch(directory: str, stream: TextIO) -> Seen:
    """Show a run until it ends, as a live view on a terminal and as timed lines elsewhere.

    Args:
        directory: The run directory.
        stream: `sys.stdout` or `sys.stderr`.

    Returns:
        The run as it was when it ended, or when it was found without a driver.

    Raises:
        StoreError: If there is no run, or what is there cannot be read.
    """
    seen = look(directory)
    return _watch_live(seen, stream) if can_redraw(stream) else _watch_plainly(seen, stream)


def _watch_live(seen: Seen, stream: TextIO) -> Seen:
    paint, read = Paint.of(stream), time.monotonic()
    lock = threading.Lock()

    def draw(width: int, height: int | None) -> list[str]:
        with lock:
            view, age = seen.view, time.monotonic() - read if seen.at_work else 0.0
        return paint.lines(view.later(age), width, height)

    with Screen(stream, draw):
        while seen.at_work:
            time.sleep(_pause(time.monotonic() - read))
            begun = time.monotonic()
            found = look(seen.view.directory)
            with lock:
                seen, read = found, begun
    return seen


def _watch_plainly(seen: Seen, stream: TextIO) -> Seen:
    began = time.time() - seen.view.seconds
    reporter = Reporter(stream, clock=lambda: time.time() - began)
    told = {_key(stage) for stage in seen.view.stages if stage.state in DONE}
    said = 0.0
    while seen.at_work:
        begun = time.monotonic()
        for stage in seen.view.stages:
            if stage.state in DONE and _key(stage) not in told:
                told.add(_key(stage))
                what = f", {stage.note}" if stage.note else ""
                reporter.say(f"{_label(stage)}: done in {duration(stage.seconds or 0.0)}{what}")
        if begun - said >= _LINE_EVERY_S:
            said = begun
            for stage in seen.view.stages:
                if stage.state == "working":
                    reporter.say(_line(stage))
        time.sleep(_pause(time.monotonic() - begun))
        seen = look(seen.view.directory)
    return seen


def _pause(seconds: float) -> float:
    """Seconds between two looks: a store that takes long to read is not read all the time."""
    return max(EVERY_S, 2 * seconds)


def _plan(experiment: bytes, directory: str) -> tuple[str, Sequence[StageView]]:
    """The name of a run and its stages, by its experiment; what cannot be read there plans nothing."""
    try:
        plain = yaml.safe_load(experiment)
    except (yaml.YAMLError, UnicodeDecodeError):
        plain = None
    if not isinstance(plain, dict):
        return directory.rsplit("/", 1)[-1], ()
    name, rounds = str(plain.get("name", "")), plain.get("rounds")
    if rounds is None and "pool" not in plain:
        return name, EVALUATION
    return name, planned(rounds if isinstance(rounds, int) and 0 <= rounds <= _MOST_ROUNDS else 0)


def _unfinished(item: Found, events: _Events, now: float, *, works: bool) -> StageView:
    since = item.begun
    mine = [event for event in events if (event.get("stage"), event.get("round")) == (item.stage, item.round)]
    counted = next((at for at in range(len(mine) - 1, -1, -1) if mine[at]["event"] == "rows counted"), None)
    started = [event["time"] for event in mine if event["event"] == "stage started"]
    standing = None
    note = ""
    if counted is None:
        rows = rows_in_parts(item.path)
        note = f"{rows} rows written" if rows else ""
    else:
        standing = _standing(mine[counted], [e for e in mine[counted:] if e["event"] == "part written"], now)
    seconds = now - (started[-1] if started else since) if works else None
    return StageView(item.stage, item.round, "working" if works else "stopped", seconds, note, standing=standing)


def _standing(counted: Mapping[str, Any], parts: _Events, now: float) -> Standing:
    """How far a stage is that works on rows, since its driver counted them."""
    times = [float(counted["time"]), *(float(part["time"]) for part in parts)]
    before = int(counted["done"])
    kept = [part.get("kept") for part in parts]
    return Standing(
        unit="rows",
        total=int(counted["rows"]),
        done=before + sum(int(part["rows"]) for part in parts),
        resumed=before,
        kept=sum(n for n in kept if isinstance(n, int)) if parts else None,
        detail="",
        seconds=max(0.0, now - times[0]),
        quiet_s=max(0.0, now - times[-1]),
        longest_s=max(b - a for a, b in itertools.pairwise(times)) if parts else None,
    )


def _state(driver: Mapping[str, Any]) -> RunState:
    if driver["alive"]:
        return "at work"
    ended = driver["ended"]
    states: dict[str, RunState] = {"finished": "finished", "interrupted": "interrupted", "failed": "failed"}
    return "killed" if ended is None else states.get(ended["reason"], "failed")


def _key(stage: StageView) -> tuple[int | None, str]:
    return stage.round, stage.stage


def _label(stage: StageView) -> str:
    return stage_label(stage.stage, stage.round)


def _line(stage: StageView) -> str:
    return f"{_label(stage)}: {stage.note or 'at work'}" if stage.standing is None else _told(stage, stage.standing)


def _told(stage: StageView, now: Standing) -> str:
    left = f", {duration(now.left_s)} left" if now.left_s is not None else ""
    return f"{_label(stage)}: {now.done}/{now.total} {now.unit}, {now.rate:.1f}/s{left}"
