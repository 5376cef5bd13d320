from __future__ import annotations

from pathlib import Path

import pytest

from fdd_ray.engines.base import EngineSettings, resolve_model
from fdd_ray.engines.vllm import CPU_KV_CACHE_MIB, engine_arguments
from fdd_ray.errors import ExperimentError


def test_the_shipped_models_have_names() -> None:
    assert Path(resolve_model("tiny://teacher"), "config.json").is_file()
    assert Path(resolve_model("tiny://student"), "config.json").is_file()


@pytest.mark.parametrize(
    ("model", "message"), [("tiny://teechr", "tiny://teacher"), ("./nowhere", "no such folder"), ("/", "config.json")]
)
def test_wrong_models_are_refused_early(model: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        resolve_model(model)


def test_hub_ids_are_left_to_the_hub() -> None:
    assert resolve_model("HuggingFaceTB/SmolLM2-360M") == "HuggingFaceTB/SmolLM2-360M"


def test_gpus_follow_tensor_parallelism() -> None:
    assert EngineSettings(model="x", tensor_parallel=4, gpus_per_replica=4).gpus_per_replica == 4
    with pytest.raises(ValueError, match="one GPU for each of these ranks"):
        EngineSettings(model="x", tensor_parallel=4, gpus_per_replica=2)


def test_on_a_gpu_vllm_decides_what_was_not_said() -> None:
    arguments = engine_arguments(EngineSettings(model="hub/model", tensor_parallel=2), "hub/model", on_gpu=True)
    assert arguments["tensor_parallel_size"] == 2
    assert arguments["dtype"] == "auto"
    assert arguments["enforce_eager"] is False
    assert arguments["trust_remote_code"] is False
    assert arguments["gpu_memory_utilization"] == 0.9
    assert not {"kv_cache_memory_bytes", "max_model_len", "enable_chunked_prefill"} & arguments.keys()


def test_on_a_cpu_memory_and_precision_are_set() -> None:
    arguments = engine_arguments(EngineSettings(model="hub/model", tensor_parallel=2), "hub/model", on_gpu=False)
    assert arguments["tensor_parallel_size"] == 1
    assert arguments["dtype"] == "float32"
    assert arguments["enforce_eager"] is True
    assert arguments["kv_cache_memory_bytes"] == CPU_KV_CACHE_MIB << 20


def test_own_engine_arguments_win() -> None:
    settings = EngineSettings(model="hub/model", engine_args={"quantization": "fp8", "dtype": "half"})
    arguments = engine_arguments(settings, "hub/model", on_gpu=True)
    assert (arguments["quantization"], arguments["dtype"]) == ("fp8", "half")
