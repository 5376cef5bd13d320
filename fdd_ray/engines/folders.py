"""Whether a folder can be a model of ours, seen from its files alone, before Ray and an engine are started.

An engine finds out too, but minutes later, in another process, and in the words of a library. Read are
config.json, the tokenizer and the headers of the weights; nothing is imported and no weight is loaded.

    check_model_folder(Path("models/student"))
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fdd_ray.engines.tensors import embedding_rows, read_header
from fdd_ray.errors import ExperimentError

_MAX_CONFIG_BYTES: Final = 16 << 20
_MAX_TOKENIZER_BYTES: Final = 256 << 20
_GENERATES: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
_FURTHER: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Where the libraries list the architectures that they know, by package.
_REGISTRIES: Final = {
    "transformers": ("models/auto/auto_mappings.py", "models/auto/configuration_auto.py"),
    "vllm": ("transformers_utils/config.py",),
}


def check_model_folder(
    folder: Path,
    *,
    trust_remote_code: bool = False,
    engine_args: Mapping[str, Any] | None = None,
    engine: str = "vllm",
) -> None:
    """See that a folder holds a model in Hugging Face format, whole, without pickled code, and one for its engine.

    Args:
        folder: The folder.
        trust_remote_code: Whether Python code in the folder may run.
        engine_args: Further arguments of the engine; with a load format or tokenizer of its own, those are not
            checked.
        engine: ``vllm``, which serves decoder-only models, or ``transformers``, which serves both kinds.

    Raises:
        ExperimentError: With what is wrong and what to do.
    """
    arguments = engine_args or {}
    try:
        config = _read_config(folder)
        _check_architecture(folder / "config.json", config, trust_remote_code, engine)
        if arguments.get("load_format", "auto") in ("auto", "hf", "safetensors"):
            _check_weights(folder, config)
        if not arguments.get("tokenizer") and not arguments.get("skip_tokenizer_init"):
            _check_tokenizer(folder, config)
    except OSError as error:
        raise ExperimentError(
            f"cannot read {error.filename or folder}: {error.strerror or error}; check the path and your rights to it"
        ) from error


def read_object(path: Path, limit: int = _MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: The file.
        limit: The most bytes that it may have.

    Raises:
        ExperimentError: If it holds no JSON object.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ExperimentError(f"{path} has over {limit >> 20} MiB, which such a file never has; download it again")
    if data.startswith(b"version https://git-lfs"):
        raise ExperimentError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        why = "it is empty" if not data.strip() else str(error) or "nested too deeply"
        raise ExperimentError(f"{path} is torn or not JSON ({why}); copy or download it again") from error
    if not isinstance(value, dict):
        raise ExperimentError(f"{path} holds no JSON object; copy or download it again")
    return value


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    names = {entry.name for entry in folder.iterdir()}
    if path.name in names:
        return read_object(path)
    if "adapter_config.json" in names:
        raise ExperimentError(
            f"{folder} is a LoRA adapter without its base model; merge the two and name the folder with the result"
        )
    if any(name.endswith(".gguf") for name in names):
        raise ExperimentError(f"{folder} holds GGUF files and no config.json; give the model in Hugging Face format")
    inside = sorted(name for name in names if (folder / name / "config.json").is_file())
    hint = f"; did you mean {folder / inside[0]}?" if inside else "; give a Hugging Face model folder"
    raise ExperimentError(f"{folder} has no config.json{', it is empty' if not names else ''}{hint}")


def parameters_of(folder: Path) -> int | None:
    """Parameters of the model in a folder, as the headers of its weights count them; None if there are no headers.

    Weights that two layers share are counted once, for they are stored once. Quantised weights are counted as they
    are packed, so that there they are fewer than the model had.

    Raises:
        ExperimentError: If a file is no safetensors file.
        OSError: If one cannot be read.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    shards = [single] if single.is_file() else sorted(_read_index(index) if index.is_file() else [])
    if not shards:
        return None
    return sum(int(math.prod(entry["shape"])) for path in shards for entry in read_header(path).values())


def _check_architecture(path: Path, config: Mapping[str, Any], trust_remote_code: bool, engine: str) -> None:
    kind = config.get("model_type")
    own_code = config.get("auto_map")
    own_code = own_code if isinstance(own_code, Mapping) else {}
    if not isinstance(kind, str) or not kind:
        raise ExperimentError(f"{path} has no model_type (such as llama), so it is no model's; download it again")
    if not knows(kind):
        if own_code and not trust_remote_code:
            raise ExperimentError(
                f"{path}: {kind[:60]!r} needs Python code that came with the model (auto_map), which is not run unless"
                " you say so; if you have read and trust it, set trust_remote_code: true beside model"
            )
        if not own_code:
            near = difflib.get_close_matches(kind, _COMMON, 1)
            hint = f"did you mean {near[0]}?" if near else "check the spelling, or install newer versions of the two"
            raise ExperimentError(
                f"{path}: the installed transformers and vllm know no model_type {kind[:60]!r}; {hint}"
            )
    if config.get("is_encoder_decoder") and engine == "vllm":
        raise ExperimentError(
            f"{path}: {kind} is an encoder-decoder model, which vLLM does not serve; set student.engine: transformers,"
            " or choose a decoder-only model"
        )
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or {"AutoModelForCausalLM", "AutoModelForSeq2SeqLM"} & own_code.keys():
        return
    names = [name for name in architectures if isinstance(name, str)]
    if names and not any(name.endswith(_GENERATES) for name in names):
        raise ExperimentError(
            f"{path}: {names[0][:60]} writes no text (it encodes or classifies); choose a model whose architecture is"
            " ...ForCausalLM"
        )


