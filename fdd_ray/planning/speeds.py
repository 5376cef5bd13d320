"""How fast engines and trainers are likely to be: a model of the hardware, observed speeds, or given ones.

A completion token takes the time of its share of reading the weights (a batch reads them once), of its arithmetic
(2 operations for each parameter), and of the engine's own work. A prompt token takes the last two, a tenth of the
work. A trained token takes 6 operations for each parameter, 4 with adapters, and 2 more with gradient checkpointing.
Peak speeds are those of the data sheets; which share of them is reached, and the engine's own work, are assumed.
Nothing of this was measured on a GPU, so the range is wide.
"""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

from fdd_ray.engines.base import EngineSettings
from fdd_ray.planning.models import Size
from fdd_ray.planning.ranges import Range
from fdd_ray.training.settings import FinetuneSettings

_REACHED_FLOPS: Final = 0.4
_REACHED_BANDWIDTH: Final = 0.6
_REACHED_TRAINING: Final = 0.3
_PROMPT_WORK: Final = 0.1
_TRAINING_WORK_S: Final = (
    5e-6  # of a GPU's trainer, for a token: what keeps small models from being as fast as sums say
)
_SEQUENTIAL_TOKENS: Final = Range(20, 50, 120)  # a second, of one request to an endpoint
_WORK_BY_ENGINE: Final = {"vllm": 1.0, "transformers": 5.0, "simulated": 0.0}


class Device(NamedTuple):
    """What computes.

    Attributes:
        flops: Operations in a second in 16 bits (of a CPU: of one thread in 32 bits).
        bandwidth: Bytes in a second from its memory.
        work_s: The engine's own work for a completion token, in seconds.
        start_s: Seconds until engines serve, or trainers train.
    """

    flops: float
    bandwidth: float
    work_s: float
    start_s: Range


