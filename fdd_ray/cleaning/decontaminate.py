"""``fdd-ray decontaminate``: which rows of any file of problems are too close to a benchmark.

    fdd-ray decontaminate train.jsonl --against gsm8k=gsm8k_test.jsonl --output clean.jsonl --evidence removed.jsonl

It is the check that a run makes of its own problems (`fdd_ray.curation.contamination`), with every row
accounted for: rows = clean + removed + repeated + unreadable. Besides, it tells how many rows a filter that
looks for 8, 10 or 13 words in a row and for nothing else would remove, with numbers masked and as written.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fdd_ray.curation.contamination import REPORTED_SIZES, BenchmarkGuard, Contamination, ContaminationSettings
from fdd_ray.errors import StoreError
from fdd_ray.problems import LoadedProblems, SourceSettings, load_problems
from fdd_ray.records import Problem
from fdd_ray.report.table import align
from fdd_ray.settings import to_plain
from fdd_ray.store import files

_SHOWN_ROWS: Final = 3


class Removal(NamedTuple):
    """A row that is too close to a benchmark, why, and the benchmark's question."""

    problem: Problem
    found: Contamination
    benchmark_question: str


@dataclasses.dataclass(frozen=True)
class Decontaminated:
    """What became of every row.

    Attributes:
        loaded: The rows as they were read.
        benchmarks: The benchmarks by name, as they were read.
        clean: The problems that are in no benchmark.
        removed: The others, with the evidence.
        ngrams_alone: How many rows an n-gram filter alone would remove: by ``masked`` and ``as_written``, by n.
        settings: What counted as contaminated.
    """

    loaded: LoadedProblems
    benchmarks: Mapping[str, LoadedProblems]
    clean: tuple[Problem, ...]
    removed: tuple[Removal, ...]
    ngrams_alone: Mapping[str, Mapping[int, int]]
    settings: ContaminationSettings

    @property
    def unreadable(self) -> dict[str, int]:
        """How many rows are no problem, by reason."""
        return {reason: count for reason, count in self.loaded.reasons.items() if reason != "duplicate"}

    def as_plain(self) -> dict[str, Any]:
        """All counts, ready for JSON."""
        by_benchmark = Counter(removal.found.benchmark for removal in self.removed)
        return {
            "rows": self.loaded.read,
            "clean": len(self.clean),
            "removed": dict(Counter(removal.found.reason for removal in self.removed)),
            "repeated": self.loaded.duplicates,
            "unreadable": self.unreadable,
            "benchmarks": {
                name: {
                    "problems": len(held.problems),
                    "unreadable": len(held.rejections) - held.duplicates,
                    "removed": by_benchmark[name],
                }
                for name, held in self.benchmarks.items()
            },
            "ngrams_alone": {
                kind: {str(n): rows for n, rows in counts.items()} for kind, counts in self.ngrams_alone.items()
            },
            "settings": to_plain(self.settings),
        }


def decontaminate(
    sources: Sequence[SourceSettings],
    against: Mapping[str, SourceSettings],
    settings: ContaminationSettings | None = None,
) -> Decontaminated:
    """Check every problem of some files against some benchmarks.

    Args:
        sources: The files to check.
        against: The benchmarks by name.
        settings: What counts as contaminated; no judge is asked here.

    Raises:
        ProblemsError: If a file or benchmark cannot be read, or has no usable problem.
        DependencyError: If a package that a path asks for is not installed.
    """
    settings = settings or ContaminationSettings()
    benchmarks = {name: load_problems([source], seed=0, name=name) for name, source in against.items()}
    loaded = load_problems(sources, seed=0, name="the file to clean")
    guard = BenchmarkGuard({name: held.problems for name, held in benchmarks.items()}, settings)
    questions = {(name, p.id): p.question for name, held in benchmarks.items() for p in held.problems}
    clean: list[Problem] = []
    removed: list[Removal] = []
    alone = {kind: dict.fromkeys(REPORTED_SIZES, 0) for kind in ("masked", "as_written")}
    for problem in loaded.problems:
        found = guard.check(problem.question)
        if found is None:
            clean.append(problem)
        else:
            removed.append(Removal(problem, found, questions[found.benchmark, found.problem_id]))
        for kind, counts in alone.items():
            for size in guard.overlap(problem.question, masked=kind == "masked"):
                counts[size] += 1
    return Decontaminated(loaded, benchmarks, tuple(clean), tuple(removed), alone, settings)


