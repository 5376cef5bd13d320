"""Commands that run an experiment, and those that look at a run."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fdd_ray.commands.common import add_json, add_overrides, print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    run = commands.add_parser("run", help="run an experiment; issued again, it skips what is done")
    run.add_argument("experiment", help="a YAML file, such as jobs/tiny.yaml")
    add_overrides(run)
    _add_ways_on(run)
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="run the tiny world: a real teacher and student, on a laptop, in minutes")
    add_overrides(demo)
    _add_ways_on(demo)
    demo.set_defaults(command=_demo)

    status = commands.add_parser("status", help="where a run stands")
    status.add_argument("run", help="a run directory, such as runs/tiny")
    ways = status.add_mutually_exclusive_group()
    add_json(ways)
    ways.add_argument("--watch", action="store_true", help="go on showing it, every few seconds, until the run ends")
    status.set_defaults(command=_status)

    settings = commands.add_parser("settings", help="every setting of an experiment, with its default and meaning")
    settings.add_argument("group", nargs="?", default="", help="only keys that begin with this, such as finetune")
    settings.set_defaults(command=_settings)

    report = commands.add_parser(
        "report", help="rounds, rejections and stages of a run as tables, or all of it as a page"
    )
    report.add_argument("run", help="a run directory, such as runs/tiny")
    report.add_argument(
        "--html", metavar="FILE.html", help="write one self-contained page with plots and examples here"
    )
    report.set_defaults(command=_report)


def _add_ways_on(parser: argparse.ArgumentParser) -> None:
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--from-stage", default="", metavar="STAGE[:ROUND]",
        help="do this stage and all that follow anew, such as finetune:0 or score:base; what is there is set aside",
    )  # fmt: skip
    ways.add_argument(
        "--fork", default="", metavar="NEW_RUN",
        help="begin a new run, by name or path, with the finished stages that are the same under these settings",
    )  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    from fdd_ray.launch import run_experiment

    run_experiment(options.experiment, options.overrides, from_stage=options.from_stage, fork=options.fork)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from fdd_ray.launch import TINY_EXPERIMENT, run_experiment

    run_experiment(TINY_EXPERIMENT, options.overrides, from_stage=options.from_stage, fork=options.fork)
    return 0


def _status(options: argparse.Namespace) -> int:
    from fdd_ray.progress import can_redraw
    from fdd_ray.report.status import driver_line, read_status

    if options.watch:
        from fdd_ray.report.watch import watch

        try:
            watch(options.run, sys.stdout)
        except KeyboardInterrupt:
            print("no longer watching; the run goes on without it")
            return 0
    status = read_status(options.run)
    if options.json:
        print_json(status)
    else:
        if not options.watch or not can_redraw(sys.stdout):  # else the view has shown it
            _print_tables(status)
        print(driver_line(status))
    return 0


def _settings(options: argparse.Namespace) -> int:
    from fdd_ray.experiment import Experiment
    from fdd_ray.settings import describe

    found = [item for item in describe(Experiment) if item.key.startswith(options.group)]
    if not found:
        print(f"fdd-ray: no setting begins with {options.group!r}; see fdd-ray settings", file=sys.stderr)
        return 2
    if not options.group:
        print("extends:\n    Experiment files that this one builds on, one or a list, relative to it; later ones win.")
    for item in found:
        print(f"{item.key} = {item.default}" if item.default else f"{item.key}:")
        print(f"    {item.help}")
    return 0


def _report(options: argparse.Namespace) -> int:
    if options.html is not None:
        from fdd_ray.report.html.page import write_page

        write_page(options.run, options.html)
        print(f"wrote {options.html}; it needs nothing but a browser")
        return 0
    from fdd_ray.report.status import read_status
    from fdd_ray.report.table import details

    status = read_status(options.run)
    _print_tables(status)
    print()
    print(details(status))
    return 0


def _print_tables(status: dict[str, Any]) -> None:
    from fdd_ray.report.table import rounds_table

    print(rounds_table(status))
    unfinished = [stage for stage in status["stages"] if not stage["done"]]
    for stage in unfinished:
        place = "base" if stage["round"] is None else f"round {stage['round']}"
        print(f"unfinished: {place} {stage['stage']}, {stage['rows_written']} rows written")
