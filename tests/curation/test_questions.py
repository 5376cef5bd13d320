from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from fdd_ray.curation.questions import QuestionSettings, check_question, check_variation
from fdd_ray.records import Origin
from fdd_ray.tiny.grammar import sample_story
from fdd_ray.tiny.variations import complexify, similar

ANN = "Ann has 3 apples and buys 4 more. How many apples does she have?"
CHECKS = QuestionSettings()


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (ANN, None),
        ("How many is 3 + 4?", "too_short"),
        (ANN * 40, "too_long"),
        ("Ann has 3 apples and buys 4 more. She is very happy with them.", "no_question"),
        ("Ann has some apples and buys a few more. How many apples does she have?", "no_numbers"),
        ("Ann has half of the twelve apples. How many apples does she have?", None),
        ("Calculate the sum of the first 10 even numbers that are larger than 20.", None),
        ("In 8 years, what will the height of the tree be in inches, if it grows 3 a year.", None),
        ("Ann has 3 apples and buys 4. How many does she have? Answer: 7", "answer_leaked"),
        ("Ann has 3 apples and buys 4. How many does she have? The answer is 7.", "answer_leaked"),
        ("Ann has 3 apples and buys 4. How many does she have?\n#### 7", "answer_leaked"),
        ("Ann has 3 apples and buys 4. How many does she have? <<3+4=7>>", "answer_leaked"),
        ("Ann has 3 apples and buys 4. How many does she have? \\boxed{7}", "answer_leaked"),
        ("Ann has 3 apples and buys 4. How many does she have?\nSolution: add them up.", "answer_leaked"),
        ("Tom said that the answer must be larger than 5. What is the sum of 3 and 4?", None),
        ("Ann has 3 apples and buys 4. How many are there?\n```python\nanswer = 7\n```", "code_in_question"),
        ("Ann has 3 apples and buys 4. How many are there?\napples = 3 + 4", "code_in_question"),
        ("Ann has 3 apples and buys 4. How many are there?\ndef solution():\n  return 7", "code_in_question"),
        ("<problem>Ann has 3 apples and buys 4. How many are there?</problem>", "code_in_question"),
        ("Anna hat 3 Äpfel und kauft 4 weitere dazu. Wie viele Äpfel hat Anna dann?", "wrong_language"),
        ("Анна имеет 3 яблока и покупает ещё 4. Сколько яблок теперь есть?", "wrong_language"),
        ("安娜 有 3 个 苹果 又 买 了 4 个 现在 有 多少 个 苹果 ?", "wrong_language"),
        ("José and Zoë have 3 crêpes and buy 4 more. How many crêpes do they have?", None),
    ],
)
def test_each_check_has_its_reason(question: str, reason: str | None) -> None:
    assert check_question(question, CHECKS) == reason


def test_each_check_can_be_switched_off() -> None:
    none = QuestionSettings(min_words=1, max_words=10**6, min_numbers=0, language="any")
    assert check_question("How many?", none) is None
    assert check_question(ANN * 40, none) is None
    assert check_question("Wie viele Äpfel hat Anna?", none) is None
    for origin in ("complex", "similar"):
        off = QuestionSettings(complex_differs=False, similar_new_words=0.0)
        assert check_variation(ANN.replace("3", "5"), ANN, origin, off) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "origin", "reason"),
    [
        ("ann has 3 apples and buys 4 more; how many apples does she have", "complex", "copy_of_parent"),
        ("ANN has 3.0 apples, and buys 4 more. How many apples does she have?", "similar", "copy_of_parent"),
        ("Ann has 5 apples and buys 9 more. How many apples does she have?", "complex", "same_steps"),
        ("Bob has 5 pens and buys 9 more. How many pens does he have?", "complex", "same_steps"),
        ("Ann has 3 apples, buys 4 more and eats 2. How many apples does she have?", "complex", None),
        ("Ann has 3 apples and buys 4 more. She eats half of them. How many apples does she have?", "complex", None),
        ("Ann has 5 apples and buys 9 more. How many apples does she have?", "similar", "same_content"),
        ("Bob has 5 pens and finds 9 more. How many pens does he own?", "similar", None),
        ("Ann has 5 apples and buys 9 more. How many apples does she have?", "bridge", None),
    ],
)
def test_a_variation_differs_from_its_parent(question: str, origin: Origin, reason: str | None) -> None:
    assert check_variation(question, ANN, origin, CHECKS) == reason


def test_limits_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="max_words"):
        QuestionSettings(min_words=20, max_words=10)


def test_hostile_text_costs_little_time() -> None:
    for text in (
        "answer" + " " * 200_000,
        "a=" * 100_000,
        "<<" * 100_000,
        "1," * 100_000,
        "\n" * 200_000 + "how many?",
    ):
        check_question(text, QuestionSettings(max_words=10**9))


def test_people_write_questions_that_pass(gsm8k: Path) -> None:
    """The checks reject next to nothing that people wrote."""
    found: Counter[str | None] = Counter()
    for split in ("train", "test"):
        for line in (gsm8k / f"gsm8k_{split}.jsonl").open(encoding="utf-8"):
            found[check_question(json.loads(line)["question"], CHECKS)] += 1
    assert sum(found.values()) == 8792
    assert found[None] >= 8786, found


def test_the_tiny_worlds_variations_pass() -> None:
    rng = random.Random(5)
    checked = 0
    for _ in range(300):
        story = sample_story(rng, rng.choice([1, 2, 3]))
        for origin, varied in (("complex", complexify(rng, story)), ("similar", similar(rng, story))):
            if varied is not None:
                checked += 1
                assert check_question(varied.text(), CHECKS) is None
                assert check_variation(varied.text(), story.text(), origin, CHECKS) is None  # type: ignore[arg-type]
    assert checked > 500
