"""From a row as it was read to a problem, or to a rejection that says what is wrong with it.

A *reader* of rows yields ``(place, row)``, where the row is any object, or a `BadRow` where not even that
could be read. A *row function* turns a mapping into `Fields` and raises `BadRow` where it cannot.
`outcomes` puts the two together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from fdd_ray import nodes
from fdd_ray.problems.numbers import canonical_number
from fdd_ray.records import Problem, Rejection

MAX_CHARACTERS: Final = 20_000
_DETAIL_CHARACTERS: Final = 160
_MOST_COLUMNS: Final = 12
# All of C0 and C1 and DEL, but tab, line feed and carriage return.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class BadRow(Exception):
    """A row that is no usable problem: the reason code, and what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = shorten(detail)


class Fields(NamedTuple):
    """What a row says, checked and in canonical form."""

    question: str
    answer: str
    solution: str | None = None


Row = tuple[int, object]
RowFunction = Callable[[Mapping[str, object]], Fields]


def outcomes(rows: Iterable[Row], file: str, to_fields: RowFunction) -> Iterator[Problem | Rejection]:
    """One problem or rejection for each row, in order.

    Args:
        rows: Places counted from 1, each with the row or a `BadRow`.
        file: What the places are in: a file, or a hub id.
        to_fields: The row function of the format.
    """
    for place, row in rows:
        try:
            if isinstance(row, BadRow):
                raise row
            if not isinstance(row, Mapping):
                raise BadRow("not_an_object", f"a row is an object with columns, not {described(row)}")
            question, answer, solution = to_fields(row)
        except BadRow as bad:
            yield Rejection(file, place, bad.reason, bad.detail)
        else:
            yield Problem.new(question, answer, source=f"{file}:{place}", solution=solution)


def cell(row: Mapping[str, object], column: str) -> object:
    """The value of a column; a dotted name reaches into nested objects unless a column is called so.

    Raises:
        BadRow: If there is no such column.
    """
    if column in row:
        return row[column]
    value: object = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise BadRow("missing_column", f"no column {column!r}; the columns are: {listed(map(str, row))}")
        value = value[part]
    return value


def text_of(value: object, field: str) -> str:
    """``value`` as clean text without white space around it; None counts as empty.

    Raises:
        BadRow: If it is not text, is too long, or holds characters that no problem has.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"{field} is {described(value)}, not text")
    if len(value) > MAX_CHARACTERS:
        raise BadRow("too_long", f"{field} has {len(value):,} characters; at most {MAX_CHARACTERS:,}")
    # A surrogate is half a character, or a byte that was no UTF-8: it could never be written to a file.
    if found := _SURROGATE.search(value):
        raise BadRow("not_utf8", f"{field} has U+{ord(found[0]):04X} at character {found.start() + 1}")
    if found := _CONTROL.search(value):
        raise BadRow("control_characters", f"{field} has U+{ord(found[0]):04X} at character {found.start() + 1}")
    return value.replace("\r\n", "\n").strip()


def question_of(value: object) -> str:
    """A question, which is never empty."""
    question = text_of(value, "question")
    if not question:
        raise BadRow("empty_question", "the question is empty")
    return question


def answer_of(value: object) -> str:
    """An answer as text, which is never empty; numbers are written in their canonical form."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        number = canonical_number(value)
        if number is None:  # not a number, infinite, or of absurd size
            raise BadRow("answer_not_numeric", f"the answer is {described(value)}")
        return number
    answer = text_of(value, "answer")
    if not answer:
        raise BadRow("empty_answer", "the answer is empty")
    return answer


def numeric_answer_of(value: object) -> str:
    """An answer that has to be a number, in its canonical form."""
    answer = answer_of(value)
    number = canonical_number(answer)
    if number is None:
        raise BadRow("answer_not_numeric", f"the answer is {described(answer)}, not a number")
    return number


def described(value: object) -> str:
    """``value`` for a message: containers by their kind alone, text and numbers shortened."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, str):
        return ascii(value[:_DETAIL_CHARACTERS])
    return ascii(value)


def listed(columns: Iterable[str]) -> str:
    """Names of columns for a message; what they hold is not ours, so it is made printable."""
    names = sorted(columns)
    more = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
    return ", ".join(map(nodes.shorten, names[:_MOST_COLUMNS])) + more or "none"


def not_text(cells: Iterable[str]) -> bool:
    """Whether cells hold bytes that are no UTF-8, or NUL, as text in another encoding does."""
    return any(_SURROGATE.search(cell) or "\0" in cell for cell in cells)


def shorten(text: str) -> str:
    """``text`` cut to the length of a detail, with an ellipsis where it was cut."""
    if len(text) <= _DETAIL_CHARACTERS:
        return text
    return text[: _DETAIL_CHARACTERS - 3] + "..."
