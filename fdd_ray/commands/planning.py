"""The command that tells what an experiment will take, before it is paid for."""

from __future__ import annotations

import argparse

from fdd_ray.commands.common import add_json, add_overrides, print_json

_DEVICES = ("cpu", "l4", "a10g", "l40s", "a100", "h100", "h200")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    plan = commands.add_parser(
        "plan", help="what an experiment will take: rows, tokens, GPU hours, time and money, with the assumptions"
    )
    plan.add_argument("experiment", help="a YAML file, such as jobs/tiny.yaml; what its run has done is taken from it")
    add_overrides(plan)
    plan.add_argument("--device", choices=_DEVICES, help="what computes (default: a100; for miniatures, cpu)")
    for role, what in (
        ("teacher", "completion tokens a second of one teacher engine; of an endpoint, of all requests together"),
        ("student", "completion tokens a second of one student engine"),
        ("training", "trained tokens a second of one fine-tuning worker"),
    ):
        plan.add_argument(f"--{role}-tokens-per-second", type=_positive, metavar="X", help=f"{what}, if known")
    plan.add_argument(
        "--size", action="append", default=[], type=_size, metavar="NAME=N",
        help="problems of the pool (pool=7473) or of a benchmark, if it cannot be found out; may be given often",
    )  # fmt: skip
    add_json(plan)
    plan.set_defaults(command=_plan)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number more than 0")
    return value


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N, such as pool=7473")
    return name, int(number)


def _plan(options: argparse.Namespace) -> int:
    from fdd_ray.errors import ExperimentError
    from fdd_ray.experiment import load_experiment
    from fdd_ray.planning import Options, make_plan
    from fdd_ray.planning.text import plan_json, plan_text

    experiment = load_experiment(options.experiment, options.overrides)
    sizes = dict(options.size)
    if unknown := sizes.keys() - {"pool", *experiment.benchmarks}:
        names = ", ".join(["pool", *experiment.benchmarks])
        raise ExperimentError(f"--size {min(unknown)}=...: there is no such pool or benchmark; there are: {names}")
    plan = make_plan(
        experiment,
        Options(
            options.device,
            options.teacher_tokens_per_second,
            options.student_tokens_per_second,
            options.training_tokens_per_second,
            sizes,
        ),
    )
    if options.json:
        print_json(plan_json(plan))
    else:
        print(plan_text(plan))
    return 0
