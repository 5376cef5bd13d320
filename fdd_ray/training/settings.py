"""What an experiment may say about fine-tuning the student.

Importing this module loads nothing heavy: the command line reads it for every command.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from fdd_ray.settings import setting


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (LoRA, arXiv 2106.09685) on the student's linear layers."""

    rank: int = setting(16, "Rank of the adapters.", ge=1)
    alpha: float = setting(32.0, "Scale of the adapters: what they add is multiplied by alpha / rank.", gt=0)
    dropout: float = setting(0.0, "Dropout before each adapter.", ge=0, le=0.99)
    targets: tuple[str, ...] = setting(
        factory=tuple,
        help="Names of the linear layers that get one, such as q_proj (or q for T5); empty: all but the output layer.",
    )

    def __post_init__(self) -> None:
        if "" in self.targets:
            raise ValueError("targets has an empty name in it; take it out, or leave targets empty for all layers")


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """The student's fine-tuning: how long, how fast, in which batches and on which workers."""

    start_from: Literal["base", "previous"] = setting(
        "base", "Where each round starts: the base model, or the student of the round before."
    )
    epochs: int = setting(3, "How often each example is seen.", ge=1)
    learning_rate: float = setting(2e-5, "Learning rate after the warm-up.", gt=0)
    weight_decay: float = setting(0.01, "AdamW's weight decay, on matrices only.", ge=0)
    beta1: float = setting(0.9, "AdamW's decay of the gradient's mean.", ge=0, le=0.9999)
    beta2: float = setting(0.999, "AdamW's decay of the gradient's square.", ge=0, le=0.99999)
    warmup_share: float = setting(0.03, "Share of all steps in which the learning rate rises.", ge=0, le=1)
    min_lr_share: float = setting(0.0, "Where the cosine ends, as a share of the learning rate.", ge=0, le=1)
    clip_norm: float = setting(1.0, "Largest gradient norm; 0 turns clipping off.", ge=0)
    max_length: int = setting(1024, "Tokens of a packed row, and of the longest example.", ge=16)
    batch_tokens: int = setting(
        16384, "Tokens of one optimiser step over all workers, rounded to whole micro-batches.", ge=16
    )
    micro_batch_rows: int = setting(4, "Most packed rows of one worker's forward pass.", ge=1)
    packing: bool = setting(
        True,
        "Put several examples into one row; they cannot see each other. Off: one example per row. Encoder-decoder"
        " students (T5): on fills a forward pass with examples of similar length, each on a line of its own.",
    )
    lora: LoraSettings | None = setting(
        None,
        "Train low-rank adapters instead of all weights, and merge them into the student at the end; null: full"
        " fine-tuning. Needs the extra lora (peft), on the training nodes too.",
    )
    drop_too_long: bool = setting(
        True, "Reject (and count) examples longer than max_length; false: fail instead. Never truncated."
    )
    zero_stage: Literal[0, 1, 2, 3] = setting(
        1, "DeepSpeed ZeRO: 1 shards optimiser states, 2 also gradients, 3 also parameters; 0 none."
    )
    gradient_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: less memory, about a third more time."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = setting(
        "auto", "Number format of the computation; auto is bfloat16 on GPUs and float32 on CPUs."
    )
    workers: tuple[int, int] = setting(
        (1, 1),
        "How many workers train: one number, or [min, max] to use what the cluster has. A group that loses a node goes"
        " on with fewer (not with zero_stage 3).",
        ge=1,
    )
    grow_after_s: float = setting(
        300.0,
        "With workers [min, max]: seconds for which fewer than max train before more may join, which is a restart at a"
        " step checkpoint; 0: never.",
        ge=0,
    )
    gpus_per_worker: float | None = setting(None, "GPUs of a worker; empty: 1 if the cluster has GPUs, else 0.", ge=0)
    cpus_per_worker: float = setting(1.0, "CPUs that a worker reserves.", ge=0)
    threads: int = setting(1, "CPU threads that a worker computes with.", ge=1)
    resources: dict[str, float] = setting(factory=dict, help="Further resources that a worker reserves, by name.", ge=0)
    label_selector: dict[str, str] = setting(factory=dict, help="Labels of the nodes that workers may run on.")
    checkpoint_steps: int = setting(
        200, "Steps between checkpoints to resume from; 0: none, a failure starts over.", ge=0
    )
    max_failures: int = setting(
        3,
        "How often workers may fail and be restarted. With workers [min, max] the loss of a node does not count.",
        ge=0,
    )
    start_deadline_s: float = setting(1800.0, "Longest wait, in seconds, for the cluster to start the workers.", gt=0)

    def __post_init__(self) -> None:
        if self.zero_stage == 3 and self.workers[0] != self.workers[1]:
            raise ValueError(
                f"workers is {list(self.workers)} with zero_stage 3, whose step checkpoints fit one number of workers"
                f" only; set zero_stage to 2, or workers to {self.workers[1]}"
            )
