"""Answers generated through an OpenAI-compatible endpoint, in rows per second: fdd-ray beside distilabel and curator.

    python benchmarks/generation.py --size 1000 --distilabel /path/to/venv/bin/python --curator /path/to/venv/bin/python
    python benchmarks/generation.py --endpoint http://host:8000/v1 --model NAME --prompts default --in-flight 256

One server (vLLM's own, with the tiny teacher, without a prefix cache, unless ``--endpoint`` names another), the same
prompts, greedy, the same longest answer and as many requests in flight for all; the sides take turns, each in a process
of its own that ends with its rows written. ``generation_sides.py`` says how each is set up. Two bare clients go with
them, the package openai and aiohttp: the faster of them is the ceiling that the server sets.

Columns, medians of the repeats with lowest and highest:

- ``wall s``: from the start of the side's process to its end; ``wall rows/s`` of it.
- ``work s``: from the first of its prompts that the server saw to the last row written; ``rows/s`` of it.
- ``ours / this``: how many times fdd-ray's rows/s are the side's, with start-up (``wall``) and without.
- ``of ceiling``: the side's rows/s as a share of the faster bare client's.
- ``lost``: rows that came back without an answer, over all repeats; ``more requests``: requests that the server saw
  beyond one for each row; ``same text``: answers that are those of the package openai, word for word.
- ``most in flight``: the most requests that the server had at once.

The server is asked for its own counts (``/metrics``) while a side works; where it has none, ``work s`` counts from the
side's call, and the columns that need them stay empty. The first turn of each side warms caches and is not counted if
there are several. A side whose environment is not given is left out, and that is said.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from generation_sides import ANSWERS, SIDES, Job
from measure import Ratio, publish, ratio

sys.path.insert(0, str(Path(__file__).parents[1]))

OURS, REFERENCE, BARE = "fdd_ray", "client", ("client", "http")
_FOREIGN = ("distilabel", "curator")
_LOOK_S = 0.2


@dataclasses.dataclass(frozen=True)
class Look:
    """What the server said of itself.

    Attributes:
        time: When, in seconds since 1970.
        done: Requests it has finished since it was started.
        at_work: Requests it has now, running or waiting.
    """

    time: float
    done: int
    at_work: int


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of one side.

    Attributes:
        wall_s: Seconds from the start of its process to its end.
        work_s: Seconds from its first request to its last row.
        rows: Rows that came back with an answer.
        same: Those of them whose text is the reference's.
        more: Requests beyond one for each row; None if the server does not tell.
        in_flight: Most requests that the server had at once; None if it does not tell.
        version: Of the package.
    """

    wall_s: float
    work_s: float
    rows: int
    same: int
    more: int | None
    in_flight: int | None
    version: str


def read_metrics(text: str, now: float) -> Look | None:
    """What matters of vLLM's Prometheus metrics; None if it is not there.

    Args:
        text: The body of ``/metrics``.
        now: Seconds since 1970.
    """
    names = {"vllm:request_success_total": 0.0, "vllm:num_requests_running": 0.0, "vllm:num_requests_waiting": 0.0}
    found = set()
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in names:
            names[name] += float(line.rpartition(" ")[2])
            found.add(name)
    if len(found) < len(names):
        return None
    done, running, waiting = names.values()
    return Look(now, round(done), round(running + waiting))


def work_begun(looks: Sequence[Look], before: int, more: int) -> float | None:
    """When the server first saw one of the rows' own prompts, in seconds since 1970; None if it was not seen.

    Args:
        looks: In order of time.
        before: Requests that it had finished before the side began.
        more: Requests beyond the rows'; they are taken to come first, as checks of the endpoint do.
    """
    return next((look.time for look in looks if look.done - before + look.at_work > more), None)


class Watch:
    """Looks at the server's metrics while the block runs."""

    def __init__(self, endpoint: str) -> None:
        self._url = endpoint.rstrip("/").removesuffix("/v1") + "/metrics"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.looks: list[Look] = []

    def __enter__(self) -> Watch:
        self._add()
        if self.looks:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self.looks:
            self._thread.join()
            time.sleep(2 * _LOOK_S)  # its counts come a moment after its last reply
            self._add()

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self._add()

    def _add(self) -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(self._url, timeout=10) as reply:
            look = read_metrics(reply.read().decode(), time.time())
            if look is not None:
                self.looks.append(look)


