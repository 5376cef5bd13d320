"""How a YAML file becomes typed, frozen settings, and what is said when it cannot.

Each component declares its part as a frozen dataclass whose fields are made with `setting`; this
module turns YAML into such objects. Nothing is guessed: unknown keys and bad values are all reported
at once, each with its file and line, the allowed range and the nearest valid name.

    @dataclass(frozen=True)
    class Oven:
        degrees: int = setting(180, "Temperature in degrees Celsius.", ge=0, le=300)

    read_settings(Oven, "oven.yaml", overrides=["degrees=200"])
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import yaml

from fdd_ray.errors import ExperimentError
from fdd_ray.inheritance import EXTENDS, read_tree
from fdd_ray.nodes import Node, compose, odd_integer, shorten

S = TypeVar("S")
_UNSET: Any = object()
_LIMITS = ("ge", "gt", "le")
_MOST_CHARACTERS = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def setting(
    default: Any = _UNSET,
    help: str = "",
    *,
    factory: Any = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
) -> Any:
    """A field of a settings class.

    Args:
        default: Its default; leave it out (and ``factory`` too) for a required setting.
        help: One sentence for people, with the unit.
        factory: Makes the default where it is mutable or a nested settings object.
        ge: Smallest allowed value (for a tuple: of each item).
        gt: Exclusive lower bound.
        le: Largest allowed value.
    """
    metadata = {"help": help, "ge": ge, "gt": gt, "le": le}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is _UNSET:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_settings(cls: type[S], path: str | Path, overrides: Iterable[str] = ()) -> S:
    """The settings object that a YAML file and the overrides describe.

    Args:
        cls: The settings class.
        path: A YAML file; it may extend others (see `fdd_ray.inheritance`).
        overrides: ``a.b=c`` strings, as given to ``--set``; they win over the files.

    Raises:
        ExperimentError: With one line for each thing that is wrong.
    """
    problems: list[str] = []
    return _settings(cls, read_tree(path, problems), overrides, problems)


def parse_settings(cls: type[S], text: str, name: str = "<text>", overrides: Iterable[str] = ()) -> S:
    """Like `read_settings`, from a string that extends no file; ``name`` is its name in messages."""
    problems: list[str] = []
    return _settings(cls, compose(text, name, problems), overrides, problems)


def _settings(cls: type[S], root: Node, overrides: Iterable[str], problems: list[str]) -> S:
    if root.value is None:
        root = Node({}, root.where)
    if not isinstance(root.value, dict):
        problems.append(
            f"{root.where}: an experiment is a mapping of settings, not {_named(root.value)}; write key: value lines"
        )
        root = Node({}, root.where)
    for override in overrides:
        _override(root, override, problems)
    result = _build(cls, root, "", problems)
    if problems:
        raise ExperimentError("\n".join(_first(problems)))
    return typing.cast(S, result)


def _first(problems: list[str]) -> list[str]:
    """As many of the problems as people read, and how many more there are."""
    ends = list(itertools.accumulate(len(problem) for problem in problems))
    shown = max(1, sum(end <= _MOST_CHARACTERS for end in ends))
    more = len(problems) - shown
    return [*problems[:shown], *([f"and {more} more; correct these first"] if more else [])]


def to_plain(value: Any) -> Any:
    """Settings as plain dicts, lists and scalars, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``(dotted key, scalar or list)`` pairs of plain settings, for comparing two of them."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from flatten(item, f"{prefix}[{index}]")
    else:
        yield prefix, value


