"""Tiny models in T5's format with random weights, made for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fdd_ray.tiny import make_problems, model_path

END, PAD = "<|end|>", "<|pad|>"


def byte_tokenizer() -> Any:
    """The tiny world's tokenizer as CodeT5+ has one: no chat template, and an end token after each text."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path("student"))
    tokenizer.chat_template = None
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.eos_token_id)]
    )
    return tokenizer


def sentence_piece_tokenizer() -> Any:
    """A small tokenizer of T5's own kind, which knows words and no white space."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import T5Tokenizer

    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    texts = [f"{problem.question} {problem.program}" for problem in make_problems("pool", 100, 1)]
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    learner.train_from_iterator(texts, trainer)
    vocabulary = [tuple(entry) for entry in json.loads(learner.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=vocabulary, extra_ids=5)


def save_t5(folder: Path, tokenizer: Any | None = None, seed: int = 0, **changes: Any) -> str:
    """Save a T5 of about 0.3 million parameters; returns its folder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = tokenizer or byte_tokenizer()
    values: dict[str, Any] = {
        "vocab_size": 960,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 192,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(T5Config(**(values | changes)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
