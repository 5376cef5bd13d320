"""The ledger: an append-only record of what a run did, one JSON line for each event.

    Ledger("runs/tiny").append("part written", stage="rationales", round=0, rows=64)

Every process that drives a run writes a file of its own under ``ledger/``, so nothing is ever
rewritten by another; on an object store, where nothing can be appended to, the file is put again
whole (it holds one driver's events only, some lines for each part of a stage).

Events and their fields, beside ``time`` and ``event``:

- ``run started``, ``run resumed``: ``host``, ``pid``, ``version``; ``run ended``: ``reason`` (finished,
  interrupted, failed) and ``error``. A driver that was killed leaves no such line.
- ``stage started``: ``fingerprint``; ``part written``: ``part``, ``rows``; ``stage finished``: ``counts``,
  ``tokens``, ``usage``, ``seconds``; ``stage copied``: ``source``; ``stage set aside``: ``place``.
- ``torn part set aside``: ``part``, ``place``, ``bytes``; ``failed rows are asked again``: ``part``, ``rows``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

from fdd_ray.store import files
from fdd_ray.store.access import is_local

# Lines after which a new file is begun on an object store, where each event puts the file again.
_LINES = 200


class Ledger:
    """Appends events of this driver to a run's ledger.

    Args:
        directory: The run directory.
        guard: Called before each event; raises when this driver may write no more.
    """

    def __init__(self, directory: str, guard: Callable[[], None] = lambda: None) -> None:
        self._directory = directory
        self._guard = guard
        self._path = self._new_path()
        self._lines: list[str] = []

    def __reduce__(self) -> tuple[type[Ledger], tuple[str]]:
        """In another process it is another writer, with a file of its own."""
        return Ledger, (self._directory,)

    def append(self, event: str, **fields: Any) -> None:
        """Write one event durably; ``fields`` must be plain JSON values."""
        self._guard()
        line = json.dumps({"time": round(time.time(), 6), "event": event, **fields}, ensure_ascii=False)
        if is_local(self._path):
            files.append_line(self._path, line)
        else:
            if len(self._lines) == _LINES:
                self._path, self._lines = self._new_path(), []
            self._lines.append(line)
            files.write_bytes(self._path, ("\n".join(self._lines) + "\n").encode())

    def _new_path(self) -> str:
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return files.join(self._directory, "ledger", f"{started}-{os.getpid()}-{secrets.token_hex(4)}.jsonl")


def read_ledger(directory: str) -> list[dict[str, Any]]:
    """All events of a run in order of time; a torn last line of a killed driver is passed over."""
    folder = files.join(directory, "ledger")
    events: list[dict[str, Any]] = []
    for line in files.concat_lines(files.join(folder, name) for name in files.list_names(folder, ".jsonl")):
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                events.append(event)
    return sorted(events, key=lambda event: float(event.get("time", 0)))
