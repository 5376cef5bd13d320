"""Finetune: write the distillation set, and train the student of the round on it."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

from fdd_ray.reasoning.rationales import RIGHT, distinct_rationales, rationale_in
from fdd_ray.records import (
    Attempt,
    Curated,
    Example,
    Kind,
    Origin,
    Taught,
    from_table,
    schema_of,
    stable_seed,
)
from fdd_ray.settings import setting
from fdd_ray.store import files
from fdd_ray.store.run import Counts, StageFolder, StageResult
from fdd_ray.training import FinetuneResult

STUDENT = "student"
EXAMPLES = "examples.parquet"


@dataclasses.dataclass(frozen=True)
class MixSettings:
    """What the distillation set holds beside one kind of rationale by the teacher."""

    both_kinds: bool = setting(
        False,
        "Distil programs and chains: the teacher writes both, and the student is asked for either by a prompt of its"
        " own (student_program, student_chain), which is the tag. Needs synthesise.second_solutions, and a"
        " prompt set and a teacher that can do both. The student is scored on the kind that `kind` names.",
    )
    own_rationales: int = setting(
        0, "At most so many of the student's own right rationales are mixed in for each pool problem; 0: none.", ge=0
    )
    own_share: float = setting(
        0.25, "Largest share of the distillation set that the student's own rationales may be.", gt=0, le=0.9
    )


def gather_examples(taught: Sequence[str], curated: Sequence[str]) -> list[Example]:
    """The distillation set: all accepted (problem, rationale) pairs so far, seeds first, in a fixed order."""
    examples: list[Example] = []
    for row in from_table(files.read_tables(taught, schema_of(Taught)), Taught):
        if row.outcome == "kept":
            examples.extend(_examples(row.id, row.question, row.kind, row.rationales, row.second, "seed", 0))
    for item in from_table(files.read_tables(curated, schema_of(Curated)), Curated):
        if item.outcome == "kept":
            examples.extend(
                _examples(
                    item.problem_id, item.question, item.kind, item.rationales, item.second, item.origin, item.round
                )
            )
    return sorted(examples, key=lambda example: (example.round, example.problem_id, example.kind, example.rationale))


def own_examples(
    attempts: Sequence[str], given: Sequence[Example], settings: MixSettings, *, subject: str, seed: int, round: int
) -> list[Example]:
    """The student's own right rationales, without those that the distillation set has already.

    Args:
        attempts: Parquet files of a score stage.
        given: The distillation set without them.
        settings: How many of them.
        subject: Which attempts are those at the pool.
        seed: Makes the draw repeatable, where there are more than wanted.
        round: The round of the fine-tuning.
    """
    most = int(len(given) * settings.own_share / (1 - settings.own_share))
    had: dict[str, list[str]] = defaultdict(list)
    origins: dict[str, Origin] = {}
    for example in given:
        had[example.problem_id].append(example.rationale)
        origins[example.problem_id] = example.origin
    found: list[Example] = []
    for row in from_table(files.read_tables(attempts, schema_of(Attempt)), Attempt):
        if row.subject != subject:
            continue
        texts = [rationale_in(row.kind, item.text, row.gold) for item in row.completions if item.verdict == RIGHT]
        known = distinct_rationales(had[row.problem_id], len(had[row.problem_id]))
        new = distinct_rationales([*known, *filter(None, texts)], len(known) + len(texts))[len(known) :]
        found += [
            Example(row.problem_id, row.question, text, row.kind, origins.get(row.problem_id, "seed"), round, "student")
            for text in new[: settings.own_rationales]
        ]
    found.sort(key=lambda example: stable_seed(seed, "own", round, example.problem_id, example.rationale))
    return found[:most]


def _examples(
    id: str, question: str, kind: Kind, rationales: Sequence[str], second: Sequence[str], origin: Origin, round: int
) -> list[Example]:
    other: Kind = "chain" if kind == "program" else "program"
    return [
        *(Example(id, question, text, kind, origin, round) for text in rationales),
        *(Example(id, question, text, other, origin, round) for text in second),
    ]


@dataclasses.dataclass(frozen=True)
class Written:
    """A distillation set that was written.

    Attributes:
        path: The Parquet file.
        examples: How many pairs are in it.
        origins: How many of them, written by the teacher, belong to problems of each origin.
        own: How many the student wrote itself.
    """

    path: str
    examples: int
    origins: dict[str, int]
    own: int


def write_examples(
    folder: StageFolder,
    taught: Sequence[str],
    curated: Sequence[str],
    attempts: Sequence[str] = (),
    settings: MixSettings | None = None,
    *,
    subject: str = "",
    seed: int = 0,
) -> Written:
    """Write the distillation set of a round into its folder; it is held in memory.

    Args:
        folder: Where it goes.
        taught: Parquet files with the rationales of the seed problems.
        curated: Parquet files of what each round accepted.
        attempts: Parquet files with the student's attempts, of which right ones are mixed in.
        settings: How many of them; None: none.
        subject: Which of these attempts are those at the pool.
        seed: Makes the draw among them repeatable.
    """
    examples = gather_examples(taught, curated)
    origins = Counter(example.origin for example in examples)
    given = len(examples)
    if settings is not None:
        examples += own_examples(attempts, examples, settings, subject=subject, seed=seed, round=folder.round or 0)
    folder.write_rows(EXAMPLES, examples, Example)
    return Written(folder.file(EXAMPLES), len(examples), dict(sorted(origins.items())), len(examples) - given)


def result_of(written: Written, trained: FinetuneResult) -> StageResult:
    """The stage's account: every example was trained on, or rejected as too long."""
    too_long = trained.rejected_too_long
    rejected = {"too_long": too_long} if too_long else {}
    return StageResult(
        Counts(written.examples, written.examples - too_long, rejected, 0),
        (EXAMPLES,),
        summary={
            "student": STUDENT,
            "origins": written.origins,
            **({"own": written.own} if written.own else {}),
            **dataclasses.asdict(trained),
        },
    )
