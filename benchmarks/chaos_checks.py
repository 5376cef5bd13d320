"""What the chaos harness holds against an undisturbed run: rows, accounts, and every request to an engine.

    reference = read_outcome(run, calls)
    differences = compare(read_outcome(other_run, other_calls), reference)

Requests are logged by the simulated engine before it answers them. Their keys are made again here from the
rows that were written, so each request is known by its row: a reference with requests that no row explains
is refused, for then the stages ask otherwise than this module thinks.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from fdd_ray.engines.simulated import call_key
from fdd_ray.prompts import Message, load_prompts
from fdd_ray.records import stable_seed
from fdd_ray.report.status import read_status
from fdd_ray.store.ledger import read_ledger

# A file's time is taken from the kernel's coarse clock, which may be a tick behind.
TICK_S = 0.01
_TIMES = {"seconds", "tokens_per_second", "total_seconds", "restarts", "resumed_from"}
_TIMES |= {"start_seconds", "prepare_seconds", "export_seconds"}
_POLL_S = 0.02


@dataclasses.dataclass(frozen=True)
class Call:
    """One request to an engine: when it was logged, and what it was."""

    time: float
    key: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        rows: By stage, how often each row (as JSON) is there.
        accounts: By stage, counts, tokens and summary of its manifest.
        calls: All requests, in order of time.
        asked_by: By key of a request, the stage and the id of the row that asked it.
        trained: By stage, where the last start of the fine-tuning began and how often it was started again.
    """

    rows: Mapping[str, Counter[str]]
    accounts: Mapping[str, Mapping[str, Any]]
    calls: Sequence[Call]
    asked_by: Mapping[str, tuple[str, str]]
    trained: Mapping[str, Mapping[str, int]]


LIVES_ON_S = 1.0  # measured: up to half a second


class Watcher(threading.Thread):
    """Notes when each part of a run first appeared: a part that is written again must not look younger."""

    def __init__(self, run: Path) -> None:
        super().__init__(daemon=True)
        self._run = run
        self._ended = threading.Event()
        self.written: dict[Path, float] = {}

    def run(self) -> None:
        """Look about fifty times a second."""
        while not self._ended.wait(_POLL_S):
            self._look()

    def end(self) -> dict[Path, float]:
        """The time of each part."""
        self._ended.set()
        self.join()
        self._look()
        return self.written

    def _look(self) -> None:
        for path in self._run.glob("*/*/part-*.parquet"):
            if path not in self.written:
                try:
                    self.written[path] = path.stat().st_mtime
                except FileNotFoundError:
                    continue


