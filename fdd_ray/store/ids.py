"""Many ids in little memory: a pool of a million problems must not make the driver grow.

    seen = IdSet()
    seen.add("p-0f3a...")        # True: it is new
    "p-0f3a..." in seen          # True

A Python set takes about 150 bytes for an id of 22 characters; here it is 22, in a few sorted arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PENDING = 1 << 15


class IdSet:
    """A set of ids that only grows.

    Args:
        ids: What is in it to begin with.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._runs: list[Any] = []  # sorted, each less than half as long as the one before
        self._pending: set[bytes] = set()  # what is not sorted in yet
        for id in ids:
            self.add(id)

    def __len__(self) -> int:
        return sum(map(len, self._runs)) + len(self._pending)

    def __contains__(self, id: str) -> bool:
        key = id.encode()
        return key in self._pending or self._has_any([key])

    def add(self, id: str) -> bool:
        """Add an id; whether it was not in it before."""
        if id in self:
            return False
        self._keep({id.encode()})
        return True

    def add_new(self, ids: Sequence[str]) -> bool:
        """Add several ids at once, if each of them is new and none is there twice; whether they were."""
        fresh = {id.encode() for id in ids}
        if len(fresh) < len(ids) or fresh & self._pending or self._has_any(fresh):
            return False
        self._keep(fresh)
        return True

    def _has_any(self, keys: Collection[bytes]) -> bool:
        if not self._runs or not keys:
            return False
        wanted = packed(keys)
        return any(bool((find(run, wanted) >= 0).any()) for run in self._runs)

    def _keep(self, keys: set[bytes]) -> None:
        import numpy as np

        self._pending |= keys
        if len(self._pending) < _PENDING:
            return
        run = packed(sorted(self._pending))
        self._pending = set()
        # Like lengths are merged, so that an id is copied a few times only, however many there are.
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort(kind="stable")  # two sorted halves: one pass
        self._runs.append(run)


def packed(keys: Iterable[bytes]) -> npt.NDArray[np.bytes_]:
    """Ids as an array of bytes, in the order given."""
    import numpy as np

    return np.array(list(keys), dtype=np.bytes_)


def find(ordered: Any, keys: Any) -> Any:
    """Where in a sorted array of ids each key is; -1 where it is not."""
    import numpy as np

    if not len(ordered):
        return np.full(len(keys), -1)
    places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[places] == keys, places, -1)
