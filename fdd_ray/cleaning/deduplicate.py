"""``fdd-ray deduplicate``: which rows of any files of problems repeat others.

    fdd-ray deduplicate train.jsonl new.jsonl --against pool.jsonl --output kept.jsonl --evidence dropped.jsonl

It is the check that a run makes of its own problems (`fdd_ray.curation.duplicates`), with every row accounted
for: rows = kept + dropped + unreadable. Which of several alike rows is kept depends on their problem ids, not on the
order of the files. What was read goes to a temporary folder in blocks, so that memory does not grow with the
files; many rows are compared on Ray.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from fdd_ray.cluster import ray_session
from fdd_ray.curation.duplicates import DuplicateSettings, Entry
from fdd_ray.deduplication import (
    BLOCK_ROWS,
    FEW_ROWS,
    OnRay,
    Place,
    cut,
    find_in_files,
    read_findings,
    run_here,
)
from fdd_ray.errors import ProblemsError
from fdd_ray.flow import FlowSettings
from fdd_ray.problems import SourceSettings, read_problems
from fdd_ray.progress import Reporter
from fdd_ray.records import Problem, Rejection, from_table, schema_of, to_table
from fdd_ray.report.table import align
from fdd_ray.settings import to_plain
from fdd_ray.store import files

SHOWN: Final = 3
_MOST_UNREADABLE: Final = 10_000  # that are kept as evidence; all are counted


@dataclasses.dataclass(frozen=True)
class Deduplicated:
    """What became of every row; open as long as the temporary folder is there.

    Attributes:
        rows: Rows that were read, of the files alone.
        known: Problems to compare with (``--against``).
        dropped: How many rows were dropped, by reason.
        unreadable: How many rows are no problem, by reason.
        examples: Unreadable rows, also of ``--against``; of very many, the first.
        settings: What counted as too much alike.
        places: Where the problems of the files lie.
        pool: Where the known ones lie.
        folder: Where the findings lie.
    """

    rows: int
    known: int
    dropped: dict[str, int]
    unreadable: dict[str, int]
    examples: tuple[Rejection, ...]
    settings: DuplicateSettings
    places: tuple[Place, ...]
    pool: tuple[Place, ...]
    folder: str

    @property
    def problems(self) -> int:
        """Rows that are problems."""
        return self.rows - sum(self.unreadable.values())

    @property
    def kept(self) -> int:
        """Problems that repeat no other."""
        return self.problems - sum(self.dropped.values())

    def as_plain(self) -> dict[str, Any]:
        """All counts, ready for JSON; the drop rate is of the rows that are problems."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": self.dropped,
            "drop_rate": round(sum(self.dropped.values()) / self.problems, 6) if self.problems else 0.0,
            "unreadable": self.unreadable,
            "against": self.known,
            "settings": {name: to_plain(self.settings)[name] for name in ("per_template", "similarity")},
        }

    def kept_rows(self) -> Iterator[dict[str, Any]]:
        """The kept problems, in the order of the files, as rows that format ``jsonl`` reads."""
        for number, place in enumerate(self.places):
            findings = read_findings(self.folder, number)
            for row, problem in _numbered(place):
                if _order(problem, number, row) not in findings:
                    solution = {} if problem.solution is None else {"solution": problem.solution}
                    fields = {"id": problem.id, "question": problem.question, "answer": problem.answer}
                    yield fields | solution | {"source": problem.source}

    def evidence_rows(self) -> Iterator[dict[str, Any]]:
        """One row for each dropped problem (why, and the kept problem that it collided with) and unreadable row."""
        wanted = {finding.evidence for finding in read_findings(self.folder).values()}
        like: dict[str, Problem] = {}
        for place in (*self.pool, *self.places):
            for _, problem in _numbered(place):
                if problem.id in wanted:
                    like.setdefault(problem.id, problem)
        for number, place in enumerate(self.places):
            findings = read_findings(self.folder, number)
            for row, problem in _numbered(place):
                if found := findings.get(_order(problem, number, row)):
                    yield {
                        "id": problem.id,
                        "source": problem.source,
                        "reason": found.reason,
                        "similarity": round(found.similarity, 6),
                        "question": problem.question,
                        "answer": problem.answer,
                        "like_id": found.evidence,
                        "like_question": like[found.evidence].question,
                        "like_answer": like[found.evidence].answer,
                    }
        for rejection in self.examples:
            yield {
                "source": f"{rejection.file}:{rejection.line}",
                "reason": rejection.reason,
                "detail": rejection.detail,
            }


