"""Sizes of models: from files, from names, and what is said of where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fdd_ray.planning.models import size_of


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-0.5B", 0.5e9),
        ("Qwen/Qwen2.5-Math-7B-Instruct", 7e9),
        ("Qwen/Qwen2.5-72B-Instruct", 72e9),
        ("HuggingFaceTB/SmolLM2-360M", 360e6),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6),
        ("meta-llama/Llama-3.2-1B", 1.24e9),
        ("meta-llama/Llama-3.2-1B-Instruct", 1.24e9),
        ("Salesforce/codet5p-770m", 770e6),
        ("google/flan-t5-small", 80e6),
        ("google/flan-t5-large", 780e6),
        ("mistralai/Mixtral-8x7B-v0.1", 56e9),
        ("runs/my_student_0.5b", 0.5e9),
    ],
)
def test_names_tell(name: str, parameters: float) -> None:
    size = size_of(name)
    assert size is not None and size.parameters == pytest.approx(parameters)


def test_of_a_mixture_only_the_active_ones_work() -> None:
    size = size_of("Qwen/Qwen3-30B-A3B")
    assert size is not None and (size.parameters, size.active) == (30e9, 3e9)


@pytest.mark.parametrize("name", ["openai/gpt-oss", "some/model-v2", "a/b3c", "org/4bit-thing"])
def test_a_name_that_tells_nothing_gives_nothing(name: str) -> None:
    assert size_of(name) is None


def test_files_are_counted() -> None:
    size = size_of("tiny://student")
    assert size is not None
    assert size.parameters == 926_848  # what fine-tuning reports of the same folder
    assert "safetensors" in size.source and size.folder is not None


def test_a_config_is_enough(tmp_path: Path) -> None:
    # Qwen2.5-0.5B's shape; its publisher counts 0.49B.
    config = {
        "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = size_of(str(tmp_path))
    assert size is not None and size.parameters == pytest.approx(0.494e9, rel=0.01)


def test_a_broken_folder_is_known_by_its_name_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "student-2B"
    folder.mkdir()
    (folder / "config.json").write_text("[" * 5000)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    size = size_of(str(folder))
    assert size is not None and size.parameters == 2e9
    other = folder.rename(tmp_path / "student")
    assert size_of(str(other)) is None
