"""What decontamination does on the real files of GSM8K."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from fdd_ray.curation.contamination import BenchmarkGuard, ContaminationSettings
from fdd_ray.curation.ngrams import Corpus, Ngrams, words_of
from fdd_ray.records import Problem


@pytest.fixture
def questions(gsm8k: Path) -> dict[str, list[str]]:
    return {
        split: [json.loads(line)["question"] for line in (gsm8k / f"gsm8k_{split}.jsonl").open(encoding="utf-8")]
        for split in ("test", "train")
    }


@pytest.fixture
def guard(questions: dict[str, list[str]]) -> BenchmarkGuard:
    return BenchmarkGuard({"gsm8k": [Problem.new(question, "0") for question in questions["test"]]})


def test_train_against_test_gives_the_known_counts(guard: BenchmarkGuard, questions: dict[str, list[str]]) -> None:
    for masked, counts in ((False, (94, 11, 4)), (True, (217, 31, 8))):
        hits = Counter(size for question in questions["train"] for size in guard.overlap(question, masked=masked))
        assert (hits[8], hits[10], hits[13]) == counts


def test_one_more_problem_is_hit_where_numbers_are_words_of_their_own(questions: dict[str, list[str]]) -> None:
    """Masked counts of 216 / 31 / 8 belong to words where a number stays part of "2nd" or "5k"; `fold` parts them."""

    def glued(question: str) -> list[str]:
        return re.sub(r"[^a-z0-9 ]", " ", re.sub(r"\d+(?:[.,]\d+)*", "0", question.lower())).split()

    corpus = Corpus(map(glued, questions["test"]))
    asked = [corpus.encode(glued(question)) for question in questions["train"]]
    counts = [sum(map(Ngrams(corpus, size).has_run, asked)) for size in (8, 10, 13)]
    assert counts == [216, 31, 8]


def test_of_train_little_is_removed_and_none_of_it_is_a_test_problem(
    guard: BenchmarkGuard, questions: dict[str, list[str]]
) -> None:
    reasons = Counter(found.reason for question in questions["train"] if (found := guard.check(question)))
    assert reasons == {"ngram": 31, "containment": 1}
    assert all(guard.same(question) is None for question in questions["train"])
    wide = BenchmarkGuard(
        {"gsm8k": [Problem.new(question, "0") for question in questions["test"]]},
        ContaminationSettings(ngram=None, containment=0.3),
    )
    # What a judge would be shown at the default judge_from: two problems in a hundred.
    assert sum(wide.check(question) is not None for question in questions["train"]) == 154


def test_the_span_of_every_hit_is_in_both_questions(guard: BenchmarkGuard, questions: dict[str, list[str]]) -> None:
    texts = {Problem.new(question, "0").id: " ".join(words_of(question)) for question in questions["test"]}
    found = [(question, hit) for question in questions["train"] if (hit := guard.check(question))]
    assert len(found) == 32
    for question, hit in found:
        span = hit.span.removesuffix(" ...")
        assert span in " ".join(words_of(question))
        assert span in texts[hit.problem_id]
        assert hit.reason == "containment" or hit.measure >= 10


def test_test_problems_are_caught_however_their_numbers_change(
    guard: BenchmarkGuard, questions: dict[str, list[str]]
) -> None:
    rng = random.Random(0)
    for question in questions["test"]:
        assert (found := guard.check(question)) is not None
        assert found.reason == "same_problem"
        changed = re.sub(r"\d+", lambda number: str(rng.randrange(10 ** len(number[0]))), question)
        assert guard.check(changed) is not None, changed


def test_most_test_problems_are_caught_under_another_name_with_another_word(
    guard: BenchmarkGuard, questions: dict[str, list[str]]
) -> None:
    rng = random.Random(0)
    missed = 0
    for question in questions["test"]:
        changed = re.sub(r"\d", lambda digit: str(rng.randrange(10)), question)
        names = Counter(re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", changed)).most_common(1)
        if names:
            changed = re.sub(rf"\b{names[0][0]}\b", "Zelda", changed)
        words = changed.split()
        words[rng.randrange(len(words))] = "zebra"
        missed += guard.check(" ".join(words)) is None
    assert missed <= 0.01 * len(questions["test"])
