"""What a cluster gives: the speed of each role, the seconds until it works, and the money for new problems.

    python benchmarks/throughput.py runs/mine
    python benchmarks/throughput.py --experiment jobs/gsm8k_qwen2.5_0.5b.yaml --storage s3://bucket/runs \\
        --teacher Qwen/Qwen2.5-7B-Instruct --replicas 8 --size 4000 --peak-tflops 989
    ray job submit --working-dir . -- python benchmarks/throughput.py --experiment jobs/mine.yaml --size 4000

The first reads a run that is there, finished or not; the others make one first, of one round by default, with the
models, replicas and pool that are named, and of the experiment what is not. All figures are of the run's own books:
seconds at work are those in which a block of rows was in flight (``round_cost.py`` divides the rest), tokens those that
the engines counted, steps those that the trainer timed. There is nothing beside them, so there are no ratios: these are
the figures to compare two clusters with, or two settings on one.

``of one engine`` divides by the most replicas that the experiment allows. MFU counts six operations for each parameter
and token, without attention, of ``--peak-tflops`` for each worker. Money is that of the experiment's prices; without
prices the columns stay empty.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import publish, table
from round_cost import RUN, Piece, account, name_of, read

sys.path.insert(0, str(Path(__file__).parents[1]))

from finetuning_work import utilisation

ASKING = ("rationales", "synthesise", "score")
STARTS = ("Ray start", "engine start", "weight reload", "waiting", "training start", "training preparation")


def asked(pieces: Sequence[Piece], stages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each finished stage that asks a role: rows and tokens for each second that a block was in flight.

    Args:
        pieces: Where the run's time went.
        stages: Its manifests as `describe` tells them.
    """
    rows = []
    for stage in stages:
        seconds = sum(
            piece.seconds
            for piece in pieces
            if (piece.round, piece.stage, piece.kind) == (stage["round"], stage["stage"], "tokens")
        )
        for role, tokens in stage["tokens"].items():
            if stage["stage"] not in ASKING or not seconds:
                continue
            engines = stage["replicas"].get(role) or 1
            rows.append(
                {
                    "round": name_of(stage["round"]), "stage": stage["stage"], "role": role, "rows": stage["rows"],
                    "s at work": round(seconds, 1), "rows/s": stage["rows"] / seconds,
                    "prompt tokens/s": tokens["prompt"] / seconds,
                    "completion tokens/s": tokens["completion"] / seconds,
                    "of one engine": tokens["completion"] / seconds / engines,
                }
            )  # fmt: skip
    return rows


def trained(stages: Sequence[dict[str, Any]], peak_tflops: float | None) -> list[dict[str, Any]]:
    """A row for each fine-tuning: tokens for each second of steps, and the share of the workers' peak."""
    rows = []
    for stage in stages:
        if stage["stage"] == "finetune":
            found = stage["summary"]
            pace, workers = found["tokens_per_second"], found["workers"]
            flops = 6 * found["parameters"]
            mfu = 100 * utilisation(pace, flops, peak_tflops, workers) if peak_tflops else ""
            rows.append(
                {
                    "round": name_of(stage["round"]), "steps": found["steps"], "tokens": found["tokens"],
                    "s of steps": round(found["seconds"], 1), "tokens/s": pace, "of one worker": pace / workers,
                    "MFU %": mfu,
                }
            )  # fmt: skip
    return rows


