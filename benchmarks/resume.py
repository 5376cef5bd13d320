"""What it costs to be able to go on after a kill: fdd_ray's parts beside Ray Data's own checkpoints.

    python benchmarks/resume.py --rows 20000 --latency 0.05

The same rows, the same row function and as many rows in a block go through `fdd_ray.dataflow` and through
``read_parquet().repartition().map_batches().write_parquet()`` with ``ray.data.checkpoint``, on one machine in turns.

- running: rows per second with and without what is kept, and files written.
- killed: the driver gets SIGKILL when half of the rows are on disk, and the same driver is started again.
- changed: from the same half, it is started again with another setting of the row function.
- failed: one row in a hundred raises an exception; then the cause is mended and the driver is started again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import resume_sides
from measure import publish, time_in_turns
from resume_sides import STAGE, Ask, Job

from fdd_ray.records import content_id, to_table

_SIDES = ("fdd_ray", "ray")
_NAMES = {"fdd_ray": "fdd_ray parts", "ray": "Ray Data checkpoint"}
_POLL_S = 0.02
_LONGEST_S = 600.0
_FAIL_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Driven:
    """What a driver said and did.

    Attributes:
        begun: When it was started, in seconds since 1970.
        up: When its Ray was up; 0 if it never was.
        seconds: How long it took to its end.
        error: What it ended with.
        killed: Whether it was killed.
        calls: Ids the row function was called with, with the time.
    """

    begun: float
    up: float
    seconds: float
    error: str
    killed: bool
    calls: list[tuple[float, str]]


def main() -> None:
    """Measure what was asked for."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        work = Path(folder)
        publishing = {"output": options.output, "rows_in_all": options.rows, "latency_s": options.latency}
        if "running" in options.parts:
            rows = _running(work, _input(work, options.rows), options)
            publish("resume_running", rows, block_rows=Job.block_rows, repeats=options.repeats, **publishing)
        if "killed" in options.parts:
            killed, changed = _killed(work, _input(work, options.rows), options)
            publish("resume_killed", killed, **publishing)
            publish("resume_changed", changed, **publishing)
        if "failed" in options.parts:
            publishing["rows_in_all"] = max(_FAIL_EVERY, options.rows // 10)
            rows = _failed(work, _input(work, publishing["rows_in_all"]))
            publish("resume_failed", rows, fail_every=_FAIL_EVERY, **publishing)


def _running(work: Path, source: Path, options: argparse.Namespace) -> list[dict[str, object]]:
    """Rows per second and files, with and without what is kept."""
    import ray

    sides = {
        "fdd_ray, nothing kept": Job("fdd_ray without", "", str(source)),
        "fdd_ray parts": Job("fdd_ray", "", str(source)),
        "Ray Data, rows written": Job("ray without", "", str(source)),
        "Ray Data checkpoint": Job("ray", "", str(source)),
        "Ray Data checkpoint, its own blocks": Job("ray", "", str(source), block_rows=0),
    }
    places: dict[str, Path] = {}

    def once(name: str, job: Job) -> None:
        # A folder of its own for each time: what is there would not be done again.
        places[name] = Path(tempfile.mkdtemp(dir=work))
        begun = time.perf_counter()
        resume_sides.run(dataclasses.replace(job, folder=str(places[name]), latency_s=options.latency))
        _say(f"{name}: {time.perf_counter() - begun:.1f} s")

    resume_sides.start_ray()
    timings = time_in_turns({name: partial(once, name, job) for name, job in sides.items()}, options.repeats)
    ray.shutdown()
    rows = []
    for name, timing in timings.items():
        found = [path for path in places[name].rglob("*") if path.is_file()]
        rows.append(
            {
                "side": name,
                "rows/s": options.rows / timing.median,
                "low": options.rows / timing.high,
                "high": options.rows / timing.low,
                "files per 1,000 rows": len(found) / options.rows * 1000,
                "KiB per 1,000 rows": sum(path.stat().st_size for path in found) / 1024 / options.rows * 1000,
            }
        )
    return rows


def _killed(
    work: Path, source: Path, options: argparse.Namespace
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Killed at half and begun again: with the same setting, and with another one."""
    killed, changed = [], []
    for side in _SIDES:
        job = Job(side, str(work / f"killed-{side}"), str(source), latency_s=options.latency)
        first = _drive(job, kill_at=options.rows // 2)
        assert first.killed, f"{side} ended before it was killed: {first.error}"
        other = dataclasses.replace(job, folder=f"{job.folder}-other", factor=3)
        shutil.copytree(job.folder, other.folder)
        on_disk = set(_rows(job))
        again = _drive(job)
        tally = _rows(job)
        asked_before, asked_again = ({key for _, key in driven.calls} for driven in (first, again))
        first_call = min((at for at, _ in again.calls), default=float("nan"))
        killed.append(
            {
                "side": _NAMES[side],
                "on disk at the kill": len(on_disk),
                "asked again": len(asked_before & asked_again),
                "of these on disk": len(on_disk & asked_again),
                "lost": options.rows - len(tally),
                "doubled": sum(count - 1 for count in tally.values()),
                "s to the first row": first_call - again.begun,
                "of these Ray's start": again.up - again.begun,
                "s in all": again.seconds,
                "error": again.error,
            }
        )
        wrong = _drive(other)
        factors = Counter(_factors(other))
        changed.append(
            {
                "side": _NAMES[side],
                "rows asked": len(wrong.calls),
                "rows with the old setting": factors[2],
                "rows with the new setting": factors[3],
                "said": wrong.error[:400] or "nothing",
            }
        )
    return killed, changed


def _failed(work: Path, source: Path) -> list[dict[str, object]]:
    """Some rows fail; then they would not, and the driver is started again."""
    total = pq.read_metadata(source).num_rows
    variants: Mapping[str, tuple[str, dict[str, Any]]] = {
        "fdd_ray parts": ("fdd_ray", {}),
        "Ray Data checkpoint": ("ray", {}),
        "Ray Data checkpoint, max_errored_blocks = -1": ("ray", {"max_errored_blocks": -1}),
        "Ray Data checkpoint, caught in the function": ("ray", {"catch": True}),
    }
    rows: list[dict[str, object]] = []
    for number, (name, (side, settings)) in enumerate(variants.items()):
        job = Job(side, str(work / f"failed-{number}"), str(source), fail_every=_FAIL_EVERY, **settings)
        first = _drive(job)
        before = len(_rows(job))
        again = _drive(dataclasses.replace(job, fail_every=0))
        tally = _rows(job)
        asked = len({key for _, key in first.calls} & {key for _, key in again.calls})
        rows.append(
            {
                "side": name,
                "rows": total,
                "would fail": -(-total // _FAIL_EVERY),
                "on disk at its end": before,
                "said": first.error[:160] or "nothing",
                "asked again": asked,
                "lost": total - len(tally),
                "doubled": sum(count - 1 for count in tally.values()),
                "failed for good": sum(outcome == "failed" for outcome in _column(job, "outcome")),
            }
        )
    return rows


def _drive(job: Job, kill_at: int = 0) -> Driven:
    """Run a job in a driver of its own; with ``kill_at`` it is killed when so many rows are on disk."""
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    calls = Path(tempfile.mkdtemp(dir=Path(job.folder).parent), "calls")
    job = dataclasses.replace(job, calls=str(calls))
    begun, killed = time.time(), False
    counted: dict[Path, int] = {}
    command = [sys.executable, resume_sides.__file__, json.dumps(dataclasses.asdict(job))]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        driver = subprocess.Popen(command, stdout=said, stderr=errors)
        try:
            while driver.poll() is None and time.time() - begun < _LONGEST_S:
                time.sleep(_POLL_S)
                if kill_at and _count(job, counted) >= kill_at:
                    killed = True
                    break
        finally:
            driver.kill()
            driver.wait()
        said.seek(0)
        errors.seek(0)
        found: dict[str, Any] = {}
        for line in said.read().splitlines():
            if line.startswith("{"):
                found |= json.loads(line)
        if not killed and "ended" not in found:
            raise SystemExit(f"{job.side} did not come to an end: {errors.read()[-2000:]}")
    _say(f"{job.side}: {'killed' if killed else found.get('error') or 'done'} after {time.time() - begun:.1f} s")
    lines = calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []
    pairs = [line.split() for line in lines]
    return Driven(
        begun=begun,
        up=found.get("up", 0.0),
        seconds=found.get("ended", time.time()) - begun,
        error=found.get("error", ""),
        killed=killed,
        calls=[(float(at), key) for at, key in (pair for pair in pairs if len(pair) == 2)],
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _rows(job: Job) -> Counter[str]:
    """How often each id is in the output that counts as done.

    For fdd_ray these are whole parts; for Ray Data files whose checkpoint is committed, which a resumed run keeps.
    """
    return Counter(_column(job, "id"))


def _count(job: Job, known: dict[Path, int]) -> int:
    """How many rows are done; files that were looked at before are not read again, for this is asked often."""
    for path in _files(job):
        if path not in known:
            known[path] = pq.read_metadata(path).num_rows
    return sum(known.values())


def _column(job: Job, name: str) -> list[Any]:
    values: list[Any] = []
    for path in _files(job):
        if path.exists():
            values += pq.read_table(path, columns=[name]).column(name).to_pylist()
    return values


def _factors(job: Job) -> list[int]:
    """The setting that each row was made with."""
    source = pq.read_table(job.input)
    number = dict(zip(source.column("id").to_pylist(), source.column("number").to_pylist(), strict=True))
    told = zip(_column(job, "id"), _column(job, "number"), strict=True)
    return [value // number[key] for key, value in told]


def _files(job: Job) -> list[Path]:
    folder = Path(job.folder)
    if job.side == "fdd_ray":
        return list((folder / STAGE).glob("part-*.parquet"))
    done = {path.stem for path in (folder / "checkpoint").glob("*.parquet") if ".pending" not in path.name}
    return [path for path in (folder / "rows").glob("*.parquet") if path.stem.rpartition("-")[0] in done]


def _input(work: Path, count: int) -> Path:
    path = work / f"in-{count}.parquet"
    if not path.exists():
        pq.write_table(to_table([Ask(content_id("q", str(n)), n) for n in range(1, count + 1)], Ask), path)
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=20_000, help="rows; a tenth of them for failed rows")
    parser.add_argument("--latency", type=float, default=0.05, metavar="S", help="seconds a row takes")
    parser.add_argument("--repeats", type=int, default=3, help="how often each side is timed")
    parser.add_argument("--parts", nargs="+", choices=("running", "killed", "failed"),
                        default=["running", "killed", "failed"], help="what to measure")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder for JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
