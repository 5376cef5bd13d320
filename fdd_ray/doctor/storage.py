"""Whether the run directory can be written, and has room for what a run lays down there.

    look_at_storage("s3://bucket/runs/gsm8k")
    look_at_space(directory, needed_bytes, "4 students")

What the other nodes of a cluster see of it is asked by `fdd_ray.doctor.survey`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Final

from fdd_ray.doctor import host
from fdd_ray.doctor.findings import Finding, note, of_error, ok, problem
from fdd_ray.doctor.sizes import gib
from fdd_ray.errors import FddError, StoreError
from fdd_ray.store import files
from fdd_ray.store.access import is_local
from fdd_ray.store.lease import read_holder

_SPARE: Final = 1.5
_LEAST_FREE: Final = 1 << 30


def look_at_storage(directory: str) -> Iterator[Finding]:
    """Write a small file into a run directory, read it, and remove it again with the folders that came with it.

    Args:
        directory: The run directory, as a path or URL; it need not exist.
    """
    probe = files.join(directory, f".doctor-{secrets.token_hex(8)}")
    content = secrets.token_bytes(16)
    with folders_as_they_were(directory):
        try:
            files.write_bytes(probe, content)
            try:
                seen = files.read_bytes(probe)
            finally:
                files.remove(probe)
        except FddError as error:
            yield of_error(error, "storage: ")
            return
    if seen != content:
        yield problem(
            f"{directory} does not give back what was written to it", "name another storage, or mend it", StoreError
        )
    else:
        yield ok(f"{directory} can be written and read from here")


def look_at_space(directory: str, needed_bytes: float, what: str) -> Iterator[Finding]:
    """Whether a local run directory has room.

    Args:
        directory: The run directory.
        needed_bytes: What a run lays down there, about; 0 if that is not known.
        what: What that is, in words.
    """
    if not is_local(directory):
        return
    disk = host.disk_of(directory.removeprefix("file://"))
    found = f"{disk.path} has {gib(disk.free)} free; the run writes about {gib(needed_bytes)} there ({what})"
    if disk.free < max(needed_bytes, 1):
        yield problem(found, "make room there, or name another storage", StoreError)
    elif disk.free < max(_SPARE * needed_bytes, _LEAST_FREE):
        yield note(found, "make room there, or name another storage")
    else:
        yield ok(found)


def look_at_driver(directory: str) -> Iterator[Finding]:
    """Whether another driver is at work on this run."""
    holder = read_holder(directory)
    if holder is not None and holder.seems_alive():
        yield problem(
            f"{directory} is in use by {holder}",
            "wait for it, end it, or give this run another name (--set name=...)",
            StoreError,
        )


@contextlib.contextmanager
def folders_as_they_were(directory: str) -> Iterator[None]:
    """Remove, at the end, the folders on the way to a local directory that were not there at the beginning."""
    path = os.path.abspath(directory.removeprefix("file://")) if is_local(directory) else ""
    made = []
    while path and not os.path.exists(path):
        made.append(path)
        path = os.path.dirname(path)
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else may have put something there meanwhile
                os.rmdir(folder)
