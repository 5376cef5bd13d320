"""Sets of ids in little memory: they answer as Python's own sets do."""

from __future__ import annotations

import itertools
import random
import sys

import pytest

from fdd_ray.records import content_id
from fdd_ray.store import ids
from fdd_ray.store.ids import IdSet, find, packed


@pytest.mark.parametrize("pending", [1, 7, 1 << 15])
def test_it_answers_as_a_set_does(pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether ids wait to be sorted in or not; ids of other lengths and alphabets too."""
    monkeypatch.setattr(ids, "_PENDING", pending)
    rng = random.Random(0)
    names = [*(content_id("p", str(i)) for i in range(150)), "a", "ab", "b-\u00e9", "", "p-" + "f" * 40]
    own, other = IdSet(), set[str]()
    for _ in range(600):
        name = rng.choice(names)
        assert (name in own) == (name in other)
        assert own.add(name) == (name not in other)
        other.add(name)
        assert len(own) == len(other)
    assert all(name in own for name in other)


def test_several_are_added_only_if_all_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_PENDING", 4)
    found = IdSet(["a"])
    assert found.add_new(["b", "c"]) and found.add_new([]) and found.add_new(["d", "e", "f"])
    for again in (["g", "a"], ["e"], ["h", "h"]):
        assert not found.add_new(again)
    assert len(found) == 6 and "g" not in found and "h" not in found


def test_a_million_take_tens_of_bytes_each() -> None:
    found = IdSet()
    for start in range(0, 100_000, 1000):
        assert found.add_new([content_id("p", str(number)) for number in range(start, start + 1000)])
    pending = sum(map(sys.getsizeof, found._pending)) + sys.getsizeof(found._pending)
    kept = sum(run.nbytes for run in found._runs) + pending
    assert kept / len(found) < 60


def test_an_id_is_copied_a_few_times_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are merged with runs of like length only: twice as many ids mean one more copy of each."""
    monkeypatch.setattr(ids, "_PENDING", 4)
    found = IdSet()
    for number in range(4096):
        assert found.add(content_id("p", str(number)))
        lengths = [len(run) for run in found._runs]
        assert all(2 * small <= large for large, small in itertools.pairwise(lengths))
    assert len(found) == 4096 and all(content_id("p", str(number)) in found for number in range(0, 4096, 37))
    assert all(run.tolist() == sorted(run.tolist()) for run in found._runs)


def test_find_tells_places() -> None:
    ordered = packed([b"a", b"c", b"e"])
    assert find(ordered, packed([b"e", b"b", b"a", b"f"])).tolist() == [2, -1, 0, -1]
    assert find(packed([]), packed([b"a"])).tolist() == [-1]
