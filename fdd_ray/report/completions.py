"""Evaluations as files of JSON lines: every problem with every completion, to keep, to read and to compare with.

{"benchmark": "gsm8k", "problem_id": "p-...", "gold": "72", "pass_rate": 1.0, "completions": [{...}], ...}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.records import Attempt, from_table, schema_of
from fdd_ray.report.attempts import Tried, read_attempts
from fdd_ray.stages.score import POOL, Task
from fdd_ray.store import files
from fdd_ray.store.manifest import EXPERIMENT, MANIFEST, Manifest, find_stages


def completion_rows(scored: Manifest) -> Iterator[dict[str, Any]]:
    """The benchmark problems of a score stage with all completions, by benchmark and problem id."""
    tasks = files.read_tables([files.join(scored.path, "tasks.parquet")], schema_of(Task), ["id", "steps"])
    steps = {row["id"]: row["steps"] for row in tasks.to_pylist()}
    rows = from_table(files.read_tables(scored.outputs, schema_of(Attempt)), Attempt)
    for row in sorted(rows, key=lambda row: (row.subject, row.problem_id)):
        if row.subject != POOL:
            yield {
                "benchmark": row.subject,
                "problem_id": row.problem_id,
                "question": row.question,
                "gold": row.gold,
                "steps": steps[row.id],
                "kind": row.kind,
                "outcome": row.outcome,
                "reason": row.reason,
                "pass_rate": row.pass_rate,
                "completions": [dataclasses.asdict(completion) for completion in row.completions],
                "majority": row.majority,
                "sampled": [dataclasses.asdict(completion) for completion in row.sampled],
            }


def write_completions(path: str, scored: Manifest) -> None:
    """Write `completion_rows` as JSON lines, durably; ``path`` may be a URL."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in completion_rows(scored)]
    files.write_bytes(path, "".join(lines).encode())


def read_former(path: str) -> dict[str, dict[str, Tried]]:
    """The attempts of a former evaluation, by benchmark and problem id.

    Args:
        path: A file of `write_completions`; a run or the directory of an evaluation, whose last scored round
            counts; or the folder of one score stage, such as ``runs/tiny/round-01/score``.

    Raises:
        StoreError: If there is nothing of the kind at ``path``.
    """
    if files.exists(files.join(path, MANIFEST)):
        return read_attempts(path)
    if files.exists(files.join(path, EXPERIMENT)):
        scored = [found for found in find_stages(path) if found.stage == "score" and found.manifest is not None]
        if not scored:
            raise StoreError(f"{path} has no finished score stage to compare with; run it on, or name another one")
        return read_attempts(max(scored, key=lambda found: -1 if found.round is None else found.round).path)
    return _read_lines(path)


def _read_lines(path: str) -> dict[str, dict[str, Tried]]:
    data = files.read_bytes(path)
    if data is None:
        raise StoreError(f"there is nothing at {path}; give an evaluation's --output, a run, or a score stage of one")
    found: dict[str, dict[str, Tried]] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = json.loads(line)
            name, problem, gold, rate = (row[key] for key in ("benchmark", "problem_id", "gold", "pass_rate"))
            if not (isinstance(name, str) and isinstance(problem, str) and isinstance(gold, str) and 0 <= rate <= 1):
                raise ValueError("a field has the wrong type")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{path}:{number} is no line of an evaluation ({type(error).__name__}: {error}); give a file that"
                " fdd-ray evaluate --output wrote"
            ) from error
        found.setdefault(name, {})[problem] = Tried(gold, float(rate))
    if not found:
        raise StoreError(f"{path} is empty; give a file that fdd-ray evaluate --output wrote")
    return found
