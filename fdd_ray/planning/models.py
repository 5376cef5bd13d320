"""How large a model is, without loading it: from its files where they lie here, else from its name.

>>> size_of("Qwen/Qwen2.5-0.5B").parameters
500000000.0
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from fdd_ray.engines.base import resolve_model
from fdd_ray.engines.tensors import read_header
from fdd_ray.errors import ExperimentError

# Names that do not say it: the sizes that the models' publishers give.
_PUBLISHED: Final = {
    "flan-t5-small": 80e6,
    "flan-t5-base": 250e6,
    "flan-t5-large": 780e6,
    "flan-t5-xl": 3e9,
    "llama-3.2-1b": 1.24e9,
}
_COUNT: Final = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.I)
_ACTIVE: Final = re.compile(r"(?<![a-z0-9])a(\d+(?:\.\d+)?)b(?![a-z0-9])", re.I)


class Size(NamedTuple):
    """The size of a model.

    Attributes:
        parameters: All of them.
        active: Those that work on one token; fewer in a mixture of experts.
        source: Where the number comes from, in words.
        folder: Where the model lies on this machine, if it does.
    """

    parameters: float
    active: float
    source: str
    folder: Path | None = None


def size_of(model: str) -> Size | None:
    """The size of a model by its folder or its name; None if neither tells."""
    try:
        folder = Path(resolve_model(model))
    except ExperimentError:
        return None
    if folder.is_dir():
        found = _in_files(folder)
        if found is not None:
            return Size(*found, folder)
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    here = folder if folder.is_dir() else None
    for known, parameters in _PUBLISHED.items():
        if name == known or name.startswith(f"{known}-"):
            return Size(parameters, parameters, "as its publisher gives it", here)
    counts = [
        (float(n) * float(times or 1)) * (1e9 if unit in "bB" else 1e6) for times, n, unit in _COUNT.findall(name)
    ]
    if not counts:
        return None
    parameters = max(counts)
    active = _ACTIVE.search(name)
    return Size(parameters, float(active[1]) * 1e9 if active else parameters, "read from its name", here)


def _in_files(folder: Path) -> tuple[float, float, str] | None:
    try:
        headers = [read_header(path) for path in sorted(folder.glob("*.safetensors"))]
    except (ExperimentError, OSError):
        headers = []
    if headers:
        count = float(sum(math.prod(entry["shape"]) for header in headers for entry in header.values()))
        return count, count, "counted in its safetensors files"
    try:
        config = json.loads((folder / "config.json").read_text())
        count = _by_config(config)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return count, count, "computed from its config.json"


def _by_config(config: dict[str, Any]) -> float:
    """Parameters of a decoder with gated feed-forward layers, norms left out."""
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads = int(config["num_attention_heads"])
    grouped = int(config.get("num_key_value_heads") or heads)
    width = int(config.get("head_dim") or hidden // heads)
    attention = 2 * hidden * width * (heads + grouped)
    embeddings = int(config["vocab_size"]) * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return float(layers * (attention + 3 * hidden * int(config["intermediate_size"])) + embeddings)
