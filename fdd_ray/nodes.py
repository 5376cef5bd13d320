"""YAML as a tree whose pieces know where they stand, so that a mistake is reported with its line.

Only what an experiment needs is read: mappings, lists and plain values. Tags, merge keys and aliases that
grow without bound are refused; nothing in a file is ever constructed or run.

    >>> compose("rounds: 3", "a.yaml", []).value["rounds"]
    Node(value=3, where='a.yaml:1', text='3')
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import yaml

from fdd_ray.errors import ExperimentError

MAX_BYTES: Final = 256 << 10
_MAX_NODES: Final = 20_000
_SHOWN: Final = 80
_YAML: Final = "tag:yaml.org,2002:"
_PLAIN: Final = {f"{_YAML}{kind}" for kind in ("null", "bool", "int", "float")}
# YAML 1.1 also knows dates and "="; as YAML 1.2 does, we take them for text.
_TEXT: Final = {f"{_YAML}{kind}" for kind in ("str", "timestamp", "value")}


class Node(NamedTuple):
    """A piece of YAML: a scalar, a list of nodes or a mapping to nodes, and where it stands.

    Attributes:
        value: The scalar, the list, or the mapping from key to node.
        where: ``FILE:LINE``, or ``--set KEY=VALUE``.
        text: How a scalar is written in the file.
    """

    value: Any
    where: str
    text: str | None = None


def compose(text: str, name: str, problems: list[str]) -> Node:
    """The tree of one YAML document; an empty one is a node of None.

    Args:
        text: The document.
        name: What it is called in messages.
        problems: Mistakes that leave the rest readable are added here.

    Raises:
        ExperimentError: If it is not YAML at all, or is deeper or larger than any experiment.
    """
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        return Node(None, f"{name}:1") if tree is None else _Reader(name, problems).read(tree)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ExperimentError(f"{name}:{line}: this is not YAML: {_explained(error)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ExperimentError(
            f"{name}:{line}: this is not YAML: U+{error.character:04X} is a control character; remove it"
        ) from error
    except RecursionError as error:
        raise ExperimentError(f"{name}: the YAML is nested too deeply; write the settings out plainly") from error


def printable(text: str) -> str:
    """``text`` on one line, without anything that a terminal would obey."""
    return text if text.isprintable() else ascii(text)[1:-1]


def shorten(text: str) -> str:
    """``text`` for a message: one line, printable, not long."""
    text = printable(text[: 2 * _SHOWN])
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _explained(error: yaml.MarkedYAMLError) -> str:
    problem = shorten(error.problem or str(error))
    if "but found another document" in problem:
        return "a second document begins here (---); an experiment is one document, remove the other"
    if "'\\t'" in problem:
        return f"{problem}; indent with spaces, not tabs"
    if "undefined alias" in problem:
        return f"{problem}; put text that begins with * into quotes"
    return f"{problem}; correct the line (spaces to indent, quotes around text with a colon, # or brackets)"


class _Reader:
    """Turns PyYAML's nodes into ours; aliases are followed, so what it has read is counted."""

    def __init__(self, name: str, problems: list[str]) -> None:
        self._name = name
        self._problems = problems
        self._count = 0

    def read(self, tree: yaml.Node) -> Node:
        self._count += 1
        if self._count > _MAX_NODES:
            raise ExperimentError(
                f"{self._name}: the YAML has over {_MAX_NODES:,} values, its aliases (*name) followed; "
                "write the settings out plainly"
            )
        where = f"{self._name}:{tree.start_mark.line + 1}"
        if isinstance(tree, yaml.MappingNode):
            self._check_tag(tree, where, f"{_YAML}map")
            return Node(self._mapping(tree), where)
        if isinstance(tree, yaml.SequenceNode):
            self._check_tag(tree, where, f"{_YAML}seq")
            return Node([self.read(item) for item in tree.value], where)
        return self._scalar(tree, where)

    def _mapping(self, tree: yaml.MappingNode) -> dict[str, Node]:
        result: dict[str, Node] = {}
        for key_node, value_node in tree.value:
            where = f"{self._name}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.append(f"{where}: a list or mapping stands where a key belongs; write key: value")
                continue
            if key_node.tag == f"{_YAML}merge":
                self._problems.append(f"{where}: merge keys (<<) are not read; write the settings out")
                continue
            self._check_tag(key_node, where, *_PLAIN, *_TEXT)
            key = str(key_node.value)
            if key in result:
                self._problems.append(
                    f"{where}: {shorten(key)} is given twice (first at {result[key].where}); keep one"
                )
            result[key] = self.read(value_node)._replace(where=where)
        return result

    def _scalar(self, tree: yaml.Node, where: str) -> Node:
        text = str(tree.value)
        if tree.tag in _TEXT:
            return Node(text, where, text)
        if not self._check_tag(tree, where, *_PLAIN):
            return Node(text, where, text)
        try:
            return Node(yaml.SafeLoader("").construct_object(tree), where, text)
        except (ValueError, KeyError, yaml.YAMLError):  # "0x_", !!int x, or more digits than Python reads
            kind = tree.tag.removeprefix(_YAML)
            self._problems.append(f"{where}: {shorten(text)!r} cannot be read as YAML's {kind}; correct it")
            return Node(text, where, text)

    def _check_tag(self, tree: yaml.Node, where: str, *allowed: str) -> bool:
        if tree.tag in allowed:
            return True
        tag = shorten(tree.tag.replace(_YAML, "!!"))
        self._problems.append(f"{where}: the tag {tag} is not read, only plain values are; remove it")
        return False


def odd_integer(text: str) -> bool:
    """Whether YAML 1.1 reads another integer from ``text`` than people do, as from 010 (8) or 1:30 (90)."""
    return bool(re.fullmatch(r"[-+]?(?:0[0-9_]+|[0-9_]+(?::[0-9_]+)+)", text))