def read_outcome(run: Path, calls: Path) -> Outcome:
    """Read all that is compared."""
    rows, accounts, trained = {}, {}, {}
    for path in sorted(run.glob("*/*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        stage = f"{path.parts[-3]}/{path.parts[-2]}"
        names = {*manifest["parts"], *(name for name in manifest["files"] if name == "requests.parquet")}
        rows[stage] = Counter(
            json.dumps(row, sort_keys=True) for name in names for row in pq.read_table(path.parent / name).to_pylist()
        )
        summary = {key: value for key, value in manifest["summary"].items() if key not in _TIMES}
        student = {name: file["hash"] for name, file in manifest["files"].items() if name.startswith("student/")}
        accounts[stage] = {
            "counts": manifest["counts"],
            "tokens": manifest["tokens"],
            "summary": summary,
            "student": student,
        }
        if student:
            trained[stage] = {key: manifest["summary"][key] for key in ("resumed_from", "restarts")}
    return Outcome(rows, accounts, read_calls(calls), dict(_keys(run)), trained)


def read_calls(calls: Path) -> list[Call]:
    """All requests that were logged, in order of time; a torn last line is passed over."""
    found = []
    for path in calls.glob("*.log"):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                time, key = line.split()
                found.append(Call(float(time), key))
    return sorted(found, key=lambda call: call.time)


def unexplained(outcome: Outcome) -> list[str]:
    """What is wrong with a reference: requests that no row explains, or that were made twice."""
    times = Counter(call.key for call in outcome.calls)
    foreign = sum(key not in outcome.asked_by for key in times)
    twice = sum(count > 1 for count in times.values())
    found = [f"{foreign} requests that no row explains"] if foreign else []
    return found + ([f"{twice} requests made twice"] if twice else []) + ([] if times else ["no requests"])


def compare(outcome: Outcome, reference: Outcome, *, exact: bool = True) -> list[str]:
    """How a run differs from the reference, in words; nothing if it is exactly the same.

    Where runs are not ``exact`` (vLLM's sums depend on what else is in its batch), only the stages are held
    against the reference's, and each account against itself.
    """
    found = []
    for stage in sorted({*reference.rows, *outcome.rows}):
        if stage not in outcome.rows or stage not in reference.rows:
            found.append(f"{stage}: {'missing' if stage in reference.rows else 'not in the reference'}")
            continue
        missing, extra = (reference.rows[stage] - outcome.rows[stage]), (outcome.rows[stage] - reference.rows[stage])
        if exact and (missing or extra):
            sample = next(iter(extra or missing))[:300]
            found.append(f"{stage}: {missing.total()} rows missing, {extra.total()} others, such as {sample}")
        if exact and outcome.accounts[stage] != reference.accounts[stage]:
            found.append(f"{stage}: {outcome.accounts[stage]} instead of {reference.accounts[stage]}"[:600])
        counts = outcome.accounts[stage]["counts"]
        if counts["rows"] != counts["kept"] + sum(counts["rejected"].values()) + counts["failed"]:
            found.append(f"{stage}: {counts} do not add up")
        if counts["failed"]:
            found.append(f"{stage}: {counts['failed']} failed")
    unknown = {call.key for call in outcome.calls} - {call.key for call in reference.calls}
    if exact and unknown:
        found.append(f"{len(unknown)} requests that the reference did not make")
    return found


def asked_after_written(outcome: Outcome, written: Mapping[Path, float]) -> list[str]:
    """Requests for rows that were on disk already, each in words."""
    times: dict[tuple[str, str], float] = {}
    for path, time in written.items():
        if path.exists():
            stage = f"{path.parts[-3]}/{path.parts[-2]}"
            for row in pq.read_table(path).to_pylist():
                if "id" in row:
                    place = (stage, row["id"])
                    times[place] = min(time, times.get(place, time))
    found = []
    for call in outcome.calls:
        place = outcome.asked_by.get(call.key, ("", ""))
        if place in times and call.time > times[place] + TICK_S:
            found.append(f"{place[0]} {place[1]} was asked {call.time - times[place]:.3f} s after it was written")
    return found


def rows_in_flight(outcome: Outcome, written: Mapping[Path, float], moment: float) -> int:
    """Requests for rows that were not on disk at a moment, made until shortly after: what a kill may cost.

    The other processes of a killed driver or node live on until they notice, and begin more in the meantime.
    """
    on_disk = set()
    for path, time in written.items():
        if time <= moment and path.exists():
            stage = f"{path.parts[-3]}/{path.parts[-2]}"
            on_disk |= {(stage, row.get("id", "")) for row in pq.read_table(path).to_pylist()}
    until = moment + LIVES_ON_S
    return sum(call.time <= until and outcome.asked_by.get(call.key) not in on_disk for call in outcome.calls)


def repeated(outcome: Outcome) -> int:
    """Requests beyond the first of each."""
    return len(outcome.calls) - len({call.key for call in outcome.calls})


def check_records(run: Path, taken_over: int = 0) -> list[str]:
    """Whether what is kept beside the rows is in order: the ledger, the status, the lease.

    Args:
        run: The run directory.
        taken_over: Stages that were finished elsewhere, of which the ledger knows nothing.
    """
    found = []
    events = read_ledger(str(run))
    if not events or events[-1]["event"] != "run ended" or events[-1]["reason"] != "finished":
        found.append(f"the ledger ends with {events[-1] if events else 'nothing'}")
    finished = Counter((e["stage"], e["round"]) for e in events if e["event"] == "stage finished")
    stages = read_status(str(run))["stages"]
    if len(finished) + taken_over != len(stages) or any(count > 1 for count in finished.values()):
        found.append(f"{len(stages)} stages, but the ledger tells of {dict(finished)} finished")
    leases = sorted((run / "lease").glob("*.json"))
    if not leases or not json.loads(leases[-1].read_text(encoding="utf-8"))["released"]:
        found.append("the lease was not given back")
    return found


def stage_at(run: Path) -> str:
    """The stage that is at work, by the ledger."""
    begun = ""
    for event in read_ledger(str(run)):
        if event["event"] == "stage started":
            begun = event["stage"]
        elif event["event"] == "stage finished":
            begun = "between stages"
    return begun or "start"


def _keys(run: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """The key of every request that the rows of a run may have asked, with its stage and row."""
    experiment = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
    prompts, kind, seed = load_prompts(experiment["prompts"]), experiment["kind"], experiment["seed"]
    teacher, base = experiment["teacher"]["model"], experiment["student"]["model"]

    def key(weights: str, messages: list[Message], *parts: object) -> str:
        return call_key(weights, messages[-1]["content"], stable_seed(seed, *parts) if parts else None)

    for stage, row in _rows(run, "rationales"):
        yield key(teacher, prompts.solve(kind, row["question"]), "teach", row["id"]), (stage, row["id"])
    for stage, row in _rows(run, "score"):
        weights = base if stage.startswith("base") else str(run / stage.split("/")[0] / "finetune" / "student")
        parts = ("score", row["id"]) if row["subject"] == "pool" else ()
        yield key(weights, prompts.student(kind, row["question"]), *parts), (stage, row["id"])
    parents: dict[str, str] = defaultdict(str)
    for path in run.glob("*/split/requests.parquet"):
        parents.update((row["id"], row["parent_question"]) for row in pq.read_table(path).to_pylist())
    for stage, row in _rows(run, "synthesise"):
        place = (stage, row["id"])
        yield key(teacher, prompts.vary(row["origin"], parents[row["id"]]), "write", row["id"]), place
        yield key(teacher, prompts.solve(kind, row["question"]), "solve", row["id"]), place


def _rows(run: Path, stage: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in run.glob(f"*/{stage}/part-*.parquet"):
        for row in pq.read_table(path).to_pylist():
            yield f"{path.parts[-3]}/{stage}", row
