"""Commands about models: scoring them."""

from __future__ import annotations

import argparse

from fdd_ray.commands.common import add_json, add_overrides, print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    evaluate = commands.add_parser("evaluate", help="score a model on the benchmarks of an experiment")
    evaluate.add_argument("model", help="a Hugging Face model folder, a hub id, or tiny://student")
    evaluate.add_argument("--experiment", required=True, help="the YAML file with benchmarks, prompts and engine")
    add_json(evaluate)
    add_overrides(evaluate)
    evaluate.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from fdd_ray.launch import evaluate_model
    from fdd_ray.report.table import accuracy_table

    accuracy = evaluate_model(options.model, options.experiment, options.overrides)
    if options.json:
        print_json(accuracy)
    else:
        print(accuracy_table(accuracy))
    return 0
