"""What a run cost so far: read from its manifests and parts, so it is right after kills and resumes too.

    spent("runs/tiny").tokens   # {"Qwen/Qwen3-4B": {"prompt": 1200, "completion": 800}}

Tokens of a finished stage are those of its manifest; of an unfinished one, those of the rows in its parts.
A stage that was set aside was paid for and counts; one that was copied from another run was paid for
there and does not. What was asked and lost is told as far as it can be known.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.store import aside, files
from fdd_ray.store.content import is_part
from fdd_ray.store.lease import read_holder
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.manifest import Found, find_stages

_ROLES = ("teacher", "student")
_KINDS = ("prompt", "completion")


@dataclasses.dataclass(frozen=True)
class Lost:
    """Work that was paid for and will not be used.

    Attributes:
        superseded_tokens: Tokens of stages that were set aside; they are part of `Spent.tokens`.
        failed_rows: Rows that had failed and were asked again; their tokens are not in `Spent.tokens`.
        torn_parts: Parts that were torn, whose rows were asked again; their tokens are not in it either.
        killed_drivers: Drivers that ended without saying so. Each may have lost the blocks it had in
            flight, which nobody can count.
    """

    superseded_tokens: int = 0
    failed_rows: int = 0
    torn_parts: int = 0
    killed_drivers: int = 0


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a run cost.

    Attributes:
        tokens: ``prompt`` and ``completion`` tokens by model.
        by_role: The same by who was asked: ``teacher``, ``student``.
        seconds: ``stage`` (wall-clock seconds of finished stages), ``engine``, ``cpu`` and ``gpu``.
        money: In the currency of the experiment's prices; 0 where it gives none.
        lost: What of it was in vain.
    """

    tokens: Mapping[str, Mapping[str, int]]
    seconds: Mapping[str, float]
    money: float
    lost: Lost
    by_role: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)


def spent(directory: str) -> Spent:
    """What the run at ``directory`` cost so far; it may be live, dead or finished, local or not."""
    directory = files.absolute(directory)
    tokens: Counter[tuple[str, str]] = Counter()
    roles: Counter[tuple[str, str]] = Counter()
    seconds = dict.fromkeys(("stage", "engine", "cpu", "gpu"), 0.0)
    money = 0.0
    superseded = 0
    events = read_ledger(directory)
    alive = _holder_alive(directory)
    for item, in_use in _all_stages(directory):
        if item.manifest is not None and item.manifest.forked_from:
            continue
        here = stage_tokens(item)
        tokens.update(here)
        roles.update(_by_role(item, here))
        if not in_use:
            superseded += sum(here.values())
        if item.manifest is not None:
            seconds["stage"] += item.manifest.seconds
            usage = item.manifest.usage
            if usage is not None:
                seconds["engine"] += usage.engine_seconds
                seconds["cpu"] += usage.cpu_seconds
                seconds["gpu"] += usage.gpu_seconds
                money += usage.money
    return Spent(
        tokens=_nested(tokens),
        seconds={name: round(value, 2) for name, value in seconds.items()},
        money=money,
        lost=_lost(events, superseded, alive),
        by_role=_nested(roles),
    )


def stage_tokens(item: Found) -> Counter[tuple[str, str]]:
    """Tokens of a stage by (model, ``prompt`` or ``completion``)."""
    found: Counter[tuple[str, str]] = Counter()
    if item.manifest is not None:
        usage = item.manifest.usage
        by_name = usage.tokens if usage is not None and usage.tokens else None
        if by_name is None:
            by_name = {_model(item.depends_on, role): counts for role, counts in item.manifest.tokens.items()}
        for name, counts in by_name.items():
            found.update({(name, kind): int(number) for kind, number in counts.items()})
        return found
    role = _role(item)
    if role is not None:
        model = _model(item.depends_on, role)
        for kind, number in _tokens_in_parts(item.path).items():
            found[model, kind] += number
    return found


def _by_role(item: Found, here: Mapping[tuple[str, str], int]) -> Counter[tuple[str, str]]:
    """Tokens of a stage by (role, kind); ``here`` are those by model."""
    if item.manifest is not None:
        counted = item.manifest.tokens.items()
        return Counter({(role, kind): int(number) for role, kinds in counted for kind, number in kinds.items()})
    return Counter({(_role(item) or "", kind): number for (_, kind), number in here.items()})


def _role(item: Found) -> str | None:
    """Who is asked in an unfinished stage."""
    return next((role for role in _ROLES if isinstance(item.depends_on.get(role), Mapping)), None)


def _nested(tokens: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (name, kind), number in sorted(tokens.items()):
        found.setdefault(name, dict.fromkeys(_KINDS, 0))[kind] = number
    return found


def rows_in_parts(folder: str) -> int:
    """Rows in the parts of an unfinished stage, from their footers; torn parts count nothing."""
    rows = 0
    for name in files.list_names(folder, ".parquet"):
        if is_part(name):
            try:
                rows += files.count_rows(files.join(folder, name))
            except StoreError as error:
                if not isinstance(error.__cause__, (ValueError, KeyError, FileNotFoundError)):
                    raise
    return rows


def _tokens_in_parts(folder: str) -> dict[str, int]:
    import pyarrow as pa

    columns = [f"{kind}_tokens" for kind in _KINDS]
    schema = pa.schema([(column, pa.int64()) for column in columns])
    totals = dict.fromkeys(_KINDS, 0)
    for name in files.list_names(folder, ".parquet"):
        if is_part(name):
            try:
                table = files.read_tables([files.join(folder, name)], schema)
            except StoreError as error:  # torn, or gone since it was listed, or rows without tokens
                if isinstance(error.__cause__, (ValueError, KeyError, FileNotFoundError)):
                    continue
                raise
            for kind, column in zip(_KINDS, columns, strict=True):
                totals[kind] += sum(value or 0 for value in table.column(column).to_pylist())
    return totals


def _all_stages(directory: str) -> Iterable[tuple[Found, bool]]:
    yield from ((item, True) for item in find_stages(directory))
    folder = files.join(directory, aside.FOLDER)
    for name in files.list_names(folder):
        yield from ((item, False) for item in find_stages(files.join(folder, name)))


def _model(depends_on: Mapping[str, Any], role: str) -> str:
    """The name of the model in a role, as the experiment gives it."""
    settings = depends_on.get(role)
    model = settings.get("model") if isinstance(settings, Mapping) else None
    return str(model) if model else role


def _holder_alive(directory: str) -> bool:
    holder = read_holder(directory)
    return holder is not None and holder.seems_alive()


def _lost(events: list[dict[str, Any]], superseded: int, alive: bool) -> Lost:
    begun = sum(event["event"] in ("run started", "run resumed") for event in events)
    ended = sum(event["event"] == "run ended" for event in events)
    return Lost(
        superseded_tokens=superseded,
        failed_rows=sum(int(e["rows"]) for e in events if e["event"] == "failed rows are asked again"),
        torn_parts=sum(e["event"] == "torn part set aside" for e in events),
        killed_drivers=max(0, begun - ended - alive),
    )
