"""Benchmark problems never enter the pool, also not with other numbers, names or sentences."""

from __future__ import annotations

import pickle
import random
import time
from itertools import islice, product

import pytest

from fdd_ray.curation.contamination import BenchmarkGuard, Contamination, ContaminationSettings, Near
from fdd_ray.curation.ngrams import words_of
from fdd_ray.errors import ExperimentError
from fdd_ray.records import Problem
from fdd_ray.settings import parse_settings

FIRST = Problem.new("Ann has 3 apples and buys 4. How many?", "7")
SECOND = Problem.new("Bob runs 5 km a day. How far in 6 days?", "30")
BAKER = Problem.new(
    "A baker fills 12 trays with 24 rolls each before sunrise. By noon the shop has sold 200 rolls to the "
    "school and 35 more to passing hikers. How many rolls are still waiting on the shelves?",
    "53",
)
SHORT = Problem.new("Seven red pens cost 14 dollars in all. What does one pen cost?", "2")
GUARD = BenchmarkGuard({"one": [FIRST, BAKER], "two": [SECOND, FIRST, SHORT]})
BENCHMARK = [FIRST, SECOND, BAKER, SHORT]


def renumbered(question: str) -> str:
    return "".join(str((int(char) + 3) % 10) if char.isdigit() else char for char in question)


def different_words(count: int) -> list[str]:
    return ["".join(letters) for letters in islice(product("abcdefghijklm", repeat=4), count)]


def test_the_same_problem_is_named_with_its_benchmark() -> None:
    whole = "ann has # apples and buys # how many"
    assert GUARD.check(FIRST.question) == Contamination("same_problem", "one", FIRST.id, 1.0, whole)
    found = GUARD.check(" " + SECOND.question.lower())
    assert found is not None
    assert found[:3] == ("same_problem", "two", SECOND.id)


def test_other_punctuation_does_not_hide_a_benchmark_problem() -> None:
    found = GUARD.check("Bob runs 5.0 km a day - how far, in 6 days")
    assert found == Contamination("same_text", "two", SECOND.id, 1.0, "bob runs # km a day how far in # days")


def test_no_benchmark_problem_passes_whatever_the_settings() -> None:
    off = ContaminationSettings(ngram=None, containment=None)
    for guard in (GUARD, BenchmarkGuard({"all": BENCHMARK}, off)):
        for problem in BENCHMARK:
            for found in (guard.check(problem.question), guard.same(problem.question)):
                assert found is not None
                assert (found.reason, found.problem_id) == ("same_problem", problem.id)
    assert GUARD.same(renumbered(BAKER.question)) is None


def test_other_numbers_are_caught_by_ngram_or_in_short_problems_by_containment() -> None:
    found = GUARD.check(renumbered(BAKER.question))
    assert found is not None
    assert (found.reason, found.benchmark, found.problem_id) == ("ngram", "one", BAKER.id)
    assert found.measure == len(words_of(BAKER.question))
    found = GUARD.check("Ben has 30 apples and buys 41. How many?")
    assert found is not None
    assert (found.reason, found.problem_id) == ("containment", FIRST.id)
    assert found.measure == pytest.approx(6 / 10)
    assert found.span == "has # apples and buys # how many"


def test_ngrams_as_written_let_other_numbers_through() -> None:
    dense = Problem.new(
        "Ada puts 4 eggs and 5 figs and 6 nuts and 7 pies and 8 buns in 9 big bags. How many items?", "1"
    )
    masked, written = (
        BenchmarkGuard({"b": [dense]}, ContaminationSettings(masked=masked, containment=None))
        for masked in (True, False)
    )
    assert masked.check(renumbered(dense.question)) is not None
    assert written.check(renumbered(dense.question)) is None
    assert written.check("Now: " + dense.question) is not None


def test_an_ngram_is_found_among_other_sentences_and_its_span_is_in_both() -> None:
    question = "Mia likes to walk. By noon the shop has sold 9 rolls to the school and then it rains. Why?"
    found = GUARD.check(question)
    assert found is not None
    assert (found.reason, found.problem_id) == ("ngram", BAKER.id)
    assert found.span == "by noon the shop has sold # rolls to the school and"
    assert found.measure == len(found.span.split())


