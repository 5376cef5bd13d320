"""The distillation set: what is in it, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fdd_ray.records import Attempt, Completion, Curated, Taught, to_table
from fdd_ray.stages.finetune import MixSettings, gather_examples, own_examples
from fdd_ray.store.run import Run, StageFolder


def _write(folder: StageFolder, name: str, rows: list[Any]) -> list[str]:
    return [folder.write(f"{name}.parquet", to_table(rows, type(rows[0])))]


def _taught(id: str, *rationales: str, second: tuple[str, ...] = ()) -> Taught:
    return Taught(id, f"{id}?", "1", "program", "kept", "", rationales, (), 0, 0, second)


def _attempt(id: str, *completions: tuple[str, str], subject: str = "pool") -> Attempt:
    found = tuple(Completion(text, "1", verdict, "stop", 1) for text, verdict in completions)
    return Attempt(f"t-{id}", id, subject, f"{id}?", "1", "program", "kept", "", 0.5, found, 0, 0)


def test_both_kinds_stand_beside_each_other(tmp_path: Path) -> None:
    folder = Run(str(tmp_path)).folder(1, "finetune")
    taught = _write(folder, "taught", [_taught("p-1", "answer = 1", second=("one\n#### 1",))])
    new = Curated(
        "r-1", "p-1", "complex", 1, "kept", "", "p-2", "new?", "2", "program", ("answer = 2",), 3, 1.0, 1, "",
        second=("two\n#### 2",),
    )  # fmt: skip
    examples = gather_examples(taught, _write(folder, "curated", [new]))
    assert [(example.problem_id, example.kind, example.rationale) for example in examples] == [
        ("p-1", "chain", "one\n#### 1"),
        ("p-1", "program", "answer = 1"),
        ("p-2", "chain", "two\n#### 2"),
        ("p-2", "program", "answer = 2"),
    ]


def test_the_students_own_right_rationales_are_mixed_in(tmp_path: Path) -> None:
    folder = Run(str(tmp_path)).folder(1, "finetune")
    given = gather_examples(_write(folder, "taught", [_taught(f"p-{i}", "answer = 1") for i in range(9)]), [])
    attempts = _write(
        folder,
        "attempts",
        [
            _attempt("p-0", ("answer = 1", "right"), ("```python\nanswer = 2 - 1\n```", "right")),
            _attempt("p-1", ("answer = 3 - 2", "right"), ("answer = 9 - 8", "right"), ("answer = 0", "wrong_answer")),
            _attempt("p-2", ("answer = 5", "wrong_answer")),
            _attempt("p-3", ("answer = 4 - 3", "right"), subject="benchmark"),
        ],
    )

    def own(**settings: Any) -> set[tuple[str, str]]:
        found = own_examples(attempts, given, MixSettings(**settings), subject="pool", seed=0, round=2)
        assert {(example.author, example.round) for example in found} <= {("student", 2)}
        return {(example.problem_id, example.rationale) for example in found}

    # Not what the teacher wrote already, nothing wrong, and never an attempt at a benchmark.
    assert own(own_rationales=1, own_share=0.5) == {("p-0", "answer = 2 - 1"), ("p-1", "answer = 3 - 2")}
    assert len(own(own_rationales=5, own_share=0.5)) == 3
    assert len(own(own_rationales=5, own_share=0.1)) == 1
