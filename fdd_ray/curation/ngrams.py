"""Which texts of a collection share runs of words with a question, exactly and by the thousand a second.

    >>> words_of("Ann has 1,000 apples.")
    ['ann', 'has', '#', 'apples']
    >>> corpus = Corpus([words_of("Ann has 3 red apples and eats 2.")])
    >>> Ngrams(corpus, 3).longest_run(corpus.encode(words_of("Bob has 8 red apples.")))
    Run(text=0, start=1, length=4)

N-grams are looked up by a hash of word numbers that is the same in every process, and each one found is
compared word by word: two n-grams with one hash are never taken for each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fdd_ray.curation.folding import Folded, fold

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
# Of one question, so many places in the texts are compared for the longest run. Only a run's length can depend
# on this, never whether there is one.
_MAX_PLACES: Final = 200_000

Ids = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
_NONE: Final[Ids] = np.empty(0, np.int64)


class Encoded(NamedTuple):
    """The words of a question, and how `Ngrams` looks them up.

    Attributes:
        words: The words.
        ids: For each word its number in the corpus; -1 where no text has it.
        mixed: ``ids`` with their bits mixed, for hashing.
    """

    words: Sequence[str]
    ids: Ids
    mixed: Hashes


class Run(NamedTuple):
    """Words that stand in a question and in a text in the same order without a gap.

    Attributes:
        text: The index of the text.
        start: The index of the run's first word in the question.
        length: How many words.
    """

    text: int
    start: int
    length: int


class Share(NamedTuple):
    """The part of their n-grams that a question and a text have in common.

    Attributes:
        text: The index of the text.
        share: 0 to 1.
    """

    text: int
    share: float


def words_of(question: str, *, masked: bool = True) -> list[str]:
    """The words of a question, blind to case and punctuation; see `folded_words`."""
    return folded_words(fold(question), masked=masked)


def folded_words(folded: Folded, *, masked: bool = True) -> list[str]:
    """The words of a folded question.

    Args:
        folded: The question.
        masked: Whether every number is ``#``; otherwise it is written without thousands separators and
            trailing zeros.
    """
    words = folded.template.split()
    if masked:
        return words
    numbers = iter(folded.numbers)
    return [next(numbers) if word == "#" else word for word in words]


class Corpus:
    """Texts as one row of word numbers.

    Args:
        texts: The words of each text.

    Attributes:
        size: How many texts.
        ids: The number of every word of all texts, one text after the other.
        text_of: For every word, the index of its text.
        mixed: The mixed bits of each number and, last, of -1.
    """

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        self._known: dict[str, int] = {}
        ids: list[int] = []
        lengths: list[int] = []
        for text in texts:
            lengths.append(len(text))
            ids.extend(self._known.setdefault(word, len(self._known)) for word in text)
        self.size = len(lengths)
        self.ids = np.array(ids, np.int32)
        self.text_of = np.repeat(np.arange(self.size, dtype=np.int32), lengths)
        self.mixed = _mixed(np.append(np.arange(len(self._known)), -1))

    def encode(self, words: Sequence[str]) -> Encoded:
        """The words of a question, as `Ngrams` wants them."""
        number = self._known.get
        ids = np.array([number(word, -1) for word in words], np.int64)
        return Encoded(words, ids, self.mixed.take(ids, mode="wrap"))


class Ngrams:
    """All n-grams of the texts of a corpus, and where they stand.

    Args:
        corpus: The texts.
        n: Words in an n-gram; texts of fewer words have none.
        most_masks: N-grams with more masked numbers than this do not count: lists of numbers are all alike.
    """

    def __init__(self, corpus: Corpus, n: int, *, most_masks: int | None = None) -> None:
        self._corpus, self._n = corpus, n
        places = np.arange(max(len(corpus.ids) - n + 1, 0))
        places = places[corpus.text_of[places] == corpus.text_of[places + n - 1]]
        if most_masks is not None:
            masks = np.append(0, (corpus.ids == corpus.encode(["#"]).ids).cumsum())
            places = places[masks[places + n] - masks[places] <= most_masks]
        hashes = _hashes(corpus.mixed[corpus.ids], n)[places]
        order = np.argsort(hashes, kind="stable")
        same_hash = hashes[order[1:]] == hashes[order[:-1]]
        same = self._same_words(places[order[1:]], places[order[:-1]])
        self._collisions = bool((same_hash & ~same).any())
        if self._collisions:  # then equal n-grams may stand apart from each other
            order = np.lexsort((*(corpus.ids[places + offset] for offset in range(n)), hashes))
            same = self._same_words(places[order[1:]], places[order[:-1]])
        self._places = places[order].astype(np.int32)
        first = np.append(np.ones(min(len(order), 1), bool), ~same)  # at the first place of each n-gram
        self._hashes = hashes[order][first]
        self._bounds = np.append(first.nonzero()[0], len(order)).astype(np.int32)
        # The texts of each n-gram, each once however often the n-gram stands in it.
        text, gram = corpus.text_of[self._places], np.cumsum(first) - 1
        again = np.append(np.zeros(min(len(order), 1), bool), same & (text[1:] == text[:-1]))
        self._texts = text[~again]
        self._text_bounds = np.searchsorted(gram[~again], np.arange(len(self._hashes) + 1)).astype(np.int32)
        self._distinct = np.bincount(self._texts, minlength=corpus.size)

    def has_run(self, question: Encoded) -> bool:
        """Whether a question has an n-gram of any text."""
        return bool(len(self._find(question)[0]))

    def longest_run(self, question: Encoded) -> Run | None:
        """The longest run of at least n words that a question shares with a text, if there is one.

        Of several, the one in the first text is given, and of these the first.
        """
        starts, grams = self._find(question)
        if not len(starts):
            return None
        low, high = self._bounds[grams], self._bounds[grams + 1]
        fitting = max(int((high - low).cumsum().searchsorted(_MAX_PLACES, side="right")), 1)
        which, entries = _spread(low[:fitting], high[:fitting])
        start, place = starts[which], self._places[entries].astype(np.int64)
        # N-grams that follow each other in both the question and a text make a longer run.
        text, shift = self._corpus.text_of[place].astype(np.int64), place - start
        order = np.lexsort((start, shift, text))
        text, shift, start = text[order], shift[order], start[order]
        begins = np.ones(len(order), bool)
        begins[1:] = (text[1:] != text[:-1]) | (shift[1:] != shift[:-1]) | (start[1:] != start[:-1] + 1)
        first = begins.nonzero()[0]
        length = np.diff(np.append(first, len(order))) + self._n - 1
        best = np.lexsort((start[first], text[first], -length))[0]
        return Run(int(text[first[best]]), int(start[first[best]]), int(length[best]))

    def shares(self, question: Encoded, *, least: float, at_least_ngrams: int = 1) -> list[Share]:
        """The texts that have a part of their n-grams in common with a question, the largest part first.

        The part is taken of the n-grams of the question or of the text, whichever has fewer: neither leaving
        out sentences nor adding some makes it much smaller. Each n-gram counts once.

        Args:
            question: The question.
            least: The smallest part to be told of, more than 0.
            at_least_ngrams: Where one of the two has fewer n-grams than this, the part is taken of so many: a
                few words that everybody uses make no text like another.
        """
        _, grams = self._find(question)
        fewest = max(math.ceil(least * at_least_ngrams - 1e-9), 1)
        if len(grams) < fewest:
            return []
        grams.sort()
        grams = grams[np.append(True, grams[1:] != grams[:-1])]
        _, entries = _spread(self._text_bounds[grams], self._text_bounds[grams + 1])
        common = np.bincount(self._texts[entries], minlength=self._corpus.size)
        texts = (common >= fewest).nonzero()[0]
        if not len(texts):
            return []
        asked = len(set(zip(*(question.words[offset:] for offset in range(self._n)), strict=False)))
        share = common[texts] / np.maximum(np.minimum(self._distinct[texts], asked), at_least_ngrams)
        enough = (share >= least).nonzero()[0]
        order = enough[np.lexsort((texts[enough], -share[enough]))] if len(enough) else enough
        return [Share(int(texts[index]), float(share[index])) for index in order]

    def _find(self, question: Encoded) -> tuple[Ids, Ids]:
        """Where a question has n-grams of the texts: the first word of each in it, and which n-gram it is."""
        hashes = _hashes(question.mixed, self._n)
        if not len(hashes) or not len(self._hashes):
            return _NONE, _NONE
        grams = self._hashes.searchsorted(hashes)
        starts = (self._hashes.take(grams, mode="clip") == hashes).nonzero()[0]
        if not len(starts):
            return _NONE, _NONE
        grams = grams[starts]
        if self._collisions:
            which, grams = _spread(grams, self._hashes.searchsorted(hashes[starts], side="right"))
            starts = starts[which]
        places = self._places[self._bounds[grams]]
        same = question.ids[starts] == self._corpus.ids[places]
        for offset in range(1, self._n):
            same &= question.ids[starts + offset] == self._corpus.ids[places + offset]
        return starts[same], grams[same]

    def _same_words(self, one: Ids, other: Ids) -> npt.NDArray[np.bool_]:
        """Whether the n-grams at two places are the same, for pairs of places."""
        ids = self._corpus.ids
        same = np.ones(len(one), bool)
        for offset in range(self._n):
            same &= ids[one + offset] == ids[other + offset]
        return same


def _mixed(ids: npt.NDArray[np.integer]) -> Hashes:
    """A number of 64 well mixed bits for each id (SplitMix64's finaliser), so that sums of them make hashes."""
    mixed = ids.astype(np.int64).view(np.uint64) * _MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(27))


def _hashes(values: Hashes, n: int) -> Hashes:
    """For each run of ``n`` values the polynomial that has them as coefficients, modulo 2**64."""
    if n == 1:
        return values
    if len(values) < n:
        return values[:0]
    half = n // 2
    part = _hashes(values, half)  # a run of 2 * half values is two of half
    result = part[:-half] * np.uint64(pow(int(_MULTIPLIER), half, 1 << 64)) + part[half:]
    return result[:-1] * _MULTIPLIER + values[n - 1 :] if n % 2 else result


def _spread(low: npt.NDArray[np.integer], high: npt.NDArray[np.integer]) -> tuple[Ids, Ids]:
    """All numbers of the ranges ``low`` to ``high`` (exclusive), and for each the index of its range."""
    counts = high - low
    which = np.arange(len(counts)).repeat(counts)
    return which, np.arange(len(which)) + (low - counts.cumsum() + counts)[which]
