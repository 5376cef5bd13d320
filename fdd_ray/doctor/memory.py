"""Whether models have room in the memory of what computes: a lower bound, without activations and caches.

    look_at_engine("teacher", settings, weights, [80 << 30])

An engine holds its weights; a fine-tuning holds weights, gradients, and AdamW's copy and two moments in float32, of
which ZeRO deals parts out to the workers (1: the optimiser's, 2: gradients too, 3: weights too). What is more than a
bound allows certainly fails; what is close to it may.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fdd_ray.doctor.findings import Finding, note, ok, problem
from fdd_ray.doctor.sizes import gib
from fdd_ray.engines.base import EngineSettings
from fdd_ray.engines.vllm import CPU_KV_CACHE_MIB
from fdd_ray.errors import EngineError, TrainingError
from fdd_ray.training.settings import FinetuneSettings

_CLOSE: Final = 0.8
_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}


class Weights(NamedTuple):
    """The weights of a model: their parameters, bytes on disk (0 if not known), and where the numbers come from."""

    parameters: float
    disk_bytes: int
    source: str


def engine_bytes(settings: EngineSettings, weights: Weights, *, on_gpu: bool) -> float:
    """Bytes of a model's weights in an engine, over all of its GPUs."""
    if not on_gpu:
        return weights.parameters * _BYTES.get(settings.dtype, 4)
    if settings.dtype == "auto" or settings.quantization is not None:
        return float(weights.disk_bytes or weights.parameters * 2)
    return weights.parameters * _BYTES[settings.dtype]


def training_bytes(settings: FinetuneSettings, parameters: float, *, on_gpu: bool) -> float:
    """Bytes that a worker of a fine-tuning holds at the least."""
    half = settings.dtype == "bfloat16" or (settings.dtype == "auto" and on_gpu)
    width, workers, stage = 2 if half else 4, settings.workers[1], settings.zero_stage
    if settings.lora is not None:  # the adapters are small, and their number is not known without the model
        return parameters * width / (workers if stage == 3 else 1)
    optimiser = 12 if half else 8  # in float32 the weights are the optimiser's copy
    weights_part = width / (workers if stage == 3 else 1)
    gradients = width / (workers if stage >= 2 else 1)
    return parameters * (weights_part + gradients + optimiser / (workers if stage >= 1 else 1))


def look_at_engine(role: str, settings: EngineSettings, weights: Weights, gpus: Sequence[int]) -> Iterator[Finding]:
    """Whether an engine's weights fit into the GPUs that it may get.

    Args:
        role: Whose engine it is.
        settings: Its settings.
        weights: Of its model.
        gpus: Bytes of memory of each GPU that it may run on.
    """
    whole = engine_bytes(settings, weights, on_gpu=True)
    each, room = whole / settings.model_parallel, min(gpus) * settings.gpu_memory_share
    found = (
        f"{role}: its weights take about {gib(each)} of a GPU ({weights.source}), of the {gib(room)} that it may use"
        f" of the smallest ({gib(min(gpus))})"
    )
    if each > max(gpus) * settings.gpu_memory_share:
        yield problem(
            found.replace("of the smallest", "there"),
            f"raise {role}.tensor_parallel, use larger GPUs, a smaller or a quantised model",
            EngineError,
        )
    elif each > room:
        yield note(found, f"keep its engines on the larger GPUs ({role}.label_selector)")
    elif each > _CLOSE * room:
        yield note(
            f"{found}: little is left for the key-value cache, so few completions are written at once",
            f"raise {role}.tensor_parallel, or lower {role}.max_model_len",
        )
    else:
        yield ok(found)


def look_at_training(settings: FinetuneSettings, weights: Weights, gpus: Sequence[int]) -> Iterator[Finding]:
    """Whether what a worker of a fine-tuning holds fits into the GPUs that it may get.

    Args:
        settings: The settings of the fine-tuning.
        weights: Of the student.
        gpus: Bytes of memory of each GPU that it may run on.
    """
    share = settings.gpus_per_worker or 1.0
    each, room = training_bytes(settings, weights.parameters, on_gpu=True), min(gpus) * max(share, 1.0)
    found = (
        f"fine-tuning: a worker holds at least {gib(each)} without activations, of {gib(room)}"
        f" ({settings.workers[1]} workers, ZeRO {settings.zero_stage})"
    )
    ways = "raise finetune.zero_stage or workers, use finetune.lora, or larger GPUs"
    if each > room:
        yield problem(found, ways, TrainingError)
    elif each > _CLOSE * room:
        yield note(
            f"{found}: little is left for activations",
            f"lower finetune.micro_batch_rows, set finetune.gradient_checkpointing: true, or {ways}",
        )
    else:
        yield ok(found)


def look_at_memory(
    parts: Sequence[tuple[str, float]], memory_bytes: int, where: str = "this machine"
) -> Iterator[Finding]:
    """Whether what is computed on CPUs fits into a machine's memory.

    Args:
        parts: What is there at the same time, with its bytes.
        memory_bytes: The machine's.
        where: What it is called.
    """
    needed = sum(amount for _, amount in parts)
    if not needed:
        return
    shown = ", ".join(f"{name} {gib(amount)}" for name, amount in parts if amount)
    found = f"on CPUs at least {gib(needed)} of memory ({shown}); {where} has {gib(memory_bytes)}"
    ways = "use a machine with more, fewer engines or workers, or smaller models"
    if needed > memory_bytes:
        yield problem(found, ways, EngineError)
    elif needed > _CLOSE * memory_bytes:
        yield note(f"{found}, of which Ray and its processes take some too", ways)
    else:
        yield ok(found)


def cpu_engines(role: str, settings: EngineSettings, weights: Weights) -> tuple[str, float]:
    """The smallest number of a role's engines as a part of a machine's memory."""
    cache = (settings.kv_cache_mib or CPU_KV_CACHE_MIB) << 20 if settings.engine == "vllm" else 0
    count = settings.replicas[0]
    return f"{count} x {role}", count * (engine_bytes(settings, weights, on_gpu=False) + cache)
