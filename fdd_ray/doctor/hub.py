"""Data sets of the hub, from the local cache alone. Runs in a process of its own, with ``HF_HUB_OFFLINE=1``."""

from __future__ import annotations

from typing import Any

from fdd_ray.doctor.data import as_plain, read_first_rows
from fdd_ray.errors import ProblemsError
from fdd_ray.problems import SourceSettings


def read(source: dict[str, Any]) -> dict[str, Any]:
    """The first rows of a data set.

    Args:
        source: Its settings, plain.

    Returns:
        ``absent``: whether it is not in the cache; ``rows``: what was read.

    Raises:
        ProblemsError: If it is there and cannot be read, or has no such split or columns.
    """
    try:
        return {"absent": False, "rows": as_plain(read_first_rows(SourceSettings(**source)))}
    except ProblemsError as error:
        # What the library raises where it would have to ask the network, and may not.
        if isinstance(error.__cause__, ConnectionError):
            return {"absent": True, "rows": None}
        raise
