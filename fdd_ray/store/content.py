"""The content of stages: what a finished one holds is recorded and verified, what a kill tore is set aside.

    records = record_files(folder)            # when a stage finishes
    verify(manifest)                          # before a finished stage is used
    set_torn_parts_aside(folder, note=print)  # before an unfinished stage goes on

Sizes are always verified (one listing of the folder). Hashes are verified while a stage's files hold no
more than `HASHED_BYTES` together, so that taking up a large run does not mean reading all of it; what
lies beyond is still guarded by the checksum that every Parquet page carries, when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.manifest import MANIFEST, STARTED, FileRecord, Manifest, stage_argument

# A disk reads this in about a second.
HASHED_BYTES = 256 << 20
# Where fine-tuning keeps what it goes on from after a kill; no result.
SCRATCH = "checkpoints"
_NOT_CONTENT = (MANIFEST, STARTED, SCRATCH)
_TORN = ".torn"


def record_files(folder: str) -> dict[str, FileRecord]:
    """A record of every file of a stage that has finished, by path relative to its folder."""
    found = _sizes(folder)
    hashed = sum(found.values()) <= HASHED_BYTES
    records = {}
    for name, size in sorted(found.items()):
        path = files.join(folder, name)
        rows = files.count_rows(path) if name.endswith(".parquet") else None
        records[name] = FileRecord(size, files.digest(path) if hashed else "", rows)
    return records


def check_parts(label: str, parts: tuple[str, ...], records: Mapping[str, FileRecord]) -> None:
    """Raise if a stage names a part that it did not write."""
    for part in parts:
        if part not in records:
            raise StoreError(f"{label}: its output {part} was not written; run the same command again")


def verify(manifest: Manifest) -> None:
    """Make sure that a finished stage holds what it held when it finished.

    Raises:
        StoreError: Naming the first file that is missing or another, what was expected and what was found.
    """
    if not manifest.files:
        return
    found = _sizes(manifest.path)
    hashed = sum(record.bytes for record in manifest.files.values()) <= HASHED_BYTES
    for name, record in manifest.files.items():
        path = files.join(manifest.path, name)
        expected = f"{record.bytes} bytes" + (f", {record.rows} rows" if record.rows is not None else "")
        if name not in found:
            raise _tampered(manifest, path, expected, "no file")
        if found[name] != record.bytes:
            raise _tampered(manifest, path, expected, f"{found[name]} bytes")
        if hashed and record.hash and (hash := files.digest(path)) != record.hash:
            raise _tampered(manifest, path, f"{expected}, hash {record.hash}", f"hash {hash}")


def set_torn_parts_aside(folder: str, note: Callable[..., Any]) -> None:
    """Rename the torn parts of an unfinished stage, so that their rows are asked again.

    Args:
        folder: The stage's folder.
        note: Called for each of them with an event and its fields.
    """
    files.remove_litter(folder)
    for name, size in sorted(_sizes(folder).items()):
        if is_part(name) and not files.whole_table(files.join(folder, name)):
            place = _free_name(folder, name)
            files.rename(files.join(folder, name), files.join(folder, place))
            note("torn part set aside", part=name, place=place, bytes=size)


def is_part(name: str) -> bool:
    """Whether a file in a stage's folder is a part of its output."""
    return name.startswith("part-") and name.endswith(".parquet")


def _free_name(folder: str, name: str) -> str:
    taken = files.list_names(folder, _TORN)
    place, number = f"{name}{_TORN}", 1
    while place in taken:
        place, number = f"{name}.{number}{_TORN}", number + 1
    return place


def _sizes(folder: str) -> dict[str, int]:
    return {name: size for name, size in files.sizes(folder, _NOT_CONTENT).items() if not name.endswith(_TORN)}


def _tampered(manifest: Manifest, path: str, expected: str, found: str) -> StoreError:
    return StoreError(
        f"{path} is not what {manifest.label} wrote: expected {expected}; found {found}. Restore it from a copy, or do"
        f" this stage and all later ones anew with --from-stage {stage_argument(manifest.stage, manifest.round)}"
        " (what is there is set aside, not deleted)"
    )
