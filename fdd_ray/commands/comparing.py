"""The command that compares policies, or any settings, over several seeds."""

from __future__ import annotations

import argparse

from fdd_ray.commands.common import add_json, add_overrides, print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    compare = commands.add_parser(
        "compare", help="run an experiment under several feedback policies and seeds, and compare the students"
    )
    compare.add_argument("experiment", help="a YAML file, such as jobs/tiny.yaml, or the folder of a comparison")
    compare.add_argument(
        "--policies", nargs="+", metavar="POLICY",
        help="feedback policies; the first is what the others are compared with (fdd random more_rationales)",
    )  # fmt: skip
    compare.add_argument(
        "--arm", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"),
        help="an arm of your own: a name and the settings in which it differs; may be given often",
    )  # fmt: skip
    compare.add_argument("--seeds", nargs="+", type=int, help="seeds of each arm (0 1 2)")
    compare.add_argument(
        "--unequal", action="store_true", help="go on where a round accepts fewer rows than feedback.new_problems"
    )
    compare.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    add_json(compare)
    add_overrides(compare)
    compare.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> int:
    from fdd_ray.errors import ExperimentError
    from fdd_ray.report.comparison import ARMS, comparison_table, read_comparison, write_plot
    from fdd_ray.store import files

    folder = options.experiment
    if files.exists(files.join(folder, ARMS)):
        if options.policies or options.arm or options.seeds or options.overrides or options.unequal:
            raise ExperimentError(
                f"{folder} is a comparison, which is only read; leave out --policies, --arm, --seeds and --set, or give"
                " the experiment in its place to go on with it"
            )
    else:
        from fdd_ray.comparison import policy_arms, run_comparison, with_overrides

        given = options.policies or ([] if options.arm else ["fdd", "random", "more_rationales"])
        arms = [*policy_arms(given), *(with_overrides(arm) for arm in options.arm)]
        folder = run_comparison(
            options.experiment, arms, options.seeds or [0, 1, 2], options.overrides, equal=not options.unequal
        )
    found = read_comparison(folder)
    written = write_plot(found)
    if options.json:
        print_json(found.as_plain())
    else:
        print(comparison_table(found, markdown=options.markdown))
        print("\n".join(f"plot: {path}" for path in written))
    return 0
