"""Whether the models of both roles are there: whole folders, or names that will be downloaded.

    look_at_model("student", settings)

A folder is looked at as before a run, and a little further: what vLLM would refuse minutes later. A hub id is looked
for in the local cache; nothing is asked of the network. Whether its tokenizer can write what it is to write is seen
by `fdd_ray.doctor.words`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fdd_ray.doctor import host
from fdd_ray.doctor.findings import Finding, note, of_error, ok, problem
from fdd_ray.doctor.memory import Weights
from fdd_ray.doctor.sizes import gib
from fdd_ray.engines.base import EngineSettings, check_model, resolve_model
from fdd_ray.engines.folders import TOKENIZERS, check_model_folder, read_object
from fdd_ray.errors import EngineError, ExperimentError, StoreError
from fdd_ray.planning.models import size_of
from fdd_ray.store import files

_BYTES_PER_PARAMETER: Final = 2  # as models are published


def look_at_model(role: str, settings: EngineSettings) -> Iterator[Finding]:
    """Findings about the model of a role, without an endpoint.

    Args:
        role: ``teacher`` or ``student``.
        settings: Its settings.
    """
    if settings.engine == "simulated":
        yield note(
            f"{role}: simulated, so no model runs and its texts mean nothing", "good for trials of the machinery"
        )
        return
    try:
        check_model(settings)
        place = resolve_model(settings.model)
    except ExperimentError as error:
        yield of_error(error, f"{role}: ")
        return
    if "://" in place:
        yield from _elsewhere(role, place)
    elif os.path.isdir(place):
        yield from _folder(role, settings, Path(place))
    else:
        yield from _hub(role, settings, place)


def folder_of(settings: EngineSettings) -> Path | None:
    """Where a role's model lies on this machine, the hub's cache included; None if it does not."""
    if settings.endpoint is not None or settings.engine == "simulated":
        return None
    try:
        place = resolve_model(settings.model)
    except ExperimentError:
        return None
    if os.path.isdir(place):
        return Path(place)
    return None if "://" in place else cached(place, settings.revision)


def weights_of(settings: EngineSettings) -> Weights | None:
    """How large a role's model is; None if nobody knows."""
    folder = folder_of(settings)
    size = size_of(str(folder)) if folder is not None else None
    size = size or size_of(settings.model)
    if size is None or settings.engine == "simulated":
        return None
    on_disk = sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder is not None else 0
    return Weights(size.parameters, on_disk, size.source)


def cached(name: str, revision: str | None) -> Path | None:
    """The folder of the hub's cache with a model; None if it has none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def has_template(folder: Path) -> bool:
    """Whether a model brings a chat template of its own."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(read_object(path).get("chat_template"))


def _folder(role: str, settings: EngineSettings, folder: Path) -> Iterator[Finding]:
    config = read_object(folder / "config.json")
    yield from look_at_config(role, settings, config)
    weights = weights_of(settings)
    size = f", {weights.parameters / 1e6:,.1f} M parameters in {gib(weights.disk_bytes)}" if weights else ""
    yield ok(f"{role}: {settings.model} is whole (config, tokenizer, headers of all weights){size}")
    yield from _template(role, folder, bool(config.get("is_encoder_decoder")))


def _template(role: str, folder: Path, encoder_decoder: bool) -> Iterator[Finding]:
    if role == "teacher" and not encoder_decoder and not has_template(folder):
        yield note(
            f"teacher: {folder} has no chat template, so it is asked in a plain form (Question, Answer)",
            "good for a base model; an instruction-tuned one has a template (chat_template.jinja): copy it beside",
        )


