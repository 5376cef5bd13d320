"""One teacher, asked in two ways: run by ourselves on the cluster, and behind an OpenAI-compatible server.

    python benchmarks/http_teacher.py --size 150

The tiny experiment runs to its end twice with the same settings and seed, one round by default: once with the
teacher in vLLM engines of our own, once with the very same weights behind vLLM's own server, asked over HTTP.
Compared are the rows of each stage by what became of them, the student's accuracies, and the rationales, which are
drawn greedily, text by text. With vLLM behind both, a request's seed means the same, so that even what later stages
draw should agree; a batch that was put together otherwise may round otherwise, though. So ``same`` says whether the
95 % interval of the difference of two shares holds 0.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import publish, table

sys.path.insert(0, str(Path(__file__).parents[1]))

from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.records import Taught, from_table, schema_of
from fdd_ray.statistics import wilson
from fdd_ray.store import files
from fdd_ray.store.manifest import Manifest, read_manifest
from tests.engines.endpoint import MODEL, serve_tiny_teacher

SIDES = ("vllm", "http")
RUN = "import sys; from fdd_ray.launch import run_experiment; run_experiment(sys.argv[1], sys.argv[2:])"


def run(side: str, options: argparse.Namespace, endpoint: str) -> tuple[str, float]:
    """Run the experiment with the teacher of one side; the run directory, and the seconds it took."""
    changes = [
        f"name=http-teacher-{side}",
        f"storage={options.work.resolve()}",
        f"rounds={options.rounds}",
        f"pool={{format: tiny, split: pool, size: {options.size}, seed: 1}}",
        f"feedback.new_problems={options.size}",
        "teacher.replicas=1",
        *options.set,
    ]
    if side == "http":
        changes += [f"teacher.endpoint={endpoint}", f"teacher.model={MODEL}", "teacher.api_key_env=null"]
        changes += ["teacher.kv_cache_mib=null", "teacher.cpus_per_replica=0.1"]
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", RUN, str(TINY_EXPERIMENT), *changes], check=True)
    return str(options.work.resolve() / f"http-teacher-{side}"), time.monotonic() - begun


def compare(directories: dict[str, str], rounds: int) -> list[dict[str, Any]]:
    """A row for each share that both runs have: rows by what became of them, then accuracies."""
    stages: list[tuple[int, str]] = [(0, "rationales")]
    for number in range(1, rounds + 1):
        stages += [(number, "synthesise"), (number, "curate")]
    rows = []
    for number, stage in stages:
        found = {side: _manifest(directories[side], number, stage) for side in SIDES}
        reasons = sorted({reason for manifest in found.values() for reason in manifest.counts.rejected})
        for what in ("kept", *reasons, "failed"):
            counts = {side: (_count(manifest, what), manifest.counts.rows) for side, manifest in found.items()}
            rows.append(_row(f"round {number} {stage}", what, counts))
    for number in range(rounds + 1):
        found = {side: _manifest(directories[side], number, "score") for side in SIDES}
        for subject in found["vllm"].summary["accuracy"]:
            accuracies = {side: manifest.summary["accuracy"][subject] for side, manifest in found.items()}
            counts = {side: (round(a["value"] * a["n"]), a["n"]) for side, a in accuracies.items()}
            rows.append(_row(f"round {number} student", subject, counts))
    return rows


def same_texts(directories: dict[str, str]) -> dict[str, Any]:
    """How many of the greedily drawn rationales are the same text, and the same verdict, on both sides."""
    taught: dict[str, dict[str, Taught]] = {}
    for side in SIDES:
        read = files.read_tables(_manifest(directories[side], 0, "rationales").outputs, schema_of(Taught))
        taught[side] = {row.id: row for row in from_table(read, Taught)}
    ids = taught["vllm"].keys() & taught["http"].keys()
    pairs = [(taught["vllm"][key].completions[0], taught["http"][key].completions[0]) for key in ids]
    return {
        "rationales": len(pairs),
        "only on one side": len(taught["vllm"].keys() ^ taught["http"].keys()),
        "same text": sum(one.text == other.text for one, other in pairs),
        "same verdict": sum(one.verdict == other.verdict for one, other in pairs),
        "same tokens": sum(one.tokens == other.tokens for one, other in pairs),
    }


def _manifest(directory: str, number: int, stage: str) -> Manifest:
    manifest = read_manifest(directory, number, stage)
    assert manifest is not None, f"{directory}: {stage} of round {number} is not done"
    return manifest


def _count(manifest: Manifest, what: str) -> int:
    counts = manifest.counts
    return {"kept": counts.kept, "failed": counts.failed}.get(what, counts.rejected.get(what, 0))


def _row(where: str, what: str, counts: dict[str, tuple[int, int]]) -> dict[str, Any]:
    row: dict[str, Any] = {"where": where, "what": what}
    for side, (count, rows) in counts.items():
        low, high = wilson(count / rows if rows else 0.0, rows)
        row |= {f"{side}": f"{count} of {rows}", f"{side} 95 %": f"{low:.3f} to {high:.3f}"}
    return row | {"same": "yes" if _agree(*counts["vllm"], *counts["http"]) else "no"}


def _agree(one: int, of_one: int, other: int, of_other: int) -> bool:
    """Whether 0 is in Newcombe's 95 % interval of the difference of two shares (R. G. Newcombe, 1998)."""
    shares = (one / of_one if of_one else 0.0, other / of_other if of_other else 0.0)
    (low, high), (other_low, other_high) = wilson(shares[0], of_one), wilson(shares[1], of_other)
    difference = shares[0] - shares[1]
    below = difference - math.hypot(shares[0] - low, other_high - shares[1])
    above = difference + math.hypot(high - shares[0], shares[1] - other_low)
    return below <= 0 <= above


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both sides and publish the comparison; 1 if any share differs beyond chance, or a row is lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=150, help="problems in the pool, and new ones wanted")
    parser.add_argument("--rounds", type=int, default=1, help="feedback rounds")
    parser.add_argument(
        "--work", type=Path, default=Path("runs"), help="folder of the two runs; finished ones are kept"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="where the JSON goes")
    parser.add_argument("--set", action="append", default=[], help="key=value, as for fdd-ray run; for both sides")
    options = parser.parse_args(arguments)
    options.work = options.work or Path(tempfile.mkdtemp(prefix="http-teacher-"))
    options.work.mkdir(parents=True, exist_ok=True)
    with serve_tiny_teacher(options.work / "http-teacher-server.log") as endpoint:
        done = {"http": run("http", options, endpoint)}
    done["vllm"] = run("vllm", options, "")
    directories = {side: directory for side, (directory, _) in done.items()}
    rows, texts = compare(directories, options.rounds), same_texts(directories)
    seconds = {side: round(took, 1) for side, (_, took) in done.items()}
    settings = {"size": options.size, "rounds": options.rounds, "set": options.set}
    publish("http_teacher", rows, options.output, **settings, texts=texts, seconds=seconds)
    print(table([texts]))
    differing = [f"{row['where']} {row['what']}" for row in rows if row["same"] == "no"]
    print(f"differ beyond chance: {', '.join(differing) or 'none'} (of {len(rows)}; at 95 % one in twenty may)")
    return int(len(differing) > max(1, len(rows) // 10) or texts["only on one side"] > 0)


if __name__ == "__main__":
    sys.exit(main())
