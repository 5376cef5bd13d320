"""Finds kept texts that are like a new one, without comparing it with all of them.

    >>> kept = SimilarTexts(0.8)
    >>> kept.add("p-1", "ann has # apples and buys # more how many apples does she have")
    >>> kept.add("p-2", "ben has # apples and buys # more how many apples does she have")
    ('p-1', 0.846...)

Texts are sets of word triples. MinHash in bands names the candidates, and each is then compared exactly;
what the bands miss is less than one in a million of the pairs that are similar enough.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datasketch import MinHashLSH

Shingles = frozenset[str]

# Up to this many texts, comparing all is faster than hashing them.
_FEW: Final = 32
_MISSED: Final = 1e-6
_MOST_HASHES: Final = 128


def shingles(text: str) -> Shingles:
    """The word triples of a text; a shorter text is one shingle."""
    words = text.split()
    if len(words) < 3:
        return frozenset([text])
    return frozenset(map(" ".join, zip(words, words[1:], words[2:], strict=False)))


def bands_for(similarity: float) -> tuple[int, int]:
    """How many bands, of how many hashes each, miss a pair of this similarity less than once in a million."""
    for rows in range(8, 1, -1):
        bands = _bands(similarity, rows)
        if bands * rows <= _MOST_HASHES:
            return bands, rows
    return _bands(similarity, 2), 2


def _bands(similarity: float, rows: int) -> int:
    # A band agrees with probability similarity ** rows; the index wants two bands at least.
    return max(2, math.ceil(math.log(_MISSED) / math.log1p(-(min(similarity, 0.999) ** rows))))


class SimilarTexts:
    """The texts that are kept, in the order in which they were added.

    Args:
        similarity: Smallest Jaccard similarity of texts that are alike.
        expected: How many texts there may be; few are compared one by one.
    """

    def __init__(self, similarity: float, expected: int = _FEW + 1) -> None:
        self._similarity = similarity
        self._kept: list[tuple[str, Shingles]] = []
        self._bands = bands_for(similarity)
        self._index: MinHashLSH | None = None
        self._empty: Any = None
        if expected > _FEW:
            from datasketch import MinHash, MinHashLSH

            hashes = self._bands[0] * self._bands[1]
            self._index = MinHashLSH(num_perm=hashes, params=self._bands)
            self._empty = MinHash(num_perm=hashes, hashfunc=zlib.crc32)

    def add(self, key: str, text: str, *, always: bool = False) -> tuple[str, float] | None:
        """Keep a text, known by ``key``, unless one that is kept is similar enough.

        Args:
            key: What the text is called when another one is like it.
            text: Words with a space between them.
            always: Keep it whatever it is like.

        Returns:
            The key of the first text that is similar enough, and the similarity; None if this one is kept.
        """
        found = shingles(text)
        hashed = None if self._index is None else self._hashed(found)
        if not always and (like := self._first_like(found, hashed)) is not None:
            return like
        if self._index is not None:
            self._index.insert(len(self._kept), hashed, check_duplication=False)
        self._kept.append((key, found))
        return None

    def _first_like(self, found: Shingles, hashed: Any) -> tuple[str, float] | None:
        candidates = range(len(self._kept)) if self._index is None else sorted(self._index.query(hashed))
        for position in candidates:
            key, kept = self._kept[position]
            # Sets of too different a size cannot have enough in common: no need to count it.
            if min(len(found), len(kept)) < self._similarity * max(len(found), len(kept)):
                continue
            common = len(found & kept)
            similarity = common / (len(found) + len(kept) - common)
            if similarity >= self._similarity:
                return key, similarity
        return None

    def _hashed(self, found: Shingles) -> Any:
        hashed = self._empty.copy()
        hashed.update_batch([shingle.encode() for shingle in found])
        return hashed
