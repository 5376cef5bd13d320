"""All benchmarks whose figure is a ratio, one after the other, in one table: what ``make bench`` runs.

    python benchmarks/bench.py
    python benchmarks/bench.py --only programs duplicates
    python benchmarks/bench.py --go-on          # what has results in the output folder is not run again
    python benchmarks/bench.py --store          # the ratios of this machine become those to compare with

Each benchmark is a script of its own, which writes JSON with its ratios. Here they are put beside their goals and
beside the stored ratios (``ratios.json``), and what has become worse is warned of: where even the best of the repeats
is more than a tenth worse than the stored median. Ratios hold from one machine to the next as far as the two sides
meet the same bottleneck, so store your own before you compare.

The sides that need an environment of their own are left out unless their Python is named.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from measure import Ratio, table

HERE = Path(__file__).parent
STORED = HERE / "ratios.json"
WORSE = 0.1
FOREIGN = ("datatrove", "distilabel", "curator", "trl")


class Bench(NamedTuple):
    """A script, with what it is told.

    Attributes:
        script: Its file name, with what it always needs.
        result: The name of the JSON that it writes.
        minutes: About how long it takes on 2 cores that do nothing else.
        foreign: The options that name another environment's Python.
    """

    script: tuple[str, ...]
    result: str
    minutes: int
    foreign: tuple[str, ...] = ()


BENCHES = {
    "programs": Bench(("programs.py",), "programs", 1),
    "duplicates": Bench(("duplicates.py", "--sizes", "10000", "100000"), "duplicates", 3, ("datatrove",)),
    "teacher-stage": Bench(("teacher_stage.py",), "teacher_stage", 30),
    "generation": Bench(("generation.py",), "generation", 15, ("distilabel", "curator")),
    "finetuning": Bench(("finetuning.py",), "finetuning", 15, ("trl",)),
    "round-cost": Bench(("round_cost.py",), "round_cost", 4),
    "scale-engines": Bench(("scale.py", "engines"), "scale_engines", 70),
    "scale-memory": Bench(("scale.py", "memory"), "scale_memory", 120),
}


def read_ratios(path: Path) -> list[Ratio]:
    """The ratios that a benchmark wrote to ``path``."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Ratio(**one) for one in content["ratios"]]


def worse(found: Ratio, stored: Mapping[str, Any]) -> bool:
    """Whether even the best repeat of ``found`` is more than a tenth worse than the stored median."""
    if found.at_most:
        return bool(found.low > stored["median"] * (1 + WORSE))
    return bool(found.high < stored["median"] * (1 - WORSE))


def compared(found: Mapping[str, Sequence[Ratio]], stored: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    """A row for each ratio: what it is, what it should be, what it was."""
    rows: list[dict[str, object]] = []
    for name, ratios in found.items():
        for one in ratios:
            before = stored.get(f"{name}: {one.what}")
            spread = "" if one.low == one.high else f"{one.low:.3g} to {one.high:.3g}"
            goal = "" if one.goal is None else f"{'<=' if one.at_most else '>='} {one.goal:g}"
            rows.append(
                {
                    "benchmark": name,
                    "ratio": one.what,
                    "median": one.median,
                    "spread": spread,
                    "goal": goal,
                    "met": {True: "yes", False: "no", None: ""}[one.met],
                    "stored": "" if before is None else f"{before['median']:.3g}",
                    "worse": "worse" if before is not None and worse(one, before) else "",
                }
            )
    return rows


def run(bench: Bench, options: argparse.Namespace) -> int:
    """Run one benchmark; its exit code."""
    script, *arguments = bench.script
    command = [sys.executable, str(HERE / script), *arguments, "--output", str(options.output)]
    for name in bench.foreign:
        if (python := getattr(options, name)) is not None:
            command += [f"--{name}", python]
    try:
        return subprocess.run(command, timeout=options.deadline_minutes * 60).returncode
    except subprocess.TimeoutExpired:
        print(f"bench: not finished within {options.deadline_minutes:g} minutes; see --deadline-minutes", flush=True)
        return 124


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(BENCHES), default=list(BENCHES), help="which to run")
    parser.add_argument("--go-on", action="store_true", help="keep the results that are in the output folder")
    parser.add_argument("--store", action="store_true", help=f"write the ratios to {STORED.name}")
    parser.add_argument("--stored", type=Path, default=STORED, help="the ratios to compare with")
    parser.add_argument("--deadline-minutes", type=float, default=180.0, help="for each benchmark")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="where JSON and table go")
    for name in FOREIGN:
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"a Python that has {name}")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and write ``bench.md`` and ``bench.json``; 1 if one of them failed."""
    options = _options(arguments)
    found: dict[str, list[Ratio]] = {}
    failed: list[str] = []
    for number, name in enumerate(options.only, 1):
        bench = BENCHES[name]
        path = options.output / f"{bench.result}.json"
        if not (options.go_on and path.is_file()):
            print(f"bench: {name}, {number} of {len(options.only)}, about {bench.minutes} min", flush=True)
            path.unlink(missing_ok=True)
            begun = time.monotonic()
            code = run(bench, options)
            print(f"bench: {name} ended with exit code {code} after {time.monotonic() - begun:.0f} s\n", flush=True)
            if code or not path.is_file():
                failed.append(name)
                continue
        found[name] = read_ratios(path)
    stored = json.loads(options.stored.read_text(encoding="utf-8")) if options.stored.is_file() else {}
    rows = compared(found, stored)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "bench.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (options.output / "bench.md").write_text((table(rows) if rows else "") + "\n", encoding="utf-8")
    print(table(rows) if rows else "bench: no ratios")
    for row in rows:
        if row["worse"]:
            print(f"bench: WARNING: {row['benchmark']}: {row['ratio']}: {row['median']:.3g}, was {row['stored']}")
    if options.store:
        stored |= {f"{name}: {one.what}": one._asdict() for name, ratios in found.items() for one in ratios}
        options.stored.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
