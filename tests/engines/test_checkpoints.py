"""Quantised checkpoints and LoRA adapters, checked from their files; and a real adapter on the tiny teacher."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.engines.base import EngineSettings, Reply, Sampling, check_model
from fdd_ray.engines.checkpoints import adapter_rank, check_adapter, check_quantization
from fdd_ray.engines.fleet import Fleet
from fdd_ray.engines.vllm import engine_arguments
from fdd_ray.errors import ExperimentError
from fdd_ray.prompts import load_prompts
from fdd_ray.tiny import make_problems, model_path

PROMPTS = load_prompts("tiny")
CHATS = [PROMPTS.solve("program", problem.question) for problem in make_problems("pool", 6, seed=31)]


def _change(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A real adapter of rank 4 for the tiny teacher, and the teacher with it merged, both by PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(model_path("teacher"), dtype=torch.float32)
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    worn = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=layers))
    generator = torch.Generator().manual_seed(0)
    for name, tensor in worn.named_parameters():
        if "lora_B" in name:
            tensor.data = torch.randn(tensor.shape, generator=generator) * 0.7
    worn.save_pretrained(folder / "adapter")
    merged = folder / "merged"
    shutil.copytree(model_path("teacher"), merged)
    worn.merge_and_unload().save_pretrained(merged)
    return folder / "adapter", merged


@pytest.fixture
def adapter(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made[0], tmp_path / "adapter"))


def test_a_sound_adapter_is_let_through(adapter: Path) -> None:
    check_model(EngineSettings("tiny://teacher", adapter=str(adapter)))
    assert adapter_rank(adapter) == 8, "the smallest that vLLM has room for"
    _change(adapter, "adapter_config.json", rank_pattern={"q_proj": 20})
    assert adapter_rank(adapter) == 32
    check_adapter("s3://bucket/adapter")  # until an engine fetches it


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no such folder"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json in it"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "torn or not JSON"),
        (lambda folder: _change(folder, "adapter_config.json", peft_type="IA3"), "'IA3'; only LORA"),
        (lambda folder: _change(folder, "adapter_config.json", use_dora=True), "with use_dora; merge it"),
        (lambda folder: _change(folder, "adapter_config.json", modules_to_save=["lm_head"]), "with modules_to_save"),
        (lambda folder: _change(folder, "adapter_config.json", bias="all"), "with bias"),
        (lambda folder: _change(folder, "adapter_config.json", r=0), "no positive number"),
        (lambda folder: _change(folder, "adapter_config.json", r=1024), "rank 1024 is over the 512"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"), "cut off or no safetensors"),
    ],
)
def test_an_adapter_that_cannot_be_worn_is_refused_before_anything_starts(
    adapter: Path, spoil: Any, message: str
) -> None:
    spoil(adapter)
    with pytest.raises(ExperimentError, match=message):
        check_model(EngineSettings("tiny://teacher", adapter=str(adapter)))


def test_an_adapter_of_another_model_is_refused(adapter: Path) -> None:
    with pytest.raises(ExperimentError, match=r"reads 192 features, and the hidden state .* has \d+; it was made for"):
        check_model(EngineSettings("tiny://student", adapter=str(adapter)))


def test_adapters_are_for_vllm_only() -> None:
    with pytest.raises(ValueError, match="only vLLM serves adapters"):
        EngineSettings("m", engine="transformers", adapter="x")
    with pytest.raises(ValueError, match="quantization, adapter: an endpoint decides"):
        EngineSettings("m", endpoint="https://h/v1", quantization="fp8", adapter="x")


def test_vllm_is_told_of_the_adapter_and_its_rank(adapter: Path) -> None:
    settings = EngineSettings("tiny://teacher", adapter=str(adapter))
    arguments = engine_arguments(settings, "tiny://teacher", on_gpu=False)
    assert (arguments["enable_lora"], arguments["max_loras"], arguments["max_lora_rank"]) == (True, 1, 8)
    assert "enable_lora" not in engine_arguments(EngineSettings("m"), "tiny://teacher", on_gpu=False)


@pytest.mark.parametrize(
    ("checkpoint", "setting", "message"),
    [
        (None, "fp8", None),
        (None, "awk", "knows no such method; did you mean awq?"),
        ("awq", "awq", None),
        ("awq", "awq_marlin", None),
        ("gptq", "gptq_marlin", None),
        ("gptq", "moe_wna16", None),
        ("compressed-tensors", "compressed-tensors", None),
        ("awq", "gptq", "quantised by 'awq'"),
        ("gptq", "auto_awq", "quantised by 'gptq'"),
        ("compressed-tensors", "fp8", "leave quantization out"),
    ],
)
def test_quantization_must_be_known_and_the_checkpoints_own(
    tmp_path: Path, checkpoint: str | None, setting: str, message: str | None
) -> None:
    folder = Path(shutil.copytree(model_path("teacher"), tmp_path / "model"))
    if checkpoint is not None:
        _change(folder, "config.json", quantization_config={"quant_method": checkpoint})
    if message is None:
        check_quantization(setting, folder)
        arguments = engine_arguments(EngineSettings(str(folder), quantization=setting), str(folder), on_gpu=True)
        assert arguments["quantization"] == setting
        return
    with pytest.raises(ExperimentError, match=message):
        check_model(EngineSettings(str(folder), quantization=setting))


def test_without_the_setting_vllm_follows_the_checkpoint() -> None:
    assert "quantization" not in engine_arguments(EngineSettings("m"), "hub/model", on_gpu=True)


@contextmanager
def _fleet(name: str, **rest: Any) -> Iterator[Fleet]:
    settings = EngineSettings(**{"model": "tiny://teacher", "cpus_per_replica": 0.1, "kv_cache_mib": 64, **rest})
    fleet = Fleet("teacher", settings, f"{name}-{os.getpid()}")
    fleet.start()
    try:
        fleet.wait(lambda text: None)
        yield fleet
    finally:
        fleet.release()


def _texts(fleet: Fleet) -> list[str]:
    client = fleet.client()

    async def ask() -> list[Reply]:
        return list(await asyncio.gather(*(client.ask(chat, Sampling(max_tokens=40)) for chat in CHATS)))

    return [reply.samples[0].text for reply in asyncio.run(ask())]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_a_teacher_with_an_adapter_speaks_like_the_merged_model(made: tuple[Path, Path]) -> None:
    """In both forms of the engine, on a CPU; greedy, in float32, so that only rounding may tell them apart."""
    adapter, merged = made
    with _fleet("bare") as fleet:
        bare = _texts(fleet)
    with _fleet("merged", model=str(merged)) as fleet:
        expected = _texts(fleet)
    for in_process in (True, False):
        with _fleet(f"worn-{in_process}", adapter=str(adapter), in_process=in_process) as fleet:
            worn = _texts(fleet)
        assert sum(one != other for one, other in zip(worn, bare, strict=True)) >= 4
        assert sum(one == other for one, other in zip(worn, expected, strict=True)) >= 5
