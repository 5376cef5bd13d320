"""What a worker makes of its job before the first step."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from fdd_ray.errors import TrainingError
from fdd_ray.records import Example, to_table
from fdd_ray.tiny import model_path
from fdd_ray.training.job import Job, dtype_of, load_base, prepare
from fdd_ray.training.settings import FinetuneSettings, LoraSettings
from tests.training.conftest import tiny_examples
from tests.training.t5 import save_t5


def job(tmp_path: Path, base: str, **settings: object) -> Job:
    file = str(tmp_path / "examples.parquet")
    pq.write_table(to_table(tiny_examples(4), Example), file)
    finetune = FinetuneSettings(**({"max_length": 256} | settings))  # type: ignore[arg-type]
    return Job(finetune, base, (file,), "tiny", str(tmp_path / "out"), str(tmp_path / "m"), 3, False, False, None)


def test_the_settings_reach_the_model(tmp_path: Path) -> None:
    plain = job(tmp_path, str(model_path("student")))
    student, tokens = prepare(plain, dtype_of(plain))
    assert student.decoder_start is None and len(tokens) == 4
    assert not student.model.is_gradient_checkpointing
    assert all(parameter.requires_grad for parameter in student.model.parameters())
    wanted = job(tmp_path, save_t5(tmp_path / "t5"), gradient_checkpointing=True, lora=LoraSettings(rank=2))
    student, _ = prepare(wanted, dtype_of(wanted))
    assert student.decoder_start == 0 and student.model.is_gradient_checkpointing
    trained = {name for name, parameter in student.model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert student.parameters == sum(parameter.numel() for parameter in load_base(wanted).parameters())


def test_the_base_is_loaded_again_in_its_own_format(tmp_path: Path) -> None:
    plain = job(tmp_path, str(model_path("student")))
    assert prepare(plain, dtype_of(plain))[0].model.dtype == torch.float32
    assert load_base(plain).dtype == torch.bfloat16


def test_positions_count_for_both_sides_of_an_encoder_decoder_model(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

    def bart(positions: int) -> str:
        folder = tmp_path / f"bart{positions}"
        config = BartConfig(
            vocab_size=960, max_position_embeddings=positions, d_model=16, encoder_layers=1, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
            pad_token_id=0, bos_token_id=1, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1,
        )  # fmt: skip
        BartForConditionalGeneration(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(model_path("student")).save_pretrained(folder)
        return str(folder)

    _, tokens = prepare(job(tmp_path, bart(256)), torch.float32)
    assert tokens.longest_side < tokens.lengths.max()
    prepare(job(tmp_path, bart(tokens.longest_side)), torch.float32)
    with pytest.raises(TrainingError, match=f"has {tokens.longest_side} tokens, but .* knows"):
        prepare(job(tmp_path, bart(tokens.longest_side - 1)), torch.float32)
