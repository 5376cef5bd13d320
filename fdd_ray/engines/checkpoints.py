"""What goes with a model beside its own files, seen before an engine starts: quantisation, and a LoRA adapter.

check_quantization("awq", Path("models/teacher"))
check_adapter("adapters/maths", Path("models/teacher"))
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from pathlib import Path
from typing import Any, Final

from fdd_ray.engines.folders import read_object
from fdd_ray.engines.tensors import read_header
from fdd_ray.errors import ExperimentError

_METHODS: Final = "model_executor/layers/quantization/__init__.py"  # in vLLM, where it lists what it knows
# Formats of checkpoints that no other method reads.
_FORMATS: Final = frozenset({"awq", "gptq", "fp8", "compressed-tensors", "quark", "modelopt", "mxfp4", "torchao"})
_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
_WEIGHTS: Final = "adapter_model.safetensors"
# What changes an adapter's meaning, and vLLM does not do; with the values under which it does not.
_PLAIN: Final[dict[str, tuple[Any, ...]]] = {
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (None, False),
}
# Layers that read the hidden state itself, so that their width tells the base.
_READS_HIDDEN: Final = re.compile(r"\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.lora_A\.weight$")


def check_quantization(name: str, folder: Path) -> None:
    """See that vLLM knows a way of quantising, and that the checkpoint is not quantised in another.

    Args:
        name: What the settings say.
        folder: The model's folder; its config is read if there is one.

    Raises:
        ExperimentError: With what is wrong and what to do.
    """
    known = _known_methods()
    if known and name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(known)}"
        raise ExperimentError(f"quantization {name!r}: the installed vLLM knows no such method; {hint}")
    config = folder / "config.json"
    if not config.is_file():
        return
    said = read_object(config).get("quantization_config")
    method = said.get("quant_method") if isinstance(said, dict) else None
    if isinstance(method, str) and {_family(method), _family(name)} <= _FORMATS and _family(method) != _family(name):
        raise ExperimentError(
            f"quantization {name!r}: {config} says that the weights are quantised by {method[:40]!r}, which this"
            " method does not read; leave quantization out, and the checkpoint decides"
        )


def check_adapter(adapter: str, folder: Path | None = None) -> None:
    """See that a folder holds a LoRA adapter that vLLM can put on, and that it is made for the model.

    Args:
        adapter: Path of the adapter's folder; URLs are left until an engine fetches them.
        folder: The model's folder, if it lies on this machine.

    Raises:
        ExperimentError: With what is wrong and what to do.
    """
    if "://" in adapter:
        return
    path = Path(os.path.expanduser(adapter))
    config_path = path / "adapter_config.json"
    if not config_path.is_file():
        raise ExperimentError(
            f"adapter {adapter!r}: {'no adapter_config.json in it' if path.is_dir() else 'there is no such folder'};"
            " give the folder that PEFT's save_pretrained wrote"
        )
    try:
        config = read_object(config_path)
        if config.get("peft_type") != "LORA":
            raise ExperimentError(
                f"{config_path}: peft_type is {str(config.get('peft_type'))[:40]!r}; only LORA adapters are served:"
                " give one, or leave adapter out"
            )
        adapter_rank(path)
        odd = [name for name, plain in _PLAIN.items() if config.get(name) not in plain]
        if odd:
            raise ExperimentError(
                f"{config_path}: vLLM does not serve adapters with {', '.join(odd)}; merge it into the model"
                " (PEFT's merge_and_unload) and give the merged folder as model"
            )
        if not (path / _WEIGHTS).is_file():
            raise ExperimentError(
                f"{path} has no {_WEIGHTS} (pickled weights are not read); save it again with a current PEFT"
            )
        header = read_header(path / _WEIGHTS)
        if folder is not None and (folder / "config.json").is_file():
            _check_base(config, header, path, folder)
    except OSError as error:
        raise ExperimentError(
            f"adapter {adapter!r}: cannot read {error.filename or path}: {error.strerror or error};"
            " check the path and your rights to it"
        ) from error


def adapter_rank(path: Path) -> int:
    """The smallest rank that vLLM has room for and the adapter fits into.

    Raises:
        ExperimentError: If it has no rank, or one that is too large.
    """
    config = read_object(path / "adapter_config.json")
    patterns = config.get("rank_pattern")
    ranks = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else ())]
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank > 0 for rank in ranks):
        raise ExperimentError(f"{path / 'adapter_config.json'}: r, the rank, is no positive number; save it again")
    most = max(rank for rank in ranks if isinstance(rank, int))
    if most > _RANKS[-1]:
        raise ExperimentError(
            f"{path / 'adapter_config.json'}: rank {most} is over the {_RANKS[-1]} that vLLM serves; merge it into"
            " the model (PEFT's merge_and_unload)"
        )
    return next(rank for rank in _RANKS if rank >= most)


def _check_base(config: dict[str, Any], header: dict[str, dict[str, Any]], path: Path, folder: Path) -> None:
    """See that the adapter's layers are as wide as the model's; names of models are not compared, they vary."""
    hidden = read_object(folder / "config.json").get("hidden_size")
    for name, entry in header.items():
        if isinstance(hidden, int) and _READS_HIDDEN.search(name) and entry["shape"][-1:] != [hidden]:
            base = str(config.get("base_model_name_or_path"))[:120]
            raise ExperimentError(
                f"adapter {path}: {name[:120]} reads {entry['shape'][-1]} features, and the hidden state of {folder}"
                f" has {hidden}; it was made for another model ({base})"
            )


def _family(method: str) -> str:
    plain = (
        method.lower()
        .removeprefix("auto_")
        .removeprefix("gpt_oss_")
        .replace("compressed_tensors", "compressed-tensors")
    )
    return plain.split("_")[0]


def _known_methods() -> list[str]:
    """The methods that the installed vLLM lists, read as text: importing it takes seconds."""
    spec = importlib.util.find_spec("vllm")
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place, _METHODS)
        if path.is_file():
            listed = re.search(r"QuantizationMethods = Literal\[(.*?)\]", path.read_text(encoding="utf-8"), re.S)
            if listed:
                return re.findall(r'^\s*"([\w-]+)"', listed[1], re.M)
    return []
