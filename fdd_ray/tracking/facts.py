"""What a finished stage has to show: its manifest as numbers with names.

    facts_of(manifest, before).values   # {"accuracy/in_distribution": 0.41, "kept_share/score": 1.0, ...}

The step is the round; that of the untouched student is -1. What a round cost in all is told by its last
stage, ``score``, so that no name comes twice at a step.

| name | of stage |
|---|---|
| ``accuracy/BENCHMARK``, ``accuracy_low/``, ``accuracy_high/``, ``majority/BENCHMARK``, ``pool/accuracy`` | score |
| ``tokens/ROLE/prompt``, ``tokens/ROLE/completion``, ``money/round``, ``money/total`` | score, of its whole round |
| ``pool/easy_share`` | split |
| ``distillation_set``, ``finetune/loss_first``, ``loss_last``, ``steps``, ``tokens_per_second`` | finetune |
| ``rows/STAGE/kept``, ``rejected``, ``failed``, ``kept_share/STAGE``, ``seconds/STAGE`` | each |
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fdd_ray.store.manifest import Manifest, round_name

BASE_STEP: Final = -1
_POOL: Final = "pool"
_ORDER: Final = ("problems", "rationales", "split", "synthesise", "curate", "finetune", "score")
_OF_TRAINING: Final = ("loss_first", "loss_last", "steps", "tokens_per_second")


@dataclasses.dataclass(frozen=True)
class Facts:
    """The numbers of one finished stage.

    Attributes:
        key: The stage's folder in the run directory, such as ``round-00/score``.
        mark: Tells it from the same stage done anew.
        step: Its round; -1 for the untouched student.
        order: Grows from stage to stage of a run.
        time: When it ended, in seconds since 1970.
        values: The numbers by name; all finite.
    """

    key: str
    mark: str
    step: int
    order: int
    time: float
    values: Mapping[str, float]


def facts_of(manifest: Manifest, before: Sequence[Manifest]) -> Facts:
    """The numbers of a stage.

    Args:
        manifest: Of the stage.
        before: Of all stages of the run before it.
    """
    values = dict(_of_rows(manifest))
    values |= {name: value for name, value in _of_stage(manifest, before) if _is_number(value)}
    return Facts(
        key=f"{round_name(manifest.round)}/{manifest.stage}",
        mark=mark_of(manifest),
        step=BASE_STEP if manifest.round is None else manifest.round,
        order=_order(manifest),
        time=manifest.begun + manifest.seconds,
        values=values,
    )


def mark_of(manifest: Manifest) -> str:
    """What tells a stage from the same one done anew, also with the same settings; marks sort by when stages began."""
    return f"{int(manifest.begun * 1e6):016d}.{manifest.fingerprint}"


def _of_rows(manifest: Manifest) -> Iterator[tuple[str, float]]:
    stage, counts = manifest.stage, manifest.counts
    yield f"rows/{stage}/kept", counts.kept
    yield f"rows/{stage}/rejected", sum(counts.rejected.values())
    yield f"rows/{stage}/failed", counts.failed
    if counts.rows:
        yield f"kept_share/{stage}", counts.kept / counts.rows
    yield f"seconds/{stage}", manifest.seconds


def _of_stage(manifest: Manifest, before: Sequence[Manifest]) -> Iterator[tuple[str, Any]]:
    summary = manifest.summary
    if manifest.stage == "split" and manifest.counts.kept:
        yield "pool/easy_share", summary.get("easy", 0) / manifest.counts.kept
    elif manifest.stage == "finetune":
        yield "distillation_set", manifest.counts.kept
        yield from ((f"finetune/{name}", summary.get(name)) for name in _OF_TRAINING)
    elif manifest.stage == "score":
        for name, found in summary.get("accuracy", {}).items():
            if name == _POOL:
                yield "pool/accuracy", found["value"]
            else:
                yield f"accuracy/{name}", found["value"]
                yield f"accuracy_low/{name}", found["low"]
                yield f"accuracy_high/{name}", found["high"]
        for name, found in summary.get("majority", {}).get("accuracy", {}).items():
            yield f"majority/{name}", found["value"]
        yield from _of_round(manifest, before)


def _of_round(scored: Manifest, before: Sequence[Manifest]) -> Iterator[tuple[str, float]]:
    """Tokens and money of the round that ends with ``scored``; what was copied from another run was paid for there."""
    whole = [*before, scored]
    of_round = [manifest for manifest in whole if manifest.round == scored.round]
    tokens: Counter[str] = Counter()
    for manifest in of_round:
        for role, counts in manifest.tokens.items():
            tokens.update({f"tokens/{role}/{kind}": int(number) for kind, number in counts.items()})
    yield from sorted(tokens.items())
    yield "money/round", _money(of_round)
    yield "money/total", _money(whole)


def _money(manifests: Sequence[Manifest]) -> float:
    return sum(m.usage.money for m in manifests if m.usage is not None and not m.forked_from)


def _order(manifest: Manifest) -> int:
    """Services take numbers in one order only; the problems are loaded before the untouched student is scored."""
    if manifest.stage == _ORDER[0]:
        return 0
    place = _ORDER.index(manifest.stage) if manifest.stage in _ORDER else len(_ORDER)
    return (0 if manifest.round is None else manifest.round + 1) * (len(_ORDER) + 1) + place


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