def test_neither_leaving_out_nor_adding_sentences_hides_a_problem() -> None:
    guard = BenchmarkGuard({"b": [BAKER]}, ContaminationSettings(ngram=None))
    first, second, third = BAKER.question.split(". ")[0], BAKER.question.split(". ")[1], "How many rolls are left?"
    more = "The weather was fine and many people went up the hill. Nobody was in a hurry. " * 2
    for question in (f"{first}. {second}.", f"{more}{BAKER.question}", f"{first}. {third}"):
        found = guard.check(question)
        assert found is not None, question
        assert found.reason == "containment"
        assert 0.5 <= found.measure <= 1


def test_other_problems_pass() -> None:
    for question in (
        FIRST.question.replace("apples", "pears").replace("buys", "sells"),
        "A farmer has 12 cows and sells 5 of them at the fair. How many cows are left?",
        "How many rolls are there?",
    ):
        assert GUARD.check(question) is None, question
    assert BenchmarkGuard({}).check(FIRST.question) is None
    assert BenchmarkGuard({"empty": []}).closest(FIRST.question, 3) == []


@pytest.mark.parametrize(
    "question", ["", " ", "?!...", "#", "7", "How many?", "How many are left?", "\x00\x1b[2J", "a" * 9]
)
def test_texts_with_next_to_nothing_in_them_pass(question: str) -> None:
    tiny = [Problem.new(text, "1") for text in ("How many are there?", "What is 1 + 1?", "...", "Why?", "")]
    guard = BenchmarkGuard({"one": BENCHMARK, "tiny": tiny})
    found = guard.check(question)
    assert found is None or found.reason in ("same_problem", "same_text")
    assert BenchmarkGuard({"one": BENCHMARK}).check(question) is None
    assert guard.overlap(question) == ()


def test_random_words_pass_and_perturbed_problems_do_not() -> None:
    rng = random.Random(5)
    vocabulary = sorted({word for problem in BENCHMARK for word in words_of(problem.question)} | set("defghijk"))
    benchmark = [Problem.new(" ".join(rng.choices(vocabulary, k=rng.randint(18, 50))), "1") for _ in range(200)]
    guard = BenchmarkGuard({"random": benchmark})
    for _ in range(300):
        assert guard.check(" ".join(rng.choices(vocabulary, k=40))) is None
    for problem in benchmark:
        words = problem.question.split()
        words[rng.randrange(len(words))] = "zebra"
        question = " ".join(words)
        found = guard.check(question)
        assert found is not None
        assert found.problem_id == problem.id
        span = found.span.removesuffix(" ...")
        assert span in " ".join(words_of(question))
        assert span in " ".join(words_of(problem.question))


def test_the_order_of_benchmarks_only_decides_who_is_named() -> None:
    both = Problem.new(BAKER.question.replace("rolls", "cakes"), "1")
    one = BenchmarkGuard({"a": [BAKER, FIRST], "b": [both]})
    other = BenchmarkGuard({"b": [both], "a": [FIRST, BAKER]})
    for question in (
        renumbered(BAKER.question),
        BAKER.question.replace("rolls", "buns"),
        "Ben has 30 apples and buys 41. How many?",
        "A farmer has 12 cows.",
        "Behold: a baker fills 12 trays with 24",
    ):
        first, second = one.check(question), other.check(question)
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert (first.reason, first.measure) == (second.reason, second.measure)
    tie = BAKER.question.replace("rolls", "buns")
    named = [guard.check(tie) for guard in (one, other)]
    assert [found and found.benchmark for found in named] == ["a", "b"]


def test_lists_of_numbers_are_not_alike() -> None:
    numbers = "The temperatures in degrees were 3, 5, 7, 9, 11, 13, 15, 17, 19, 21 and 22. What was their mean?"
    guard = BenchmarkGuard({"b": [Problem.new(numbers, "1")]})
    assert guard.check("Sort these: 4, 2, 1, 7, 6, 5, 8, 10, 9, 12 and 3. Which one is last?") is None
    assert guard.check("1 " * 500) is None
    found = guard.check(renumbered(numbers).replace("mean", "sum"))
    assert found is not None
    assert found.reason == "ngram"


