"""Tables of any origin: JSON lines, CSV and Parquet, with a mapping from our fields to their columns."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from typing import IO

from fdd_ray.errors import ProblemsError
from fdd_ray.nodes import printable
from fdd_ray.problems.files import MAX_LINE_BYTES, json_lines, numbered_lines
from fdd_ray.problems.numbers import canonical_answer
from fdd_ray.problems.rows import (
    BadRow,
    Fields,
    Row,
    RowFunction,
    answer_of,
    cell,
    listed,
    not_text,
    outcomes,
    question_of,
    shorten,
    text_of,
)
from fdd_ray.problems.source import FIELDS
from fdd_ray.records import Problem, Rejection

_BATCH_ROWS = 1024


def read_jsonl(file: IO[bytes], name: str, columns: Mapping[str, str]) -> Iterator[Problem | Rejection]:
    """The problems of an open JSONL file."""
    return outcomes(json_lines(file), name, fields_by(columns))


def read_csv(file: IO[bytes], name: str, columns: Mapping[str, str]) -> Iterator[Problem | Rejection]:
    """The problems of an open CSV file with a header line; a row is placed at its first line."""
    return outcomes(_csv_rows(file, name, columns), name, fields_by(columns))


def read_parquet(file: IO[bytes], name: str, columns: Mapping[str, str]) -> Iterator[Problem | Rejection]:
    """The problems of an open Parquet file; only the columns that are needed are read."""
    return outcomes(_parquet_rows(file, name, columns), name, fields_by(columns))


def fields_by(columns: Mapping[str, str]) -> RowFunction:
    """The row function for a mapping from our fields to columns.

    A field that is not mapped has a column of its own name. A solution that is not mapped may be absent.
    """

    def to_fields(row: Mapping[str, object]) -> Fields:
        question = question_of(cell(row, columns.get("question", "question")))
        answer = canonical_answer(answer_of(cell(row, columns.get("answer", "answer"))))
        solution = ""
        if "solution" in columns or "solution" in row:
            solution = text_of(cell(row, columns.get("solution", "solution")), "solution")
        return Fields(question, answer, solution or None)

    return to_fields


def needed_columns(columns: Mapping[str, str], present: Collection[str], name: str) -> list[str]:
    """The top-level columns to read of those that are ``present``.

    Raises:
        ProblemsError: If one is absent; no row of the table could be a problem then.
    """
    needed = []
    for field in FIELDS:
        column = columns.get(field, field)
        top = column if column in present else column.split(".")[0]
        if top in present:
            needed.append(top)
            if (times := list(present).count(top)) > 1:
                raise ProblemsError(
                    f"{name} has the column {top!r} {times} times; write it again with one of that name"
                )
        elif field in columns or field != "solution":
            raise ProblemsError(
                f"{name} has no column {column!r} for the {field}; it has {listed(present)}: "
                f"say which one to take, for example columns: {{{field}: {listed([min(present, default='text')])}}}"
            )
    return list(dict.fromkeys(needed))


def _csv_rows(file: IO[bytes], name: str, columns: Mapping[str, str]) -> Iterator[Row]:
    # The limit belongs to the whole process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    line = 0

    def text_of_line(numbered: tuple[int, bytes | BadRow]) -> str:
        nonlocal line
        line, data = numbered
        if isinstance(data, BadRow):
            raise data
        # Bytes that are no UTF-8 become surrogates, for which the cell they are in is rejected later.
        return data.decode(errors="surrogateescape")

    # A map, unlike a generator, can go on after an exception, and so can the CSV reader.
    reader = csv.reader(map(text_of_line, numbered_lines(file)), strict=True)
    header: list[str] | None = None
    while True:
        first = line + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except BadRow as bad:
            yield first, bad
            continue
        except csv.Error as error:
            yield first, BadRow("not_csv", str(error))
            continue
        if not values:
            continue
        if header is None:
            header = [value.strip() for value in values]
            if not_text(header):
                raise ProblemsError(f"{name}: the header is no UTF-8 text; save it as UTF-8, with commas between cells")
            needed_columns(columns, header, name)
        elif len(values) != len(header):
            yield first, BadRow("cell_count", f"{len(values)} cells under {len(header)} columns")
        else:
            yield first, dict(zip(header, values, strict=True))


def _parquet_rows(file: IO[bytes], name: str, columns: Mapping[str, str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True)
        needed = needed_columns(columns, table.schema_arrow.names, name)
        for batch in table.iter_batches(_BATCH_ROWS, columns=needed):
            for index in range(batch.num_rows):
                number += 1
                try:
                    yield number, {column: batch[column][index].as_py() for column in needed}
                except UnicodeDecodeError as error:
                    yield number, BadRow("not_utf8", f"byte {error.start + 1} of a cell")
                except (OverflowError, ValueError) as error:  # a time that Python has no object for
                    yield number, BadRow("wrong_type", f"a cell has no usable value: {error}")
    except (pa.ArrowException, OSError) as error:
        why = shorten(printable(str(error)))
        raise ProblemsError(
            f"{name} is not a readable Parquet file: {why}; check the format or write it again"
        ) from error
