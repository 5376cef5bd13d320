"""Scale: the stages of a run on many rows and many engines, without a model.

    python benchmarks/scale.py memory --rows 100000 1000000
    python benchmarks/scale.py engines --engines 1 8 64
    python benchmarks/scale.py blocks --blocks 1000 10000
    python benchmarks/scale.py record --output benchmarks/profiles

``memory`` runs the stages of a run (problems, rationales, score, split, synthesise, curate, and the writing of the
distillation set) on pools of each size, with the simulated engine answering at once, and says what the driver held at
most, what the object store held, how many files there are, and rows per second.

``engines`` lets so many simulated engines teach, as many rows each, and says how much of their throughput the rows got:
the recorded profile says how many requests an engine works on at once and how long each takes. ``--stretch`` makes
every request longer, so that one small machine can play the cluster: what is measured is fdd-ray and Ray, on the cores
that are here, and not a model.

``blocks`` hands out blocks in which nothing is done: what the driver needs for each, whatever is in it.

``record`` asks the tiny teacher on vLLM and writes such a profile. Each case runs in a driver of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from measure import Ratio, publish

from fdd_ray.experiment import Experiment, load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.progress import Reporter
from fdd_ray.records import Problem, schema_of, to_tables
from fdd_ray.store import files
from fdd_ray.store.run import Run

if TYPE_CHECKING:
    import pyarrow as pa

PROFILE = Path(__file__).parent / "profiles" / "tiny_teacher.json"
_WATCH_S = 0.5


class Watch:
    """The most that this process, any of Ray's workers, and Ray's object store have held since `reset`, in MiB."""

    def __init__(self, others_every: int = 1) -> None:
        self._process = psutil.Process()
        self._others_every = others_every
        self._stop = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.driver = self.worker = self.store = 0.0

    def __enter__(self) -> Watch:
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()

    def _look(self) -> None:
        import ray

        looks = 0
        while not self._stop.wait(_WATCH_S):
            self.driver = max(self.driver, self._process.memory_info().rss / 2**20)
            looks += 1
            if looks % self._others_every:  # with many engines, looking at all processes is work itself
                continue
            for process in self._process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.name().startswith("ray::"):
                        self.worker = max(self.worker, process.memory_info().rss / 2**20)
            with contextlib.suppress(Exception):  # Ray is not up yet, or not any more
                total, free = ray.cluster_resources(), ray.available_resources()
                used = total["object_store_memory"] - free.get("object_store_memory", 0.0)
                self.store = max(self.store, used / 2**20)


def write_pool(path: Path, rows: int) -> None:
    """A Parquet file with so many different problems of the tiny world."""
    from fdd_ray.tiny import make_problems

    problems = (
        Problem.new(drawn.question, drawn.answer, source=f"scale:{index}")
        for index, drawn in enumerate(make_problems("pool", rows, seed=1))
    )
    files.write_tables(str(path), to_tables(problems, Problem), schema_of(Problem))


def experiment_of(work: Path, pool: Path, sets: list[str]) -> Experiment:
    """The tiny experiment with simulated engines, on a pool of our own."""
    return load_experiment(
        TINY_EXPERIMENT,
        [
            f"storage={work / 'runs'}",
            f"pool={{format: parquet, path: {pool}}}",
            "benchmarks.in_distribution.size=100",
            "benchmarks.out_of_distribution.size=50",
            "teacher.engine=simulated",
            "student.engine=simulated",
            *sets,
        ],
    )


def _start_ray() -> None:
    """Ray on this machine, with a few logical CPUs and without Ray Data's own progress."""
    import ray
    from ray.data import DataContext

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def memory_case(work: Path, rows: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All stages that work on rows, one after the other; what each held at most."""
    import ray

    from fdd_ray.flow import aside
    from fdd_ray.stages import finetune
    from fdd_ray.workshop import Workshop

    sets = [
        f"feedback.new_problems={max(1, rows // 10)}",
        f"flow.block_rows={options.block_rows}",
        "flow.map_actors=2",
        "teacher.replicas=1",
        "budget={}",
    ]
    experiment = experiment_of(work, options.pool, sets)
    found: list[dict[str, Any]] = []
    _start_ray()
    with (
        Watch() as watch,
        Run(experiment.directory) as run,
        Workshop(experiment, run, Reporter(), start_early=False) as shop,
    ):

        def stage(name: str, work: Callable[[], Any]) -> Any:
            watch.reset()
            begun = time.monotonic()
            result = work()
            seconds = time.monotonic() - begun
            counted = result.counts.rows if hasattr(result, "counts") else rows
            number = len(files.list_names(result.path, ".parquet")) if hasattr(result, "path") else 1
            found.append(
                {
                    "pool": rows, "stage": name, "rows": counted, "seconds": round(seconds, 1),
                    "rows/s": round(counted / seconds, 1), "driver MiB": round(watch.driver),
                    "largest worker MiB": round(watch.worker), "object store MiB": round(watch.store, 1),
                    "files": number,
                }
            )  # fmt: skip
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
            return result

        problems = None

        def load() -> Any:
            nonlocal problems
            problems = shop.problems()
            return problems.manifest

        stage("problems", load)
        taught = stage("rationales", lambda: shop.teach(problems))
        scored = stage("score", lambda: shop.score(None, None, problems))
        split = stage("split", lambda: shop.split(1, scored, problems, None, taught, []))
        varied = stage("synthesise", lambda: shop.synthesise(1, split, problems))
        curated = stage("curate", lambda: shop.curate(1, split, varied, [], problems))
        folder = run.folder(1, "finetune")
        stage("distillation set", lambda: aside(
            finetune.write_examples, folder, taught.outputs, curated.outputs,
            label="distillation set", deadline_s=experiment.flow.stall_deadline_s,
        ))  # fmt: skip
    ray.shutdown()
    return found


def engines_case(work: Path, engines: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """So many engines teach, as many rows each; how much of their throughput the rows got."""
    import ray

    from fdd_ray.workshop import Workshop

    profile = json.loads(options.profile.read_text(encoding="utf-8"))
    mean = sum(profile["seconds"]) / len(profile["seconds"]) * options.stretch
    rows = engines * options.rows_per_engine
    arguments = f"{{profile: {options.profile.resolve()}, stretch: {options.stretch}}}"
    sets = [
        f"teacher.engine_args={arguments}",
        f"teacher.replicas={engines}",
        "teacher.cpus_per_replica=0.01",
        f"teacher.max_num_seqs={profile['slots']}",
        f"flow.block_rows={options.block_rows}",
        f"flow.map_actors={options.map_actors}",
        # A block is written when its slowest row is done: with fewer rows under way, slots would stand empty.
        f"flow.blocks_in_flight={-(-4 * engines * profile['slots'] // options.block_rows // options.map_actors)}",
    ]
    experiment = experiment_of(work, options.pool, sets)
    _start_ray()
    with (
        Watch(others_every=6) as watch,
        Run(experiment.directory) as run,
        Workshop(experiment, run, Reporter(), start_early=False) as shop,
    ):
        problems = shop.problems()
        shop._resources.asking("teacher", lambda text: None)  # the engines' start is not what is measured
        watch.reset()
        begun = time.monotonic()
        taught = shop.teach(problems)
        seconds = time.monotonic() - begun
    ray.shutdown()
    ideal = options.rows_per_engine * mean / profile["slots"]
    return [
        {
            "engines": engines, "rows": rows, "seconds": round(seconds, 1), "ideal seconds": round(ideal, 1),
            "rows/s": round(taught.counts.rows / seconds, 1), "efficiency": round(ideal / seconds, 3),
            "driver MiB": round(watch.driver), "object store MiB": round(watch.store, 1),
        }
    ]  # fmt: skip


class _Nothing:
    """Does nothing with a block, as an actor with several calls at a time."""

    async def __call__(self, block: pa.Table) -> pa.Table:
        return block


def blocks_case(work: Path, blocks: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """So many blocks in which nothing is done; what each costs the driver."""
    import ray

    from fdd_ray.flow import FlowSettings, map_items

    del work
    flow = FlowSettings(map_actors=(options.map_actors, options.map_actors))
    _start_ray()
    with Watch() as watch:
        before, begun = time.process_time(), time.monotonic()
        items = [{"path": f"part-{number:032d}.parquet", "start": 0, "stop": 1} for number in range(blocks)]
        results = map_items(_Nothing, (), items, flow, "blocks", calls=flow.blocks_in_flight)
        next(results)
        first = time.monotonic() - begun
        done = 1 + sum(1 for _ in results)
        seconds, busy = time.monotonic() - begun, time.process_time() - before
        assert done == blocks, f"{done} of {blocks} blocks came back"
    ray.shutdown()
    return [
        {
            "blocks": blocks, "seconds": round(seconds, 1), "until the first": round(first, 1),
            "blocks/s": round((blocks - 1) / (seconds - first), 1), "driver's CPU ms a block": 1000 * busy / blocks,
            "driver MiB": round(watch.driver), "object store MiB": round(watch.store, 1),
        }
    ]  # fmt: skip


def record(options: argparse.Namespace) -> None:
    """Ask the tiny teacher on vLLM, so many requests at once, and write how long each took."""
    import asyncio

    from fdd_ray.engines.base import Sampling, resolve_model
    from fdd_ray.engines.vllm import InProcessEngine, engine_arguments
    from fdd_ray.prompts import load_prompts
    from fdd_ray.tiny import make_problems

    settings = dataclasses.replace(load_experiment(TINY_EXPERIMENT).teacher, model=resolve_model("tiny://teacher"))
    engine = InProcessEngine(engine_arguments(settings, settings.model, False), settings, lambda error: None)
    prompts = load_prompts("tiny")
    seconds: list[float] = []

    async def ask_all() -> None:
        gate = asyncio.Semaphore(options.slots)

        async def ask(question: str) -> None:
            async with gate:
                begun = time.monotonic()
                await engine.generate(prompts.solve("program", question), Sampling(max_tokens=100))
                seconds.append(round(time.monotonic() - begun, 4))

        await asyncio.gather(*(ask(drawn.question) for drawn in make_problems("pool", options.requests, seed=1)))

    asyncio.run(ask_all())
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / PROFILE.name
    # The first and last are asked beside fewer others.
    steady = seconds[options.slots : -options.slots]
    path.write_text(json.dumps({"slots": options.slots, "seconds": steady}) + "\n", encoding="utf-8")
    print(f"{path}: {len(steady)} requests, {sum(steady) / len(steady):.3f} s each, {options.slots} at once")


def memory_ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """The driver's most memory with the largest pool, to that with the smallest."""
    most: dict[int, float] = {}
    for row in rows:
        most[row["pool"]] = max(most.get(row["pool"], 0.0), row["driver MiB"])
    low, high = min(most), max(most)
    grown = most[high] / most[low]
    return [Ratio(f"memory of the driver, {high:,} rows, to {low:,} rows", grown, grown, grown, 1.2, True)]


def engines_ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """What rows got of the engines' throughput, and of so many times what one engine gave."""
    found = [
        Ratio(f"rows/s, {row['engines']} engines, to what they can do", *[row["efficiency"]] * 3, 0.9) for row in rows
    ]
    for row in rows[1:]:
        share = row["rows/s"] / row["engines"] / (rows[0]["rows/s"] / rows[0]["engines"])
        what = f"rows/s of one of {row['engines']} engines, to one of {rows[0]['engines']}"
        found.append(Ratio(what, share, share, share, 0.9))
    return found


RATIOS = {"memory": memory_ratios, "engines": engines_ratios, "blocks": lambda rows: []}
CASES = {"memory": memory_case, "engines": engines_case, "blocks": blocks_case}


def in_own_process(part: str, size: int, pool: Path) -> list[dict[str, Any]]:
    """One case, in a driver of its own, so that nothing is left of the case before."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", str(size), "--pool", str(pool)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run the cases of one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["memory", "engines", "blocks", "record"], help="what to do")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="sizes of the pool")
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 8, 64], help="numbers of engines")
    parser.add_argument("--blocks", type=int, nargs="+", default=[1000, 10_000], help="numbers of blocks")
    parser.add_argument("--rows-per-engine", type=int, default=1280)
    parser.add_argument("--block-rows", type=int, default=None, help="default: 256 for memory, 32 for engines")
    parser.add_argument("--map-actors", type=int, default=4)
    parser.add_argument("--profile", type=Path, default=PROFILE)
    parser.add_argument("--stretch", type=float, default=100.0, help="by which the profile's times are multiplied")
    parser.add_argument("--slots", type=int, default=64, help="requests at once, for record")
    parser.add_argument("--requests", type=int, default=2000, help="requests, for record")
    parser.add_argument("--work", type=Path, default=None, help="where runs go; default: a temporary folder")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--pool", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.block_rows = options.block_rows or {"memory": 256}.get(options.part, 32)
    if options.part == "record":
        record(options)
        return
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        if options.one is not None:
            print(json.dumps(CASES[options.part](Path(folder), options.one, options)))
            return
        rows: list[dict[str, Any]] = []
        for size in {"memory": options.rows, "engines": options.engines, "blocks": options.blocks}[options.part]:
            pool = Path(folder) / f"pool-{size}.parquet"
            if options.part != "blocks":
                write_pool(pool, size if options.part == "memory" else size * options.rows_per_engine)
            rows += in_own_process(options.part, size, pool)
    ratios = RATIOS[options.part](rows)
    publish(f"scale_{options.part}", rows, options.output, ratios, options=vars(options))


if __name__ == "__main__":
    main()
