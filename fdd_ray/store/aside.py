"""Doing a stage anew: it and all that follow are set aside, never deleted.

set_aside("runs/tiny", "rationales:0")   # -> moved to runs/tiny/superseded/20260131T120000Z/round-00/...
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.access import is_local
from fdd_ray.store.manifest import MANIFEST, STARTED, Found, find_stages, round_name

FOLDER = "superseded"


def set_aside(directory: str, argument: str, note: Callable[..., Any]) -> list[str]:
    """Move a stage and all that follow to ``superseded/<time>/`` in the run directory.

    What follows a stage is what was begun after it, and what was made from it. The last stage is moved
    first, so that after a kill nothing is left that was made from something that is gone; the same
    call then moves the rest.

    Args:
        directory: The run directory; its lease must be held.
        argument: ``STAGE`` (of the latest round that has it) or ``STAGE:ROUND``, round ``base`` for the base
            student.
        note: Called for each stage that was moved with an event and its fields.

    Returns:
        The stages that were moved, as they are named on the command line.

    Raises:
        StoreError: If there is no such stage; it lists those there are.
    """
    found = find_stages(directory)
    first = _choose(found, argument, directory)
    moved = following(found, first)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    place = files.join(directory, FOLDER, stamp)
    number = 1
    while files.exists(place):
        place, number = files.join(directory, FOLDER, f"{stamp}-{number}"), number + 1
    for item in reversed(moved):
        target = files.join(place, round_name(item.round), item.stage)
        _move(item.path, target)
        note("stage set aside", stage=item.stage, round=item.round, place=target)
    return [item.argument for item in moved]


def following(found: list[Found], first: Found) -> list[Found]:
    """``first`` and every stage that was begun after it or made from it, each after what it was made from."""
    moved = [item for item in found if item == first or item.begun > first.begun]
    rest = [item for item in found if item not in moved]
    # Clocks of drivers differ: what was made from it follows, whatever its time says.
    while late := [item for item in rest if any(_made_from(item, other) for other in moved)]:
        moved += late
        rest = [item for item in rest if item not in late]
    order: list[Found] = []
    while moved:
        ready = [item for item in moved if not any(_made_from(item, other) for other in moved)] or moved
        order += ready
        moved = [item for item in moved if item not in ready]
    return order


def _made_from(item: Found, other: Found) -> bool:
    return other.manifest is not None and other.manifest.fingerprint in item.depends_on.get("inputs", ())


def _choose(found: list[Found], argument: str, directory: str) -> Found:
    stage, colon, _ = argument.partition(":")
    for item in reversed(found):
        if item.argument == argument or (not colon and item.stage == stage):
            return item
    names = [item.argument for item in found]
    if not names:
        raise StoreError(f"there is no stage {argument} in {directory}: none was begun; leave --from-stage out")
    near = difflib.get_close_matches(argument, names, 1)
    raise StoreError(
        f"there is no stage {argument} in {directory}{f'; did you mean {near[0]}?' if near else ''}"
        f" Those there are: {', '.join(names)}"
    )


def _move(source: str, target: str) -> None:
    if is_local(source):
        files.rename(source, target)
        return
    # File by file: without its manifest the stage is no longer done, and with the last file it is gone.
    names = sorted(files.sizes(source), key=lambda name: (name != MANIFEST, name == STARTED, name))
    for name in names:
        files.rename(files.join(source, name), files.join(target, name))
    files.remove(source)
