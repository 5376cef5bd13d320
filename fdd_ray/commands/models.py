"""Commands about models: scoring them, and handing them on."""

from __future__ import annotations

import argparse

from fdd_ray.commands.common import add_json, add_overrides, print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    evaluate = commands.add_parser("evaluate", help="score any model, or an endpoint, on benchmarks")
    evaluate.add_argument(
        "model", help="a Hugging Face model folder, a hub id, tiny://student, or a name at --endpoint"
    )
    evaluate.add_argument("--experiment", help="take benchmarks, prompts, engine and checks from this YAML file")
    evaluate.add_argument(
        "--benchmark", nargs="+", action="extend", default=[], metavar="NAME=FILE",
        help="evaluate on these files: gsm8k, svamp, asdiv, multiarith, or tables with question and answer",
    )  # fmt: skip
    formats = ("gsm8k", "svamp", "multiarith", "asdiv", "jsonl", "parquet", "csv")
    evaluate.add_argument("--format", choices=formats, help="format of these files, if not plain to see")
    evaluate.add_argument(
        "--columns", nargs="+", default=[], metavar="FIELD=COLUMN",
        help="for tables: which columns hold question, answer and solution",
    )  # fmt: skip
    evaluate.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible endpoint that serves the model")
    evaluate.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="the environment variable with the endpoint's key; without it none is sent",
    )
    evaluate.add_argument("--prompts", help="prompt set: default, tiny, or a folder of your own")
    evaluate.add_argument("--kind", choices=("program", "chain"), help="what the model is asked for")
    evaluate.add_argument(
        "--majority",
        type=int,
        metavar="K",
        help="also sample K attempts at each problem and take the majority's answer",
    )
    evaluate.add_argument("--output", metavar="FILE.jsonl", help="write every problem with every completion here")
    evaluate.add_argument("--force", action="store_true", help="replace this file if it exists")
    evaluate.add_argument(
        "--against",
        metavar="FORMER",
        help="compare, problem by problem, with a former --output, a run, or a score stage",
    )
    add_json(evaluate)
    add_overrides(evaluate)
    evaluate.set_defaults(command=_evaluate)

    export = commands.add_parser("export", help="hand a run's student on as a Hugging Face folder with a model card")
    export.add_argument("run", help="a run directory, such as runs/tiny; local or a URL")
    export.add_argument("output", help="the folder to make")
    export.add_argument(
        "--round", type=_round, metavar="N", help="the student of this round, or best; default: the last one scored"
    )
    export.add_argument(
        "--best-on", default="", metavar="BENCHMARK",
        help="with --round best: where; choosing on a test set is selecting on it, and the card says so",
    )  # fmt: skip
    export.add_argument("--name", default="", help="what the model is called in its card; default: the folder's name")
    export.add_argument("--license", default="", metavar="ID", help="the student's licence; default: that of its base")
    export.add_argument("--teacher-license", default="", metavar="ID", help="the teacher's licence")
    export.add_argument("--force", action="store_true", help="replace the folder if it is a model folder")
    export.set_defaults(command=_export)


def _round(text: str) -> int | str:
    if text == "best":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no round; give a number from 0 on, or best")
    return int(text)


def _evaluate(options: argparse.Namespace) -> int:
    from fdd_ray.cleaning.decontaminate import check_outputs
    from fdd_ray.cleaning.sources import benchmark_sources, column_mapping
    from fdd_ray.evaluation import evaluate, evaluation_settings
    from fdd_ray.report.attempts import compare, read_attempts
    from fdd_ray.report.completions import read_former, write_completions
    from fdd_ray.report.table import evaluation_tables

    benchmarks = None
    if options.benchmark:
        benchmarks = benchmark_sources(options.benchmark, options.format, column_mapping(options.columns))
    settings = evaluation_settings(
        options.model,
        experiment=options.experiment,
        overrides=options.overrides,
        benchmarks=benchmarks,
        endpoint=options.endpoint,
        api_key_env=options.api_key_env,
        kind=options.kind,
        prompts=options.prompts,
        majority=options.majority,
    )
    sources = [source.path for found in settings.benchmarks.values() for source in found if source.path]
    check_outputs([options.output] if options.output else [], sources, force=options.force)
    former = read_former(options.against) if options.against else {}
    found = evaluate(settings)
    if options.output:
        write_completions(options.output, found.manifest)
    differences = compare(former, read_attempts(found.manifest.path)) if options.against else None
    if options.json:
        result = {
            "model": found.model,
            "directory": found.directory,
            "accuracy": found.accuracy,
            "by_steps": found.by_steps,
            "majority": found.majority,
        }
        if differences is not None:
            result["against"] = {name: difference.as_plain() for name, difference in differences.items()}
        print_json(result)
    else:
        print(evaluation_tables(found.accuracy, found.by_steps, found.majority, differences))
    return 0


def _export(options: argparse.Namespace) -> int:
    from fdd_ray.export.card import UNKNOWN, Licenses
    from fdd_ray.export.folder import CARD, export_student

    exported = export_student(
        options.run,
        options.output,
        round=options.round,
        best_on=options.best_on,
        licenses=Licenses(options.license, options.teacher_license),
        name=options.name,
        force=options.force,
    )
    print(f"{exported.path}: the student of round {exported.round}, with {CARD}")
    print(f"read {CARD} before you publish it: it holds the whole experiment with its paths, and may say {UNKNOWN!r}")
    return 0
