"""Shared runs of words are found exactly, whatever the hash does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from fdd_ray.curation import ngrams
from fdd_ray.curation.folding import fold
from fdd_ray.curation.ngrams import Corpus, Ngrams, Run, Share, words_of

Words = Sequence[str]


def grams(words: Words, n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def slow_longest_run(texts: Sequence[Words], question: Words, n: int) -> Run | None:
    for length in range(len(question), n - 1, -1):
        for number, text in enumerate(texts):
            there = set(grams(text, length))
            for start, gram in enumerate(grams(question, length)):
                if gram in there:
                    return Run(number, start, length)
    return None


def slow_shares(texts: Sequence[Words], question: Words, n: int, least: float, floor: int) -> list[Share]:
    found = []
    for number, text in enumerate(texts):
        here, there = set(grams(question, n)), set(grams(text, n))
        share = len(here & there) / max(min(len(here), len(there)), floor)
        if share >= least:
            found.append(Share(number, share))
    return sorted(found, key=lambda item: (-item.share, item.text))


def random_text(rng: random.Random, letters: str, words: int) -> list[str]:
    return [rng.choice(letters) for _ in range(words)]


def weak(ids: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    return (np.asarray(ids, np.int64) & 1).astype(np.uint64)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("collide", [False, True])
def test_everything_is_as_a_slow_search_finds_it(monkeypatch: pytest.MonkeyPatch, n: int, collide: bool) -> None:
    if collide:
        monkeypatch.setattr(ngrams, "_mixed", weak)
    rng, letters = random.Random(n), "abcde"[: 7 - n]
    found_runs = found_shares = 0
    for _ in range(60):
        texts = [random_text(rng, letters, rng.choice([0, 1, 3, 8, 12])) for _ in range(rng.randrange(6))]
        corpus = Corpus(texts)
        index = Ngrams(corpus, n)
        for _ in range(5):
            question = [word if rng.random() < 0.9 else "x" for word in random_text(rng, letters, rng.randrange(14))]
            encoded = corpus.encode(question)
            run = slow_longest_run(texts, question, n)
            assert index.longest_run(encoded) == run
            assert index.has_run(encoded) is (run is not None)
            shares = slow_shares(texts, question, n, 0.3, 2)
            assert index.shares(encoded, least=0.3, at_least_ngrams=2) == shares
            found_runs += run is not None
            found_shares += bool(shares)
    assert min(found_runs, found_shares) > 20  # the comparison was about something


def test_words_that_no_text_has_are_told_apart() -> None:
    corpus = Corpus([["a", "b", "c"]])
    index = Ngrams(corpus, 2)
    # Four different pairs, one of them shared: were unknown words all the same, it would be one of two or three.
    assert index.shares(corpus.encode(["a", "b", "x", "y", "z"]), least=0.01) == [Share(0, 0.5)]
    assert index.shares(corpus.encode(["x", "y", "z"]), least=0.01) == []


def test_a_run_never_goes_from_one_text_into_the_next() -> None:
    corpus = Corpus([["a", "b"], ["c", "d"]])
    assert Ngrams(corpus, 2).longest_run(corpus.encode(["a", "b", "c", "d"])) == Run(0, 0, 2)
    assert not Ngrams(corpus, 3).has_run(corpus.encode(["a", "b", "c", "d"]))


def test_ngrams_of_too_many_numbers_do_not_count() -> None:
    corpus = Corpus([["#", "#", "#", "a", "b"], ["c", "#", "d", "#"]])
    index = Ngrams(corpus, 3, most_masks=1)
    assert index.longest_run(corpus.encode(["#", "#", "#", "a", "b"])) == Run(0, 2, 3)
    assert not index.has_run(corpus.encode(["#", "#", "#", "a"]))
    assert index.has_run(corpus.encode(["c", "#", "d"]))
    assert Ngrams(corpus, 3).has_run(corpus.encode(["#", "#", "#", "a"]))
    plain = Corpus([["a", "b"]])  # has no masks at all
    assert Ngrams(plain, 2, most_masks=0).has_run(plain.encode(["a", "b"]))


def test_many_places_shorten_the_run_but_do_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ["a", "b", "c"] * 4
    corpus = Corpus([text] * 5)
    index = Ngrams(corpus, 3)
    assert index.longest_run(corpus.encode(text)) == Run(0, 0, 12)
    monkeypatch.setattr(ngrams, "_MAX_PLACES", 1)
    assert index.longest_run(corpus.encode(text)) == Run(0, 0, 3)


def test_an_index_is_the_same_in_every_process() -> None:
    code = (
        "import hashlib, pickle\n"
        "from fdd_ray.curation.ngrams import Corpus, Ngrams, words_of\n"
        "index = Ngrams(Corpus([words_of('Ann has 3 red apples and eats 2 of them.')]), 3)\n"
        "print(hashlib.sha256(pickle.dumps(index)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("question", "masked", "words"),
    [
        ("Ann has 1,000 apples.", True, "ann has # apples"),
        ("Ann has 1,000 apples, eats 2.50!", False, "ann has 1000 apples eats 2.5"),
        ("#1 # 2", False, "1 2"),
        ("...", True, ""),
    ],
)
def test_words(question: str, masked: bool, words: str) -> None:
    assert words_of(question, masked=masked) == words.split()
    assert ngrams.folded_words(fold(question), masked=masked) == words.split()