def test_the_longest_run_is_the_evidence() -> None:
    words = different_words(40)
    short, long = Problem.new(" ".join(words[:14]), "1"), Problem.new(" ".join(words[10:30]), "1")
    found = BenchmarkGuard({"a": [short], "b": [long]}).check(" ".join(words))
    assert found == Contamination("ngram", "b", long.id, 20.0, " ".join(words[10:30]))


def test_overlap_says_which_sizes_would_have_caught_it() -> None:
    question = "Once by noon the shop has sold 5 rolls to a mayor."  # nine words in common
    assert GUARD.overlap(question) == (8,)
    assert GUARD.overlap(question, (8, 9, 10)) == (8, 9)
    assert GUARD.overlap(question, masked=False) == ()
    assert GUARD.overlap(question.replace("5", "200"), masked=False) == (8,)
    assert GUARD.overlap(BAKER.question) == (8, 10, 13)


def test_the_closest_problems_are_given_to_the_judge() -> None:
    question = "A baker fills 3 trays with 8 rolls each. How many rolls are there on all of them?"
    near = GUARD.closest(question, 2)
    assert near[0][:3] == ("one", BAKER.id, BAKER.question)
    assert [item.share for item in near] == sorted((item.share for item in near), reverse=True)
    assert GUARD.closest(question, 0) == []
    assert GUARD.closest(question, 5, least=near[0].share + 0.01) == []
    assert GUARD.for_judge(question) == []  # by default there is no judge
    asking = BenchmarkGuard(
        {"one": BENCHMARK}, ContaminationSettings(ngram=None, containment=None, judge=1, judge_from=0.2)
    )
    assert asking.check(question) is None
    asked = asking.for_judge(question)
    assert asked == [Near("one", BAKER.id, BAKER.question, near[0].share)]
    assert asking.for_judge("What is the capital of the moon in winter?") == []
    found = asking.judged_same(question, asked[0])
    assert found == Contamination(
        "judged_same", "one", BAKER.id, near[0].share, "a baker fills # trays with # rolls each"
    )


def test_a_guard_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(GUARD))
    assert len(again) == len(GUARD) == 5
    for question in (FIRST.question, renumbered(BAKER.question), "Ben has 30 apples and buys 41. How many?", "no"):
        assert again.check(question) == GUARD.check(question)
        assert again.closest(question, 3) == GUARD.closest(question, 3)


@pytest.mark.parametrize(
    "question",
    [
        "word " * 20_000,
        "x" * 100_000,
        "By noon the shop has sold 5 rolls to the school and " * 2_000,
        "? " * 50_000,
        "1 " * 50_000,
        "\x00\u202e\ud800 \u0301" * 20_000,
        " ".join(different_words(20_000)),
    ],
)
def test_hostile_texts_are_checked_quickly_and_leave_one_printable_line(question: str) -> None:
    begun = time.process_time()
    found = GUARD.check(question)
    GUARD.closest(question, 3)
    GUARD.overlap(question)
    assert time.process_time() - begun < 5
    if found is not None:
        assert len(found.span) <= 200
        assert found.span.isprintable()


def test_a_span_is_one_short_printable_line() -> None:
    long = Problem.new("x" * 300 + " " + "\n".join(different_words(500)), "1")
    found = BenchmarkGuard({"b": [long]}).check(long.question + " more")
    assert found is not None
    assert found.span == "x" * 196 + " ..."
    assert found.measure == 501
    found = BenchmarkGuard({"b": [long]}).check(long.question[300:])
    assert found is not None
    assert found.span == " ".join(different_words(39)) + " ..."


def test_settings_are_read_and_bounded() -> None:
    read = parse_settings(ContaminationSettings, "ngram: null\ncontainment: 0.7\njudge: 2\n")
    assert read == ContaminationSettings(ngram=None, containment=0.7, judge=2)
    for wrong in ("ngram: 3", "containment: 0", "containment: 1.5", "judge: -1", "judge_from: 0"):
        with pytest.raises(ExperimentError, match="allowed:"):
            parse_settings(ContaminationSettings, wrong)
