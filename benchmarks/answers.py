"""How many answers are compared in a second, by our own comparison and by math-verify.

    python benchmarks/answers.py --repeats 5

Two sets of pairs: a mix of the forms that models write, and, where GSM8K's files are, each of its solutions
against its known answer (the answer is read out of the solution, too). One core, one process. math-verify
runs with its timeouts switched off, as `fdd_ray.reasoning.second_opinion` runs it, and without the process
around it; so the comparison is of reading and comparing alone. Agreement is the share of pairs on which a
side says what is true.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from measure import publish, time_in_turns

from fdd_ray.reasoning.answers import compare, final_answer

# given, known, whether they are the same answer
MIX: tuple[tuple[str, str, bool], ...] = (
    ("42", "42", True),
    ("43", "42", False),
    ("-42", "42", False),
    ("1,080", "1080", True),
    ("$18.00", "18", True),
    ("\\$18", "18", True),
    ("12 apples", "12", True),
    ("50%", "50%", True),
    ("50%", "50", False),
    ("50\\%", "0.5", True),
    ("2 1/2", "2.5", True),
    ("2 1/2", "1", False),
    ("3/4", "0.75", True),
    ("\\frac{3}{4}", "0.75", True),
    ("\\boxed{36}", "36", True),
    ("\\boxed{36\\text{ dollars}}", "36", True),
    ("1.5e6", "1500000", True),
    ("3 million", "3000000", True),
    ("3:30 PM", "15:30", True),
    ("18:00", "18", False),
    ("30 minutes", "1/2 hour", True),
    ("5 minutes", "5 hours", False),
    ("seven", "7", True),
    ("0.333", "1/3", False),
    ("7 or 8", "7", False),
)


class Pairs(NamedTuple):
    """A set of pairs: texts to compare with known answers, and whether they are the same."""

    name: str
    rows: list[tuple[str, str, bool]]
    chains: bool


def main() -> None:
    """Read the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", type=int, default=2000, help="pairs in each set")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of each side")
    parser.add_argument("--gsm8k", type=Path, default=_gsm8k(), help="GSM8K's original JSON lines")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="folder for answers.json")
    arguments = parser.parse_args()
    sets = [Pairs("mix of forms", [MIX[i % len(MIX)] for i in range(arguments.size)], False)]
    if arguments.gsm8k.is_file():
        sets.append(_of_gsm8k(arguments.gsm8k, arguments.size))
    else:
        print(f"GSM8K is left out: no {arguments.gsm8k}; name it with --gsm8k\n")
    sides: dict[str, Callable[[str, str], bool]] = {"fdd_ray": lambda given, gold: compare(given, gold) == "right"}
    if importlib.util.find_spec("math_verify") is None:
        print("math-verify is left out: it is not installed; pip install 'fdd-ray[latex]'\n")
    else:
        sides["math-verify"] = _math_verify()
    rows = [row for pairs in sets for row in _measure(pairs, sides, arguments.repeats)]
    publish("answers", rows, arguments.output, size=arguments.size, repeats=arguments.repeats)


def _measure(
    pairs: Pairs, sides: dict[str, Callable[[str, str], bool]], repeats: int
) -> Sequence[dict[str, str | float]]:
    def run(side: Callable[[str, str], bool]) -> list[bool]:
        if pairs.chains:
            return [side(final_answer(text) or "", gold) for text, gold, _ in pairs.rows]
        return [side(text, gold) for text, gold, _ in pairs.rows]

    timings = time_in_turns({name: lambda side=side: run(side) for name, side in sides.items()}, repeats)
    count = len(pairs.rows)
    return [
        {
            "pairs": pairs.name,
            "side": name,
            "pairs/s": count / timing.median,
            "low": count / timing.high,
            "high": count / timing.low,
            "agreement %": 100 * sum(f == t for f, (_, _, t) in zip(run(sides[name]), pairs.rows, strict=True)) / count,
        }
        for name, timing in timings.items()
    ]


def _math_verify() -> Callable[[str, str], bool]:
    from math_verify import parse, verify

    logging.disable(logging.WARNING)  # it warns that its timeouts are off

    def same(given: str, gold: str) -> bool:
        read = [parse(text, parsing_timeout=None) for text in (gold, given)]
        return bool(verify(read[0], read[1], timeout_seconds=None))

    return same


def _of_gsm8k(path: Path, size: int) -> Pairs:
    answers = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()[:size]]
    return Pairs("GSM8K solutions", [(text, text.rsplit("####", 1)[1].strip(), True) for text in answers], True)


def _gsm8k() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("FDD_RAY_DATA", beside)) / "gsm8k_train.jsonl"


if __name__ == "__main__":
    main()
