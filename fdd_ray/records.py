"""The typed rows that travel between stages, and their Arrow schemas.

A row is a frozen dataclass; its Arrow schema is derived from its annotations, so the two cannot
drift apart. Rows are keyed by content hashes, never by position:

    >>> problem = Problem.new("Ann has 3 apples and buys 4. How many?", "7", source="example")
    >>> problem.id
    'p-...'

Every stage with a language model in it writes exactly one row for each row it reads, and that row
says what became of it (``outcome`` and ``reason``): in = kept + rejected + failed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    import pyarrow as pa

Origin = Literal["seed", "complex", "similar", "bridge"]
Kind = Literal["program", "chain"]
Outcome = Literal["kept", "rejected", "failed"]
R = typing.TypeVar("R")


def content_id(prefix: str, *parts: str) -> str:
    """A stable id: ``prefix`` and 80 bits of the BLAKE2b hash of ``parts``.

    Args:
        prefix: One or two letters that tell the kind of row.
        parts: What identifies the row; lengths are hashed too, so ("ab", "c") differs from ("a", "bc").
    """
    digest = hashlib.blake2b(digest_size=10)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return f"{prefix}-{digest.hexdigest()}"


def problem_id(question: str) -> str:
    """The id of a problem: a hash of its words and numbers, blind to case and white space.

    The answer is no part of it: one question asked twice with two answers is one problem.
    """
    return content_id("p", " ".join(question.casefold().split()))


def stable_seed(*parts: object) -> int:
    """A 31-bit seed that depends on ``parts`` alone, the same in every process and run."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """A question with an answer.

    Attributes:
        id: Content hash of the question (`problem_id`).
        question: The text of the problem.
        answer: Its answer as text; for a synthetic problem, the agreed one.
        origin: ``seed``, ``complex`` (variation of an easy problem), ``similar`` (to a hard one) or
            ``bridge`` (an easier step towards one that was never solved).
        source: Where it was read from (file and line, hub id and row), or the round that made it.
        parent_id: The pool problem a synthetic one was made from.
        round: 0 for seeds, otherwise the round that made it.
        solution: A worked solution that came with the data set, if any.
    """

    id: str
    question: str
    answer: str
    origin: Origin = "seed"
    source: str = ""
    parent_id: str | None = None
    round: int = 0
    solution: str | None = None

    @classmethod
    def new(
        cls,
        question: str,
        answer: str,
        *,
        origin: Origin = "seed",
        source: str = "",
        parent_id: str | None = None,
        round: int = 0,
        solution: str | None = None,
    ) -> Self:
        """A problem with its id computed from its question."""
        return cls(problem_id(question), question, answer, origin, source, parent_id, round, solution)


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote, and what was found when it was checked.

    Attributes:
        text: The completion, untouched.
        answer: The answer that was read or computed from it, if any.
        verdict: ``right``, or the reason why it is not (see `fdd_ray.reasoning`).
        finish: Why the engine stopped: ``stop``, ``length``, or ``error``.
        tokens: Completion tokens.
        detail: More about the verdict, as one short line: what a program ran into, or whose verdict it is.
    """

    text: str
    answer: str | None
    verdict: str
    finish: str
    tokens: int
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Taught:
    """A seed problem after the teacher (or the data set) gave rationales for it.

    ``rationales`` and ``second`` hold the verified ones, of the run's kind and, where both kinds are distilled,
    of the other; both are empty unless ``outcome`` is ``kept``.
    """

    id: str
    question: str
    answer: str
    kind: Kind
    outcome: Outcome
    reason: str
    rationales: tuple[str, ...]
    completions: tuple[Completion, ...]
    prompt_tokens: int
    completion_tokens: int
    second: tuple[str, ...] = ()
    second_completions: tuple[Completion, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """One problem after the student attempted it; ``pass_rate`` is right completions / completions.

    ``sampled`` are the attempts for accuracy by majority, if any were asked for, and ``majority`` is whether the
    answer that most of them give is right.
    """

    id: str
    problem_id: str
    subject: str
    question: str
    gold: str
    kind: Kind
    outcome: Outcome
    reason: str
    pass_rate: float
    completions: tuple[Completion, ...]
    prompt_tokens: int
    completion_tokens: int
    sampled: tuple[Completion, ...] = ()
    majority: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Feedback:
    """What the attempts say about one pool problem.

    ``unsolved_rounds`` counts the rounds in a row, up to this one, in which no attempt was right.
    """

    problem_id: str
    difficulty: Literal["easy", "hard"]
    pass_rate: float
    unsolved_rounds: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One new problem to be asked of the teacher, from a parent in the pool.

    Attributes:
        origin: What is asked for; ``seed`` asks for one more rationale for the parent itself.
        band: The band of pass rates that it was drawn for.
        known: Rationales that the parent has, where a further one is asked for that must differ.
    """

    id: str
    parent_id: str
    parent_question: str
    parent_answer: str
    origin: Origin
    round: int
    draw: int
    band: str = ""
    known: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Variation:
    """A new problem as the teacher wrote it, with the sampled solutions; not yet accepted.

    Attributes:
        rationales: What would be distilled of each solution, in the same order.
        second: Solutions of the other kind, where both kinds must agree.
        second_rationales: What would be distilled of each of those.
        band: The band of pass rates that it was asked for.
        evidence: For one that is too close to a benchmark problem: ``benchmark:problem id``.
        similarity: How close it is, in the measure that the reason names: a share, or words in a row.
        span: The words they share, shortened.
    """

    id: str
    parent_id: str
    origin: Origin
    round: int
    outcome: Outcome
    reason: str
    question: str
    kind: Kind
    solutions: tuple[Completion, ...]
    rationales: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    second: tuple[Completion, ...] = ()
    evidence: str = ""
    similarity: float = 0.0
    span: str = ""
    second_rationales: tuple[str, ...] = ()
    band: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Curated:
    """A variation after curation: accepted into the pool, or rejected with the reason.

    Attributes:
        votes: How many solutions gave ``answer``.
        agreement: ``votes`` / solutions asked for.
        distinct: How many different rationales stand behind ``answer``.
        evidence: The id of what it is too much like; ``benchmark:problem id`` for benchmark problems.
        similarity: How much alike, in the measure that the reason names: a share, or words in a row.
        span: The words shared with a benchmark problem, shortened.
        second: Rationales of the other kind, where both kinds are distilled.
        band: The band of pass rates that it was asked for.
    """

    id: str
    parent_id: str
    origin: Origin
    round: int
    outcome: Outcome
    reason: str
    problem_id: str
    question: str
    answer: str
    kind: Kind
    rationales: tuple[str, ...]
    votes: int
    agreement: float
    distinct: int
    evidence: str
    similarity: float = 0.0
    span: str = ""
    second: tuple[str, ...] = ()
    band: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One pair of the distillation set: what the student is fine-tuned on.

    ``author`` is who wrote the rationale: the teacher (or the data set), or the student itself.
    """

    problem_id: str
    question: str
    rationale: str
    kind: Kind
    origin: Origin
    round: int
    author: Literal["teacher", "student"] = "teacher"


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """A row of an input file that is no usable problem.

    Attributes:
        file: The file, or the hub id.
        line: Line (text files), element (JSON, XML) or row (tables), counted from 1.
        reason: A short code, the same for all rows with the same trouble; counted in the manifest.
        detail: What was seen, shortened.
    """

    file: str
    line: int
    reason: str
    detail: str


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """The Arrow type of an annotation and whether it may be null."""
    import pyarrow as pa

    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(annotation) if arg is not type(None))
        return _arrow_type(inner)[0], True
    if origin is Literal:
        return pa.string(), False
    if origin is tuple:
        return pa.list_(_arrow_type(typing.get_args(annotation)[0])[0]), False
    if dataclasses.is_dataclass(annotation):
        return pa.struct(list(schema_of(typing.cast(type, annotation)))), False
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return plain[annotation], False


