"""How many tokens prompts and completions have before anybody was asked.

Text that is known (questions, the prompt set) is counted with the model's own tokenizer where it lies on this
machine, else by words. The lengths of completions are assumed as shares of the question's length.

The defaults were measured on 1,068 of GSM8K's training problems with the two tokenizers that come with
mistral_common (131,072 and 32,768 words): a question has 46 words and 62 to 64 tokens, its worked solution 1.5
times as many tokens, the shortest program of its calculations 0.5 times as many. Teachers write more than that; how
much more is assumed, not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from fdd_ray.planning.models import Size
from fdd_ray.planning.ranges import Range
from fdd_ray.prompts import PromptSet
from fdd_ray.records import Kind

# Tokens of a word of English (measured: 1.35 and 1.41 for questions, 1.27 to 1.43 for the prompt set).
TOKENS_PER_WORD: Final = Range(1.25, 1.38, 1.5)
GSM8K_WORDS: Final = 45.8
# What a chat template puts around a message: nothing much for base models, a system prompt for some others.
TEMPLATE: Final = Range(4, 12, 36)
# Tokens of a completion / tokens of the question. The lowest are measured on GSM8K's own solutions.
COMPLETION: Final[dict[Kind, Range]] = {"program": Range(0.5, 1.4, 3.2), "chain": Range(1.3, 2.4, 4.8)}
# Tokens of a new problem / tokens of its parent, with the tags around it.
NEW_PROBLEM: Final = Range(0.9, 1.3, 2.0)


class Texts(NamedTuple):
    """Tokens of what a role reads, by its tokenizer or by words.

    Attributes:
        question: A question of the pool.
        prompts: The texts of the prompt set by name, without a question, with the chat template.
        how: How they were counted.
    """

    question: Range
    prompts: dict[str, Range]
    how: str

    def prompt(self, name: str, question: Range | None = None) -> Range:
        """A prompt with a question in it; that of the pool by default."""
        return self.prompts[name] + (self.question if question is None else question)


def count_texts(prompts: PromptSet, questions: Sequence[str], size: Size | None) -> Texts:
    """The tokens of questions and prompts.

    Args:
        prompts: The prompt set.
        questions: Questions of the pool; none stands for GSM8K's.
        size: The model; its tokenizer is used if its folder has one.
    """
    texts = {name: text.replace("{question}", "").replace("{other}", "") for name, text in prompts.texts.items()}
    tokenizer = _tokenizer(size)
    if tokenizer is not None:
        question = (
            Range.exact(sum(_count(tokenizer, text) for text in questions) / len(questions))
            if questions
            else TOKENS_PER_WORD * GSM8K_WORDS
        )
        counted = {name: Range.exact(_count(tokenizer, text)) + TEMPLATE for name, text in texts.items()}
        return Texts(question, counted, "the model's own tokenizer")
    words = sum(len(text.split()) for text in questions) / len(questions) if questions else GSM8K_WORDS
    counted = {name: TOKENS_PER_WORD * len(text.split()) + TEMPLATE for name, text in texts.items()}
    return Texts(TOKENS_PER_WORD * words, counted, f"words x {TOKENS_PER_WORD.likely}, for its tokenizer is not here")


def _tokenizer(size: Size | None) -> Any | None:
    path = size.folder / "tokenizer.json" if size is not None and size.folder is not None else None
    if path is None or not path.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # the library raises bare exceptions; the words will do
        return None


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
