"""Duplicates among the real problems of GSM8K, and among variations of them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from fdd_ray.curation.duplicates import DuplicateSettings, Entry, Finding, find_duplicates
from fdd_ray.records import problem_id

# Both read: a gift of $50, two cassette tapes at $9, a headphone set at $25, how much is left; only the name
# of the girl differs. No other pair was found, however low the similarity was set.
AMANDA = "p-9232447b39e940d1ba83"
JOSIE = "p-1e11fa003f226282361e"
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


def _train(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["question"], row["answer"].rpartition("####")[2].strip()) for row in rows]


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.9])
def test_only_true_duplicates_of_the_training_problems_are_dropped(gsm8k: Path, similarity: float) -> None:
    entries = [Entry.of(*pair) for pair in _train(gsm8k)]
    assert len(entries) == 7473
    found = find_duplicates(entries, DuplicateSettings(per_template=1000, similarity=similarity))
    assert found == {AMANDA: Finding("near_duplicate", JOSIE, 28 / 30)}


def _with_other_numbers(question: str, draw: random.Random) -> str:
    """Every number another one; the words stay."""

    def other(found: re.Match[str]) -> str:
        value = int(float(found[0].replace(",", "")))
        return str(draw.choice([n for n in range(2, 2 * value + 10) if n != value]))

    return _NUMBER.sub(other, question)


def test_number_changed_variations_are_capped_but_never_duplicates(gsm8k: Path) -> None:
    draw = random.Random(1)
    originals = _train(gsm8k)
    # The hardest case: the answer stays what it was.
    variations = [(_with_other_numbers(question, draw), answer) for question, answer in originals]
    pool = [Entry.of(*pair, known=True) for pair in originals]
    new = [Entry.of(*pair, order=f"r-{i:04d}") for i, pair in enumerate(variations)]
    changed = {f"r-{i:04d}" for i, (question, _) in enumerate(originals) if _NUMBER.search(question)}
    same = {f"r-{i:04d}" for i in range(7473)} - changed
    # These have their numbers in words alone: nothing was changed, so they are exact duplicates of themselves.
    assert all(problem_id(originals[int(order[2:])][0]) == new[int(order[2:])].id for order in same)

    # The two problems of the one repeated template, with a variation of each, are four.
    found = find_duplicates([*pool, *new], DuplicateSettings(per_template=4))
    assert {order: f.reason for order, f in found.items()} == dict.fromkeys(same, "exact_duplicate")

    tight = find_duplicates([*pool, *new], DuplicateSettings(per_template=1))
    assert {order for order, f in tight.items() if f.reason == "template_cap"} == changed
    assert {order for order, f in tight.items() if f.reason == "exact_duplicate"} == same
