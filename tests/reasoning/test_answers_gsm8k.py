"""The comparison against every known answer of GSM8K, which is not part of the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fdd_ray.reasoning.answers import canonical, compare, final_answer, parse_number

SIZES = {"train": 7473, "test": 1319}


def solutions(folder: Path, split: str) -> list[tuple[str, int]]:
    """Each worked solution with its known answer, which is read here without the code under test."""
    path = folder / f"gsm8k_{split}.jsonl"
    if not path.is_file():
        pytest.skip(f"NOT TESTED on GSM8K's {split} problems: no {path}; name its folder in FDD_RAY_DATA")
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)["answer"]
        last = answer.split("\n")[-1]
        assert re.fullmatch(r"#### -?[0-9][0-9,]*", last), last
        found.append((answer, int(last[5:].replace(",", ""))))
    return found


@pytest.mark.parametrize("split", SIZES)
def test_every_solution_agrees_with_its_known_answer(gsm8k: Path, split: str) -> None:
    rows = solutions(gsm8k, split)
    assert len(rows) == SIZES[split]
    for answer, gold in rows:
        given = final_answer(answer)
        assert given is not None
        for known in (str(gold), f"{gold:,}", f"${gold}", f"{gold}.0"):
            assert (given, known, compare(given, known)) == (given, known, "right")
        assert canonical(given) == str(gold)
        number = parse_number(given)
        assert number is not None and number.value == gold


@pytest.mark.parametrize("split", SIZES)
def test_no_solution_agrees_with_a_known_answer_that_was_changed(gsm8k: Path, split: str) -> None:
    for answer, gold in solutions(gsm8k, split):
        given = final_answer(answer) or ""
        changed = {str(gold + 1), str(gold - 1), f"{10 * gold + 1}"}
        if gold < 100_000:  # above, a half may be within the relative tolerance
            changed.add(f"{gold}.5")
        verdicts = {known: compare(given, known) for known in changed}
        assert set(verdicts.values()) <= {"wrong_answer", "wrong_sign"}, (given, verdicts)
        if gold:
            assert compare(given, str(-gold)) == "wrong_sign"
            assert compare(given, f"{gold}%") == "percent_mismatch"
            assert compare(f"{given}%", str(gold)) == "percent_mismatch"
            assert compare(f"{given} minutes", f"{gold} hours") == "unit_mismatch"
