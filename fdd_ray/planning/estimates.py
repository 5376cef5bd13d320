"""What one stage takes, in rows and tokens: from what was seen of its kind, else from what is assumed."""

from __future__ import annotations

import dataclasses
import math
from typing import Final, NamedTuple

from fdd_ray.experiment import Experiment
from fdd_ray.planning.observed import Observed
from fdd_ray.planning.ranges import ZERO, Range, total
from fdd_ray.planning.words import COMPLETION, NEW_PROBLEM, Texts
from fdd_ray.records import Kind

# Shares that only a run can tell.
TAUGHT: Final = Range(0.5, 0.85, 1.0)  # seed problems of which a right rationale comes
FROM_DATASET: Final = Range(0.8, 0.97, 1.0)
SOLVED: Final = Range(0.75, 0.93, 1.0)  # new problems that are good enough to be solved
ACCEPTED: Final = Range(0.35, 0.75, 0.95)  # new problems that pass everything
# Later rounds have longer problems, as complex variations become parents.
_LONGER: Final = Range(0.9, 1.1, 1.4)
_BOTH_KINDS: Final = Range(1.2, 1.8, 2.0)  # examples with both kinds / with one
_TAGS: Final = 8  # <problem> and </problem>
_VERDICT: Final = Range(10, 30, 60)
_OTHER_TOKENIZER: Final = 1.3


class Tokens(NamedTuple):
    """Prompt and completion tokens of a stage, and its requests."""

    prompt: Range = ZERO
    completion: Range = ZERO
    requests: Range = ZERO


NO_TOKENS: Final = Tokens()


