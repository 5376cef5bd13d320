"""YAML files that build on others, so that what experiments share is written down once.

    # jobs/mine.yaml
    extends: [base/gsm8k.yaml, base/teacher_qwen2.5_7b.yaml]
    name: mine
    finetune: {epochs: 2}

What a file says itself wins over what it extends, and of several files the later one wins. Mappings are merged
key by key; anything else (a list, a number, null) takes the place of what was there. Every piece keeps the file
and line that it comes from.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from fdd_ray.errors import ExperimentError
from fdd_ray.nodes import MAX_BYTES, Node, compose, printable, shorten

EXTENDS: Final = "extends"
_MOST_FILES: Final = 64


class _Step(NamedTuple):
    """A file on the way from the first one to the one that is read; ``file`` tells links to it apart from others."""

    shown: str
    file: str


def read_tree(path: str | Path, problems: list[str]) -> Node:
    """The tree of a YAML file together with the files that it extends; an empty file is a node of None.

    Args:
        path: The file; what it extends is relative to the folder that it lies in.
        problems: Mistakes that leave the rest readable are added here.

    Raises:
        ExperimentError: If one of the files cannot be read, is no YAML, or extends itself.
    """
    try:
        text = _read(path)
    except OSError as error:
        raise ExperimentError(
            f"cannot read the experiment {path}: {error.strerror}; give the path of a YAML file"
        ) from error
    root = compose(text, str(path), problems)
    return _Reader(problems).extended(root, (_step(str(path)),))


def _read(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ExperimentError(f"{path} has over {MAX_BYTES >> 10} KiB, so it is no experiment; give a YAML file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def _step(path: str) -> _Step:
    return _Step(path, os.path.realpath(path))


class _Reader:
    """Reads what files extend; what it has read is counted, for files that extend each other multiply."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self._count = 0

    def extended(self, root: Node, chain: tuple[_Step, ...]) -> Node:
        """``root``, the tree of the last file of ``chain``, laid over the files that it extends."""
        if not isinstance(root.value, dict) or EXTENDS not in root.value:
            return root
        given = root.value[EXTENDS]
        own = Node({key: item for key, item in root.value.items() if key != EXTENDS}, root.where)
        under = Node({}, root.where)
        for item in given.value if isinstance(given.value, list) else [given]:
            under = _laid_over(under, self._base(item, chain))
        return _laid_over(under, own)

    def _base(self, item: Node, chain: tuple[_Step, ...]) -> Node:
        name = item.value
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ExperimentError(
                f"{item.where}: {EXTENDS} names a YAML file or a list of them, not {_named(name)}; such as"
                f" {EXTENDS}: base/gsm8k.yaml"
            )
        path = os.path.normpath(os.path.join(os.path.dirname(chain[-1].shown), name))
        step = _step(path)
        if step.file in (earlier.file for earlier in chain):
            circle = " -> ".join(printable(part.shown) for part in (*chain, step))
            raise ExperimentError(f"{item.where}: {EXTENDS} goes in a circle ({circle}); take one of them out")
        self._count += 1
        if self._count > _MOST_FILES:
            raise ExperimentError(
                f"{item.where}: {EXTENDS} leads to over {_MOST_FILES} files; write the settings out plainly"
            )
        try:
            if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
                raise IsADirectoryError(errno.EISDIR, "it is no file")
            text = _read(path)
        except OSError as error:
            raise ExperimentError(
                f"{item.where}: {EXTENDS}: cannot read {shorten(path)}: {error.strerror}; the path is relative to the"
                " file that it is written in"
            ) from error
        root = self.extended(compose(text, path, self._problems), (*chain, step))
        if root.value is None:
            return Node({}, root.where)
        if not isinstance(root.value, dict):
            raise ExperimentError(
                f"{root.where}: {shorten(path)} is to be extended, so it is a mapping of settings, not"
                f" {_named(root.value)}; write key: value lines"
            )
        return root


def _laid_over(under: Node, over: Node) -> Node:
    """``over`` with what only ``under`` says; neither of them is changed."""
    if not isinstance(under.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(under.value)
    for key, item in over.value.items():
        merged[key] = _laid_over(merged[key], item) if key in merged else item
    return Node(merged, over.where)


def _named(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else shorten(repr(value))
