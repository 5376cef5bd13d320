"""Step checkpoints: what a worker saves, and how any number of workers goes on from them.

DeepSpeed writes them: the model's weights once, and for each worker a file with its partition of the optimiser's
state. With as many workers as before it also reads them, bit for bit. At another number it refuses ("not currently
supported"; its elastic checkpoints need an optimiser of its own, and universal ones a conversion beforehand). But
the state of a group of parameters is one long vector whichever way it is cut, so ZeRO 1 and 2 are cut anew here:

    saved by 2 workers   a b c d e | f g h i .      (. is padding)
    read by 3 workers    a b c d | e f g h | i . . .

With ZeRO 0 every worker has the whole state. ZeRO 3 also cuts the weights, each one by itself, and is not cut anew.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

_STATE = "fdd_state.json"
_TAG = "step"
_BASE, _MASTERS = "base_optimizer_state", "single_partition_of_fp32_groups"  # DeepSpeed's names
_PARTITION = re.compile(r"zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt$")


@dataclasses.dataclass
class Totals:
    """What is summed over the steps, and over restarts.

    Attributes:
        fingerprint: Tells one fine-tuning from another.
        workers: How many workers took the last steps.
        step: Steps taken.
        seconds: Time spent on them.
        loss_first: Mean loss of a completion token in the first step.
        epoch: The epoch of the last step, counted from 0.
        epoch_loss: Summed loss of the steps of that epoch.
        epoch_tokens: Completion tokens of the steps of that epoch.
    """

    fingerprint: str
    workers: int
    step: int = 0
    seconds: float = 0.0
    loss_first: float = 0.0
    epoch: int = 0
    epoch_loss: float = 0.0
    epoch_tokens: int = 0


def save(engine: Any, folder: str, totals: Totals, *, first: bool, adapters: bool) -> None:
    """Write this worker's part of a checkpoint; every worker must call it.

    Args:
        engine: DeepSpeed's engine.
        folder: An empty directory.
        totals: Saved by the first worker.
        first: Whether this is the first worker.
        adapters: Whether adapters are trained: frozen weights come from the base model again.
    """
    engine.save_checkpoint(folder, tag=_TAG, exclude_frozen_parameters=adapters)
    if first:
        Path(folder, _STATE).write_text(json.dumps(dataclasses.asdict(totals)), encoding="utf-8")


def read_totals(folder: str) -> Totals:
    """The totals of a checkpoint."""
    return Totals(**json.loads(Path(folder, _STATE).read_text(encoding="utf-8")))


def fits(saved: int, workers: int, zero_stage: int) -> bool:
    """Whether ``workers`` can go on from a checkpoint of ``saved`` workers."""
    return saved == workers or zero_stage < 3


def load(engine: Any, folder: str, *, saved: int, rank: int, workers: int, zero_stage: int, adapters: bool) -> None:
    """Put a checkpoint of ``saved`` workers into the engine of worker ``rank`` of ``workers``; see `fits`."""
    cut_anew = saved != workers and zero_stage > 0
    engine.load_checkpoint(folder, tag=_TAG, load_module_strict=not adapters, load_optimizer_states=not cut_anew)
    if not cut_anew:
        return
    # Only the pages that belong to this worker are read.
    files = [torch.load(path, map_location="cpu", mmap=True, weights_only=False) for path in _partitions(folder, saved)]
    optimizer = engine.optimizer
    mine = repartition(
        [file["optimizer_state_dict"] for file in files],
        [_numel(group) for group in getattr(optimizer, "bf16_groups", None) or optimizer.bit16_groups],
        [_numel(group["params"]) for group in optimizer.optimizer.param_groups],
        rank,
    )
    optimizer.load_state_dict([mine] * workers, load_optimizer_states=True, load_from_fp32_weights=True)


def repartition(
    saved: Sequence[Mapping[str, Any]], totals: Sequence[int], sizes: Sequence[int], rank: int
) -> dict[str, Any]:
    """One worker's state of a ZeRO 1 or 2 optimiser, out of the states of another number of workers.

    Args:
        saved: DeepSpeed's state of each worker that there was, in order of rank.
        totals: Numbers in each group of parameters.
        sizes: Numbers of each group in one new partition, padding included.
        rank: The new worker, counted from 0.
    """

    def cut(pieces: Iterable[torch.Tensor], group: int) -> torch.Tensor:
        start = rank * sizes[group]
        return _cut(pieces, start, min(totals[group] - start, sizes[group]), sizes[group])

    states = [state[_BASE] for state in saved]
    base = dict(states[0])
    base["state"] = {
        group: {
            # What is no vector, such as the number of steps, is the same everywhere.
            name: cut((state["state"][group][name] for state in states), group) if _is_vector(value) else value
            for name, value in first.items()
        }
        for group, first in base["state"].items()
    }
    masters = [cut((state[_MASTERS][group] for state in saved), group) for group in range(len(sizes))]
    return {**saved[0], _BASE: base, _MASTERS: masters}


def _cut(pieces: Iterable[torch.Tensor], start: int, length: int, size: int) -> torch.Tensor:
    """``length`` numbers from ``start`` of the pieces laid end to end, padded with zeros to ``size``."""
    result: torch.Tensor | None = None
    offset = 0
    for piece in pieces:
        if result is None:
            result = torch.zeros(size, dtype=piece.dtype)
        low, high = max(start, offset), min(start + length, offset + piece.numel())
        if low < high:
            result[low - start : high - start] = piece.detach()[low - offset : high - offset]
        offset += piece.numel()
    assert result is not None
    return result


def _is_vector(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 1


def _partitions(folder: str, workers: int) -> list[Path]:
    """The workers' files, in order of rank."""
    found = {int(match[1]): path for path in Path(folder, _TAG).iterdir() if (match := _PARTITION.search(path.name))}
    return [found[rank] for rank in range(workers)]


def _numel(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() for tensor in tensors)
