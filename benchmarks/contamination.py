"""How many questions are held against the benchmarks in a second, and what the guard costs in memory.

    python benchmarks/contamination.py --sizes 10000 100000 1000000 --repeats 1

The guard checks id, text, ten masked words in a row and containment, and gives evidence. Beside it stands what
a decontamination script usually does: a set of all 10-grams of the benchmarks, a yes or no for each question,
nothing else. Questions are of made-up words that are as frequent as words of a language are (Zipf), 45 on
average; one in a hundred is a benchmark problem with other numbers. Where GSM8K's files are, its 7,473
training problems are checked against its 1,319 test problems besides. One core, one process.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import pickle
import random
import re
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from measure import peak_memory_mib, publish, time_in_turns

from fdd_ray.curation.contamination import BenchmarkGuard
from fdd_ray.curation.ngrams import words_of
from fdd_ray.records import Problem

_DIFFERENT = 10_000  # so many different questions, asked again and again
_NGRAM = 10


class Setting(NamedTuple):
    """Benchmark problems and the questions that are held against them."""

    name: str
    benchmark: list[str]
    questions: list[str]


class NgramSet:
    """A set of all masked n-grams of the benchmarks."""

    def __init__(self, questions: Iterable[str]) -> None:
        self.grams = {gram for question in questions for gram in _grams(words_of(question))}

    def check(self, question: str) -> bool:
        """Whether the question has one of them."""
        return any(gram in self.grams for gram in _grams(words_of(question)))


def main() -> None:
    """Read the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="questions that are checked")
    parser.add_argument("--benchmarks", type=int, nargs="+", default=[1319, 10_000], help="benchmark problems")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats of each side")
    parser.add_argument("--seed", type=int, default=0, help="seed of the made-up questions")
    parser.add_argument("--gsm8k", type=Path, default=_gsm8k(), help="folder with GSM8K's original JSON lines")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="folder for the results")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    rows: list[dict[str, object]] = []
    for count in arguments.benchmarks:
        setting = _made_up(rng, count)
        rows += _measure(setting, arguments.sizes, arguments.repeats)
    if (arguments.gsm8k / "gsm8k_train.jsonl").is_file():
        rows += _measure(_of_gsm8k(arguments.gsm8k), [0], arguments.repeats)
    else:
        print(f"GSM8K is left out: no gsm8k_train.jsonl in {arguments.gsm8k}; name its folder with --gsm8k\n")
    publish("contamination", rows, arguments.output, sizes=arguments.sizes, repeats=arguments.repeats,
            seed=arguments.seed, peak_memory_mib=peak_memory_mib())  # fmt: skip


def _measure(setting: Setting, sizes: Sequence[int], repeats: int) -> list[dict[str, object]]:
    """One row for each side and size; size 0 is every question once."""
    problems = [Problem.new(question, "0") for question in setting.benchmark]
    makers: dict[str, Callable[[], BenchmarkGuard | NgramSet]] = {
        "guard": lambda: BenchmarkGuard({"benchmark": problems}),
        "set of 10-grams": lambda: NgramSet(setting.benchmark),
    }
    building = time_in_turns(makers, repeats)
    sides, memory = {}, {}
    for name, make in makers.items():
        tracemalloc.start()  # it slows building down, so this one is not timed
        sides[name] = make()
        gc.collect()
        memory[name] = tracemalloc.get_traced_memory()[0] / 2**20
        tracemalloc.stop()
    rows: list[dict[str, object]] = []
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for size in sizes:
        size = size or len(setting.questions)
        processor: dict[str, list[float]] = {name: [] for name in sides}
        checks = {
            name: partial(_check_timed, side, setting.questions, size, processor[name]) for name, side in sides.items()
        }
        timings = time_in_turns(checks, repeats)
        for name, timing in timings.items():
            seconds[name].append(statistics.median(processor[name]))
            rows.append(
                {
                    "benchmark": setting.name,
                    "side": name,
                    "questions": size,
                    "found": _check(sides[name], setting.questions, min(size, len(setting.questions))),
                    "questions/s": size / timing.median,
                    "low": size / timing.high,
                    "high": size / timing.low,
                    "CPU us each": seconds[name][-1] / size * 1e6,
                    "build s": building[name].median,
                    "memory MiB": memory[name],
                    "pickled MiB": len(pickle.dumps(sides[name])) / 2**20,
                    "growth": "",
                }
            )
    if len(sizes) > 1:
        for row in rows[-len(sides) :]:
            row["growth"] = _exponent(sizes, seconds[str(row["side"])])
    return rows


def _check(side: BenchmarkGuard | NgramSet, questions: Sequence[str], size: int) -> int:
    """How many of the first ``size`` questions (they come round again) are found."""
    return sum(bool(side.check(question)) for question in islice(cycle(questions), size))


def _check_timed(side: BenchmarkGuard | NgramSet, questions: Sequence[str], size: int, seconds: list[float]) -> None:
    """`_check`, with its processor time added to ``seconds``: others on the machine hardly change that."""
    begun = time.process_time()
    _check(side, questions, size)
    seconds.append(time.process_time() - begun)


def _exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of processor time over size, both as logarithms: 1 is linear."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(s) for s in seconds]).slope


def _grams(words: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return zip(*(words[offset:] for offset in range(_NGRAM)), strict=False)


def _made_up(rng: random.Random, count: int) -> Setting:
    words = sorted({"".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 8))) for _ in range(6000)})
    rng.shuffle(words)
    weights = [1 / (rank + 3) for rank in range(len(words))]

    def question() -> str:
        chosen = rng.choices(words, weights, k=rng.randint(20, 70))
        return " ".join(word if rng.random() > 0.08 else str(rng.randint(1, 999)) for word in chosen)

    benchmark = [question() for _ in range(count)]
    questions = [
        re.sub(r"\d+", lambda _: str(rng.randint(1, 999)), rng.choice(benchmark)) if number % 100 == 0 else question()
        for number in range(_DIFFERENT)
    ]
    return Setting(f"{count:,} made up", benchmark, questions)


def _of_gsm8k(folder: Path) -> Setting:
    benchmark, questions = (
        [json.loads(line)["question"] for line in (folder / f"gsm8k_{split}.jsonl").open(encoding="utf-8")]
        for split in ("test", "train")
    )
    return Setting("GSM8K test", benchmark, questions)


def _gsm8k() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("FDD_RAY_DATA", beside))


if __name__ == "__main__":
    main()
