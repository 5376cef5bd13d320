"""Commands that clean files of problems."""

from __future__ import annotations

import argparse
import sys

from fdd_ray.commands.common import add_json, print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
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
    add_json(parser)


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
        print_json(result.as_plain())
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
        print_json(result.as_plain())
    else:
        print(cleaning.tables(result))
    return 0
