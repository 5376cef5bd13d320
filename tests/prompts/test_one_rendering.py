"""One function renders prompts: training, the engines and the exported tokenizer see the same token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fdd_ray.engines.base import EngineSettings
from fdd_ray.prompts import load_prompts, prepare_tokenizer
from fdd_ray.records import Example, problem_id
from fdd_ray.tiny import model_path
from fdd_ray.training.examples import render
from fdd_ray.training.export import export
from fdd_ray.training.model import load_student
from tests.training.t5 import byte_tokenizer, save_t5, sentence_piece_tokenizer

QUESTIONS = [
    "Tom has 5 apples. How many apples does Tom have?",
    "  Zoë paid 3,50 € for “crêpes” — how much is ½ of that?  ",
    "\n太郎さんはりんごを5個持っています。🍎\n\n",
    " ",
    "a\tb  c\r\nd {question} <b> {{ 7 * 7 }} \\n",
]


def base_without_template(folder: Path) -> str:
    """The tiny student as a base model that was never tuned to chat."""
    from transformers import AutoModelForCausalLM

    tokenizer = byte_tokenizer()
    AutoModelForCausalLM.from_pretrained(model_path("student")).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["chat", "base", "t5", "t5_words"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> str:
    if kind == "chat":
        return str(model_path("student"))
    if kind == "base":
        return base_without_template(tmp_path / "base")
    return save_t5(tmp_path / "base", sentence_piece_tokenizer() if kind == "t5_words" else None)


def trained_on(tokenizer: Any, question: str) -> list[int]:
    example = Example(problem_id(question), question, "so 5", "chain", "seed", 0)
    ids, prompt = render([example], tokenizer, "tiny", max_length=512, drop_too_long=False).example(0)
    return ids[:prompt].tolist()


def asked_by_engine(folder: str, kind: str, question: str) -> list[int]:
    """What the engine that serves such a student sends to the model."""
    from transformers import AutoTokenizer

    messages = load_prompts("tiny").student("chain", question)
    if kind in ("chat", "base"):
        from fdd_ray.engines.vllm import _Manner

        manner = _Manner(EngineSettings(model=folder), AutoTokenizer.from_pretrained(folder), 512)
        return manner.read(messages).tokens
    return _seen_by_transformers(folder, messages)


def _seen_by_transformers(folder: str, messages: Any) -> list[int]:
    import asyncio

    from fdd_ray.engines.base import Sampling
    from fdd_ray.engines.transformers import TransformersEngine

    seen: list[Any] = []
    engine = TransformersEngine(EngineSettings(model=folder, engine="transformers"), False, folder, seen.append)
    module = engine._loaded.model.model.get_encoder()
    module.register_forward_pre_hook(lambda _m, _a, given: seen.append(given["input_ids"]), with_kwargs=True)
    asyncio.run(engine.generate(messages, Sampling(max_tokens=1)))
    return [int(token) for token in seen[0][0]]


def test_training_engines_and_the_exported_tokenizer_render_the_same_ids(
    kind: str, folder: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    model, tokenizer = load_student(folder, dtype=torch.float32, packing=kind in ("chat", "base"))
    export(model, tokenizer, model.state_dict(), str(tmp_path / "student"))
    exported = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert exported.chat_template
    for question in QUESTIONS:
        trained = trained_on(tokenizer, question)
        messages = load_prompts("tiny").student("chain", question)
        theirs = exported.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert theirs == trained
        for where in (folder, str(tmp_path / "student")):  # scored before training, and after
            assert asked_by_engine(where, kind, question) == trained
        if kind != "t5_words":  # nothing of the question is lost
            text = tokenizer.decode(trained, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            assert question in text


def test_an_encoder_gets_what_its_tokenizer_makes_of_the_bare_text() -> None:
    from tokenizers import processors

    codet5p = byte_tokenizer()
    codet5p.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A <|end|>", special_tokens=[("<|end|>", 1), ("<|user|>", codet5p.encode("<|user|>")[0])]
    )
    frames = []
    for tokenizer in (byte_tokenizer(), sentence_piece_tokenizer(), codet5p):
        prepare_tokenizer(tokenizer, encoder_decoder=True)
        for question in QUESTIONS:
            messages = load_prompts("tiny").student("chain", question)
            ids = tokenizer(messages[0]["content"])["input_ids"]
            assert trained_on(tokenizer, question) == ids
        frames.append((ids[0] in tokenizer.all_special_ids, ids[-1] == tokenizer.eos_token_id))
    assert frames == [(False, True), (False, True), (True, True)]
