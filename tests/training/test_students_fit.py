"""Other students through Ray Train and DeepSpeed: T5 and adapters, killed and resumed, and what is exported."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fdd_ray.engines.base import EngineSettings, Reply, Sampling
from fdd_ray.engines.transformers import TransformersEngine
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Example, to_table
from fdd_ray.tiny import model_path
from fdd_ray.training import FinetuneSettings
from fdd_ray.training.settings import LoraSettings
from tests.training.conftest import tiny_examples
from tests.training.t5 import save_t5
from tests.training.tuning import KillsItsWorker, told, tune, weights

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

T5 = FinetuneSettings(
    epochs=60, learning_rate=1e-2, max_length=256, micro_batch_rows=4, batch_tokens=1024, checkpoint_steps=4,
    warmup_share=0.1, weight_decay=0.0,
)  # fmt: skip
LORA = FinetuneSettings(
    epochs=3, learning_rate=5e-3, max_length=256, micro_batch_rows=2, batch_tokens=1024, zero_stage=3, workers=(2, 2),
    checkpoint_steps=4, gradient_checkpointing=True, lora=LoraSettings(rank=4, alpha=8.0),
)  # fmt: skip


def took_step_again_alike(folder: Path) -> None:
    """After step 6 the worker was killed; steps 5 and 6 were taken again, with the same weights and examples."""
    calls = told(folder)
    assert [done for done, _, _ in calls[:7]] == [1, 2, 3, 4, 5, 6, 5]
    first, again = ({done: info["loss"] for done, _, info in part} for part in (calls[:6], calls[6:]))
    assert again[5] == pytest.approx(first[5], rel=1e-4) != pytest.approx(first[1], rel=0.02)


def test_a_t5_student_that_was_killed_learns_by_heart_what_the_engine_then_says(
    ray_session: Any, tmp_path: Path
) -> None:
    """Training and scoring agree: eight examples are overfitted, and greedy decoding gives them back."""
    examples = tiny_examples(8)
    pq.write_table(to_table(examples, Example), tmp_path / "examples.parquet")
    base = save_t5(tmp_path / "base")
    result = tune(T5, tmp_path, [str(tmp_path / "examples.parquet")], KillsItsWorker(tmp_path), base)
    assert (result.restarts, result.resumed_from) == (1, 4)
    took_step_again_alike(tmp_path)
    assert result.steps == 60 and result.examples == 8 and result.lossy == 0
    assert result.loss_first > 3.0 and result.loss_last < 0.05
    assert result.parameters == result.trained_parameters == sum(w.numel() for w in weights(base).values())

    names = {path.name for path in Path(result.output).iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names
    settings = json.loads(Path(result.output, "generation_config.json").read_text())
    assert settings["decoder_start_token_id"] == 0 and settings["eos_token_id"] == 1

    def died(error: BaseException) -> None:
        raise AssertionError from error

    role = EngineSettings(model=result.output, engine="transformers")
    engine = TransformersEngine(role, False, result.output, died)
    prompts = load_prompts("tiny")

    async def ask() -> list[Reply]:
        chats = [prompts.student("program", example.question) for example in examples]
        return list(await asyncio.gather(*(engine.generate(chat, Sampling(max_tokens=100)) for chat in chats)))

    replies = asyncio.run(ask())
    assert [reply.samples[0].text for reply in replies] == [example.rationale for example in examples]
    assert {reply.samples[0].finish for reply in replies} == {"stop"}
    # The engine's tokens are the very ones that were trained on.
    assert sum(reply.completion_tokens for reply in replies) * 60 == result.completion_tokens
    assert sum(reply.prompt_tokens for reply in replies) * 60 == result.tokens - result.completion_tokens


def test_adapters_with_sharded_parameters_resume_and_become_part_of_an_ordinary_student(
    ray_session: Any, tmp_path: Path, example_files: list[str]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = str(tmp_path / "base")  # in float32, so that what was added is not rounded
    AutoModelForCausalLM.from_pretrained(model_path("student"), dtype=torch.float32).save_pretrained(base)
    AutoTokenizer.from_pretrained(model_path("student")).save_pretrained(base)
    result = tune(LORA, tmp_path, example_files, KillsItsWorker(tmp_path), base)
    assert (result.restarts, result.resumed_from) == (1, 4)
    took_step_again_alike(tmp_path)
    assert result.loss_last < 0.8 * result.loss_first
    assert 0 < result.trained_parameters < result.parameters / 10
    old, new = weights(base), weights(result.output)
    assert new.keys() == old.keys()
    for name, weight in old.items():
        change = new[name] - weight
        if name.endswith("_proj.weight"):
            assert change.dtype == weight.dtype and 1 <= int(torch.linalg.matrix_rank(change, tol=1e-5)) <= 4, name
        else:
            assert not change.any(), name
    assert not (Path(result.output) / "adapter_config.json").exists()
