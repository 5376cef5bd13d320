"""How fast duplicates are found, in how much memory, and how both grow with the pool.

    python benchmarks/duplicates.py --sizes 10000 100000
    python benchmarks/duplicates.py --sizes 10000 100000 --datatrove /path/to/other/venv/bin/python

The rows are made up: stories of several sentences out of many parts, with names, things and numbers, so that
some share a template, some a story; a set share of them are copies, or copies with a name changed. Every side
reads the same rows in a process of its own, which is timed from its first row to its last and tells the most
memory it held. datatrove does not install beside this package: name the Python of an environment that has it.
Its MinHash looks at words with numbers in them, so what it drops is not the same: it is there for its speed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = [
    a + b
    for a in ("An", "Ben", "Car", "Dor", "El", "Fin", "Gre", "Hol", "Iv", "Jos")
    for b in ("na", "o", "ie", "as", "ta", "is")
]
THINGS = [
    "apples",
    "pears",
    "books",
    "marbles",
    "stamps",
    "shells",
    "cards",
    "coins",
    "eggs",
    "pencils",
    "muffins",
    "tickets",
    "balloons",
    "bricks",
    "candles",
]
PLACES = ["market", "school", "farm", "library", "bakery", "harbour", "museum", "garden", "station", "workshop"]
OPENINGS = [
    "{n} has {a} {t} and buys {b} more at the {p}",
    "At the {p}, {n} counts {a} boxes with {b} {t} in each of them",
    "{n} spends {a} hours at the {p} and makes {b} {t} in every hour",
    "There are {a} {t} at the {p}, and {n} takes {b} of them home",
    "{n} sells {a} {t} on Monday and {b} times as many on Tuesday",
    "Every week {n} carries {a} bags of {b} {t} from the {p}",
]
MIDDLES = [
    "Then {m} gives back {c} {t} because they are broken",
    "Later {m} brings another {c} {t} as a present",
    "{m} needs {c} of the {t} for a friend who is ill",
    "On the way {m} loses {c} {t} and does not find them again",
    "{m} paints {c} of the {t} red and leaves the others as they are",
    "A neighbour called {m} asks for {c} {t} and gets them",
    "The rest is shared by {m} and {c} cousins in equal parts",
]
QUESTIONS = [
    "How many {t} are there in the end?",
    "How many {t} does {n} have now?",
    "What is the number of {t} that {n} can still use?",
    "How many {t} are left for {n} after all of this?",
]


def questions(rows: int, seed: int = 0, copies: float = 0.02) -> Iterator[str]:
    """Questions of which a share is a copy, and as many a copy with the name changed."""
    draw = random.Random(seed)
    past: list[tuple[str, str]] = []
    for _ in range(rows):
        kind = draw.random()
        if past and kind < 2 * copies:
            text, name = draw.choice(past)
            yield text.upper() if kind < copies else text.replace(name, draw.choice(NAMES), 1)
            continue
        name = draw.choice(NAMES)
        middles = draw.sample(MIDDLES, draw.choice((1, 2, 2, 3)))
        thing, other, place = draw.choice(THINGS), draw.choice(NAMES), draw.choice(PLACES)
        parts = [draw.choice(OPENINGS), *middles]
        fields = [
            {"n": name, "m": other, "t": thing, "p": place, "a": draw.randint(2, 60), "b": draw.randint(2, 20)}
            | {"c": draw.randint(2, 30)}
            for _ in parts
        ]
        told = ". ".join(part.format(**values) for part, values in zip(parts, fields, strict=True))
        text = f"{told}. {draw.choice(QUESTIONS).format(n=name, t=thing)}"
        if len(past) < 10_000:
            past.append((text, name))
        yield text


def ours(rows: Path, folder: Path, on_ray: bool) -> dict[str, Any]:
    """The job as it is, step by step in this process or on Ray."""
    from fdd_ray.curation.duplicates import DuplicateSettings
    from fdd_ray.deduplication import OnRay, cut, find_in_files, run_here
    from fdd_ray.flow import FlowSettings

    runner: Any = run_here
    if on_ray:
        import os

        import ray

        ray.init(include_dashboard=False, log_to_driver=False)
        actors = os.cpu_count() or 1
        runner = OnRay(FlowSettings(map_actors=(actors, actors), cpus_per_map_actor=0.5), "duplicates")
    settings = DuplicateSettings()
    begun = time.perf_counter()
    counts = find_in_files(ProblemReader(), cut([str(rows)], known=False), str(folder), settings, runner)
    return {"seconds": time.perf_counter() - begun, "dropped": sum(counts.values()) - counts["candidates"]}


class ProblemReader:
    """Reads problems, in the order of the rows."""

    def open(self) -> None:
        """Nothing to get ready."""

    def read(self, place: Any, number: int) -> list[Any]:
        """The entries of a place."""
        from fdd_ray.curation.duplicates import Entry
        from fdd_ray.records import Problem, schema_of
        from fdd_ray.store import files

        table = files.read_rows(place.path, place.start, place.stop, schema_of(Problem))
        pairs = zip(table.column("question").to_pylist(), table.column("answer").to_pylist(), strict=True)
        return [Entry.of(*pair, order=f"{place.start + i:09d}") for i, pair in enumerate(pairs)]


def datasketch(rows: Path, folder: Path) -> dict[str, Any]:
    """One MinHashLSH over word triples of the whole text, as its documentation has it."""
    import pyarrow.parquet as pq
    from datasketch import MinHash, MinHashLSH

    begun = time.perf_counter()
    index, dropped = MinHashLSH(threshold=0.8, num_perm=112), 0
    for batch in pq.ParquetFile(rows).iter_batches(4096, columns=["question"]):
        for text in batch.column("question").to_pylist():
            words = text.casefold().split()
            hashed = MinHash(num_perm=112)
            hashed.update_batch([" ".join(words[i : i + 3]).encode() for i in range(max(1, len(words) - 2))])
            if index.query(hashed):
                dropped += 1
            else:
                index.insert(len(index.keys), hashed)
    return {"seconds": time.perf_counter() - begun, "dropped": dropped}


def datatrove(rows: Path, folder: Path) -> dict[str, Any]:
    """The four steps of datatrove's MinHash, its own defaults but for word triples, one after the other."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.logging import logger

    logger.remove()

    def documents() -> Iterator[Any]:
        with rows.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                yield Document(text=json.loads(line)["question"], id=str(number))

    config = MinhashConfig(n_grams=3)
    signatures, buckets, remove = (str(folder / name) for name in ("signatures", "buckets", "remove"))
    begun = time.perf_counter()
    MinhashDedupSignature(signatures, config=config).run(documents(), 0, 1)
    for rank in range(config.num_buckets):
        MinhashDedupBuckets(signatures, buckets, config=config).run(None, rank, config.num_buckets)
    MinhashDedupCluster(buckets, remove, config=config).run(None, 0, 1)
    kept = sum(1 for _ in MinhashDedupFilter(remove).run(documents(), 0, 1))
    with rows.open(encoding="utf-8") as file:
        total = sum(1 for _ in file)
    return {"seconds": time.perf_counter() - begun, "dropped": total - kept}