def deduplicate(
    sources: Sequence[SourceSettings],
    against: Sequence[SourceSettings],
    settings: DuplicateSettings,
    folder: str,
    *,
    few_rows: int = FEW_ROWS,
) -> Deduplicated:
    """Find the rows of some files that repeat each other or known problems.

    Args:
        sources: The files.
        against: Files with problems that are known already; none of these is dropped.
        settings: What counts as too much alike.
        folder: An empty folder for what is read and found.
        few_rows: Rows up to which all is done here; for more, Ray is joined or started.

    Raises:
        ProblemsError: If a file cannot be read, or there is no usable problem in any of them.
        DependencyError: If a package that a path asks for is not installed.
    """
    examples: list[Rejection] = []
    new, unreadable = _write_blocks(sources, files.join(folder, "new"), examples)
    pool, _ = _write_blocks(against, files.join(folder, "pool"), examples)
    problems, known = (sum(place.stop - place.start for place in places) for places in (new, pool))
    if not problems:
        seen = "; ".join(f"{row.file}:{row.line}: {row.reason}: {row.detail}" for row in examples[:1]) or "no rows"
        raise ProblemsError(f"no usable problem in {', '.join(s.path for s in sources)} ({seen}); check --format")
    pool = [dataclasses.replace(place, known=True) for place in pool]
    work = files.join(folder, "work")
    if problems + known <= few_rows:
        counts = find_in_files(_Reader(), [*new, *pool], work, settings, run_here)
    else:
        actors = min(8, os.cpu_count() or 1)
        flow = FlowSettings(map_actors=(1, actors), cpus_per_map_actor=0.5)
        reporter = Reporter()
        with ray_session(reporter), reporter.stage("deduplicate") as progress:
            progress.start(problems + known)

            def report(step: str, rows: int) -> None:
                progress.update(progress.done + (rows if step == "reading" else 0), step)

            counts = find_in_files(
                _Reader(), [*new, *pool], work, settings, OnRay(flow, "deduplicate"), report=report
            )  # fmt: skip
    del counts["candidates"]
    return Deduplicated(
        problems + sum(unreadable.values()), known, dict(counts.most_common()), dict(unreadable.most_common()),
        tuple(examples), settings, tuple(new), tuple(pool), work,
    )  # fmt: skip


def run(
    sources: Sequence[SourceSettings],
    against: Sequence[SourceSettings],
    settings: DuplicateSettings,
    *,
    output: str | None = None,
    evidence: str | None = None,
) -> Deduplicated:
    """`deduplicate` in a temporary folder, and write the kept problems and the evidence as JSON lines."""
    from fdd_ray.cleaning.decontaminate import write_lines

    with tempfile.TemporaryDirectory(prefix="fdd-ray-") as folder:
        result = deduplicate(sources, against, settings, folder)
        if evidence:
            write_lines(evidence, result.evidence_rows())
        if output:
            write_lines(output, result.kept_rows())
    return result


def tables(result: Deduplicated) -> str:
    """The counts as text for people."""
    plain = result.as_plain()
    dropped, unreadable = sum(result.dropped.values()), sum(result.unreadable.values())
    counts = [str(n) for n in (result.rows, result.kept, dropped, unreadable)]
    parts = [align([["rows", "kept", "dropped", "unreadable", "drop rate"], [*counts, f"{plain['drop_rate']:.2%}"]])]
    for title, found in (("dropped as", result.dropped), ("unreadable", result.unreadable)):
        if found:
            parts.append(align([[title, "rows"], *([reason, str(count)] for reason, count in found.items())]))
    return "\n\n".join(parts)


@dataclasses.dataclass
class _Reader:
    """Reads blocks that were written here; the number of a place is the part of its findings."""

    def open(self) -> None:
        """Nothing to get ready."""

    def read(self, place: Place, number: int) -> list[Entry]:
        return [
            Entry.of(
                problem.question, problem.answer, known=place.known, part=number,
                order="" if place.known else _order(problem, number, row),
            )
            for row, problem in _numbered(place)
        ]  # fmt: skip


def _numbered(place: Place) -> Iterator[tuple[int, Problem]]:
    table = files.read_rows(place.path, place.start, place.stop, schema_of(Problem))
    return enumerate(from_table(table, Problem))


def _order(problem: Problem, place: int, row: int) -> str:
    """By problem id; of one problem that is there several times, the first."""
    return f"{problem.id}-{place:06d}-{row:06d}"


def _write_blocks(
    sources: Sequence[SourceSettings], prefix: str, examples: list[Rejection]
) -> tuple[list[Place], Counter[str]]:
    """Write the problems of all sources in blocks and count what is none."""
    paths: list[str] = []
    rejected: Counter[str] = Counter()
    block: list[Problem] = []

    def write() -> None:
        if block:
            paths.append(f"{prefix}-{len(paths):06d}.parquet")
            files.write_table(paths[-1], to_table(block, Problem))
            block.clear()

    for source in sources:
        for row in read_problems(source):
            if isinstance(row, Rejection):
                rejected[row.reason] += 1
                if len(examples) < _MOST_UNREADABLE:
                    examples.append(row)
                continue
            block.append(row)
            if len(block) == BLOCK_ROWS:
                write()
    write()
    return cut(paths, known=False), rejected
