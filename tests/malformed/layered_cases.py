"""Experiments that extend files, and settings of feedback bands, LoRA and adapters that are wrong."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from .harness import Case, Make, Place
from .yaml_cases import changed


def extending(given: Any, **files: str | bytes) -> Make:
    """A good experiment that extends what is given; other files are written beside it, ``a`` as a.yaml."""

    def make(place: Place) -> Sequence[str]:
        for name, content in files.items():
            place.write(f"{name}.yaml", content)
        return ["run", place.experiment(extends=given)]

    return make


def bands(*bands: Mapping[str, Any], **feedback: Any) -> Make:
    """A good experiment with these bands; bands need several attempts, which it has."""
    return changed(feedback={"bands": list(bands), **feedback}, score={"attempts": 4, "temperature": 0.7})


def adapter(config: Any, weights: bytes | None = None, name: str = "worn") -> Make:
    """A good experiment whose teacher wears an adapter with this config and these weights."""

    def make(place: Place) -> Sequence[str]:
        if config is not None:
            content = config if isinstance(config, str) else json.dumps(config)
            place.write("worn/adapter_config.json", content)
        if weights is not None:
            place.write("worn/adapter_model.safetensors", weights)
        teacher = {"model": "tiny://teacher", "adapter": f"./{name}"}
        return ["run", place.experiment(rounds=1, teacher=teacher)]

    return make


def _a_pipe(place: Place) -> Sequence[str]:
    os.mkfifo(place.folder / "pipe.yaml")
    return ["run", place.experiment(extends="pipe.yaml")]


def _of_another_folder(place: Place) -> Sequence[str]:
    """A chain over folders: the second link is relative to the first one's folder, where it is not."""
    place.write("base/a.yaml", "extends: b.yaml\n")
    place.write("b.yaml", "seed: 1\n")
    return ["run", place.experiment(extends="base/a.yaml")]


def _many(place: Place) -> Sequence[str]:
    """Files that extend each other twice: 2 ** 20 readings."""
    for number in range(20):
        place.write(f"f{number}.yaml", yaml.safe_dump({"extends": [f"f{number + 1}.yaml"] * 2}))
    place.write("f20.yaml", "seed: 1\n")
    return ["run", place.experiment(extends="f0.yaml")]