def schema_of(row_type: type) -> pa.Schema:
    """The Arrow schema of a row class, derived from its annotations."""
    import pyarrow as pa

    hints = typing.get_type_hints(row_type)
    fields = []
    for field in dataclasses.fields(row_type):
        arrow_type, nullable = _arrow_type(hints[field.name])
        fields.append(pa.field(field.name, arrow_type, nullable=nullable))
    return pa.schema(fields)


def to_table(rows: Iterable[Any], row_type: type) -> pa.Table:
    """An Arrow table of ``rows``, in order, with the schema of ``row_type``."""
    import pyarrow as pa

    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema_of(row_type))
    for field, column in zip(table.schema, table.columns, strict=True):
        if column.null_count and not field.nullable:  # Arrow itself does not look
            raise ValueError(f"{row_type.__name__}.{field.name} is None in {column.null_count} rows")
    return table


def from_mapping(row_type: type[R], values: Mapping[str, Any]) -> R:
    """A row of ``row_type`` from what Arrow gives for it; columns it does not know are ignored."""
    hints = typing.get_type_hints(row_type)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, row_type))]
    return row_type(**{name: _revive(hints[name], values[name]) for name in names if name in values})


def _revive(annotation: Any, value: Any) -> Any:
    """Undo what Arrow does to nested rows: lists back to tuples, structs back to dataclasses."""
    if value is None:
        return None
    origin = typing.get_origin(annotation)
    if origin is tuple:
        inner = typing.get_args(annotation)[0]
        return tuple(_revive(inner, item) for item in value)
    if dataclasses.is_dataclass(annotation):
        return from_mapping(typing.cast(type, annotation), value)
    return value


def to_tables(rows: Iterable[Any], row_type: type, size: int = 2048) -> Iterator[pa.Table]:
    """Arrow tables of ``size`` rows each, made as they are asked for."""
    stream = iter(rows)
    while batch := list(itertools.islice(stream, size)):
        yield to_table(batch, row_type)


def from_table(table: pa.Table, row_type: type[R]) -> list[R]:
    """All rows of ``table`` as ``row_type``, in order."""
    return [from_mapping(row_type, values) for values in table.to_pylist()]
