"""What a training worker is given, and what it makes of it before the first step.

student, tokens = prepare(job, dtype_of(job))
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from fdd_ray.errors import TrainingError
from fdd_ray.prompts import decoder_start
from fdd_ray.store.fetch import fetch_folder
from fdd_ray.training.examples import Tokens, read_examples, render
from fdd_ray.training.lora import add_adapters
from fdd_ray.training.model import load_model, load_student
from fdd_ray.training.settings import FinetuneSettings


@dataclasses.dataclass(frozen=True)
class Job:
    """What the driver hands to every worker; see `fdd_ray.training.fit.finetune`."""

    settings: FinetuneSettings
    base_model: str
    examples: tuple[str, ...]
    prompts: str
    output: str
    marks: str
    seed: int
    trust_remote_code: bool
    gpu: bool
    progress: Any | None
    revision: str | None = None


@dataclasses.dataclass(frozen=True)
class Student:
    """A student that is ready to be trained.

    Attributes:
        model: The model, with adapters if there are to be any.
        tokenizer: Its tokenizer, with a chat template.
        decoder_start: What its decoder begins with; None for a decoder-only model.
        parameters: Parameters of the model, without adapters.
    """

    model: Any
    tokenizer: Any
    decoder_start: int | None
    parameters: int


def dtype_of(job: Job) -> torch.dtype:
    """The number format of the computation."""
    if job.settings.dtype == "auto":
        return torch.bfloat16 if job.gpu else torch.float32
    return torch.bfloat16 if job.settings.dtype == "bfloat16" else torch.float32


def prepare(job: Job, dtype: torch.dtype) -> tuple[Student, Tokens]:
    """The student and the rendered examples.

    Raises:
        FddError: For what starting again would not mend.
    """
    settings = job.settings
    try:
        model, tokenizer = load_student(
            _local(job),
            dtype=dtype,
            packing=settings.packing,
            trust_remote_code=job.trust_remote_code,
            revision=job.revision,
        )
    except OSError as error:
        raise TrainingError(f"cannot load the student {job.base_model}: {error}") from error
    tokens = render(
        read_examples(job.examples),
        tokenizer,
        job.prompts,
        max_length=settings.max_length,
        drop_too_long=settings.drop_too_long,
    )
    encoder_decoder = bool(model.config.is_encoder_decoder)
    longest = int(tokens.longest_side if encoder_decoder else tokens.lengths.max())
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and longest > positions:
        raise TrainingError(
            f"an example has {longest} tokens, but {job.base_model} knows {positions} positions; "
            f"set finetune.max_length to at most {positions}"
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if settings.lora is not None:
        add_adapters(model, settings.lora, name=job.base_model, seed=job.seed)
    if settings.gradient_checkpointing:
        checkpoint_activations(model)
    start = decoder_start(model, job.base_model, TrainingError) if encoder_decoder else None
    return Student(model, tokenizer, start, parameters), tokens


def checkpoint_activations(model: Any) -> None:
    """Let the model recompute its activations in the backward pass, in training mode.

    The variant that is not reentrant also serves models whose first trained weights lie behind frozen ones, as with
    adapters.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def load_base(job: Job) -> Any:
    """The base model once more, on the CPU and in the number format of its files."""
    from transformers import AutoConfig

    path = _local(job)
    trusted: dict[str, Any] = {"trust_remote_code": job.trust_remote_code, "revision": job.revision}
    return load_model(path, AutoConfig.from_pretrained(path, **trusted), dtype="auto", **trusted)


def _local(job: Job) -> str:
    return fetch_folder(job.base_model) if "://" in job.base_model else job.base_model