def changed_keys(before: Any, after: Any) -> list[str]:
    """``key: old -> new`` for every setting in which two plain settings differ, sorted by key."""
    old, new = dict(flatten(before)), dict(flatten(after))
    missing = "(absent)"
    return [
        f"{key}: {old.get(key, missing)!r} -> {new.get(key, missing)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]


class Described(NamedTuple):
    """A setting as people are told of it."""

    key: str
    default: str
    help: str


def describe(cls: type[Any], prefix: str = "") -> Iterator[Described]:
    """Every setting of a class and of the classes nested in it, in order.

    A key inside a list or mapping of settings is written ``pool[].path`` or ``benchmarks.NAME[].path``.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        limits = f" ({_range(field.metadata)})" if any(field.metadata.get(n) is not None for n in _LIMITS) else ""
        nested, path = _nested(hints[field.name], key)
        text = f"{field.metadata['help']}{limits}"
        yield Described(key, "" if nested else _default(field), text + _choices(hints[field.name]))
        if nested is not None:
            yield from describe(nested, f"{path}.")


def _nested(annotation: Any, path: str) -> tuple[type[Any] | None, str]:
    """The settings class inside an annotation, if there is one, and how its keys are reached."""
    if dataclasses.is_dataclass(annotation):
        return typing.cast(type, annotation), path
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple and args[-1] is Ellipsis:
        return _nested(args[0], f"{path}[]")
    if origin is dict:
        return _nested(args[1], f"{path}.NAME")
    if origin in (typing.Union, types.UnionType):
        return _nested(next(arg for arg in args if arg is not type(None)), path)
    return None, path


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return yaml.safe_dump(field.default_factory(), default_flow_style=True).strip()
    if field.default is dataclasses.MISSING:
        return "required"
    plain = to_plain(field.default)
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()


def _choices(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return f" One of: {', '.join(map(str, typing.get_args(annotation)))}."
    return ""


def _override(root: Node, text: str, problems: list[str]) -> None:
    key, equals, raw = text.partition("=")
    names = key.strip().split(".")
    # What may be a secret that was typed in the wrong place is not repeated.
    hidden = re.search("key|token|secret|password", names[-1], re.IGNORECASE)
    where = f"--set {shorten(key)}=..." if hidden else f"--set {shorten(text)}"
    if not equals or not all(names):
        problems.append(f"{where}: write it as --set key=value, for example --set finetune.epochs=3")
        return
    if names[0] == EXTENDS:
        problems.append(f"{where}: files extend files, the command line does not; write it in the experiment's file")
        return
    *parents, last = names
    target = root
    for depth, parent in enumerate(parents, 1):
        child = target.value.get(parent)
        if child is not None and isinstance(child.value, list):
            group = shorten(".".join(parents[:depth]))
            problems.append(
                f"{where}: {group} is a list, and --set cannot reach into it; give all of it: {group}=[...]"
            )
            return
        if child is None or not isinstance(child.value, dict):
            target.value[parent] = child = Node({}, where)
        target = child
    target.value[last] = _relocate(compose(raw, where, problems), where)


def _relocate(node: Node, where: str) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _relocate(item, where) for key, item in node.value.items()}, where)
    if isinstance(node.value, list):
        return Node([_relocate(item, where) for item in node.value], where)
    return node._replace(where=where)


def _build(cls: type[Any], node: Node, path: str, problems: list[str]) -> Any:
    """An object of the settings class ``cls``, or None after noting what is wrong."""
    shown = path or "the experiment"
    if not isinstance(node.value, dict):
        first = dataclasses.fields(cls)[0].name
        problems.append(
            f"{node.where}: {shown} is a group of settings, not {_named(node.value)}; give it as {{{first}: ..., ...}}"
        )
        return None
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    before = len(problems)
    for key, child in node.value.items():
        full = f"{path}.{key}" if path else key
        if key not in fields:
            problems.append(f"{child.where}: {shorten(full)} is not a setting; {_nearest(key, cls, path)}")
            continue
        values[key] = _convert(hints[key], child, full, fields[key].metadata, problems)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in node.value:
            full = f"{path}.{name}" if path else name
            needed = field.metadata.get("help", "it is required")
            problems.append(f"{node.where}: {full} is missing: {needed}")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        problems.append(f"{node.where}: {path + ': ' if path else ''}{error}")
        return None


def _convert(annotation: Any, node: Node, path: str, limits: Mapping[str, Any], problems: list[str]) -> Any:
    """``node`` as a value of type ``annotation``, or None after noting what is wrong."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    value = node.value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (arg for arg in args if arg is not type(None))
        return _convert(inner, node, path, limits, problems)
    if dataclasses.is_dataclass(annotation):
        return _build(typing.cast(type, annotation), node, path, problems)
    if origin is Literal:
        if value in args and not isinstance(value, bool):
            return args[args.index(value)]  # 1.0 equals 1
        hint = difflib.get_close_matches(str(value), [str(arg) for arg in args], 1)
        near = f"; did you mean {hint[0]}?" if hint else ""
        allowed = ", ".join(map(str, args))
        problems.append(f"{node.where}: {path} is {_named(value)}; allowed: {allowed}{near}")
        return None
    if origin is tuple:
        return _convert_tuple(args, node, path, limits, problems)
    if origin is dict:
        if not isinstance(value, dict):
            problems.append(f"{node.where}: {path} is a mapping, not {_named(value)}; give it as {{name: ...}}")
            return None
        return {k: _convert(args[1], v, f"{path}.{shorten(k)}", limits, problems) for k, v in value.items()}
    if annotation is Any:
        return _strip(node)
    return _convert_scalar(annotation, node, path, limits, problems)


def _convert_tuple(
    args: tuple[Any, ...], node: Node, path: str, limits: Mapping[str, Any], problems: list[str]
) -> tuple[Any, ...] | None:
    value = node.value
    if args[-1] is not Ellipsis:  # a fixed (min, max) pair; one number means both
        if isinstance(value, int) and not isinstance(value, bool):
            value = [node, node]
        if not isinstance(value, list) or len(value) != len(args):
            problems.append(f"{node.where}: {path} is one number or [min, max], not {_named(node.value)}")
            return None
        pair = tuple(_convert(a, v, path, limits, problems) for a, v in zip(args, value, strict=True))
        if None not in pair and list(pair) != sorted(pair):
            problems.append(f"{node.where}: {path} is [{pair[0]}, {pair[1]}]; the smaller number comes first")
            return None
        return pair
    if not isinstance(value, list):
        value = [node]
    return tuple(_convert(args[0], item, f"{path}[{i}]", limits, problems) for i, item in enumerate(value))


def _convert_scalar(annotation: Any, node: Node, path: str, limits: Mapping[str, Any], problems: list[str]) -> Any:
    value = node.value
    if annotation is str and value is not None and node.text is not None:
        value = node.text  # as it is written: 1.10 is not 1.1, and a revision such as 0123 or no is text
    if annotation is float and isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-4 as text
            value = float(value)
    is_bool = isinstance(value, bool)
    if annotation is float and isinstance(value, int) and not is_bool:
        with contextlib.suppress(OverflowError):  # stays an int, which is then out of range
            value = float(value)
    if not isinstance(value, annotation) or (is_bool and annotation is not bool):
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        problems.append(f"{node.where}: {path} is {_named(value)}; it must be {words[annotation]}")
        return None
    if isinstance(value, str) and (found := _CONTROL.search(value)):
        problems.append(f"{node.where}: {path} has U+{ord(found[0]):04X} in it, a control character; remove it")
        return None
    if annotation in (int, float) and node.text is not None and odd_integer(node.text):
        problems.append(f"{node.where}: {path} is {node.text}, which YAML reads as {node.value}; write {node.value}")
        return None
    if annotation in (int, float) and not _within(value, limits):
        problems.append(f"{node.where}: {path} is {_named(value)}; allowed: {_range(limits)}")
        return None
    return value


def _within(value: float, limits: Mapping[str, Any]) -> bool:
    ge, gt, le = (limits.get(name) for name in ("ge", "gt", "le"))
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return (ge is None or value >= ge) and (gt is None or value > gt) and (le is None or value <= le)


def _range(limits: Mapping[str, Any]) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most"}
    parts = [f"{text} {limits[name]}" for name, text in words.items() if limits.get(name) is not None]
    return " and ".join(parts) or "a finite number"


def _nearest(key: str, cls: type[Any], path: str) -> str:
    """What was perhaps meant by an unknown ``key`` of ``cls``."""
    names = [field.name for field in dataclasses.fields(cls)]
    prefix = f"{path}." if path else ""
    if not path and difflib.get_close_matches(key[:100], [EXTENDS], 1, cutoff=0.75):
        return f"did you mean {EXTENDS} (in a file, at its top)?"
    if close := difflib.get_close_matches(key[:100], names, 1, cutoff=0.75):
        return f"did you mean {prefix}{close[0]}?"
    inside = [item.key for item in describe(cls) if item.key.endswith(f".{key}")]
    if inside:
        return f"did you mean {' or '.join(prefix + name for name in inside[:3])}?"
    if close := difflib.get_close_matches(key[:100], names, 1, cutoff=0.5):
        return f"did you mean {prefix}{close[0]}?"
    return f"allowed here: {', '.join(sorted(names))}"


def _named(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >> 64:
        return "a number of absurd size"  # Python refuses to write out the largest
    return repr(shorten(value)) if isinstance(value, str) else repr(value)


def _strip(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _strip(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [_strip(item) for item in node.value]
    return node.value
