"""Pools in Parquet that are cut off, changed, or hold other things than problems."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .harness import Case, Make, Place
from .row_cases import at, pool

_ROWS = 3000
_WHAT = "is not a readable Parquet file"
_NEXT = "check the format or write it again"


def table(columns: dict[str, Any], **options: Any) -> Make:
    """A pool that is a Parquet file with these columns."""

    def make(place: Place) -> Sequence[str]:
        return pool("parquet", _written(pa.table(columns), **options), "p.parquet")(place)

    return make


def damaged(change: Callable[[bytes], bytes], **options: Any) -> Make:
    """A good Parquet file after a change of its bytes."""
    names = pa.table({"question": [f"What is {n}?" for n in range(_ROWS)], "answer": [str(n) for n in range(_ROWS)]})
    return lambda place: pool("parquet", change(_written(names, **options)), "p.parquet")(place)


def _written(content: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, **options)
    return bytes(sink.getvalue())


def _footer(data: bytes) -> int:
    """Where the footer begins."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def _without_middle(data: bytes) -> bytes:
    return data[: len(data) // 3] + bytes(100) + data[len(data) // 3 + 100 :]


def _garbled_footer(data: bytes) -> bytes:
    start = _footer(data)
    return data[:start] + bytes(byte ^ 0x5A for byte in data[start:-8]) + data[-8:]


def _huge_footer(data: bytes) -> bytes:
    return data[:-8] + (2**31 - 1).to_bytes(4, "little") + data[-4:]


def _duplicate_columns(place: Place) -> Sequence[str]:
    content = pa.Table.from_arrays([pa.array(["Q?"]), pa.array(["R?"]), pa.array(["1"])],
                                   names=["question", "question", "answer"])  # fmt: skip
    return pool("parquet", _written(content), "p.parquet")(place)


_FAR = pa.array([2**60], pa.timestamp("us"))

CASES = [
    Case("no Parquet at all", pool("parquet", "hello"), 3, _WHAT, _NEXT),
    Case("an empty Parquet file", pool("parquet", b""), 3, _WHAT, _NEXT),
    Case("Parquet's mark alone", pool("parquet", b"PAR1"), 3, _WHAT, _NEXT),
    Case("two marks alone", pool("parquet", b"PAR1PAR1"), 3, _WHAT, _NEXT),
    Case("CSV renamed to Parquet", pool("parquet", "question,answer\nQ?,1\n", "p.parquet"), 3, _WHAT, _NEXT),
    Case("JSON lines renamed to Parquet", pool("parquet", '{"question": "Q?", "answer": 1}\n' * 9), 3, _WHAT, _NEXT),
    Case("Parquet taken for JSON lines", lambda place: pool("jsonl", _written(pa.table({"question": ["Q?"]})))(place),
         3,
         "has no usable problem", "check format: jsonl"),
    Case("a missing Parquet file", at("none.parquet", "parquet"), 3, "there is no file none.parquet", "check the path"),
    Case("Parquet without its last byte", damaged(lambda data: data[:-1]), 3, _WHAT, _NEXT),
    Case("Parquet without its footer", damaged(lambda data: data[: _footer(data)]), 3, _WHAT, _NEXT),
    Case("half of a Parquet file", damaged(lambda data: data[: len(data) // 2]), 3, _WHAT, _NEXT),
    Case("Parquet without its beginning", damaged(lambda data: data[1000:]), 3, _WHAT, _NEXT),
    Case("a hole in a page", damaged(_without_middle), 3, _WHAT, _NEXT),
    Case("a hole in a packed page", damaged(_without_middle, compression="zstd", write_page_checksum=True), 3, _WHAT,
         _NEXT),
    Case("a garbled footer", damaged(_garbled_footer), 3, _WHAT, _NEXT),
    Case("a footer longer than the file", damaged(_huge_footer), 3, _WHAT, _NEXT),
    Case("an encrypted footer", damaged(lambda data: data[:-4] + b"PARE"), 3, _WHAT, _NEXT),
    Case("other columns in Parquet", table({"prompt": ["Q?"], "label": ["1"]}), 3,
         "p.parquet has no column 'question' for the question; it has label, prompt",
         "for example columns: {question:"),
    Case("Parquet without an answer", table({"question": ["Q?"]}), 3, "has no column 'answer'", "for example columns:"),
    Case("Parquet without columns", table({}), 3, "has no column 'question' for the question; it has none", "columns:"),
    Case("a thousand columns", table({f"column{n}": [1] for n in range(1000)}), 3, "and 988 more", "columns:"),
    Case("Parquet without rows", table({"question": pa.array([], pa.string()), "answer": pa.array([], pa.string())}), 3,
         "p.parquet has no rows", "check that it is the right file"),
    Case("numbers for questions", table({"question": [1, 2], "answer": ["1", "2"]}), 3, "question is 1, not text",
         "check"),
    Case("lists for questions", table({"question": [["Q?"]], "answer": ["1"]}), 3, "question is a list",
         "check format"),
    Case("nulls in Parquet", table({"question": pa.array([None], pa.string()), "answer": ["1"]}), 3,
         "the question is empty", "check format: parquet"),
    Case("bytes for questions", table({"question": [b"Q?"], "answer": ["1"]}), 3, "not text", "check format: parquet"),
    Case("dates for answers", table({"question": ["Q?"], "answer": [datetime.date(2024, 1, 2)]}), 3, "not text",
         "check"),
    Case("a time beyond all years", table({"question": ["Q?"], "answer": _FAR}), 3, "a cell has no usable value",
         "check format: parquet"),
    Case("a column twice", _duplicate_columns, 3, "has the column 'question' 2 times", "write it again"),
    Case("answers in a struct", table({"question": ["Q?"], "answer": [{"text": "1"}]}), 3, "answer is an object",
         "check"),
]  # fmt: skip
