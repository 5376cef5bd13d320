"""What `finetuning.py` trains on, how it is cut into batches, and what it takes: no Ray, and no clock."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fdd_ray.training.packing import TrainingPlan, micro_batches, pack, rows_per_step

OURS = "fdd_ray, packed"
OURS_PADDED = "fdd_ray, padded"
RAY = "Ray Train + DeepSpeed, padded"
TRL = "TRL SFTTrainer, padded"
TRL_PACKED = "TRL SFTTrainer, its packing"

Ints = npt.NDArray[np.int64]

# Peak TFLOP/s of dense bfloat16 matrices (float16 where a GPU has no bfloat16), from the makers' data sheets.
PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "A100": 312.0,
    "A10G": 70.0,
    "A10": 125.0,
    "A40": 150.0,
    "L40S": 362.0,
    "L4": 121.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
    "MI300X": 1307.0,
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """One comparison, as every side is given it.

    Attributes:
        model: A Hugging Face directory, URL or hub id.
        examples: Parquet file with the examples, which every node can reach.
        tokens: JSON file on this machine with the same examples as token ids, for the sides that are not ours.
        prompts: Name of the prompt set.
        work: Folder or URL for what the sides write, which every node can reach.
        epochs: Passes over the examples.
        max_length: Tokens of a packed row.
        batch_tokens: Tokens of an optimiser step, padding included, as `FinetuneSettings` has it.
        micro_rows: Packed rows of one worker's forward pass.
        micro_examples: Padded examples of one worker's forward pass with as many real tokens.
        accumulation: Forward passes of each worker in an optimiser step.
        workers: Processes that train.
        threads: CPU threads of each.
        gpus: GPUs of each; None: 1 where there are any.
        zero_stage: DeepSpeed's ZeRO stage, where DeepSpeed is used.
        dtype: "auto" (bfloat16 on GPUs, else float32), "bfloat16" or "float32".
        gradient_checkpointing: Whether activations are computed again in the backward pass.
        log_steps: Optimiser steps between two readings of the clock, where a side does not choose them itself.
        warm_up: Optimiser steps before the steady ones.
        learning_rate: Of AdamW.
        seed: Of the data order.
        trl: A Python that has TRL.
        trl_attention: Attention implementation of TRL's packing; None: what Transformers chooses.
    """

    model: str
    examples: str
    tokens: str
    prompts: str
    work: str
    epochs: int
    max_length: int
    batch_tokens: int
    micro_rows: int
    micro_examples: int
    accumulation: int
    workers: int
    threads: int
    gpus: float | None
    zero_stage: int
    dtype: str
    gradient_checkpointing: bool
    log_steps: int
    warm_up: int
    learning_rate: float
    seed: int
    trl: str
    trl_attention: str | None

    def write(self, path: Path) -> None:
        """Put it into a JSON file."""
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Plan:
        """What `write` wrote."""
        return Plan(**json.loads(path.read_text(encoding="utf-8")))


class Cut(NamedTuple):
    """How a side's forward passes and steps are cut.

    Attributes:
        rows_per_step: Packed rows of an optimiser step on all workers.
        accumulation: Forward passes of each worker in a step.
        micro_rows: Packed rows of one forward pass.
        micro_examples: Padded examples of one forward pass that have as many tokens as packed rows do.
    """

    rows_per_step: int
    accumulation: int
    micro_rows: int
    micro_examples: int


def cut(lengths: Ints, *, max_length: int, batch_tokens: int, micro_rows: int, workers: int) -> Cut:
    """Forward passes of padded examples with as many tokens as those of packed rows, to the nearest whole example.

    Args:
        lengths: Tokens of each example.
        max_length: Tokens of a packed row.
        batch_tokens: Tokens of an optimiser step, padding included.
        micro_rows: Most packed rows of one forward pass.
        workers: Processes that train.
    """
    rows = rows_per_step(batch_tokens, max_length, workers, micro_rows)
    accumulation = micro_batches(rows, workers, micro_rows)
    each = rows // (workers * accumulation)
    row_tokens = float(lengths.sum()) / len(pack(lengths, max_length, 0))
    return Cut(rows, accumulation, each, max(1, round(each * row_tokens / float(lengths.mean()))))


def tokens_by_step(plan: Plan, lengths: Ints, completions: Ints, *, packing: bool) -> list[int]:
    """Tokens trained on after each number of our optimiser steps, without padding; the first is 0."""
    steps = TrainingPlan(
        lengths, completions, plan.max_length, our_rows(plan, packing), plan.epochs, plan.seed, packing=packing
    )
    return np.cumsum([0, *(step.tokens for _, step in steps.from_step(0))]).tolist()


def our_rows(plan: Plan, packing: bool) -> int:
    """Rows of an optimiser step of ours; without packing each is one example."""
    if not packing:
        return plan.workers * plan.accumulation * plan.micro_examples
    return rows_per_step(plan.batch_tokens, plan.max_length, plan.workers, plan.micro_rows)


class Mark(NamedTuple):
    """A reading of the clock right after an optimiser step.

    Attributes:
        step: Optimiser steps taken.
        tokens: Tokens trained on so far by all workers, without padding.
        seconds: On a clock that starts anywhere.
    """

    step: int
    tokens: float
    seconds: float


class Pace(NamedTuple):
    """How fast the steady steps were: tokens per second of all workers, and how many steps these were."""

    tokens_per_second: float
    steps: int


def steady_pace(marks: Sequence[Mark], warm_up: int) -> Pace:
    """The pace from the first mark with at least ``warm_up`` steps to the last mark.

    Raises:
        ValueError: If there are no two such marks.
    """
    steady = [mark for mark in marks if mark.step >= warm_up]
    if len(steady) < 2 or steady[-1].step == steady[0].step:
        raise ValueError(f"no two readings of the clock after {warm_up} steps; raise --size or --epochs")
    first, last = steady[0], steady[-1]
    return Pace((last.tokens - first.tokens) / (last.seconds - first.seconds), last.step - first.step)


class Shape(NamedTuple):
    """What of a model decides how much it computes.

    Attributes:
        body: Parameters that every token meets: all but the embeddings and the output layer.
        head: Parameters of the output layer, also where it shares them with the embeddings.
        layers: Layers with attention.
        width: Heads times the size of a head.
    """

    body: int
    head: int
    layers: int
    width: int

    @staticmethod
    def of(config: Any) -> Shape:
        """The shape of a decoder-only model, from its Transformers configuration."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
        embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        outside = {id(weight): weight.numel() for weight in (embeddings, head)}
        total = sum(parameter.numel() for parameter in model.parameters())
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return Shape(total - sum(outside.values()), head.numel(), config.num_hidden_layers, heads * size)


