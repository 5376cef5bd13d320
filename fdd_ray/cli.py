"""The command line. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from fdd_ray import __version__
from fdd_ray.errors import FddError

_EXIT_CODES = """\
exit codes:
  0 done    2 bad usage or experiment    3 problems unreadable    4 run directory unusable
  5 engines failed    6 fine-tuning failed    7 a stage's result is not good enough to go on
  8 an optional package is missing    9 the budget is used up    130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a run as Ctrl-C does
    try:
        return int(options.command(options))
    except FddError as error:
        print(f"fdd-ray: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fdd-ray: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdd-ray",
        description="Feedback-Driven Distillation on Ray: a teacher, a small student, and rounds of feedback.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fdd-ray {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run an experiment; issued again, it skips what is done")
    run.add_argument("experiment", help="a YAML file, such as jobs/tiny.yaml")
    _add_overrides(run)
    _add_ways_on(run)
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="run the tiny world: a real teacher and student, on a laptop, in minutes")
    _add_overrides(demo)
    _add_ways_on(demo)
    demo.set_defaults(command=_demo)

    status = commands.add_parser("status", help="where a run stands")
    status.add_argument("run", help="a run directory, such as runs/tiny")
    status.add_argument("--json", action="store_true", help="print it for programs")
    status.set_defaults(command=_status)

    evaluate = commands.add_parser("evaluate", help="score a model on the benchmarks of an experiment")
    evaluate.add_argument("model", help="a Hugging Face model folder, a hub id, or tiny://student")
    evaluate.add_argument("--experiment", required=True, help="the YAML file with benchmarks, prompts and engine")
    evaluate.add_argument("--json", action="store_true", help="print it for programs")
    _add_overrides(evaluate)
    evaluate.set_defaults(command=_evaluate)

    settings = commands.add_parser("settings", help="every setting of an experiment, with its default and meaning")
    settings.add_argument("group", nargs="?", default="", help="only keys that begin with this, such as finetune")
    settings.set_defaults(command=_settings)

    report = commands.add_parser("report", help="rounds, rejections and stages of a run as tables")
    report.add_argument("run", help="a run directory, such as runs/tiny")
    report.set_defaults(command=_report)

    decontaminate = commands.add_parser("decontaminate", help="remove problems that are too close to a benchmark")
    decontaminate.add_argument(
        "--against", nargs="+", required=True, metavar="BENCH", help="benchmarks: files, each may be NAME=FILE"
    )
    _add_files(decontaminate, "the benchmarks", clean="CLEAN.jsonl")
    decontaminate.add_argument("--ngram", type=_ngram, default=10, metavar="N", help="words in a row, or off (10)")
    decontaminate.add_argument("--keep-numbers", action="store_true", help="compare numbers too; they are masked")
    decontaminate.add_argument(
        "--containment", type=_share, default=0.5, metavar="X", help="share of runs of three words, or off (0.5)"
    )
    decontaminate.set_defaults(command=_decontaminate)

    deduplicate = commands.add_parser("deduplicate", help="remove problems that repeat others, or nearly so")
    deduplicate.add_argument("--against", nargs="+", default=[], metavar="POOL", help="files of problems that all stay")
    _add_files(deduplicate, "the files to compare with", clean="KEPT.jsonl")
    deduplicate.add_argument(
        "--per-template", type=_count, default=8, metavar="N", help="problems that may differ in numbers alone (8)"
    )
    deduplicate.add_argument(
        "--similarity", type=_similarity, default=0.8, metavar="X", help="similarity of near duplicates, or off (0.8)"
    )
    deduplicate.set_defaults(command=_deduplicate)
    return parser