def look_at_config(role: str, settings: EngineSettings, config: dict[str, Any]) -> Iterator[Finding]:
    """What an engine would refuse of a model's configuration, minutes after its start."""
    heads, across = config.get("num_attention_heads"), settings.tensor_parallel
    if isinstance(heads, int) and heads % across:
        yield problem(
            f"{role}: {heads} attention heads cannot be shared by {role}.tensor_parallel = {across} GPUs",
            "set it to a number that divides them, and pipeline_parallel for the rest",
            ExperimentError,
        )
    layers, stages = config.get("num_hidden_layers"), settings.pipeline_parallel
    if isinstance(layers, int) and layers < stages:
        yield problem(
            f"{role}: {layers} layers cannot be cut into {role}.pipeline_parallel = {stages} groups",
            "lower it",
            ExperimentError,
        )
    positions, longest = config.get("max_position_embeddings"), settings.max_model_len
    if isinstance(positions, int) and longest is not None and longest > positions and not config.get("rope_scaling"):
        yield problem(
            f"{role}: {role}.max_model_len = {longest:,} is over the {positions:,} positions that the model knows",
            f"set it to at most {positions}",
            ExperimentError,
        )


def _elsewhere(role: str, place: str) -> Iterator[Finding]:
    """A model in an object store: engines fetch it when they start."""
    config = files.read_json(files.join(place, "config.json"))
    if config is None:
        yield problem(
            f"{role}: {place} has no config.json",
            "give the folder of a model in Hugging Face format",
            ExperimentError,
        )
        return
    sizes = files.sizes(place)
    if not any(name.endswith(".safetensors") for name in sizes):
        yield problem(
            f"{role}: {place} has no weights (*.safetensors)", "upload the model with all of its files", ExperimentError
        )
        return
    yield ok(f"{role}: {place} has {len(sizes)} files, {gib(sum(sizes.values()))}; nodes fetch it when engines start")


def _hub(role: str, settings: EngineSettings, name: str) -> Iterator[Finding]:
    folder = cached(name, settings.revision)
    if folder is None:
        yield from _download(role, name, "")
        return
    try:
        check_model_folder(
            folder,
            trust_remote_code=settings.trust_remote_code,
            engine_args=settings.engine_args,
            engine=settings.engine,
        )
    except ExperimentError as error:
        # Files that are missing will be fetched; those that are there and broken will not be fetched again.
        absent = _absent(folder)
        if absent and not str(error).startswith(str(folder / "config.json")):
            yield from _download(role, name, f"{absent} missing")
            return
        yield of_error(error, f"{role}: ")
        return
    yield from _folder(role, settings, folder)


def _absent(folder: Path) -> str:
    """What of a model is not in the cache; empty if all is there."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = read_object(index).get("weight_map")
        shards = set(named.values()) if isinstance(named, dict) else set()
        lacking = sum(not (folder / str(shard)).is_file() for shard in shards)
        if lacking:
            return f"{lacking} of {len(shards)} files of weights are"
    elif not any(folder.glob("*.safetensors")):
        return "its weights are"
    return "" if any((folder / name).is_file() for name in TOKENIZERS) else "its tokenizer is"


def _download(role: str, name: str, why: str) -> Iterator[Finding]:
    """A model that is not here yet."""
    from huggingface_hub import constants

    size = size_of(name)
    amount = size.parameters * _BYTES_PER_PARAMETER if size is not None else 0.0
    about = f", about {gib(amount)} by its name," if amount else ""
    state = f"is not whole in the cache of this machine ({why})" if why else "is not in the cache of this machine"
    if constants.HF_HUB_OFFLINE:
        yield problem(
            f"{role}: {name} {state}, and HF_HUB_OFFLINE forbids to download it",
            f"fetch it where there is a network (hf download {name}), or unset HF_HUB_OFFLINE",
            EngineError,
        )
        return
    disk = host.disk_of(constants.HF_HUB_CACHE)
    if amount > disk.free:
        yield problem(
            f"{role}: {name}{about} would be downloaded to {constants.HF_HUB_CACHE}, which has {gib(disk.free)} free",
            "make room there, or set HF_HOME to a folder on another disk",
            StoreError,
        )
        return
    yield note(
        f"{role}: {name} {state}: it is downloaded{about} when engines start, on each node that runs one (whether the"
        " hub has it was not asked)",
        f"to be sure beforehand: hf download {name} on each node; a gated model needs HF_TOKEN where Ray's nodes start",
    )