def flops_per_token(shape: Shape, lengths: Ints, completions: Ints) -> float:
    """Floating-point operations of forward and backward pass that a token of these examples needs, on average.

    6 for each parameter that a token meets: that is each of the body, and of the output layer only for tokens that
    carry loss, since no other needs logits. And for attention, where an example of n tokens has n * n / 2 pairs,
    12 * layers * width for each pair. Padding, recomputed activations and logits of the prompt count as no work.
    """
    matrices = 6 * (shape.body * int(lengths.sum()) + shape.head * int(completions.sum()))
    attention = 12 * shape.layers * shape.width * float((lengths.astype(np.float64) ** 2).sum()) / 2
    return (matrices + attention) / int(lengths.sum())


def utilisation(tokens_per_second: float, flops: float, peak_tflops: float, workers: int) -> float:
    """Model FLOP/s utilisation (MFU), from 0 to 1.

    Args:
        tokens_per_second: Of all workers.
        flops: Operations for each token; see `flops_per_token`.
        peak_tflops: Peak TFLOP/s of one worker.
        workers: How many there are.
    """
    return tokens_per_second * flops / (peak_tflops * 1e12 * workers)


def peak_of(device: str) -> float | None:
    """Peak TFLOP/s of a GPU by the name that its driver gives it, such as "NVIDIA H100 80GB HBM3"; None: not known."""
    words = device.replace("-", " ").split()
    known = [name for name in PEAKS if _within(name.split(), words)]
    return PEAKS[max(known, key=len)] if known else None


def _within(name: Sequence[str], words: Sequence[str]) -> bool:
    """Whether all words of a name are there: "A10" is no "A100", and "H100 PCIe" may have something in between."""
    return all(word in words for word in name)


class Run(NamedTuple):
    """What one side did in one turn.

    Attributes:
        tokens_per_second: In the steady steps, of all workers, without padding.
        steady_steps: How many steps these were.
        tokens_per_step: Tokens of an optimiser step on average, without padding.
        wall_s: Seconds from the start of its process to its end.
        device: What the first worker computed on.
    """

    tokens_per_second: float
    steady_steps: int
    tokens_per_step: float
    wall_s: float
    device: str


def compare(
    runs: Mapping[str, Sequence[Run]], *, workers: int, flops: float, peak_tflops: float | None = None
) -> list[dict[str, Any]]:
    """A row for each side: medians over the turns, the lowest and highest, and how many times it ours is.

    Args:
        runs: The turns of each side, in order; those of `OURS` are what the others are held against.
        workers: Processes that trained.
        flops: Operations for each token.
        peak_tflops: Peak TFLOP/s of one worker; None: by the name of its GPU, where that is known.
    """
    rows: list[dict[str, Any]] = []
    ours = [run.tokens_per_second for run in runs.get(OURS, ())]
    for side, turns in runs.items():
        paces = [run.tokens_per_second for run in turns]
        walls = [run.wall_s for run in turns]
        pace = statistics.median(paces)
        ratios = [mine / other for mine, other in zip(ours, paces, strict=True)] if ours else []
        peak = peak_tflops or peak_of(turns[0].device)
        rows.append(
            {
                "side": side,
                "tokens/s": pace,
                "low": min(paces),
                "high": max(paces),
                f"tokens/s per {'GPU' if turns[0].device != 'cpu' else 'worker'}": pace / workers,
                "ours is times": statistics.median(ours) / pace if ours else "",
                "times, low": min(ratios, default=""),
                "times, high": max(ratios, default=""),
                "wall s": statistics.median(walls),
                "wall, low": min(walls),
                "wall, high": max(walls),
                "tokens/step": statistics.median(run.tokens_per_step for run in turns),
                "steady steps": turns[0].steady_steps,
                "MFU %": 100 * utilisation(pace, flops, peak, workers) if peak else "",
                "device": turns[0].device,
            }
        )
    return rows
