"""A new run that begins with what another one has finished.

    write_fork("runs/b", source="runs/a")     # once, before runs/b is opened
    fork = read_fork("runs/b")                # from then on, whenever it is opened
    fork.take(folder, fingerprint)            # a finished stage with this fingerprint, copied, or None

The finished stages of the source are noted when the fork is made, each with a hash of its manifest. A
stage is copied when the new run comes to it, has the same fingerprint (so all its settings and inputs are
the same) and is still the one that was noted: what the source does later cannot mix into the fork. On one
local disk copies are hard links; files of a run are replaced but never changed, so neither run can reach
the other's content through them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.settings import changed_keys
from fdd_ray.store import files
from fdd_ray.store.content import verify
from fdd_ray.store.manifest import EXPERIMENT, MANIFEST, Manifest, find_stages, round_name, to_manifest

FORK = "fork.json"


def write_fork(directory: str, source: str) -> None:
    """Note in a new run directory that it begins with what ``source`` has finished.

    Raises:
        StoreError: If there is no run at ``source``, or another run at ``directory``.
    """
    directory, source = files.absolute(directory), files.absolute(source)
    if not files.exists(files.join(source, EXPERIMENT)):
        raise StoreError(f"there is no run at {source} to fork; run the experiment without --fork first")
    if directory == source:
        raise StoreError(f"{source} cannot be forked into itself; give the fork another name")
    present = read_fork(directory)
    if present is not None and present.source == source:
        return  # the same command again: go on
    if files.exists(files.join(directory, EXPERIMENT)) or present is not None:
        raise StoreError(
            f"there is a run at {directory} already; give the fork another name, or go on with that run"
            " (--set name=... in place of --fork)"
        )
    finished = {
        f"{round_name(item.round)}/{item.stage}": _hash(files.join(item.path, MANIFEST))
        for item in find_stages(source)
        if item.manifest is not None
    }
    files.write_json(files.join(directory, FORK), {"source": source, "stages": finished})


@dataclasses.dataclass(frozen=True)
class Fork:
    """Where a run was forked from, and the stages that were finished there, by a hash of their manifest."""

    source: str
    stages: Mapping[str, str]

    def take(self, path: str, stage: str, round: int | None, fingerprint: str) -> Manifest | None:
        """Copy a finished stage of the source into the folder ``path``, if it is the one asked for.

        Returns:
            Its manifest in the new run, or None if the source has none with this fingerprint.

        Raises:
            StoreError: If the source's files are not what its manifest says.
        """
        found = self._noted(stage, round)
        if found is None or found[1].fingerprint != fingerprint:
            return None
        content, original = found
        verify(original)
        for name in original.files:
            files.copy(files.join(original.path, name), files.join(path, name))
        content = {**content, "forked_from": self.source}
        copied = to_manifest(path, content, reused=True)
        verify(copied)
        files.write_json(files.join(path, MANIFEST), content)
        return copied

    def differs(self, stage: str, round: int | None, depends_on: Mapping[str, Any]) -> str:
        """Why a stage is done anew rather than copied: the settings that differ, by name."""
        found = self._noted(stage, round)
        if found is None:
            noted = f"{round_name(round)}/{stage}" in self.stages
            return "it was done anew there since the fork" if noted else "it was not finished there"
        changes = changed_keys(found[1].depends_on, depends_on)
        return "; ".join(changes[:5])

    def _noted(self, stage: str, round: int | None) -> tuple[dict[str, Any], Manifest] | None:
        name = f"{round_name(round)}/{stage}"
        path = files.join(self.source, name, MANIFEST)
        if name not in self.stages or _hash(path) != self.stages[name]:
            return None
        content = files.read_json(path)
        return (content, to_manifest(files.join(self.source, name), content)) if content is not None else None


def read_fork(directory: str) -> Fork | None:
    """Where a run was forked from, or None if it was not.

    Raises:
        StoreError: If the note is torn.
    """
    path = files.join(directory, FORK)
    content = files.read_json(path)
    if content is None:
        return None
    try:
        return Fork(str(content["source"]), dict(content["stages"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is no note of a fork ({error}); remove it and give --fork again") from error


def _hash(path: str) -> str:
    return hashlib.blake2b(files.read_bytes(path) or b"", digest_size=16).hexdigest()