SIDES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "fdd_ray, one process": lambda rows, folder: ours(rows, folder, False),
    "fdd_ray on Ray Data": lambda rows, folder: ours(rows, folder, True),
    "datasketch MinHashLSH": datasketch,
    "datatrove MinHash": datatrove,
}
OURS = ("fdd_ray, one process", "fdd_ray on Ray Data")


def peak_memory_mib() -> float:
    """The most memory of this program: what `getrusage` says goes back to before the process became it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(side: str, rows: Path, python: str) -> dict[str, Any]:
    """Run one side in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, __file__, "--side", side, str(rows), folder]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="numbers of problems")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side; the median counts")
    parser.add_argument("--datatrove", metavar="PYTHON", help="a Python that has datatrove, to run it too")
    parser.add_argument("--without", nargs="+", default=[], choices=list(SIDES), help="sides to leave out")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="where the JSON goes")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, rows, folder = options.side
        told = SIDES[side](Path(rows), Path(folder) / "work")
        told["memory_mib"] = peak_memory_mib()
        print(json.dumps(told))
        return
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """All sides at all sizes, in turns."""
    from statistics import median

    from measure import Ratio, publish, ratio

    from fdd_ray.records import Problem, to_table
    from fdd_ray.store import files

    sides = [side for side in SIDES if side not in options.without]
    here = importlib.util.find_spec("datatrove") is not None
    if "datatrove MinHash" in sides and not options.datatrove and not here:
        sides.remove("datatrove MinHash")
        print("datatrove is not installed here and no --datatrove was given: it is left out", file=sys.stderr)
    found: list[dict[str, Any]] = []
    ratios: list[Ratio] = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            parquet, lines = Path(folder, "rows.parquet"), Path(folder, "rows.jsonl")
            problems = [Problem.new(question, "7") for question in questions(size)]
            files.write_table(str(parquet), to_table(problems, Problem))
            lines.write_text("".join(json.dumps({"question": p.question}) + "\n" for p in problems), encoding="utf-8")
            del problems
            runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
            for _ in range(options.repeats):
                for side in sides:
                    foreign = side.startswith("datatrove")
                    python = options.datatrove if foreign and options.datatrove else sys.executable
                    runs[side].append(measure(side, lines if foreign else parquet, python))
            for side in sides:
                seconds = median(run["seconds"] for run in runs[side])
                before = [row for row in found if row["side"] == side]
                growth = (
                    round(math.log(seconds / before[-1]["seconds"]) / math.log(size / before[-1]["rows"]), 3)
                    if before
                    else ""
                )
                found.append(
                    {
                        "side": side,
                        "rows": size,
                        "seconds": seconds,
                        "rows/s": size / seconds,
                        "growth exponent": growth,
                        "peak memory MiB": max(run["memory_mib"] for run in runs[side]),
                        "dropped": runs[side][0]["dropped"],
                    }
                )
                if growth and side in OURS:
                    ratios.append(Ratio(f"growth of seconds, {side}, to {size:,} rows", *[growth] * 3, 1.1, True))
            speed = {side: [size / run["seconds"] for run in runs[side]] for side in sides}
            ratios += [
                ratio(f"rows/s, {one}, to {other}, {size:,} rows", speed[one], speed[other], goal=1.0)
                for one in OURS
                for other in sides
                if one in sides and other not in OURS
            ]
    found.sort(key=lambda row: sides.index(row["side"]))
    publish("duplicates", found, options.output, ratios, sizes=options.sizes, repeats=options.repeats)


if __name__ == "__main__":
    main()