def _weights(width: int) -> bytes:
    shape = [8, width]
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 32 * width]}
    header = json.dumps({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(32 * width)


_HIGH = {"name": "high", "at_least": 0.5, "ask": "complex"}
_LOW = {"name": "low", "at_least": 0, "ask": "similar"}
_LORA = {"peft_type": "LORA", "r": 8}

CASES = [
    # Files that extend others.
    Case("a base that is missing", extending("none.yaml"), 2,
         "x.yaml:15: extends: cannot read", "the path is relative to the file"),
    Case("a base that is nothing", extending(None), 2,
         "extends names a YAML file or a list of them, not nothing", "such as extends: base/"),
    Case("a base that is a number", extending(3), 2,
         "extends names a YAML file or a list of them, not 3", "such as extends: base/"),
    Case("a base among nothing", extending(["a.yaml", None], a="seed: 1\n"), 2,
         "x.yaml:17: extends names a YAML file or a list of them, not nothing", "such as extends:"),
    Case("a base that is a mapping", extending({"file": "a.yaml"}), 2,
         "extends names a YAML file or a list of them, not a mapping", "such as extends:"),
    Case("a base that is a folder", extending("."), 2,
         "it is no file", "the path is relative to the file"),
    Case("a base that is a pipe", _a_pipe, 2,
         "pipe.yaml: it is no file", "the path is relative to the file"),
    Case("an experiment that extends itself", extending("x.yaml"), 2,
         "x.yaml:15: extends goes in a circle", "take one of them out"),
    Case("a circle of three", extending("a.yaml", a="extends: b.yaml\n", b="extends: x.yaml\n"), 2,
         "b.yaml:1: extends goes in a circle", "take one of them out"),
    Case("a base in another folder", _of_another_folder, 2,
         "base/a.yaml:1: extends: cannot read", "the path is relative to the file"),
    Case("bases that multiply", _many, 2,
         "extends leads to over 64 files", "write the settings out"),
    Case("a base that is a list", extending("a.yaml", a="- seed\n"), 2,
         "is to be extended, so it is a mapping of settings, not a list", "write key: value lines"),
    Case("a base that is no YAML", extending("a.yaml", a="seed: [\n"), 2,
         "a.yaml:2: this is not YAML", "correct the line"),
    Case("a base in Latin-1", extending("a.yaml", a=b"name: caf\xe9\n"), 2,
         "a.yaml is not UTF-8 text", "save it as UTF-8"),
    Case("a base with an unknown key", extending("a.yaml", a="sead: 1\n"), 2,
         "a.yaml:1: sead is not a setting", "did you mean seed?"),
    Case("a base with a wrong value", extending("a.yaml", a="\nseed: many\n"), 2,
         "a.yaml:2: seed is 'many'", "it must be a whole number"),
    Case("a base with a name of escapes", extending("a\x1b[2J.yaml"), 2,
         "not 'a\\x1b[2J.yaml'", "such as extends:"),
    Case("an override that extends", lambda place: ["run", place.experiment(), "--set", "extends=a.yaml"], 2,
         "--set extends=a.yaml: files extend files", "write it in the experiment's file"),
    # Bands of pass rates.
    Case("bands that begin too high", bands(_HIGH), 2,
         "feedback: bands begin at [0.5]", "the first must begin at 0"),
    Case("bands in the wrong order", bands(_HIGH, _LOW), 2,
         "feedback: bands begin at [0.5, 0.0]", "each other above the one before"),
    Case("two bands of one name", bands(_LOW, _HIGH | {"name": "low"}), 2,
         "bands are called ['low', 'low']", "each needs a name of its own"),
    Case("a band without a name", bands(_LOW, _HIGH | {"name": ""}), 2,
         "bands are called ['low', '']", "each needs a name of its own"),
    Case("a band that asks for poems", bands(_LOW, _HIGH | {"ask": "poems"}), 2,
         "feedback.bands[1].ask is 'poems'", "allowed: complex, similar, bridge, nothing"),
    Case("bands that ask for nothing", bands(_LOW | {"ask": "nothing"}), 2,
         "all bands ask for nothing", "nothing to distil in a round"),
    Case("bands with too large shares", bands(_LOW | {"share": 0.7}, _HIGH | {"share": 0.7}), 2,
         "the shares of the bands", "add up to more than 1"),
    Case("a band above all rates", bands(_LOW, _HIGH | {"at_least": 50}), 2,
         "feedback.bands[1].at_least is 50", "at least 0 and at most 1"),
    Case("a band without its edge", bands(_LOW, {"name": "high", "ask": "complex"}), 2,
         "feedback.bands[1].at_least is missing", "Lowest pass rate of the band"),
    Case("bands that are a number", changed(feedback={"bands": 3}), 2,
         "feedback.bands[0] is a group of settings, not 3", "give it as {name: ..."),
    Case("bands and a share of complex ones", bands(_LOW, complex_share=0.5), 2,
         "bands and complex_share are two ways", "give the bands a share"),
    Case("bands of a single attempt", changed(rounds=1, teacher={"model": "tiny://teacher"},
         feedback={"bands": [_LOW, _HIGH, _HIGH | {"name": "all", "at_least": 1}]}), 2,
         "3 bands, but one attempt is right or wrong", "raise score.attempts"),
    # LoRA.
    Case("a LoRA that is a number", changed(finetune={"lora": 8}), 2,
         "finetune.lora is a group of settings, not 8", "give it as {rank: ..."),
    Case("a LoRA that is true", changed(finetune={"lora": True}), 2,
         "finetune.lora is a group of settings, not True", "give it as {rank: ..."),
    Case("a LoRA of rank 0", changed(finetune={"lora": {"rank": 0}}), 2,
         "finetune.lora.rank is 0", "allowed: at least 1"),
    Case("a LoRA with r", changed(finetune={"lora": {"r": 8}}), 2,
         "finetune.lora.r is not a setting", "allowed here: alpha, dropout, rank"),
    Case("a LoRA with a dropout of 1", changed(finetune={"lora": {"dropout": 1}}), 2,
         "finetune.lora.dropout is 1.0", "at most 0.99"),
    Case("a LoRA with no target", changed(finetune={"lora": {"targets": [""]}}), 2,
         "targets has an empty name in it", "take it out, or leave targets empty"),
    # Adapters.
    Case("an adapter that is missing", adapter(None), 2,
         "adapter './worn': there is no such folder", "give the folder that PEFT"),
    Case("an adapter of nothing", adapter("{}"), 2,
         "adapter_config.json: peft_type is 'None'", "give one, or leave adapter out"),
    Case("an adapter that is torn", adapter('{"peft_type": "LO'), 2,
         "adapter_config.json is torn or not JSON", "copy or download it again"),
    Case("an adapter that is a prompt", adapter(_LORA | {"peft_type": "PROMPT_TUNING"}), 2,
         "peft_type is 'PROMPT_TUNING'", "give one, or leave adapter out"),
    Case("an adapter without a rank", adapter({"peft_type": "LORA"}), 2,
         "r, the rank, is no positive number", "save it again"),
    Case("an adapter of a huge rank", adapter(_LORA | {"r": 4096}), 2,
         "rank 4096 is over the 512 that vLLM serves", "merge it into the model"),
    Case("an adapter with DoRA", adapter(_LORA | {"use_dora": True}), 2,
         "vLLM does not serve adapters with use_dora", "merge it into the model"),
    Case("an adapter without weights", adapter(_LORA), 2,
         "has no adapter_model.safetensors", "save it again with a current PEFT"),
    Case("an adapter with torn weights", adapter(_LORA, _weights(64)[:100]), 2,
         "adapter_model.safetensors is cut off", "copy or download it again"),
    Case("an adapter of another model", adapter(_LORA, _weights(4096)), 2,
         "reads 4096 features", "it was made for another model"),
    Case("an adapter of the student", changed(student={"model": "tiny://student", "adapter": "./worn"}), 2,
         "student.adapter: its weights change each round", "merge the adapter into student.model"),
]  # fmt: skip
