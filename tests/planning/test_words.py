"""Token counts: the shipped defaults against GSM8K and real tokenizers, and what is counted by which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fdd_ray.planning.models import size_of
from fdd_ray.planning.words import COMPLETION, GSM8K_WORDS, TOKENS_PER_WORD, count_texts
from fdd_ray.problems import SourceSettings, annotation_program, read_problems
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Problem

QUESTIONS = ["Tom has 5 apples. Tom buys 3 more apples. How many apples does Tom have now?"]


def test_the_models_own_tokenizer_counts_where_it_is_here() -> None:
    from tokenizers import Tokenizer

    size = size_of("tiny://teacher")
    assert size is not None and size.folder is not None
    texts = count_texts(load_prompts("tiny"), QUESTIONS, size)
    tokenizer = Tokenizer.from_file(str(size.folder / "tokenizer.json"))
    assert texts.question.known and texts.question.likely == len(tokenizer.encode(QUESTIONS[0]).ids)
    assert "own tokenizer" in texts.how


def test_words_count_where_it_is_not() -> None:
    texts = count_texts(load_prompts("default"), QUESTIONS, size_of("Qwen/Qwen2.5-7B-Instruct"))
    assert texts.question == TOKENS_PER_WORD * len(QUESTIONS[0].split())
    assert "words" in texts.how
    assert count_texts(load_prompts("default"), [], None).question == TOKENS_PER_WORD * GSM8K_WORDS


def test_a_broken_tokenizer_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    size = size_of("Qwen/Qwen2.5-7B")
    assert size is not None
    assert "words" in count_texts(load_prompts("default"), QUESTIONS, size._replace(folder=tmp_path)).how


@pytest.fixture
def tokenizers() -> list[Any]:
    mistral = pytest.importorskip("mistral_common")
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    folder = Path(mistral.__file__).parent / "data"
    return [
        Tekkenizer.from_file(folder / "tekken_240911.json"),
        SentencePieceTokenizer(folder / "mistral_instruct_tokenizer_240323.model.v3"),
    ]


def test_the_defaults_are_what_gsm8k_shows(gsm8k: Path, tokenizers: list[Any]) -> None:
    import json

    path = gsm8k / "gsm8k_train.jsonl"
    source = SourceSettings(format="gsm8k", path=str(path))
    problems = [row for row in read_problems(source) if isinstance(row, Problem)][::20]
    answers = [json.loads(line)["answer"] for line in path.read_text().splitlines()[::20]]
    programs = [program for answer in answers if (program := annotation_program(answer).program)]
    words = sum(len(problem.question.split()) for problem in problems)
    assert words / len(problems) == pytest.approx(GSM8K_WORDS, rel=0.05)
    for tokenizer in tokenizers:

        def tokens(texts: list[str], by: Any = tokenizer) -> float:
            return sum(len(by.encode(text, False, False)) for text in texts) / len(texts)

        question = tokens([problem.question for problem in problems])
        assert TOKENS_PER_WORD.low <= question * len(problems) / words <= TOKENS_PER_WORD.high
        solution = tokens([problem.solution or "" for problem in problems])
        assert COMPLETION["chain"].low <= solution / question <= COMPLETION["chain"].likely
        assert COMPLETION["program"].low <= tokens(programs) / question <= COMPLETION["program"].likely
        for text in load_prompts("default").texts.values():
            per_word = len(tokenizer.encode(text, False, False)) / len(text.split())
            assert 1.2 <= per_word <= 1.9, text
