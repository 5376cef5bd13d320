"""Many ids in little memory: a pool of a million problems must not make the driver grow.

    seen = IdSet()
    seen.add("p-0f3a...")        # True: it is new
    "p-0f3a..." in seen          # True

A Python set takes about 150 bytes for an id of 22 characters; here it is 22, in a sorted array.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        self._sorted: Any = packed(())
        self._pending: set[bytes] = set()  # what is not sorted in yet
        for id in ids:
            self.add(id)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._pending)

    def __contains__(self, id: str) -> bool:
        key = id.encode()
        return key in self._pending or bool(find(self._sorted, packed([key]))[0] >= 0)

    def add(self, id: str) -> bool:
        """Add an id; whether it was not in it before."""
        if id in self:
            return False
        self._pending.add(id.encode())
        if len(self._pending) >= _PENDING:
            self._merge(packed(self._pending))
        return True

    def add_new(self, ids: Sequence[str]) -> bool:
        """Add several ids at once, if each of them is new and none is there twice; whether they were."""
        import numpy as np

        keys = np.unique(packed(id.encode() for id in ids))
        if len(keys) < len(ids) or bool((find(self._sorted, keys) >= 0).any()):
            return False
        fresh = set(keys.tolist())
        if fresh & self._pending:
            return False
        self._pending |= fresh
        if len(self._pending) >= _PENDING:
            self._merge(packed(self._pending))
        return True

    def _merge(self, keys: Any) -> None:
        import numpy as np

        merged = np.concatenate([self._sorted, keys])
        merged.sort()
        self._sorted = merged
        self._pending.clear()


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
