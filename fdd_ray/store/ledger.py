"""The ledger: an append-only record of what a run did, one JSON line for each event.

    Ledger("runs/tiny").append("part written", stage="rationales", round=0, rows=64)

Every process that drives a run writes a file of its own under ``ledger/``, so nothing is ever
rewritten by another; on an object store, where nothing can be appended to, the file is put again
whole (it holds one driver's events only). There parts that are finished in quick succession share puts, or
a large cluster's driver would do nothing else; the parts themselves lie there before, and no event waits
longer than five seconds.

Events and their fields, beside ``time`` and ``event``:

- ``run started``, ``run resumed``: ``host``, ``pid``, ``version``; ``run ended``: ``reason`` (finished,
  interrupted, failed) and ``error``. A driver that was killed leaves no such line.
- ``stage started``: ``fingerprint``; ``rows counted``: ``rows`` that a stage has, ``done`` of them before;
  ``part written``: ``part``, ``rows``, ``kept``, ``seconds`` that its rows took; ``stage finished``: ``counts``,
  ``tokens``, ``usage``, ``seconds``; ``stage copied``: ``source``; ``stage set aside``: ``place``.
- ``waited``: ``seconds`` that a stage waited for ``what`` (Ray, a role's place, engines or weights, the place of
  training); for engines, they had been asked for ``ahead`` seconds before.
- ``torn part set aside``: ``part``, ``place``, ``bytes``; ``failed rows are asked again``: ``part``, ``rows``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.access import is_local

# Lines after which a new file is begun on an object store, where each event puts the file again.
_LINES = 200
# So many puts for parts at most within so many seconds: a small run's parts are seen at once.
_PUTS, _WITHIN_S = 5, 5.0

_log = logging.getLogger(__name__)


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
        self._puts: deque[float] = deque([-math.inf] * _PUTS, maxlen=_PUTS)
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __reduce__(self) -> tuple[type[Ledger], tuple[str]]:
        """In another process it is another writer, with a file of its own."""
        return Ledger, (self._directory,)

    def append(self, event: str, **fields: Any) -> None:
        """Write one event durably (see above for parts); ``fields`` must be plain JSON values."""
        self._guard()
        line = json.dumps({"time": round(time.time(), 6), "event": event, **fields}, ensure_ascii=False)
        if is_local(self._path):
            files.append_line(self._path, line)
            return
        with self._lock:
            self._lines.append(line)
            if event != "part written":
                self._put()
                return
            wait_s = self._puts[0] + _WITHIN_S - time.monotonic()
            if wait_s <= 0 or len(self._lines) >= _LINES:
                self._puts.append(time.monotonic())
                self._put()
            elif self._timer is None:
                self._timer = threading.Timer(wait_s, self._put_late)
                self._timer.daemon = True
                self._timer.start()

    def _put(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        files.write_bytes(self._path, ("\n".join(self._lines) + "\n").encode())
        if len(self._lines) >= _LINES:
            self._path, self._lines = self._new_path(), []

    def _put_late(self) -> None:
        """Put what waits though no further event came: a reader would take the run for standing still."""
        with self._lock:
            if self._timer is not threading.current_thread():
                return
            self._puts.append(time.monotonic())
            try:
                self._put()
            except Exception as error:
                _log.warning("the ledger's last parts are put with the next event: %s", error)

    def _new_path(self) -> str:
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return files.join(self._directory, "ledger", f"{started}-{os.getpid()}-{secrets.token_hex(4)}.jsonl")


def read_ledger(directory: str) -> list[dict[str, Any]]:
    """All events of a run in order of time; a line that a killed driver left torn is passed over.

    Raises:
        StoreError: If a whole line is no event: no driver wrote it.
    """
    folder = files.join(directory, "ledger")
    events: list[dict[str, Any]] = []
    for name in files.list_names(folder, ".jsonl"):
        for number, line in enumerate(files.concat_lines([files.join(folder, name)]), start=1):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not _is_event(event):
                raise StoreError(
                    f"{files.join(folder, name)}:{number}: this is no event of this version: {ascii(line)[:80]};"
                    " restore the file, or remove the line"
                )
            events.append(event)
    return sorted(events, key=lambda event: float(event["time"]))


def _is_event(event: Any) -> bool:
    """Whether a line has what every event has, and numbers where numbers are counted."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    begun = event["event"] == "rows counted"
    counted = begun or event["event"] in ("part written", "failed rows are asked again")
    numbers: list[Any] = [event.get("time"), event.get("rows") if counted else 0, event.get("done") if begun else 0]
    return all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
