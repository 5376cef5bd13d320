"""How many model-written programs are run per second, and what hostile ones cost.

    python benchmarks/programs.py --size 400 --repeats 5

Compares the sandbox, with one and with two workers, with one Python process for each program (which is no
sandbox at all): programs per second on a mix of honest programs. Then the sandbox again before and after a
batch of hostile ones, and the memory that a worker holds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from measure import publish, ratio, time_in_turns

from fdd_ray.reasoning.programs import ProgramLimits, ProgramRunner

# What models write for word problems; each is made distinct by its numbers, so that none is run only once.
HONEST = (
    "apples = {n}\nprice = 2.5\ntotal = apples * price\nif total > 50:\n    total -= 10\nanswer = total",
    "def solution():\n    eggs_per_day = {n}\n    eaten, baked = 3, 4\n"
    "    sold = eggs_per_day - eaten - baked\n    return sold * 2",
    "import math\nlength = {n}\npanels = math.ceil(length / 7)\ncost = panels * 12.40\nanswer = round(cost, 2)",
    "from decimal import Decimal\nbalance = Decimal('{n}')\nfor year in range(12):\n"
    "    balance *= Decimal('1.05')\nanswer = round(balance, 2)",
    "ages = {{'Ann': {n}, 'Ben': {n} + 4}}\nyears = 0\nwhile sum(ages.values()) < 500:\n"
    "    ages = {{name: age + 1 for name, age in ages.items()}}\n    years += 1\nanswer = years",
    "from dataclasses import dataclass\n@dataclass\nclass Item:\n    price: float\n    count: int\n"
    "basket = [Item(1.5, {n}), Item(2.25, 4)]\nanswer = sum(item.price * item.count for item in basket)",
)
HOSTILE = (
    "while True:\n    pass  # {n}",
    "answer = 10 ** 10**8 + {n}",
    "a = [{n}]\nwhile True:\n    a = a + a",
    "def f(n): return f(n + 1)\nanswer = f({n})",
    "answer = open('/etc/passwd').read() + '{n}'",
    "while True:\n    print('x' * 1000, {n})",
    "answer = ().__class__.__base__.__subclasses__()[{n}]",
    "a = [{n}]\nb = [{n}]\nfor _ in range(60):\n    a = [a, a]\n    b = [b, b]\nanswer = int(a == b)",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=600, help="honest programs in a batch")
    parser.add_argument("--processes", type=int, default=12, help="programs run as one Python process each")
    parser.add_argument("--hostile", type=int, default=40, help="hostile programs in a batch")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each measurement")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="where results go")
    arguments = parser.parse_args()

    honest, plain = _programs(HONEST, arguments.size), _programs(HONEST, arguments.processes)
    limits = ProgramLimits(seconds=0.3, grace=0.5)
    with ProgramRunner(limits) as one, ProgramRunner(limits, workers=2) as two:
        wrong = [result for result in one.run_many(honest) if result.verdict != "ok"]
        if wrong:
            raise SystemExit(f"{len(wrong)} honest programs were not answered, the first with {wrong[0]}")
        seconds = time_in_turns(
            {
                "sandbox, 1 worker": lambda: one.run_many(honest),
                "sandbox, 2 workers": lambda: two.run_many(honest),
                "a Python process each": lambda: [_run_process(source) for source in plain],
            },
            arguments.repeats,
        )
        sizes = {
            "sandbox, 1 worker": len(honest),
            "sandbox, 2 workers": len(honest),
            "a Python process each": len(plain),
        }
        slowest = sizes["a Python process each"] / seconds["a Python process each"].median
        rows: list[dict[str, object]] = [
            {
                "what": name,
                "programs": sizes[name],
                "programs/s": sizes[name] / timing.median,
                "low": sizes[name] / timing.high,
                "high": sizes[name] / timing.low,
                "times a process each": sizes[name] / timing.median / slowest,
            }
            for name, timing in seconds.items()
        ]
        process = seconds.pop("a Python process each")
        ratios = [
            ratio(
                f"programs/s, {name}, to a Python process each",
                [sizes[name] / taken for taken in (timing.median, timing.low, timing.high)],
                [len(plain) / taken for taken in (process.median, process.low, process.high)],
                goal=100,
            )
            for name, timing in seconds.items()
        ]
        hostile = _programs(HOSTILE, arguments.hostile)
        begun = time.perf_counter()
        results = two.run_many(hostile)
        taken = time.perf_counter() - begun
        if any(result.verdict == "ok" for result in results):
            raise SystemExit("a hostile program was answered")
        after = time_in_turns({"after": lambda: two.run_many(honest)}, arguments.repeats)["after"]
        rows.append({"what": "hostile, 2 workers", "programs": len(hostile), "programs/s": len(hostile) / taken})
        rows.append(
            {
                "what": "sandbox, 2 workers, after hostile",
                "programs": len(honest),
                "programs/s": len(honest) / after.median,
                "low": len(honest) / after.high,
                "high": len(honest) / after.low,
                "times a process each": len(honest) / after.median / slowest,
            }
        )
        memory = _worker_memory_mib()
    settings = {"repeats": arguments.repeats, "limits": limits, "worker_memory_mib": memory}
    publish("programs", rows, arguments.output, ratios, **settings)
    print(f"\nmemory of a worker after honest programs, at its most: {memory:.0f} MiB")


def _programs(templates: tuple[str, ...], count: int) -> list[str]:
    return [templates[n % len(templates)].format(n=n + 1) for n in range(count)]


def _run_process(source: str) -> str:
    """What a program answers in a Python process of its own, isolated from user settings but not sandboxed."""
    code = f"{source}\nprint(answer if 'answer' in dir() else solution())"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def _worker_memory_mib() -> float:
    """The most memory that the worker of a new runner held during honest programs, in MiB."""
    with ProgramRunner() as runner:
        before = _children()
        runner.run_many(_programs(HONEST, 600))
        peaks = [_peak_kib(pid) for pid in _children() - before]
    return max(peaks) / 1024


def _children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


if __name__ == "__main__":
    main()