_GPU_START: Final = Range(30, 90, 300)
# Of GPUs, the data sheets' dense speeds in 16 bits and bandwidths; of a CPU's thread, what makes the tiny world come
# out as it was measured on two cores: 4,300 trained and 1,000 to 1,600 completion tokens a second.
DEVICES: Final[dict[str, Device]] = {
    "cpu": Device(4e10, 1e10, 5e-4, Range(5, 20, 60)),
    "l4": Device(121e12, 0.3e12, 5e-5, _GPU_START),
    "a10g": Device(70e12, 0.6e12, 5e-5, _GPU_START),
    "l40s": Device(362e12, 0.864e12, 5e-5, _GPU_START),
    "a100": Device(312e12, 2.0e12, 5e-5, _GPU_START),
    "h100": Device(989e12, 3.35e12, 5e-5, _GPU_START),
    "h200": Device(989e12, 4.8e12, 5e-5, _GPU_START),
}
DEFAULT_GPU: Final = "a100"
_SMALLEST_ON_GPU: Final = 30e6


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast one engine (or, of fine-tuning, one worker) is.

    Attributes:
        completion_s: Seconds for a completion token (a trained token).
        prompt_s: Seconds for a prompt token.
        start_s: Seconds before the first.
        gpus: GPUs that it takes.
        how: Where this comes from, in words.
        minute_requests: Most requests of all engines in a minute, if limited.
        minute_tokens: Most tokens of all engines in a minute, if limited.
    """

    completion_s: Range
    prompt_s: Range
    start_s: Range
    gpus: float
    how: str
    minute_requests: float | None = None
    minute_tokens: float | None = None

    def seconds(self, prompt: Range, completion: Range, requests: Range, engines: tuple[int, int]) -> Range:
        """Wall-clock seconds of a stage on ``engines``, from the fewest to the most; all are likely to come."""
        work = prompt * self.prompt_s + completion * self.completion_s
        found = Range(work.low / engines[1], work.likely / engines[1], work.high / engines[0])
        for used, limit in ((requests, self.minute_requests), (prompt + completion, self.minute_tokens)):
            if limit is not None:
                waits = used * (60 / limit)
                found = Range(*(max(pair) for pair in zip(_three(found), _three(waits), strict=True)))
        return found + self.start_s if work.high else found


def device_for(settings: EngineSettings, size: Size | None, asked: str | None) -> str:
    """The device that a role runs on: what was asked for, else a GPU, but a CPU for miniatures."""
    if asked is not None:
        return asked
    small = size is not None and size.parameters < _SMALLEST_ON_GPU and not settings.gpus_per_replica
    return "cpu" if settings.gpus_per_replica == 0 or small else DEFAULT_GPU


def generation(settings: EngineSettings, size: Size, device: str, given: float | None) -> Speed:
    """The speed of one engine of a role; ``given`` completion tokens a second, if said."""
    limits = settings.requests_per_minute, settings.tokens_per_minute
    if settings.endpoint is not None:
        rate = Range.exact(given) if given else _SEQUENTIAL_TOKENS * settings.max_num_seqs
        words = f"{given:g} tokens/s given" if given else f"{settings.max_num_seqs} requests at 20 to 120 tokens/s each"
        return Speed(Range.exact(1) / rate, Range.exact(0), Range.exact(0), 0, words, *limits)
    chosen = DEVICES[device]
    gpus = 0.0 if device == "cpu" else float(settings.gpus_per_replica or settings.model_parallel)
    chips = gpus or settings.threads
    work = chosen.work_s * _WORK_BY_ENGINE[settings.engine]
    arithmetic = 2 * size.active / (chosen.flops * _REACHED_FLOPS * chips)
    # The weights are read once for all completions that are under way.
    weights = (
        _bytes_per_weight(settings)
        * size.parameters
        / (chosen.bandwidth * _REACHED_BANDWIDTH * chips)
        / (settings.max_num_seqs / 2)
    )
    completion, prompt = work + arithmetic + weights, _PROMPT_WORK * work + arithmetic
    if given:
        scaled = prompt / completion / given
        return Speed(Range.exact(1 / given), Range.exact(scaled), chosen.start_s, gpus, f"{given:g} tokens/s given")
    how = f"about {1 / completion:,.0f} completion tokens/s by a model of {_shown(device, chips)}"
    return Speed(Range.about(completion, 2.5), Range.about(prompt, 2.5), chosen.start_s, gpus, how)


def training(settings: FinetuneSettings, size: Size, device: str, given: float | None) -> Speed:
    """The speed of one fine-tuning worker; ``given`` trained tokens a second, if said."""
    chosen = DEVICES[device]
    asked = settings.gpus_per_worker
    gpus = 0.0 if device == "cpu" else float(1 if asked is None else asked)
    chips = gpus or settings.threads
    if given:
        return Speed(Range.exact(1 / given), Range.exact(0), chosen.start_s, gpus, f"{given:g} tokens/s given")
    # Adapters need the gradients of activations, but not those of the weights.
    operations = (4 if settings.lora else 6) + (2 if settings.gradient_checkpointing else 0)
    seconds = operations * size.parameters / (chosen.flops * (_REACHED_TRAINING if gpus else 0.6) * chips)
    seconds += _TRAINING_WORK_S if gpus else 0.0
    how = f"about {1 / seconds:,.0f} trained tokens/s by a model of {_shown(device, chips)}"
    return Speed(Range.about(seconds, 3), Range.exact(0), chosen.start_s, gpus, how)


def _bytes_per_weight(settings: EngineSettings) -> float:
    if settings.quantization is None:
        return 2.0
    return 1.0 if "8" in settings.quantization else 0.6  # four bits and their scales


def _shown(device: str, chips: float) -> str:
    return ("a thread" if chips == 1 else f"{chips:g} threads") if device == "cpu" else f"{chips:g} {device.upper()}"


def _three(found: Range) -> tuple[float, float, float]:
    return found.low, found.likely, found.high
