"""A run as plain text tables: one line for each round, what its scores say, and where rows and time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fdd_ray.progress import duration
from fdd_ray.report.attempts import Difference
from fdd_ray.report.scores import (
    DIFFERENCE,
    NOTE,
    by_majority_table,
    by_steps_table,
    difference_cells,
    differences_table,
    majority_table,
    percent,
    steps_table,
)


def rounds_table(status: Mapping[str, Any]) -> str:
    """The rounds of `fdd_ray.report.status.read_status` as text."""
    benchmarks = sorted({name for entry in (status["base"], *status["rounds"]) for name in entry["accuracy"]})
    header = ["round", "easy", "hard", "kept", "rejected", "failed", "distillation set"]
    header += [f"{name} % [95 %]" for name in benchmarks]
    rows = [["base", "", "", "", "", "", "", *(percent(status["base"]["accuracy"].get(name)) for name in benchmarks)]]
    for entry in status["rounds"]:
        rows.append(
            [
                str(entry["round"]),
                *(_number(entry[key]) for key in ("easy", "hard", "kept")),
                str(sum(entry["rejected"].values())),
                _number(entry["failed"]),
                _number(entry["distillation_set"]),
                *(percent(entry["accuracy"].get(name)) for name in benchmarks),
            ]
        )
    return align([header, *rows])


def details(status: Mapping[str, Any]) -> str:
    """What became of the rows of each round, what its scores say, and each stage with its time and tokens.

    Args:
        status: What `fdd_ray.report.status.read_status` returns; the attempts are read from where it says.
    """
    lines = [line for entry in status["rounds"] for line in _outcomes(entry)]
    compared = differences_table(status)
    for table in (compared, steps_table(status), majority_table(status)):
        if table:
            lines += ["", align(table)]
        if table and table is compared:
            lines.append(NOTE)
    rows = [["stage", "round", "time", "rows", "kept", "rejected", "failed", "tokens"]]
    for stage in status["stages"]:
        place = "base" if stage["round"] is None else str(stage["round"])
        if not stage["done"]:
            rows.append([stage["stage"], place, "unfinished", str(stage["rows_written"]), "", "", "", ""])
            continue
        counts = stage["counts"]
        tokens = sum(sum(by_role.values()) for by_role in stage["tokens"].values())
        rejected = str(sum(counts["rejected"].values()))
        rows.append(
            [
                stage["stage"],
                place,
                duration(stage["seconds"]),
                str(counts["rows"]),
                str(counts["kept"]),
                rejected,
                str(counts["failed"]),
                str(tokens) if tokens else "",
            ]
        )
    total = sum(stage["seconds"] for stage in status["stages"] if stage["done"])
    return "\n".join([*lines, "", align(rows), f"all stages together: {duration(total)}"])


def _outcomes(entry: Mapping[str, Any]) -> list[str]:
    """The accounts of a round: rows in = kept + rejected + failed, and the share of each reason."""
    lines = []
    if entry["pool_read"]:
        lines += _account("pool", "rows of its files", entry["pool_read"])
    if entry["asked"] is not None:
        more = entry.get("policy") == "more_rationales"
        asked = "further rationales for seed problems asked for" if more else "new problems asked for"
        what = "seed problems" if entry["round"] == 0 else asked
        lines += _account(f"round {entry['round']}", what, {**entry, "rows": entry["asked"]})
    return lines


def _account(name: str, what: str, counts: Mapping[str, Any]) -> list[str]:
    rows, kept, failed = (counts[key] for key in ("rows", "kept", "failed"))
    rejected = sum(counts["rejected"].values())
    lines = [f"{name}: {rows} {what} = {kept} kept + {rejected} rejected + {failed} failed"]
    reasons = sorted(counts["rejected"].items(), key=lambda item: (-item[1], item[0]))
    width = max((len(reason) for reason, _ in reasons), default=0)
    return lines + [f"    {reason.ljust(width)}  {n:>6}  {100 * n / rows:5.1f} %" for reason, n in reasons]


def accuracy_table(accuracy: Mapping[str, Mapping[str, float]]) -> str:
    """Accuracy by benchmark as text."""
    rows = [[name, percent(found), str(found["n"])] for name, found in sorted(accuracy.items())]
    return align([["benchmark", "accuracy % [95 %]", "problems"], *rows])


def evaluation_tables(
    accuracy: Mapping[str, Any],
    by_steps: Mapping[str, Any],
    majority: Mapping[str, Any],
    differences: Mapping[str, Difference] | None,
) -> str:
    """What an evaluation found, as text; ``differences`` are those to a former one, None if there is none."""
    tables = [
        accuracy_table(accuracy),
        *(align(table) for table in [by_steps_table([("accuracy", by_steps)])] if table),
        *(align(t) for t in [by_majority_table([("model", {"accuracy": accuracy, "majority": majority})])] if t),
    ]
    if differences:
        header = ["against the former", *DIFFERENCE, "not shared"]
        rows = [[name, *difference_cells(found), str(found.unpaired)] for name, found in differences.items()]
        tables.append(f"{align([header, *rows])}\n{NOTE}")
    elif differences is not None:
        tables.append("against the former: no problem was asked of both")
    return "\n\n".join(tables)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text in columns; the first row is the header, numbers stand to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
