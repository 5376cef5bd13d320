"""The teacher's stages beside what a user would write instead, as ratios of turns side by side.

    python benchmarks/teacher_stage.py --repeats 5
    python benchmarks/teacher_stage.py --model Qwen/Qwen2.5-7B-Instruct --gpus-per-replica 1 --replicas 4
    ray job submit --working-dir . -- python benchmarks/teacher_stage.py --size 4000

- ``steady``: completion tokens per second of the rationales stage, with engines that are up and warm, beside plain
  ``vllm.LLM.generate`` on the same prompts with the same engine and sampling settings. fdd_ray's seconds go from the
  first request to the last block that was checked and written; vLLM's are those inside ``generate``, without
  templates, checks or files. Goal: at least 0.97 of its tokens per second.
- ``rationales``: seconds of the whole stage, from a Ray that is up, with no engine, to rows that are checked and on
  disk, beside the vLLM processor of ``ray.data.llm`` (as documented, and in the leanest form). Goal: below 1.
- ``synthesise``: the same for a new question and then its solutions, beside two passes of ``ray.data.llm``.
  Goal: at most 0.6 of its seconds.

Sides take turns, in alternating order; a ratio is taken within a turn, and its median, lowest and highest are shown.
Where there is more than one repeat, a first turn of whole stages is not counted: it fills the caches of files.
Each whole stage runs in a driver process of its own, with engines of its own, and the two sides of the steady state
warm up on other prompts. ``tokens differ %`` and ``same answers %`` say whether both did the same work: prompts and
seeds are the same, but a batch that was put together otherwise may round otherwise. The exit code is 1 if tokens differ
by more than 2 % or a side did not run.

On a cluster of several nodes, name with ``--work`` a place that all of them reach. A relative ``--output`` lies in the
job's working directory, which Ray throws away; the table is printed as well.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import teacher_processor, teacher_sides
from benchmarks.measure import Ratio, publish
from benchmarks.teacher_processor import LEAN, STAGES
from benchmarks.teacher_ratios import GOALS, OURS, STEADY, Pass, rows_of
from benchmarks.teacher_work import experiment_of, make_pool
from fdd_ray.cluster import interrupt_on_sigterm, ray_session
from fdd_ray.progress import Reporter
from fdd_ray.store import files
from fdd_ray.store.run import Run

_BOTH = "both"


class DidNotRun(Exception):
    """A side ended without a result; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts and publish them; 1 if sides did not do the same work, or one did not run."""
    options = _options(arguments)
    if options.one:
        _run_one(options)
        return 0
    interrupt_on_sigterm()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="teacher-stage-") as folder:
        for part in options.parts:
            passes, failures = _measure(part, options, Path(folder))
            rows += rows_of(part, passes, failures)
    names = ("model", "size", "replicas", "gpus_per_replica", "repeats", "set")
    publish("teacher_stage", rows, options.output, _ratios(rows), **{name: getattr(options, name) for name in names})
    return int(any(row["same work"] == "no" or row["note"] for row in rows))


def _ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """fdd_ray's figure by that of each other side."""
    return [
        Ratio(
            f"{row['part']}: {'tokens/s' if row['part'] == STEADY else 'seconds'}, {OURS}, to {row['side']}",
            row["ratio"],
            row["ratio low"],
            row["ratio high"],
            GOALS[row["part"]][1],
            row["part"] != STEADY,
        )
        for row in rows
        if row["ratio"] != ""
    ]


def _measure(part: str, options: argparse.Namespace, folder: Path) -> tuple[list[Pass], dict[str, str]]:
    """What all sides of a part did in all turns that count, and why a side did not run."""
    if part == STEADY:
        try:
            return _tried_twice(part, _BOTH, 0, options, folder), {}
        except DidNotRun as error:
            return [], {OURS: f"does not run: {error}"}
    sides = [OURS, *options.processors]
    passes: list[Pass] = []
    failures: dict[str, str] = {}
    uncounted = int(options.repeats > 1)
    for turn in range(options.repeats + uncounted):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            if side in failures:
                continue
            try:
                done = _tried_twice(part, side, turn, options, folder)
            except DidNotRun as error:
                failures[side] = f"does not run: {error}"
                continue
            passes += done if turn >= uncounted else []
            _say(f"{part}, turn {turn}: {side}: {done[0].seconds:.1f} s, {done[0].completion_tokens} tokens")
    return passes, failures