def tables(result: Decontaminated) -> str:
    """The counts as text for people."""
    unreadable = sum(result.unreadable.values())
    counts = (result.loaded.read, len(result.clean), len(result.removed), result.loaded.duplicates, unreadable)
    rows = [["rows", "clean", "removed", "repeated", "unreadable"], [str(count) for count in counts]]
    parts = [align(rows)]
    by = Counter((removal.found.reason, removal.found.benchmark) for removal in result.removed)
    if by:
        counted = [[reason, name, str(count)] for (reason, name), count in by.most_common()]
        parts.append(align([["removed by", "benchmark", "rows"], *counted]))
    if result.unreadable:
        parts.append(align([["unreadable", "rows"], *([why, str(n)] for why, n in result.unreadable.items())]))
    alone = [
        [str(n), *(str(result.ngrams_alone[kind][n]) for kind in ("masked", "as_written"))] for n in REPORTED_SIZES
    ]
    parts.append(
        "rows that a filter on n words in a row alone would remove\n"
        + align([["n", "numbers masked", "as written"], *alone])
    )
    return "\n\n".join(parts)


def warnings(result: Decontaminated) -> list[str]:
    """What a user has to know that is no count: rows that could not be read, in the files and the benchmarks."""
    lines = []
    unread = [rejection for rejection in result.loaded.rejections if rejection.reason != "duplicate"]
    lines += [f"unreadable, such as {row.file}:{row.line}: {row.reason}: {row.detail}" for row in unread[:_SHOWN_ROWS]]
    for name, held in result.benchmarks.items():
        bad = [rejection for rejection in held.rejections if rejection.reason != "duplicate"]
        if bad:
            lines.append(f"{name}: nothing was checked against {len(bad)} rows that could not be read, such as")
            lines += [f"  {row.file}:{row.line}: {row.reason}: {row.detail}" for row in bad[:_SHOWN_ROWS]]
    return lines


def clean_rows(result: Decontaminated) -> list[dict[str, Any]]:
    """The clean problems as rows that format ``jsonl`` reads."""
    return [
        {"id": p.id, "question": p.question, "answer": p.answer}
        | ({} if p.solution is None else {"solution": p.solution})
        | {"source": p.source}
        for p in result.clean
    ]


def evidence_rows(result: Decontaminated) -> list[dict[str, Any]]:
    """One row for each row of the files that is not among the clean ones.

    Of a removed problem: what it is too close to, by which measure, and the words they share. Of a row that
    repeats a question (also with another answer) or could not be read: why, in words.
    """
    return [
        {
            "id": removal.problem.id,
            "source": removal.problem.source,
            "reason": removal.found.reason,
            "benchmark": removal.found.benchmark,
            "benchmark_problem_id": removal.found.problem_id,
            "measure": removal.found.measure,
            "span": removal.found.span,
            "question": removal.problem.question,
            "benchmark_question": removal.benchmark_question,
        }
        for removal in result.removed
    ] + [
        {"source": f"{row.file}:{row.line}", "reason": "repeated" if row.reason == "duplicate" else row.reason}
        | {"detail": row.detail}
        for row in result.loaded.rejections
    ]


def check_outputs(outputs: Sequence[str], inputs: Iterable[str], *, force: bool) -> None:
    """Look at where results shall go, before any work is done for nothing.

    Args:
        outputs: The files that will be written.
        inputs: The files that are read; none of them may be written to.
        force: Whether files that exist may be replaced.

    Raises:
        StoreError: If one cannot be written to.
    """
    if len({files.absolute(path) for path in outputs}) < len(outputs):
        raise StoreError(f"--output and --evidence are both {outputs[0]}; name two files")
    read = {files.absolute(path) for path in inputs}
    for path in outputs:
        if files.absolute(path) in read:
            raise StoreError(f"{path} is read and cannot be written to at once; name another file")
        if not force and files.exists(path):
            raise StoreError(f"{path} exists; name another file, or give --force to replace it")


def write_lines(path: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, durably."""
    files.write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