def _add_files(parser: argparse.ArgumentParser, against: str, *, clean: str) -> None:
    """What both commands that clean files have: what is read, and where the results go."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file of problems, a glob or a URL")
    formats = ("gsm8k", "svamp", "multiarith", "asdiv", "jsonl", "parquet", "csv")
    for prefix, what in (("", "the files"), ("against-", against)):
        parser.add_argument(f"--{prefix}format", choices=formats, help=f"format of {what}, if not plain to see")
        parser.add_argument(
            f"--{prefix}columns", nargs="+", default=[], metavar="FIELD=COLUMN",
            help=f"for tables: which columns of {what} hold question, answer and solution",
        )  # fmt: skip
    parser.add_argument(
        "--output", metavar=clean, help="write the problems that stay here: id, question, answer, solution, source"
    )
    parser.add_argument("--evidence", metavar="EVIDENCE.jsonl", help="write why each of the other rows is not there")
    parser.add_argument("--force", action="store_true", help="replace these files if they exist")
    parser.add_argument("--json", action="store_true", help="print it for programs")


def _ngram(text: str) -> int | None:
    if text == "off":
        return None
    if not text.isdecimal() or int(text) < 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not off or a number of words from 4 on")
    return int(text)


def _share(text: str) -> float | None:
    if text == "off":
        return None
    try:
        share = float(text)
    except ValueError:
        share = 0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not off or a number more than 0 and at most 1")
    return share


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _similarity(text: str) -> float | None:
    similarity = _share(text)
    if similarity is not None and similarity < 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is not off or a number from 0.5 to 1")
    return similarity


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting of the experiment, such as finetune.epochs=3; may be given often",
    )


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
    from fdd_ray.report.status import driver_line, read_status

    status = read_status(options.run)
    if options.json:
        _print_json(status)
    else:
        _print_tables(status)
        print(driver_line(status))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from fdd_ray.launch import evaluate_model
    from fdd_ray.report.table import accuracy_table

    accuracy = evaluate_model(options.model, options.experiment, options.overrides)
    if options.json:
        _print_json(accuracy)
    else:
        print(accuracy_table(accuracy))
    return 0


def _settings(options: argparse.Namespace) -> int:
    from fdd_ray.experiment import Experiment
    from fdd_ray.settings import describe

    found = [item for item in describe(Experiment) if item.key.startswith(options.group)]
    if not found:
        print(f"fdd-ray: no setting begins with {options.group!r}; see fdd-ray settings", file=sys.stderr)
        return 2
    for item in found:
        print(f"{item.key} = {item.default}" if item.default else f"{item.key}:")
        print(f"    {item.help}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from fdd_ray.report.status import read_status
    from fdd_ray.report.table import details

    status = read_status(options.run)
    _print_tables(status)
    print()
    print(details(status))
    return 0


def _decontaminate(options: argparse.Namespace) -> int:
    from fdd_ray.cleaning import decontaminate as cleaning
    from fdd_ray.cleaning.sources import benchmark_sources, column_mapping, source_of
    from fdd_ray.curation.contamination import ContaminationSettings

    columns, against_columns = column_mapping(options.columns), column_mapping(options.against_columns)
    sources = [source_of(path, options.format, columns) for path in options.files]
    against = benchmark_sources(options.against, options.against_format, against_columns)
    outputs = [path for path in (options.output, options.evidence) if path]
    inputs = [source.path for source in (*sources, *against.values())]
    cleaning.check_outputs(outputs, inputs, force=options.force)
    settings = ContaminationSettings(options.ngram, not options.keep_numbers, options.containment)
    result = cleaning.decontaminate(sources, against, settings)
    if options.evidence:
        cleaning.write_lines(options.evidence, cleaning.evidence_rows(result))
    if options.output:
        cleaning.write_lines(options.output, cleaning.clean_rows(result))
    for line in cleaning.warnings(result):
        print(f"fdd-ray: {line}", file=sys.stderr)
    if options.json:
        _print_json(result.as_plain())
    else:
        print(cleaning.tables(result))
    return 0


def _deduplicate(options: argparse.Namespace) -> int:
    from fdd_ray.cleaning import deduplicate as cleaning
    from fdd_ray.cleaning.decontaminate import check_outputs
    from fdd_ray.cleaning.sources import column_mapping, source_of
    from fdd_ray.curation.duplicates import DuplicateSettings

    columns, against_columns = column_mapping(options.columns), column_mapping(options.against_columns)
    sources = [source_of(path, options.format, columns) for path in options.files]
    against = [source_of(path, options.against_format, against_columns) for path in options.against]
    outputs = [path for path in (options.output, options.evidence) if path]
    check_outputs(outputs, [source.path for source in (*sources, *against)], force=options.force)
    settings = DuplicateSettings(per_template=options.per_template, similarity=options.similarity)
    result = cleaning.run(sources, against, settings, output=options.output, evidence=options.evidence)
    for row in result.examples[: cleaning.SHOWN]:
        print(f"fdd-ray: unreadable, such as {row.file}:{row.line}: {row.reason}: {row.detail}", file=sys.stderr)
    if options.json:
        _print_json(result.as_plain())
    else:
        print(cleaning.tables(result))
    return 0


def _print_tables(status: dict[str, Any]) -> None:
    from fdd_ray.report.table import rounds_table

    print(rounds_table(status))
    unfinished = [stage for stage in status["stages"] if not stage["done"]]
    for stage in unfinished:
        place = "base" if stage["round"] is None else f"round {stage['round']}"
        print(f"unfinished: {place} {stage['stage']}, {stage['rows_written']} rows written")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