def _tried_twice(part: str, side: str, turn: int, options: argparse.Namespace, folder: Path) -> list[Pass]:
    """One side's turn; once more if it fails, since on a busy machine Ray may be too slow to start."""
    try:
        return _in_own_process(part, side, turn, options, folder)
    except DidNotRun as error:
        _say(f"{part}, turn {turn}: {side}: {error}; once more")
        return _in_own_process(part, side, turn, options, folder)


def _in_own_process(part: str, side: str, turn: int, options: argparse.Namespace, folder: Path) -> list[Pass]:
    """One side's turn in a driver of its own, so that nothing is left for it of the ones before.

    Raises:
        DidNotRun: If it failed or took longer than the deadline.
    """
    result, log = folder / "result.json", folder / "log"
    result.unlink(missing_ok=True)
    work = files.join(options.work or str(folder), f"{part}-{turn}-{time.time_ns()}")
    command = [sys.executable, str(Path(__file__).resolve()), *options.given]
    command += ["--one", part, side, str(turn), str(result), work]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            code = process.wait(options.deadline)
        except subprocess.TimeoutExpired:
            raise DidNotRun(f"no result after {options.deadline:.0f} s") from None
        finally:
            _end(process)
            files.remove(work)
    if code or not result.exists():
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        _say("\n".join(lines[-40:]))
        raise DidNotRun(f"exit code {code}: {lines[-1][:300] if lines else 'nothing was said'}")
    return [Pass(**fields) for fields in json.loads(result.read_text())]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a driver that is still at work, and what it started: a Ray of its own, if it has one."""
    if process.poll() is None:
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _run_one(options: argparse.Namespace) -> None:
    """One side's turn, in this process; what it did is written into a file."""
    part, side, turn, result, work = options.one
    experiment = experiment_of(options.model, options.replicas, options.gpus_per_replica, work, options.set)
    with ray_session(Reporter()):
        if part == STEADY:
            pool = make_pool(options.size * (options.repeats + 1))
            with Run(experiment.directory) as run:
                passes = teacher_sides.steady_passes(experiment, run, pool, options.repeats)
        elif side == OURS:
            with Run(experiment.directory) as run:
                ours = teacher_sides.OurSide(experiment, run)
                passes = [ours.whole(part, make_pool(options.size), int(turn))]
                ours.stop()
        else:
            pool = make_pool(options.size)
            passes = [teacher_processor.whole(experiment, side, part, pool, int(turn))]
    Path(result).write_text(json.dumps([dataclasses.asdict(done) for done in passes]))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny://teacher", help="the teacher: folder, hub id, or tiny://teacher")
    parser.add_argument("--size", type=int, default=1000, help="problems of a turn")
    parser.add_argument("--replicas", type=int, default=1, help="engines")
    parser.add_argument("--gpus-per-replica", type=int, default=0, help="GPUs of one engine; 0: it runs on CPUs")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--parts", nargs="+", choices=list(GOALS), default=list(GOALS), help="what is measured")
    parser.add_argument(
        "--processors", nargs="+", choices=[STAGES, LEAN], default=[STAGES, LEAN], help="forms of ray.data.llm"
    )
    parser.add_argument("--work", default="", help="folder or URL that all nodes reach; default: a temporary folder")
    parser.add_argument("--deadline", type=float, default=3600.0, help="seconds that one side's turn may take")
    parser.add_argument("--set", action="append", default=[], help="key=value of an experiment, for all sides")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="where the JSON goes")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    options.given = given
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
