"""Folders of an object store, brought to this machine: model weights have to be files before they load.

    fetch_folder("s3://bucket/runs/x/round-01/finetune/student")   # '/tmp/fdd_ray-0/folders/3f2a...'

A folder is fetched once per machine, whoever asks for it; one whose files changed is fetched anew. A few
old ones are kept for engines that start again, then they are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

from fdd_ray.errors import StoreError
from fdd_ray.store.access import explained, filesystem_of, is_local

_KEPT: Final = 4
_OLD_S: Final = 3600.0  # no engine takes longer to load what was fetched


def fetch_folder(path: str) -> str:
    """A folder on this machine with the files of ``path``; a local folder is returned as it is.

    Raises:
        StoreError: If there is nothing at ``path``, or it cannot be reached.
    """
    if is_local(path):
        return path
    with explained("read", path):
        store, root = filesystem_of(path)
        store.invalidate_cache()
        listed: dict[str, Any] = store.find(root, detail=True)
    # Object stores may hold empty objects in the names of folders.
    found = {name: entry for name, entry in listed.items() if not name.endswith("/") and name != root.rstrip("/")}
    if not found:
        raise StoreError(f"there is nothing at {path}; check the path, or do the stage that made it anew")
    place = _cache() / _key(path, found)
    if place.is_dir():
        os.utime(place)
        return str(place)
    partial = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with explained("read", path):
            for name, details in found.items():
                target = partial / os.path.relpath(name, root)
                target.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(name, str(target))
                if target.stat().st_size != details["size"]:
                    raise StoreError(f"{path}: {name} was cut off while it was fetched; run the same command again")
        with contextlib.suppress(OSError):  # somebody else was faster
            partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _forget_old(place.parent)
    return str(place)


def _cache() -> Path:
    """The folder for what was fetched; nobody else may write to it."""
    place = Path(tempfile.gettempdir()) / f"fdd_ray-{os.getuid()}" / "folders"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = place.parent.stat()
    if owner.st_uid != os.getuid() or owner.st_mode & 0o022:
        raise StoreError(
            f"{place.parent} can be written to by others; remove it, or set TMPDIR to a folder of your own"
        )
    return place


def _key(path: str, found: dict[str, Any]) -> str:
    digest = hashlib.blake2b(path.encode(), digest_size=16)
    for name, details in sorted(found.items()):
        mark = details.get("ETag") or details.get("etag") or details.get("created") or details.get("mtime")
        digest.update(f"\0{name}\0{details['size']}\0{mark}".encode())
    return digest.hexdigest()


def _forget_old(cache: Path) -> None:
    places = sorted((place for place in cache.iterdir() if place.is_dir()), key=lambda place: -place.stat().st_mtime)
    for place in places[_KEPT:]:
        if time.time() - place.stat().st_mtime > _OLD_S:
            shutil.rmtree(place, ignore_errors=True)