@dataclasses.dataclass(frozen=True)
class Estimates:
    """Estimates for the stages of one experiment.

    Attributes:
        experiment: The settings.
        seen: What its run has finished.
        teacher: Tokens of what the teacher reads.
        student: Tokens of what the student reads.
    """

    experiment: Experiment
    seen: Observed
    teacher: Texts
    student: Texts

    def rationales(self, problems: Range) -> Tokens:
        """The teacher works the seed problems."""
        settings = self.experiment.teach
        if self.experiment.rationales != "teacher":
            return Tokens()
        kinds = self._kinds()
        prompt = total(self.teacher.prompt(f"solve_{kind}") for kind in kinds)
        completion = total(self._solution(kind, settings.max_tokens) for kind in kinds) * settings.samples
        if (row := self.seen.tokens("rationales")) is not None:
            prompt, completion = Range.exact(row.prompt), Range.exact(row.completion)
        return Tokens(problems * prompt, problems * completion, problems * len(kinds))

    def taught(self, problems: Range) -> Range:
        """Examples that the seed problems give."""
        first = self.seen.done("finetune", 0)
        if first is not None:
            return Range.exact(first.counts.rows)
        done = self.seen.done("rationales", 0)
        share = TAUGHT if self.experiment.rationales == "teacher" else FROM_DATASET
        kept = Range.exact(done.counts.kept) if done is not None else problems * share
        most = min(self.experiment.teach.keep, self.experiment.teach.samples)
        each = Range(1, (1 + most) / 2, most) if self.experiment.rationales == "teacher" else Range.exact(1)
        return kept * each * (_BOTH_KINDS if self.experiment.mix.both_kinds else 1.0)

    def asked(self) -> int:
        """Requests of a round."""
        settings = self.experiment.feedback
        return math.ceil(settings.new_problems * settings.ask_share)

    def synthesise(self, asked: Range) -> Tokens:
        """The teacher writes new problems and solves them."""
        settings, kind = self.experiment.synthesise, self.experiment.kind
        again = self.experiment.feedback.policy == "more_rationales"
        second = settings.second_solutions > 0 and not again
        if (row := self.seen.tokens("synthesise")) is not None:
            return Tokens(
                asked * row.prompt * _LONGER, asked * row.completion * _LONGER, asked * (3.0 if second else 2.0)
            )
        question = self._question()
        write, new, solved = ZERO, question, Range.exact(1)
        prompt, completion, requests = ZERO, ZERO, ZERO
        if not again:
            new = (question * NEW_PROBLEM).capped(settings.max_problem_tokens)
            shares = self.experiment.feedback.complex_share
            write = _between(self.teacher.prompts["complex"], self.teacher.prompts["similar"], shares)
            prompt, completion, requests = write + question, new + Range.exact(_TAGS), Range.exact(1)
            solved = SOLVED
        kinds: list[tuple[Kind, int]] = [(kind, settings.solutions)]
        if second:
            kinds.append((_other(kind), settings.second_solutions))
        for each, samples in kinds:
            prompt += solved * (self.teacher.prompts[f"solve_{each}"] + new)
            completion += solved * (self._solution(each, settings.max_solution_tokens) * _LONGER * samples)
            requests += solved
        if self.experiment.decontaminate.judge and not again:
            judged = Range(0, 0.05, 0.3) * self.experiment.decontaminate.judge
            prompt += judged * (self.teacher.prompts["judge"] + question * 2)
            completion, requests = completion + judged * _VERDICT, requests + judged
        return Tokens(asked * prompt, asked * completion, asked * requests)

    def accepted(self, asked: Range) -> Range:
        """New problems that a round adds."""
        share = self.seen.kept("curate")
        kept = asked * (ACCEPTED if share is None else Range(share * 0.85, share, min(1.0, share * 1.1)))
        wanted = self.experiment.feedback.new_problems
        return kept.capped(wanted) if self.experiment.curate.trim else kept

    def added(self, accepted: Range) -> Range:
        """Examples that the new problems of a round give."""
        most = min(self.experiment.curate.keep, self.experiment.synthesise.solutions)
        both = self.experiment.mix.both_kinds
        return accepted * Range(1, (1 + most) / 2, most) * (_BOTH_KINDS if both else 1.0)

    def own(self, examples: Range) -> Range:
        """The student's own rationales that are mixed into so many examples by the teacher."""
        mix = self.experiment.mix
        most = mix.own_share / (1 - mix.own_share) if mix.own_rationales else 0.0
        return examples * Range(0, most / 2, most)

    def trained(self, examples: Range) -> Range:
        """Tokens that a fine-tuning sees."""
        example = self.seen.example_tokens()
        prompt = self.student.prompt(f"student_{self.experiment.kind}")
        tokens = prompt + self._students_rationale() + Range.exact(1)
        if example is not None:
            tokens = _LONGER * example
        return examples * tokens * self.experiment.finetune.epochs

    def score(self, pool: Range, benchmarks: Range, base: bool) -> Tokens:
        """The student attempts the pool and the benchmarks."""
        settings = self.experiment.score
        extra = settings.majority or 0
        asked = pool + benchmarks * (2.0 if extra else 1.0)
        attempts = pool * settings.attempts + benchmarks * (1 + extra)
        prompt = self.student.prompt(f"student_{self.experiment.kind}")
        likely = self._students_rationale()
        if base:  # it has not learned to stop
            likely = Range(likely.low, max(likely.likely, settings.max_tokens / 2), settings.max_tokens)
        earlier = self.seen.latest("score") or self.seen.latest("base score")
        row = self.seen.tokens("score") or self.seen.tokens("base score")
        if earlier is not None and row is not None:
            prompt = Range.exact(row.prompt / (2 if extra else 1)) * Range(0.9, 1.05, 1.3)
        if self.seen.latest("score") is not None and row is not None:
            sizes = self._attempts_of_latest()
            likely = _LONGER * (row.completion / sizes)
        likely = likely.capped(settings.max_tokens)
        return Tokens(asked * prompt, attempts * likely, asked)

    def _attempts_of_latest(self) -> float:
        """Attempts at a row of the latest scoring: pool and benchmarks differ in them."""
        manifest = self.seen.latest("score")
        found = manifest.summary.get("accuracy", {}) if manifest is not None else {}
        rows = {name: float(values.get("n", 0)) for name, values in found.items()}
        whole = sum(rows.values())
        if not whole:
            return 1.0
        pool = rows.get("pool", 0.0)
        settings = self.experiment.score
        return (pool * settings.attempts + (whole - pool) * (1 + (settings.majority or 0))) / whole

    def _question(self) -> Range:
        """Tokens of a question of the pool, by the teacher's tokenizer."""
        row = self.seen.tokens("rationales")
        if row is None:
            return self.teacher.question
        kinds = self._kinds()
        template = sum(self.teacher.prompts[f"solve_{kind}"].likely for kind in kinds)
        return Range.about(max((row.prompt - template) / len(kinds), 1.0), 1.2)

    def _kinds(self) -> list[Kind]:
        """The kinds of rationales that the teacher writes for a seed problem."""
        kind = self.experiment.kind
        return [kind, _other(kind)] if self.experiment.mix.both_kinds else [kind]

    def _sample(self) -> float | None:
        """Completion tokens of one rationale of the teacher, if any is done."""
        row = self.seen.tokens("rationales")
        if row is None or not row.completion:
            return None
        return row.completion / self.experiment.teach.samples / len(self._kinds())

    def _solution(self, kind: Kind, most: int) -> Range:
        """Tokens of one solution of the teacher."""
        sample = self._sample()
        if sample is not None and kind in self._kinds():
            return Range.about(sample, 1.1).capped(most)
        return (self.teacher.question * COMPLETION[kind]).capped(most)

    def _students_rationale(self) -> Range:
        """Tokens of a rationale by the student's tokenizer."""
        sample = self._sample()
        if sample is not None:
            return Range.about(sample, _OTHER_TOKENIZER).capped(self.experiment.score.max_tokens)
        return (self.student.question * COMPLETION[self.experiment.kind]).capped(self.experiment.score.max_tokens)


def _other(kind: Kind) -> Kind:
    return "chain" if kind == "program" else "program"


def _between(complex: Range, similar: Range, share: float | None) -> Range:
    part = 0.5 if share is None else share
    return complex * part + similar * (1 - part)