_COMMON: Final = ("llama", "qwen2", "qwen3", "mistral", "mixtral", "gemma2", "gemma3", "gemma3_text", "phi3", "gpt2",
                  "gpt_neox", "smollm3", "olmo2", "deepseek_v3", "falcon", "bloom", "opt", "granite")  # fmt: skip


def knows(model_type: str) -> bool:
    """Whether an installed library lists ``model_type`` among its architectures."""
    text = _registries()
    return not text or bool(re.search(rf"""["']{re.escape(model_type)}["']|^ +{re.escape(model_type)}=""", text, re.M))


@functools.cache
def _registries() -> str:
    """The libraries' lists, read as text: importing the libraries takes seconds."""
    texts = []
    for package, names in _REGISTRIES.items():
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            for name in names:
                if (path := Path(place, name)).is_file():
                    texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts)


def _check_weights(folder: Path, config: Mapping[str, Any]) -> None:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.is_file() and not single.is_file():
        shards = _read_index(index)
    else:
        shards = {path: frozenset[str]() for path in sorted(folder.glob("*.safetensors"))}
    if not shards:
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        if pickles:
            raise ExperimentError(
                f"{folder} has its weights in {pickles[0]} only, a pickle, which can run code when it is read; if you"
                " trust it, convert it: load it with transformers and save_pretrained it, which writes safetensors"
            )
        raise ExperimentError(f"{folder} has no weights (*.safetensors); download the model with all of its files")
    rows: dict[str, int] = {}
    for path, expected in shards.items():
        header = read_header(path)
        if absent := sorted(expected - header.keys()):
            raise ExperimentError(
                f"{path} has no tensor {absent[0][:80]!r}, which {index.name} says it has; download both again"
            )
        rows |= embedding_rows(header)
    size = config.get("vocab_size")
    if isinstance(size, int) and len(rows) == 1 and size not in rows.values():
        name, found = rows.popitem()
        raise ExperimentError(
            f"{folder / 'config.json'} says vocab_size {size}, but the weights ({name}) have {found} rows;"
            " they belong to two models: take both files from one"
        )


def _read_index(index: Path) -> dict[Path, frozenset[str]]:
    """The shards that an index names, each with the tensors that should be in it."""
    where = read_object(index, _MAX_TOKENIZER_BYTES).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise ExperimentError(f"{index} has no weight_map from tensors to files; download it again")
    tensors: dict[str, set[str]] = {}
    for tensor, name in where.items():
        tensors.setdefault(name, set()).add(tensor)
    for name in tensors:
        if Path(name).name != name:
            raise ExperimentError(f"{index} names a file elsewhere, {name[:80]!r}; download it again from its source")
    absent = sorted(name for name in tensors if not (index.parent / name).is_file())
    if absent:
        raise ExperimentError(
            f"{index} names {len(tensors)} files, of which {len(absent)} are missing, first {absent[0][:80]};"
            " download the model again, with all of its files"
        )
    return {index.parent / name: frozenset(found) for name, found in sorted(tensors.items())}


def _check_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    path = folder / "tokenizer.json"
    named = any((folder / name).is_file() for name in TOKENIZERS)
    if not named and not any(folder.glob("*.tiktoken")) and not any(folder.glob("tokenization_*.py")):
        raise ExperimentError(
            f"{folder} has no tokenizer (tokenizer.json or tokenizer.model); copy it from the model that this one was"
            " made from"
        )
    for name in _FURTHER:
        if (folder / name).is_file():
            read_object(folder / name)
    if not path.is_file():
        return
    model = read_object(path, _MAX_TOKENIZER_BYTES).get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, (dict, list)) or not vocab:
        raise ExperimentError(f"{path} has no vocabulary (model.vocab); copy or download it again")
    ids = vocab.values() if isinstance(vocab, dict) else [len(vocab) - 1]
    size = config.get("vocab_size")
    if not all(isinstance(number, int) for number in ids):
        raise ExperimentError(f"{path}: the token ids in model.vocab are no numbers; copy or download it again")
    # Added tokens may lie beyond: some models carry a padding token there that they never see.
    if isinstance(size, int) and max(ids) >= size:
        raise ExperimentError(
            f"{path} has token ids up to {max(ids)}, but config.json says vocab_size {size}; they belong to two models:"
            " take the tokenizer that came with the weights"
        )
