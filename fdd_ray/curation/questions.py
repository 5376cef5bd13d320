"""Cheap checks of a new question, before anybody is paid to solve it.

    >>> settings = QuestionSettings()
    >>> check_question("Ann has 3 apples and buys 4.", settings)
    'no_question'
    >>> check_variation("Ann has 3 apples. How many?", "Ann has 9 apples. How many?", "complex", settings)
    'same_steps'

Each check has a reason code of its own, and each can be switched off. They look at the words alone: whether
the problem makes sense is for the agreement of its solutions to say. On the 7,473 training questions of
GSM8K, written by people, the checks of single questions pass all but a handful.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import Final, Literal, NamedTuple

from fdd_ray.curation.folding import fold
from fdd_ray.records import Origin
from fdd_ray.settings import setting

QuestionReason = Literal[
    "too_short",
    "too_long",
    "code_in_question",
    "answer_leaked",
    "no_question",
    "no_numbers",
    "wrong_language",
    "copy_of_parent",
    "same_steps",
    "same_content",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER_WORDS: Final = _words(
    """
    two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million dozen dozens
    couple half third quarter twice double triple thrice
    """
)
_ASKS: Final = re.compile(
    r"(?:^|[.!;:,]\s+|\n\s*|\b(?:and|then|please)\s+)(?:find|calculate|determine|compute|evaluate|estimate|work out"
    r"|figure out|solve|simplify|express|give|state|tell)\b"
    r"|\bhow (?:many|much|long|far|old|tall|often|fast)\b|\bwhat (?:is|are|was|were|will|would|the)\b",
    re.IGNORECASE,
)
_LEAKS: Final = re.compile(
    r"^\s*####|\\boxed|<<[^<>]*=[^<>]*>>|\b(?:the |final |correct )?answer\s*(?:is\b|:|=)\s*\S"
    r"|^\s*(?:\*\*)?(?:answer|solution|explanation)(?:\*\*)?\s*:|\bstep[- ]by[- ]step (?:solution|answer)\b",
    re.IGNORECASE | re.MULTILINE,
)
_CODE: Final = re.compile(
    r"```|^\s*(?:def \w+\(|import \w+|from \w+ import|print\(|return\b|answer\s*=|\w+\s*=\s*[\w.]+\s*[-+*/])|</?\w+>",
    re.MULTILINE,
)
_SENTENCE_END: Final = re.compile(r"[.!?;](?:\s|$)|\n")
# Words that nearly every English sentence has one of and that other languages in Latin letters hardly use.
_ENGLISH: Final = _words(
    """
    the of and to is are was were has have had how many much what if he she they it his her their each every with
    for from that this than then there will does did do be been an at by all more
    """
)
_FUNCTION_WORDS: Final = _ENGLISH | _words(
    """
    a in on or as its him them who when where which after before left now one only also but not no so can would
    still another same total altogether out up down over into per
    """
)


@dataclasses.dataclass(frozen=True)
class QuestionSettings:
    """What a new question must look like."""

    min_words: int = setting(6, "Fewest words of a question.", ge=1)
    max_words: int = setting(300, "Most words of a question.", ge=1)
    min_numbers: int = setting(1, "Fewest numbers (digits or words such as half and twice) in a question.", ge=0)
    language: Literal["english", "any"] = setting("english", "Language a question must be written in.")
    complex_differs: bool = setting(
        True, "Whether a complex variation must have more numbers, sentences or words than its parent."
    )
    similar_new_words: float = setting(
        0.1, "Smallest share of a similar problem's content words that its parent does not have.", ge=0, le=1
    )

    def __post_init__(self) -> None:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words = {self.min_words} is more than max_words = {self.max_words}")


class _Size(NamedTuple):
    """How much a question says."""

    numbers: int
    sentences: int
    words: int


def check_question(question: str, settings: QuestionSettings) -> QuestionReason | None:
    """Why ``question`` is not worth solving, or None."""
    size = _size(question)
    if size.words < settings.min_words:
        return "too_short"
    if size.words > settings.max_words:
        return "too_long"
    if _CODE.search(question):
        return "code_in_question"
    if _LEAKS.search(question):
        return "answer_leaked"
    if "?" not in question and not _ASKS.search(question):
        return "no_question"
    if size.numbers < settings.min_numbers:
        return "no_numbers"
    if settings.language == "english" and not _is_english(question):
        return "wrong_language"
    return None


def check_variation(question: str, parent: str, origin: Origin, settings: QuestionSettings) -> QuestionReason | None:
    """Why ``question`` is no variation of ``parent`` of the kind that was asked for, or None.

    A copy has the same words and numbers. A ``complex`` variation must say more than its parent: more
    numbers, more sentences, or a tenth more words; new numbers alone need no more steps. A ``similar``
    problem must speak of something else.
    """
    if fold(question) == fold(parent):
        return "copy_of_parent"
    if origin == "complex" and settings.complex_differs:
        new, old = _size(question), _size(parent)
        if new.numbers <= old.numbers and new.sentences <= old.sentences and new.words * 10 < old.words * 11:
            return "same_steps"
    if origin == "similar" and settings.similar_new_words > 0:
        words = _content_words(question)
        if len(words - _content_words(parent)) < settings.similar_new_words * len(words):
            return "same_content"
    return None


def _size(text: str) -> _Size:
    words = _WORD.findall(text)
    numbers = len(_NUMBER.findall(text)) + sum(word.casefold() in _NUMBER_WORDS for word in words)
    return _Size(numbers, len(_SENTENCE_END.findall(text)), len(words))


def _content_words(text: str) -> frozenset[str]:
    words = {word.casefold().replace("\u2019", "'").removesuffix("'s") for word in _WORD.findall(text)}
    return frozenset(words - _FUNCTION_WORDS - _NUMBER_WORDS)


def _is_english(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    latin = sum(character.isascii() or "LATIN" in unicodedata.name(character, "") for character in letters)
    if latin < 0.95 * len(letters):
        return False
    words = [word.casefold() for word in _WORD.findall(text)]
    return sum(word in _ENGLISH for word in words) >= max(1, 0.08 * len(words))
