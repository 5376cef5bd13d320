"""Low-rank adapters (LoRA, arXiv 2106.09685) on a student, and how they become part of it again.

Only the adapters are trained: a frozen layer W has two thin matrices beside it, and gives W x + s B A x. At the end
s B A is added to W, as it lies in the base model's files and in their number format, so that the student is a model
like any other.

    add_adapters(model, LoraSettings(rank=8), name="student", seed=0)
    ...                                                    # train
    student = merge(load_base(), gathered_adapters(model, keep=True))
"""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

from fdd_ray.errors import DependencyError, TrainingError
from fdd_ray.training.settings import LoraSettings

_ADAPTER = "default"  # peft's name for the only adapter


class Adapter(NamedTuple):
    """What was learnt beside one linear layer.

    Attributes:
        down: A, of shape (rank, inputs), in float32.
        up: B, of shape (outputs, rank), in float32.
        scale: alpha / rank.
        transposed: Whether the layer keeps its weight as (inputs, outputs), as GPT-2's does.
    """

    down: Any
    up: Any
    scale: float
    transposed: bool

    def delta(self) -> Any:
        """What is added to the layer's weight."""
        product = self.scale * (self.up @ self.down)
        return product.T if self.transposed else product


def require_peft() -> None:
    """Raise `DependencyError` if peft is not installed; nothing is imported."""
    if importlib.util.find_spec("peft") is None:
        raise DependencyError(
            "finetune.lora needs peft, which is not installed; install it with: pip install 'fdd-ray[lora]', or set"
            " finetune.lora: null for full fine-tuning"
        )


def add_adapters(model: Any, settings: LoraSettings, *, name: str, seed: int) -> None:
    """Freeze ``model`` and put adapters beside its linear layers, in place.

    An adapter begins as nothing: A is random, by ``seed``, and B is zero.

    Raises:
        DependencyError: If peft is not installed.
        TrainingError: If a target names no layer, one that is not linear, or the output layer.
    """
    require_peft()
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    head = model.get_output_embeddings()
    linear = {path.rsplit(".", 1)[-1] for path, module in model.named_modules() if _is_linear(module, head)}
    wrong = sorted(
        target
        for target in settings.targets
        if not (found := [module for path, module in model.named_modules() if _names(target, path)])
        or not all(_is_linear(module, head) for module in found)
    )
    if wrong or not linear:
        raise TrainingError(
            f"finetune.lora.targets: {', '.join(wrong) or 'none'} names no inner linear layer of {name}; it has"
            f" {', '.join(sorted(linear)) or 'none'}; name some of these, or leave targets empty for all of them"
        )
    torch.manual_seed(seed)  # the same adapters on every worker, and after a restart
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # an int by its annotation, divided all the same
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) or sorted(linear),
    )
    inject_adapter_in_model(config, model)


def _names(target: str, path: str) -> bool:
    """Whether a target means the module at ``path``, by peft's rule."""
    return path == target or path.endswith(f".{target}")


def _is_linear(module: Any, head: Any) -> bool:
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head


def gathered_adapters(model: Any, keep: bool) -> dict[str, Adapter]:
    """All adapters on the CPU, by the path of their layer, one after the other out of ZeRO-3's shards.

    Every worker must call it.

    Args:
        model: The model with adapters.
        keep: Whether this worker wants them; the others get an empty dict.
    """
    import deepspeed
    from peft.tuners.lora import LoraLayer

    found: dict[str, Adapter] = {}
    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        parts: Any = layer
        down, up = parts.lora_A[_ADAPTER].weight, parts.lora_B[_ADAPTER].weight
        with deepspeed.zero.GatheredParameters([down, up]):
            if keep:
                found[path] = Adapter(
                    down.detach().to("cpu", copy=True).float(),
                    up.detach().to("cpu", copy=True).float(),
                    parts.scaling[_ADAPTER],
                    bool(getattr(layer, "fan_in_fan_out", False)),
                )
    return found


def merge(base: Any, adapters: dict[str, Adapter]) -> Any:
    """Add the adapters to the weights of ``base``, in place; it keeps its number format.

    Args:
        base: The model that the adapters were trained beside, without them.
        adapters: By the path of their layer.
    """
    import torch

    layers = dict(base.named_modules())
    with torch.no_grad():
        for path, adapter in adapters.items():
            weight = layers[path].weight
            weight.copy_(weight.float() + adapter.delta())
    return base