def take_turn(side: str, python: str, job: Job, reference: Mapping[str, str], deadline_s: float) -> Turn:
    """Run one side in a process of its own.

    Args:
        side: Its name.
        python: The interpreter of its environment.
        job: What it is to do; its folder is made anew.
        reference: Answers by prompt id, to compare with.
        deadline_s: Seconds after which it is ended and the benchmark fails.
    """
    with tempfile.TemporaryDirectory(prefix=f"generation-{side}-") as folder, Watch(job.endpoint) as watch:
        description = Path(folder, "job.json")
        description.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(job, folder=folder))))
        begun = time.monotonic()
        output = _run([python, str(Path(__file__).with_name("generation_sides.py")), side, str(description)],
                      _environment(side, folder), deadline_s)  # fmt: skip
        wall_s = time.monotonic() - begun
        told = json.loads(output.strip().splitlines()[-1])
        answers = json.loads(Path(folder, ANSWERS).read_text(encoding="utf-8"))
        rows = len(job.rows())
    looks = watch.looks
    more = looks[-1].done - looks[0].done - rows if looks else None
    seen = work_begun(looks, looks[0].done, max(0, more or 0)) if looks else None
    return Turn(
        wall_s=wall_s,
        work_s=told["ended"] - (seen or told["begun"]),
        rows=len(answers),
        same=sum(text.strip() == reference.get(id, "").strip() for id, text in answers.items()),
        more=more,
        in_flight=max(look.at_work for look in looks) if looks else None,
        version=told["version"],
    )


