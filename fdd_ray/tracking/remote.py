"""What the services share: one run there for each run directory, and a note of what it was told.

The note, ``tracking/SERVICE.json`` in the run directory, has the run's id there and the stages that it knows. A stage
that was set aside and done anew cannot be taken back at a service: a new run begins there, with all stages
so far.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.tracking.facts import Facts

FOLDER = "tracking"


class Remote:
    """A run at a service; subclasses say how it is opened, told of a stage, and closed.

    Args:
        directory: The run directory.
        run: The run's name.
        config: A few settings, for the service's table of runs.
    """

    service: ClassVar[str]
    safe_at_once: ClassVar[bool]  # whether a stage that was sent is there; otherwise only once the run is closed

    def __init__(self, directory: str, run: str, config: Mapping[str, Any]) -> None:
        self.directory = directory
        self.config = {**config, "directory": directory}
        self._run = run
        self._path = files.join(directory, FOLDER, f"{self.service}.json")
        self._seen: dict[str, Facts] = {}
        self._pending: list[Facts] = []
        self._sent: dict[str, str] = {}
        self._is_open = False
        self.id, self._number, self._known = self._read()

    def finished(self, facts: Facts) -> None:
        """Send a stage, and those that could not be sent before, unless the service knows them."""
        self._seen[facts.key] = facts
        known = {**self._known, **self._sent}.get(facts.key)
        if known == facts.mark:
            return
        if known is not None:
            self._anew()
        else:
            self._pending.append(facts)
        if not self._is_open:
            self._write()  # the id is kept even if the driver is killed before anything is known there
            self.open(self._run if self._number == 1 else f"{self._run} ({self._number})")
            self._is_open = True
        while self._pending:
            self.send(self._pending[0])
            sent = self._pending.pop(0)
            self._sent[sent.key] = sent.mark
        if self.safe_at_once:
            self._note()

    def close(self, failed: bool) -> None:
        """Wait until everything is there."""
        if self._is_open:
            self.end(failed)
            self._is_open = False
            self._note()

    def open(self, name: str) -> None:
        """Begin the run `id` at the service, or go on with it."""
        raise NotImplementedError

    def send(self, facts: Facts) -> None:
        """Tell it of a stage."""
        raise NotImplementedError

    def end(self, failed: bool) -> None:
        """Close it."""
        raise NotImplementedError

    def _anew(self) -> None:
        if self._is_open:
            self.end(failed=False)
            self._is_open = False
        self.id, self._number, self._known = secrets.token_hex(8), self._number + 1, {}
        self._sent, self._pending = {}, list(self._seen.values())

    def _read(self) -> tuple[str, int, dict[str, str]]:
        content = files.read_json(self._path)
        if content is None:
            return secrets.token_hex(8), 1, {}
        try:
            return str(content["id"]), int(content["number"]), dict(content["stages"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self._path} is no note of what {self.service} knows ({error}); remove it") from error

    def _note(self) -> None:
        self._known |= self._sent
        self._write()

    def _write(self) -> None:
        files.write_json(self._path, {"id": self.id, "number": self._number, "stages": self._known})
