"""Lower bounds of what models take, against what there is."""

from __future__ import annotations

import dataclasses

import pytest

from fdd_ray.doctor.memory import (
    Weights,
    cpu_engines,
    engine_bytes,
    look_at_engine,
    look_at_memory,
    look_at_training,
    training_bytes,
)
from fdd_ray.engines.base import EngineSettings
from fdd_ray.training.settings import FinetuneSettings, LoraSettings

GIB = 1 << 30
SEVEN = Weights(7e9, 0, "read from its name")
ENGINE = EngineSettings(model="x/y-7B", gpus_per_replica=1)


def level(settings: EngineSettings, *gib: int) -> str:
    (finding,) = look_at_engine("teacher", settings, SEVEN, [size * GIB for size in gib])
    assert finding.exit_code == (5 if finding.level == "problem" else 0)
    return finding.level


def test_weights_of_an_engine() -> None:
    assert engine_bytes(ENGINE, SEVEN, on_gpu=True) == 14e9 and engine_bytes(ENGINE, SEVEN, on_gpu=False) == 28e9
    quantised = SEVEN._replace(disk_bytes=4 * GIB)
    assert engine_bytes(ENGINE, quantised, on_gpu=True) == 4 * GIB
    assert engine_bytes(dataclasses.replace(ENGINE, dtype="float32"), quantised, on_gpu=True) == 28e9


def test_an_engine_on_gpus() -> None:
    assert [level(ENGINE, size) for size in (80, 24, 16, 12)] == ["ok", "ok", "note", "problem"]
    assert level(dataclasses.replace(ENGINE, tensor_parallel=2, gpus_per_replica=2), 12) == "ok"
    assert level(ENGINE, 80, 12) == "note"  # some of them are too small
    assert level(dataclasses.replace(ENGINE, gpu_memory_share=0.5), 24) == "problem"


@pytest.mark.parametrize(
    ("changes", "bytes_each"),
    [
        ({"zero_stage": 0}, 16.0),
        ({"zero_stage": 1}, 2 + 2 + 12 / 4),
        ({"zero_stage": 2}, 2 + (2 + 12) / 4),
        ({"zero_stage": 3}, 16 / 4),
        ({"zero_stage": 1, "dtype": "float32"}, 4 + 4 + 8 / 4),
        ({"zero_stage": 1, "lora": LoraSettings()}, 2.0),
    ],
)
def test_bytes_of_a_parameter_in_training(changes: dict[str, object], bytes_each: float) -> None:
    settings = dataclasses.replace(FinetuneSettings(workers=(4, 4)), **changes)  # type: ignore[arg-type]
    assert training_bytes(settings, 1e9, on_gpu=True) == pytest.approx(bytes_each * 1e9)


def test_a_fine_tuning_on_gpus() -> None:
    billion = Weights(1e9, 0, "")
    levels = [next(iter(look_at_training(FinetuneSettings(), billion, [gib * GIB]))).level for gib in (40, 17, 12)]
    assert levels == ["ok", "note", "problem"]
    (finding,) = look_at_training(FinetuneSettings(), billion, [12 * GIB])
    assert finding.exit_code == 6 and "finetune.lora" in finding.next


def test_memory_of_a_machine() -> None:
    parts = [cpu_engines("teacher", EngineSettings(model="x", replicas=(2, 4), kv_cache_mib=1024), Weights(1e9, 0, ""))]
    assert parts == [("2 x teacher", 2 * (4e9 + GIB))]
    levels = [next(iter(look_at_memory(parts, gib * GIB))).level for gib in (32, 11, 8)]
    assert levels == ["ok", "note", "problem"]
    assert list(look_at_memory([], 0)) == []
