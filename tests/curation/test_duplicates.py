"""What the pool has already: both passes, against an account of them that compares everything with everything."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from fdd_ray.curation.duplicates import DuplicateSettings, Entry, Finding, find_duplicates
from fdd_ray.curation.folding import Folded, fold
from fdd_ray.curation.quantities import Quantities, read_quantities
from fdd_ray.records import problem_id

QUESTION = "Ann has 3 apples and buys 4. How many apples does Ann have?"
LONG = (
    "Josie received $50 as a gift. She plans to buy two cassette tapes that cost $9 each and a headphone set that"
    " costs $25. How much money will she have left?"
)


def find(
    new: str | tuple[str, str], *pool: str | tuple[str, str], per_template: int = 8, similarity: float | None = 0.8
) -> Finding | None:
    """What is found about one candidate; the answer is 7 unless one is given."""
    settings = DuplicateSettings(per_template=per_template, similarity=similarity)
    known = [Entry.of(*_pair(problem), known=True) for problem in pool]
    return find_duplicates([Entry.of(*_pair(new), order="r-1"), *known], settings).get("r-1")


def _pair(problem: str | tuple[str, str]) -> tuple[str, str]:
    return (problem, "7") if isinstance(problem, str) else problem


@pytest.mark.parametrize(
    ("question", "folded"),
    [
        ("Ann has 3 apples.", Folded("ann has # apples", ("3",))),
        ("ANN  has\n03 apples!?", Folded("ann has # apples", ("3",))),
        ("$1,000.50 or 1000.5", Folded("# or #", ("1000.5", "1000.5"))),
        ("3/4 of 50%", Folded("# # of #", ("3", "4", "50"))),
        ("the 2nd #1", Folded("the # nd #", ("2", "1"))),
        ("snake_case \uff13", Folded("snake case #", ("3",))),
        ("a .5 b 2.0", Folded("a # b #", ("0.5", "2"))),
        ("no numbers", Folded("no numbers", ())),
        ("", Folded("", ())),
    ],
)
def test_fold(question: str, folded: Folded) -> None:
    assert fold(question) == folded


@pytest.mark.parametrize(
    ("question", "quantities"),
    [
        ("two of 3", Quantities("# of #", ("2", "3"))),
        ("twenty-five, sixty one", Quantities("# #", ("25", "61"))),
        ("a dozen, two dozen, five hundred", Quantities("a # # #", ("12", "24", "500"))),
        ("2.5 million and 2,500,000", Quantities("# and #", ("2500000", "2500000"))),
        ("half of it, then twice 4", Quantities("half of it then twice #", ("half", "twice", "4"))),
        ("one day", Quantities("# day", ("1",))),
        ("sixteen tenants weightlift someone", Quantities("# tenants weightlift someone", ("16",))),
        ("9" * 50 + " thousand", Quantities("#", ("9" * 50 + "000",))),
        ("", Quantities("", ())),
    ],
)
def test_quantities(question: str, quantities: Quantities) -> None:
    assert read_quantities(fold(question)) == quantities


def test_a_new_problem_is_new() -> None:
    assert find(QUESTION) is None
    assert find("Bob has 3 pears and eats 1. How many pears does Bob have?", QUESTION, per_template=1) is None


def test_the_same_problem_is_an_exact_duplicate() -> None:
    assert find(QUESTION.upper() + " ", QUESTION) == Finding("exact_duplicate", problem_id(QUESTION))


def test_other_punctuation_and_number_style_is_a_duplicate() -> None:
    found = find("Ann has 3.0 apples, and buys 4: how many apples does Ann have", (QUESTION, "8"))
    assert found == Finding("duplicate", problem_id(QUESTION))


def test_other_numbers_are_a_variation_until_the_template_is_full() -> None:
    second, third = QUESTION.replace("3", "5"), QUESTION.replace("3", "6")
    assert find(second, QUESTION, per_template=2) is None
    assert find(third, QUESTION, second, per_template=2).reason == "template_cap"  # type: ignore[union-attr]
    assert find(second, QUESTION, second, per_template=2).reason == "exact_duplicate"  # type: ignore[union-attr]
    assert find(third, QUESTION, QUESTION, per_template=2) is None, "one problem takes one place"


def test_the_order_of_numbers_matters() -> None:
    swapped = QUESTION.replace("3", "x").replace("4", "3").replace("x", "4")
    assert find(swapped, QUESTION) is None


def test_numbers_cannot_be_shifted_between_places() -> None:
    assert find("a 12 b 3", "a 1 b 23") is None


def test_without_numbers_the_same_text_is_a_duplicate() -> None:
    assert find("How old is Ann", "How old is Ann?") == Finding("duplicate", problem_id("How old is Ann?"))


def test_a_name_changed_is_a_near_duplicate_with_the_similarity() -> None:
    found = find(LONG.replace("Josie", "Amanda"), LONG)
    assert found == Finding("near_duplicate", problem_id(LONG), 28 / 30)
    assert find(LONG.replace("Josie", "Amanda"), LONG, similarity=None) is None
    assert find(LONG.replace("Josie", "Amanda"), LONG, similarity=0.95) is None


@pytest.mark.parametrize(
    "other",
    [
        LONG.replace("$50", "$60").replace("Josie", "Amanda"),
        LONG.replace("two", "three"),
        LONG.replace("a headphone", "half a headphone"),
        LONG.replace("$9", "$25").replace("set that costs $25", "set that costs $9"),
    ],
)
def test_similar_text_with_other_quantities_is_no_near_duplicate(other: str) -> None:
    assert find(other, LONG, similarity=0.5) is None


def test_similar_text_with_another_answer_asks_for_something_else() -> None:
    other = LONG.replace("How much money will she have left", "How much money will she have spent")
    assert find((other, "43"), (LONG, "7")) is None
    assert find((other, "7.0"), (LONG, "7")) == Finding("near_duplicate", problem_id(LONG), 28 / 30)


def test_answers_may_be_words() -> None:
    other = LONG.replace("Josie", "Amanda")
    assert find((other, "no"), (LONG, "yes")) is None
    assert find((other, "Yes"), (LONG, "yes")) is not None


def test_known_problems_come_first_whatever_the_order_is_called() -> None:
    for known in (LONG.replace("Josie", "Amanda"), LONG.upper(), LONG.replace(".", "!")):
        entries = [Entry.of(LONG, "7", order="a"), Entry.of(known, "7", known=True, order="b")]
        assert find_duplicates(entries, DuplicateSettings())["a"].evidence == problem_id(known)


def test_numbers_in_words_or_digits_are_the_same_quantities() -> None:
    found = find(LONG.replace("two", "2"), LONG)
    assert found == Finding("near_duplicate", problem_id(LONG), 1.0)


def _reference(entries: Sequence[Entry], settings: DuplicateSettings) -> dict[str, Finding]:
    """Both passes in their plainest form: everything is compared with all that was kept before it."""
    found: dict[str, Finding] = {}
    kept: list[Entry] = []
    entries = sorted(entries, key=lambda e: (not e.known, e.order))
    for entry in entries:
        same = [k for k in kept if k.template == entry.template]
        text = next((k for k in same if k.numbers == entry.numbers), None)
        if any(k.id == entry.id for k in kept):
            if not entry.known:
                found[entry.order] = Finding("exact_duplicate", entry.id)
        elif text and not entry.known:
            found[entry.order] = Finding("duplicate", text.id)
        elif len(same) >= settings.per_template and not entry.known:
            found[entry.order] = Finding("template_cap", same[0].id)
        else:
            kept.append(entry)
    # One known problem may be there several times, with different answers.
    survivors, kept = [entry for entry in entries if entry.known or entry.order not in found], []
    assert settings.similarity is not None
    for entry in survivors:
        near = None
        for other in kept:
            a, b = (_triples(read_quantities(e.folded).text) for e in (entry, other))
            if other.quantities == entry.quantities and len(a & b) / len(a | b) >= settings.similarity:
                near = Finding("near_duplicate", other.id, len(a & b) / len(a | b))
                break
        if near is None or entry.known:
            kept.append(entry)
        else:
            found[entry.order] = near
    return found


def _triples(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(zip(words, words[1:], words[2:], strict=False)) if len(words) > 2 else {tuple(words)}


def random_entries(seed: int, size: int = 120, parts: int = 1) -> list[Entry]:
    """Problems with all kinds of likeness: a few stories, changed in words, names, numbers and punctuation."""
    draw = random.Random(seed)
    stories = [["".join(draw.choices("abcde", k=2)) for _ in range(draw.randint(2, 40))] for _ in range(4)]
    entries = []
    for number in range(size):
        words = list(draw.choice(stories))
        for _ in range(draw.choice([0, 0, 1, 1, 2, 6])):
            words[draw.randrange(len(words))] = draw.choice(["ann", "bob", "twice", "the"])
        words.insert(len(words) // 2, str(draw.randint(2, 4)))
        text = draw.choice([" ", "  ", ", "]).join(words)
        known = draw.random() < 0.3
        entries.append(
            Entry.of(text, str(draw.randint(1, 2)), order="" if known else f"r-{draw.random():.9f}", known=known,
                     part=number % parts)
        )  # fmt: skip
    return entries


@pytest.mark.parametrize("seed", range(40))
def test_what_is_found_is_what_comparing_everything_finds(seed: int) -> None:
    entries = random_entries(seed)
    settings = DuplicateSettings(per_template=1 + seed % 3, similarity=(0.5, 0.7, 0.8, 0.9)[seed % 4])
    expected = _reference(entries, settings)
    assert find_duplicates(entries, settings) == expected
    random.Random(seed).shuffle(entries)
    assert find_duplicates(entries, settings) == expected


def test_the_random_problems_have_all_kinds_of_likeness() -> None:
    found = [f for seed in range(5) for f in _reference(random_entries(seed), DuplicateSettings(2)).values()]
    assert {finding.reason for finding in found} == {"exact_duplicate", "duplicate", "template_cap", "near_duplicate"}


def test_large_groups_go_through_minhash_and_find_the_same() -> None:
    entries = [e for e in random_entries(77, 700) if e.quantities]
    settings = DuplicateSettings(per_template=700, similarity=0.8)
    assert find_duplicates(entries, settings) == _reference(entries, settings)


def test_likeness_does_not_chain() -> None:
    """Each text is like the one before it, the last nothing like the first.

    Joining all that are alike, and what is alike to these, is known to leave one problem of many thousands.
    """
    words = [f"{a}{b}{c}" for a in "bcdfghkl" for b in "aeiou" for c in "mnprstvwxzyq"][:460]
    chain = [" ".join(["7", *words[i : i + 60]]) for i in range(0, 400)]
    entries = [Entry.of(text, "7", order=f"r-{i:03d}") for i, text in enumerate(chain)]
    neighbours = [len(_triples(a) & _triples(b)) / len(_triples(a) | _triples(b)) for a, b in itertools.pairwise(chain)]
    assert min(neighbours) > 0.9, "all of them hang together"
    found = find_duplicates(entries, DuplicateSettings(similarity=0.8))
    kept = [i for i in range(400) if f"r-{i:03d}" not in found]
    assert kept == list(range(0, 400, kept[1]))
    assert len(kept) > 50
    by_id = {entry.id: position for position, entry in enumerate(entries)}
    for order, finding in found.items():
        assert finding.similarity >= 0.8
        assert f"r-{by_id[finding.evidence]:03d}" not in found, "the evidence is itself kept"
        assert int(order[2:]) - by_id[finding.evidence] < kept[1]