def whole(pieces: Sequence[Piece], stages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for the run: seconds of start-up, and what a thousand accepted new problems took."""
    seconds: Counter[str] = Counter()
    for piece in pieces:
        seconds[piece.kind] += piece.seconds
    accepted = sum(stage["kept"] for stage in stages if stage["stage"] == "curate")
    money = sum(stage["money"] for stage in stages)
    teacher = sum(sum(stage["tokens"].get("teacher", {}).values()) for stage in stages)
    thousands = accepted / 1000
    return [
        {
            "s": round(sum(seconds.values()), 1), "s of start-up": round(sum(seconds[kind] for kind in STARTS), 1),
            "engine hours": round(sum(stage["engine_seconds"] for stage in stages) / 3600, 3),
            "GPU hours": round(sum(stage["gpu_seconds"] for stage in stages) / 3600, 3),
            "accepted problems": accepted, "money": round(money, 4) if money else "",
            "money / 1,000 accepted": money / thousands if money and accepted else "",
            "teacher tokens / 1,000 accepted": teacher / thousands if accepted else "",
        }
    ]  # fmt: skip


def describe(directory: str) -> list[dict[str, Any]]:
    """The finished stages of a run as plain values, in order of time."""
    from fdd_ray.report.status import read_status
    from fdd_ray.store import files
    from fdd_ray.store.manifest import read_manifest

    experiment = _experiment(directory)
    replicas = {
        role: settings.replicas[1] for role in ("teacher", "student") if (settings := getattr(experiment, role))
    }
    found = []
    for entry in read_status(files.absolute(directory))["stages"]:
        manifest = read_manifest(files.absolute(directory), entry["round"], entry["stage"]) if entry["done"] else None
        if manifest is not None:
            usage = manifest.usage
            found.append(
                {
                    "round": manifest.round, "stage": manifest.stage, "rows": manifest.counts.rows,
                    "kept": manifest.counts.kept, "replicas": replicas, "summary": manifest.summary,
                    "tokens": {role: dict(counts) for role, counts in manifest.tokens.items()},
                    "engine_seconds": usage.engine_seconds if usage else 0.0,
                    "gpu_seconds": usage.gpu_seconds if usage else 0.0, "money": usage.money if usage else 0.0,
                }
            )  # fmt: skip
    return found


def _experiment(directory: str) -> Any:
    """The experiment that a run was made with."""
    from fdd_ray.experiment import load_experiment
    from fdd_ray.store import files
    from fdd_ray.store.manifest import EXPERIMENT

    content = files.read_bytes(files.join(files.absolute(directory), EXPERIMENT))
    if content is None:
        raise SystemExit(f"there is no run at {directory}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, EXPERIMENT)
        copy.write_bytes(content)
        return load_experiment(copy)


def run(options: argparse.Namespace, storage: str) -> str:
    """Make the run that is to be measured; its directory."""
    from fdd_ray.experiment import load_experiment

    size = options.size
    changes = ["name=throughput", f"storage={storage}", f"rounds={options.rounds}"]
    changes += [f"{role}.model={model}" for role in ("teacher", "student") if (model := getattr(options, role))]
    if options.replicas:
        changes += [f"{role}.replicas={options.replicas}" for role in ("teacher", "student")]
    if size:
        pool = load_experiment(options.experiment, options.set).pool
        if len(pool) > 1:
            raise SystemExit("--size cannot divide several sources of problems; give --set pool={...} instead")
        changes += [f"pool.{'size' if pool[0].format == 'tiny' else 'limit'}={size}"]
        changes += [f"feedback.new_problems={max(1, size // 2)}", f"teach.min_kept={min(32, size)}"]
    command = [sys.executable, "-c", RUN, str(options.experiment), *changes, *options.set]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return f"{storage.rstrip('/')}/throughput"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a run and publish what it gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tiny = Path(__file__).parents[1] / "jobs" / "tiny.yaml"
    parser.add_argument("run", nargs="?", default="", help="a run directory or URL; default: a new run")
    parser.add_argument("--experiment", type=Path, default=tiny, help="what to run")
    parser.add_argument("--storage", default="", help="where the new run goes; default: a temporary folder")
    parser.add_argument("--rounds", type=int, default=1, help="feedback rounds of the new run")
    parser.add_argument("--size", type=int, default=0, help="problems of the pool, and twice the new ones of a round")
    parser.add_argument("--teacher", default="", metavar="MODEL", help="folder or hub id")
    parser.add_argument("--student", default="", metavar="MODEL", help="folder or hub id")
    parser.add_argument("--replicas", type=int, default=0, help="engines of each role")
    parser.add_argument("--peak-tflops", type=float, default=None, help="peak TFLOP/s of one training worker, for MFU")
    parser.add_argument("--set", action="append", default=[], help="key=value, as for fdd-ray run")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="where the JSON goes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        directory = options.run or run(options, options.storage or folder)
        events, seconds = read(directory)
        stages = describe(directory)
    pieces = account(events, seconds)
    rows, training, sums = asked(pieces, stages), trained(stages, options.peak_tflops), whole(pieces, stages)
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    publish("throughput", sums, options.output, **settings, asked=rows, trained=training)
    for more in (rows, training):
        if more:
            print(f"\n{table(more)}")


if __name__ == "__main__":
    main()