def _environment(side: str, folder: str) -> dict[str, str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    if side in _FOREIGN:
        environment.pop("PYTHONPATH", None)
        environment["HF_HOME"] = str(Path(folder, "huggingface"))
    return environment


def _run(command: Sequence[str], environment: Mapping[str, str], deadline_s: float) -> str:
    """What a command prints on stdout; all that it started ends with it."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{command[2]} is not done after {deadline_s:g} s; raise --deadline") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise SystemExit(f"{command[2]} failed:\n{output[-1000:]}\n{errors[-3000:]}")
    return output


def summarise(turns: Mapping[str, Sequence[Turn]], size: int) -> list[dict[str, Any]]:
    """A row for each side.

    Args:
        turns: The turns that count, by side.
        size: Rows that went in at each turn.
    """
    rates = {
        side: {"wall": median(t.rows / t.wall_s for t in found), "work": median(t.rows / t.work_s for t in found)}
        for side, found in turns.items()
    }
    ceiling = max((rates[side]["work"] for side in BARE if side in rates), default=None)
    rows: list[dict[str, Any]] = []
    for side, found in turns.items():
        ours, rate = rates.get(OURS), rates[side]
        known = [turn.more for turn in found if turn.more is not None]
        flights = [turn.in_flight for turn in found if turn.in_flight is not None]
        rows.append(
            {
                "side": f"{side} {found[0].version}",
                "rows in": size * len(found),
                "rows out": sum(turn.rows for turn in found),
                "lost": sum(size - turn.rows for turn in found),
                "wall s": _spread([turn.wall_s for turn in found]),
                "wall rows/s": rate["wall"],
                "ours / this (wall)": ours["wall"] / rate["wall"] if ours else "",
                "work s": _spread([turn.work_s for turn in found]),
                "rows/s": rate["work"],
                "ours / this": ours["work"] / rate["work"] if ours else "",
                "of ceiling": rate["work"] / ceiling if ceiling else "",
                "more requests": sum(known) if known else "",
                "most in flight": max(flights) if flights else "",
                "same text": f"{sum(turn.same for turn in found)} of {sum(turn.rows for turn in found)}",
            }
        )
    return rows


def ratios(turns: Mapping[str, Sequence[Turn]]) -> list[Ratio]:
    """fdd-ray's rows/s to each other side's, with start-up and without."""
    work = {side: [turn.rows / turn.work_s for turn in found] for side, found in turns.items()}
    wall = {side: [turn.rows / turn.wall_s for turn in found] for side, found in turns.items()}
    found: list[Ratio] = []
    for side in turns:
        if side != OURS and OURS in turns:
            goal = 2.0 if side in _FOREIGN else None
            found.append(ratio(f"rows/s, to {side}", work[OURS], work[side], goal))
            found.append(ratio(f"rows/s with start-up, to {side}", wall[OURS], wall[side]))
    return found


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.1f} [{min(seconds):.1f}, {max(seconds):.1f}]"


def write_prompts(folder: Path, size: int, prompt_set: str) -> tuple[Path, Path]:
    """Problems of the tiny world as JSON lines of prompts and as Parquet file of a pool."""
    from fdd_ray.prompts import load_prompts
    from fdd_ray.records import Problem, schema_of, to_tables
    from fdd_ray.store import files
    from fdd_ray.tiny import make_problems

    prompts, pool = folder / "prompts.jsonl", folder / "pool.parquet"
    problems = [Problem.new(drawn.question, drawn.answer) for drawn in make_problems("pool", size, seed=1)]
    files.write_tables(str(pool), to_tables(problems, Problem), schema_of(Problem))
    texts = load_prompts(prompt_set)
    with prompts.open("w", encoding="utf-8") as file:
        for problem in problems:
            (message,) = texts.solve("program", problem.question)
            file.write(json.dumps({"id": problem.id, "prompt": message["content"]}) + "\n")
    return prompts, pool


@contextlib.contextmanager
def _server(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    if options.endpoint:
        yield options.endpoint.rstrip("/")
        return
    from tests.engines.endpoint import serve_tiny_teacher

    # With a prefix cache, whoever comes later would find prompts that were read before.
    how = ("--no-enable-prefix-caching", "--disable-uvicorn-access-log")
    with serve_tiny_teacher(folder / "server.log", *how, background=False) as endpoint:
        yield endpoint


def main(arguments: Sequence[str] | None = None) -> None:
    """Let the sides take turns and publish what they did."""
    options = _options(arguments)
    foreign = {"distilabel": options.distilabel, "curator": options.curator}
    pythons = {side: foreign.get(side, sys.executable) for side in SIDES}
    left_out = [side for side, python in pythons.items() if not python]
    turns: dict[str, list[Turn]] = {side: [] for side in SIDES if side not in left_out}
    for side in left_out:
        print(f"{side} is left out: give --{side} the Python of an environment that has it", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="generation-") as name:
        folder = Path(name)
        prompts, pool = write_prompts(folder, options.size, options.prompts)
        with _server(options, folder) as endpoint:
            job = Job(
                endpoint, options.model, str(prompts), str(pool), "", options.prompts, options.in_flight,
                options.max_tokens, options.distilabel_replicas, options.curator_backend,
            )  # fmt: skip
            reference = _reference(job, folder, options.deadline)
            for repeat in range(options.repeats + (options.repeats > 1)):
                for side in _order(list(turns), repeat):
                    turn = take_turn(side, pythons[side], job, reference, options.deadline)
                    print(f"turn {repeat} {side}: {turn}", file=sys.stderr, flush=True)
                    if repeat or options.repeats == 1:
                        turns[side].append(turn)
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    every = {side: [dataclasses.asdict(turn) for turn in found] for side, found in turns.items()}
    publish(
        "generation", summarise(turns, options.size), options.output, ratios(turns),
        **settings, left_out=left_out, turns=every,
    )  # fmt: skip
    if left_out:
        print(f"left out: {', '.join(left_out)}")


def _order(sides: Sequence[str], repeat: int) -> list[str]:
    """Another side begins at each repeat, so that none always follows the same."""
    start = repeat % len(sides)
    return [*sides[start:], *sides[:start]]


def _reference(job: Job, folder: Path, deadline_s: float) -> dict[str, str]:
    """The answers of the package openai; asking for them also warms the server."""
    own = folder / "reference"
    own.mkdir()
    description = own / "job.json"
    description.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(job, folder=str(own)))))
    sides = Path(__file__).with_name("generation_sides.py")
    _run([sys.executable, str(sides), REFERENCE, str(description)], os.environ, deadline_s)
    answers: dict[str, str] = json.loads((own / ANSWERS).read_text(encoding="utf-8"))
    return answers


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1000, help="prompts at each turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side that count")
    parser.add_argument("--endpoint", default="", help="base URL of a server that is up, without a key")
    parser.add_argument("--model", default="tiny-teacher", help="the model that it serves")
    parser.add_argument("--prompts", default="tiny", help="prompt set: tiny, default, or a folder")
    parser.add_argument("--in-flight", type=int, default=128, help="requests in flight")
    parser.add_argument("--max-tokens", type=int, default=100, help="longest answer, in tokens")
    parser.add_argument("--distilabel", metavar="PYTHON", help="a Python that has distilabel[openai]")
    parser.add_argument("--distilabel-replicas", type=int, default=1, metavar="N", help="processes of its step")
    parser.add_argument("--curator", metavar="PYTHON", help="a Python that has bespokelabs-curator")
    parser.add_argument("--curator-backend", choices=("openai", "litellm"), default="openai")
    parser.add_argument("--deadline", type=float, default=1800.0, metavar="S", help="longest turn, in seconds")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="where the JSON goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
