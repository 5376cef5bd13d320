"""Keeps benchmark problems out of the pool, also when they come back with other numbers, names or sentences.

    >>> guard = BenchmarkGuard({"gsm8k": benchmark_problems})
    >>> guard.check("A new question that repeats most words of one of them ...")
    Contamination(reason='ngram', benchmark='gsm8k', problem_id='p-...', measure=24.0, span='how many # ...')

What is looked at, in this order: the id of the problem; its text, blind to case and punctuation; a run of
``ngram`` words; and the *containment*, the part of the question's runs of three words that one benchmark
problem has (or the part of the benchmark problem's that the question has, if that is larger). Numbers are
masked in the last two. A rewording that keeps few words in place gets past all of them; the closest problems
can be shown to a judge.

The defaults were chosen by looking at GSM8K: of its 7,473 training problems, 31 share ten number-masked
words in a row with a test problem, and 9 reach a containment of 0.5, of
which all but one are among the 31.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from fdd_ray.curation.folding import Folded, fold
from fdd_ray.curation.ngrams import Corpus, Encoded, Ngrams, Share, folded_words, words_of
from fdd_ray.records import Problem, content_id, problem_id
from fdd_ray.settings import setting

CONTAINMENT_WORDS: Final = 3
# A text of fewer runs counts as if it had so many: five words that everybody uses are no evidence.
CONTAINMENT_RUNS: Final = 10
REPORTED_SIZES: Final = (8, 10, 13)
_SPAN_CHARACTERS: Final = 200

Reason = Literal["same_problem", "same_text", "ngram", "containment", "judged_same"]


@dataclass(frozen=True)
class ContaminationSettings:
    """From what on a question counts as a benchmark problem; a problem with the same text always does."""

    ngram: int | None = setting(
        10, "Words in a row shared with a benchmark problem that make a question contaminated; null: any number.", ge=4
    )
    masked: bool = setting(True, "Take all numbers for the same when words are compared.")
    containment: float | None = setting(
        0.5,
        "Share of its runs of three words found in one benchmark problem (or of that problem's found in it) "
        "that makes a question contaminated; null: any share.",
        gt=0,
        le=1,
    )
    judge: int = setting(0, "How many of the closest benchmark problems the teacher judges; 0: none.", ge=0)
    judge_from: float = setting(0.3, "Containment from which the teacher is asked.", gt=0, le=1)


class Contamination(NamedTuple):
    """The evidence that a question is a benchmark problem.

    Attributes:
        reason: ``same_problem`` (the same problem id), ``same_text`` (the same words and numbers: case, white
            space and punctuation may differ), ``ngram`` (a run of words), ``containment`` (many short runs)
            or ``judged_same`` (the judge says so).
        benchmark: The name of the benchmark.
        problem_id: The id of its problem.
        measure: For ``ngram``, the words of the longest shared run; for ``containment`` and ``judged_same``,
            the containment, 0 to 1; otherwise 1.
        span: The longest shared run of words, folded as `words_of` does it and cut to one line; empty if the
            two have no three words in common.
    """

    reason: Reason
    benchmark: str
    problem_id: str
    measure: float = 1.0
    span: str = ""


class Near(NamedTuple):
    """A benchmark problem that is close to a question.

    Attributes:
        benchmark: The name of the benchmark.
        problem_id: The id of its problem.
        question: Its text, as in the benchmark.
        share: The containment, 0 to 1.
    """

    benchmark: str
    problem_id: str
    question: str
    share: float


class BenchmarkGuard:
    """Knows every problem of every benchmark of a run; it can be pickled.

    Args:
        benchmarks: The problems of each benchmark by its name. Where several are equally close to a question,
            the first of the first benchmark is named; nothing else depends on the order.
        settings: What counts as contaminated.
    """

    def __init__(
        self, benchmarks: Mapping[str, Iterable[Problem]], settings: ContaminationSettings | None = None
    ) -> None:
        self.settings = settings or ContaminationSettings()
        self._problems = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
        self._ids: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        for index, (_, problem) in enumerate(self._problems):
            self._ids.setdefault(problem_id(problem.question), index)
            self._texts.setdefault(_text_key(fold(problem.question)), index)
        self._corpora: dict[bool, Corpus] = {}
        self._ngrams: dict[tuple[int, bool], Ngrams] = {}
        if self.settings.ngram is not None:
            self._index(self.settings.ngram)
        if self.settings.containment is not None or self.settings.judge:
            self._index(CONTAINMENT_WORDS)

    def __len__(self) -> int:
        return len(self._problems)

    def same(self, question: str) -> Contamination | None:
        """The benchmark problem that has the id or the text of ``question``, whatever the settings are.

        This is what a pool is checked with before anything is done with it.
        """
        return self._same(question, fold(question))

    def check(self, question: str) -> Contamination | None:
        """The benchmark problem that ``question`` is, or is too much like, if there is one."""
        folded = fold(question)
        if (same := self._same(question, folded)) is not None:
            return same
        ngram, containment, masked = self.settings.ngram, self.settings.containment, self.settings.masked
        if ngram is None and containment is None:
            return None
        words = folded_words(folded, masked=masked)
        encoded = self._corpus(masked).encode(words)
        if ngram is not None and (run := self._index(ngram).longest_run(encoded)) is not None:
            return self._evidence("ngram", run.text, float(run.length), words[run.start : run.start + run.length])
        if containment is not None and (found := self._shares(encoded, containment)):
            return self._evidence("containment", *found[0], self._common_run(words, found[0].text))
        return None

    def closest(self, question: str, k: int, least: float = 0.01) -> list[Near]:
        """The ``k`` benchmark problems that are closest to ``question`` by containment, the closest first.

        Args:
            question: The question.
            k: How many at most.
            least: The smallest containment to be told of, more than 0.
        """
        masked = self.settings.masked
        found = self._shares(self._corpus(masked).encode(words_of(question, masked=masked)), least)
        return [self._near(text, share) for text, share in found[:k]]

    def for_judge(self, question: str) -> list[Near]:
        """The benchmark problems that the settings want judged for a question that `check` lets through."""
        return self.closest(question, self.settings.judge, self.settings.judge_from) if self.settings.judge else []

    def judged_same(self, question: str, near: Near) -> Contamination:
        """The evidence that the judge found ``question`` to be the same problem as ``near``."""
        words, theirs = (words_of(text, masked=self.settings.masked) for text in (question, near.question))
        return Contamination(
            "judged_same", near.benchmark, near.problem_id, near.share, _line(_longest_common_run(words, theirs))
        )

    def overlap(
        self, question: str, sizes: Iterable[int] = REPORTED_SIZES, *, masked: bool | None = None
    ) -> tuple[int, ...]:
        """Those of ``sizes`` at which ``question`` shares so many words in a row with a benchmark problem.

        Args:
            question: The question.
            sizes: Numbers of words.
            masked: Whether numbers are masked; by default, as in the settings.
        """
        masked = self.settings.masked if masked is None else masked
        encoded = self._corpus(masked).encode(words_of(question, masked=masked))
        return tuple(size for size in sizes if self._index(size, masked).has_run(encoded))

    def _same(self, question: str, folded: Folded) -> Contamination | None:
        exact = problem_id(question)
        if exact in self._ids:
            return self._evidence("same_problem", self._ids[exact], 1.0, folded_words(folded))
        found = self._texts.get(_text_key(folded))
        return None if found is None else self._evidence("same_text", found, 1.0, folded_words(folded))

    def _corpus(self, masked: bool) -> Corpus:
        """The words of all benchmark problems, made when they are first asked for."""
        if masked not in self._corpora:
            texts = (words_of(problem.question, masked=masked) for _, problem in self._problems)
            self._corpora[masked] = Corpus(texts)
        return self._corpora[masked]

    def _index(self, size: int, masked: bool | None = None) -> Ngrams:
        """The n-grams of all benchmark problems, made when they are first asked for."""
        masked = self.settings.masked if masked is None else masked
        if (size, masked) not in self._ngrams:
            most_masks = None if size == CONTAINMENT_WORDS else size // 2
            self._ngrams[size, masked] = Ngrams(self._corpus(masked), size, most_masks=most_masks)
        return self._ngrams[size, masked]

    def _shares(self, encoded: Encoded, least: float) -> list[Share]:
        return self._index(CONTAINMENT_WORDS).shares(encoded, least=least, at_least_ngrams=CONTAINMENT_RUNS)

    def _common_run(self, words: list[str], index: int) -> list[str]:
        return _longest_common_run(words, words_of(self._problems[index][1].question, masked=self.settings.masked))

    def _near(self, index: int, share: float) -> Near:
        name, problem = self._problems[index]
        return Near(name, problem.id, problem.question, share)

    def _evidence(self, reason: Reason, index: int, measure: float, span: list[str]) -> Contamination:
        name, problem = self._problems[index]
        return Contamination(reason, name, problem.id, measure, _line(span))


def _text_key(folded: Folded) -> str:
    return content_id("x", folded.template, *folded.numbers)


def _longest_common_run(words: list[str], theirs: list[str]) -> list[str]:
    """The longest run of at least three words that is in both; empty if there is none."""
    corpus = Corpus([theirs])
    run = Ngrams(corpus, CONTAINMENT_WORDS).longest_run(corpus.encode(words))
    return [] if run is None else words[run.start : run.start + run.length]


def _line(words: list[str]) -> str:
    """Words as one line of bounded length, cut between two words if need be (or in a word that is too long)."""
    text = " ".join(words)
    if len(text) <= _SPAN_CHARACTERS:
        return text
    cut = text[: _SPAN_CHARACTERS - 4]
    return (cut.rpartition(" ")[0] or cut) + " ..."
