"""Files as they are named on a command line: what format they are in, and what a benchmark is called.

>>> benchmark_sources(["gsm8k=data/test.jsonl", "data/svamp.json"], format=None)
{'gsm8k': SourceSettings(format='gsm8k', ...), 'svamp': SourceSettings(format='svamp', ...)}
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from fdd_ray.errors import ExperimentError, ProblemsError
from fdd_ray.problems import SourceSettings
from fdd_ray.problems.files import open_files
from fdd_ray.problems.source import Format

_PACKED: Final = (".gz", ".bz2", ".xz", ".zst", ".zstd")
_BY_SUFFIX: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".xml": "asdiv",
}
_NAME: Final = re.compile(r"([A-Za-z0-9_.-]+)=(.+)", re.DOTALL)
_LOOKED_AT: Final = 1 << 16


def source_of(path: str, format: str | None, columns: Mapping[str, str] | None = None) -> SourceSettings:
    """The source that a path names.

    Args:
        path: A file, a glob with ``*``, or any fsspec URL.
        format: Its format; None finds out by the file name and, where that leaves a choice, the first rows.
        columns: For tables, which columns hold our fields.

    Raises:
        ProblemsError: If the format cannot be found out, or the file cannot be opened.
        ExperimentError: If ``columns`` cannot be as they are.
    """
    try:
        return SourceSettings(cast(Format, format or _format_of(path)), path, columns=dict(columns or {}))
    except ProblemsError:
        raise
    except ValueError as error:
        raise ExperimentError(f"{path}: {error}") from error


def benchmark_sources(
    given: Iterable[str], format: str | None, columns: Mapping[str, str] | None = None
) -> dict[str, SourceSettings]:
    """Benchmarks by name, from ``NAME=PATH`` or plain paths, which are called as their file without suffixes.

    Raises:
        ExperimentError: If two would be called the same.
        ProblemsError: As `source_of`.
    """
    sources: dict[str, SourceSettings] = {}
    for text in given:
        named = _NAME.fullmatch(text)
        name, path = (named[1], named[2]) if named else (_stem(text), text)
        if name in sources:
            raise ExperimentError(
                f"two benchmarks are called {name}: {sources[name].path} and {path}; name them, as in first={path}"
            )
        sources[name] = source_of(path, format, columns)
    return sources


def column_mapping(given: Iterable[str]) -> dict[str, str]:
    """Columns by field, from ``FIELD=COLUMN`` strings.

    Raises:
        ExperimentError: If one is not of this form.
    """
    columns = {}
    for text in given:
        field, equals, column = text.partition("=")
        if not equals:
            raise ExperimentError(f"{text!r} names no column; write FIELD=COLUMN, such as question=prompt")
        columns[field] = column
    return columns


def _stem(path: str) -> str:
    name = posixpath.basename(_unpacked(path).rstrip("/"))
    return posixpath.splitext(name)[0] or name or "benchmark"


def _unpacked(path: str) -> str:
    root, suffix = posixpath.splitext(path)
    return root if suffix in _PACKED else path


def _format_of(path: str) -> Format:
    suffix = posixpath.splitext(_unpacked(path))[1].lower()
    found = _BY_SUFFIX.get(suffix)
    if found == "jsonl":
        return "gsm8k" if _is_gsm8k(_beginning(path)) else "jsonl"
    if found is None and suffix == ".json":
        beginning = _beginning(path)
        found = "multiarith" if b'"sQuestion"' in beginning else "svamp" if b'"Body"' in beginning else None
    if found is None:
        raise ProblemsError(f"cannot tell what format {path} is in; give --format (or --against-format)")
    return found


def _beginning(path: str) -> bytes:
    for _, file in open_files(path):
        try:
            return file.read(_LOOKED_AT)
        except Exception:  # a packed file that is damaged: the reader has a message for it
            return b""
    return b""


def _is_gsm8k(beginning: bytes) -> bool:
    """Whether the first row has a worked solution that ends in ``#### N`` for its answer."""
    try:
        row: Any = json.loads(beginning.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0])
    except (ValueError, RecursionError):
        return False
    answer = row.get("answer") if isinstance(row, dict) else None
    return isinstance(answer, str) and "question" in row and "\n####" in answer
