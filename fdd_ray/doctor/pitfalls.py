"""Settings that are valid, and with which a run ends late, costs more than meant, or shows nothing.

    look_at_settings(experiment)                  # before anything was read
    look_at_pool(experiment, samples)             # with what was read of the pool

Budgets that end a run early, prices that are missing, endpoints that lead to an example and the like are those of
``fdd-ray plan``, which is asked for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fdd_ray.curation.contamination import BenchmarkGuard
from fdd_ray.doctor.data import POOL, Samples
from fdd_ray.doctor.findings import Finding, note, of_error, ok, problem
from fdd_ray.errors import FddError, ProblemsError, StageError
from fdd_ray.experiment import Experiment, check_prompts
from fdd_ray.planning import make_plan
from fdd_ray.problems import load_problems
from fdd_ray.tracking import Tracking

_BENCHMARK_ROWS: Final = 3000  # larger benchmarks are left to the run, whose first stage looks too
_LEAKED: Final = 0.1


def look_at_settings(experiment: Experiment) -> Iterator[Finding]:
    """What can be seen in the settings alone."""
    wrong = False
    for finding in _one_by_one(experiment):
        wrong = True
        yield finding
    if not wrong:
        yield ok(f"{experiment.name}: settings, prompts ({experiment.prompts}) and tracking are valid")


def _one_by_one(experiment: Experiment) -> Iterator[Finding]:
    try:
        check_prompts(experiment)
    except FddError as error:
        yield of_error(error)
    try:
        Tracking(experiment.track, experiment.directory, experiment.name, config={}, say=lambda text: None)
    except FddError as error:
        yield of_error(error)
    teach, budget = experiment.teach, experiment.budget
    if experiment.rationales == "teacher" and teach.keep > teach.samples:
        yield note(
            f"teach.keep = {teach.keep} is more than teach.samples = {teach.samples}, so fewer are kept",
            "raise teach.samples, or lower teach.keep",
        )
    if experiment.rounds and experiment.synthesise.solutions == 1 and not experiment.synthesise.second_solutions:
        yield note(
            "synthesise.solutions = 1: a new problem's answer is what one solution says, and nothing has to agree",
            "raise synthesise.solutions to 3 or more",
        )
    if not experiment.benchmarks:
        yield note(
            "there is no benchmark: nothing shows whether the student gets better, or is kept out of the pool",
            "name one under benchmarks",
        )
    teacher = experiment.teacher
    if teacher is not None and teacher.tokens_per_minute is not None:
        longest = max(teach.samples * teach.max_tokens, _request_tokens(experiment))
        if longest > teacher.tokens_per_minute:
            yield note(
                f"teacher.tokens_per_minute = {teacher.tokens_per_minute:,.0f} is less than the {longest:,} tokens that"
                " one request may take, so there is one request at a time and each waits for over a minute",
                "raise it if your contract allows, or lower the samples or max_tokens of a request",
            )
    if teacher is not None and teacher.endpoint is not None and budget.teacher_tokens is budget.money is None:
        yield note(
            "the teacher is paid by tokens, and no budget ends the run",
            "set budget.teacher_tokens or budget.money; fdd-ray plan estimates them",
        )


def _request_tokens(experiment: Experiment) -> int:
    """Completion tokens that one request of synthesise may take at the most."""
    settings = experiment.synthesise
    return max(settings.max_problem_tokens, settings.solutions * settings.max_solution_tokens)


def look_at_plan(experiment: Experiment) -> Iterator[Finding]:
    """What ``fdd-ray plan`` warns of."""
    plan = make_plan(experiment)
    for line in plan.warnings:
        yield note(line, f"fdd-ray plan shows what {experiment.name} takes, stage by stage")
    if not plan.warnings:
        yield ok("the plan has no warning: no budget ends the run early (fdd-ray plan shows rows, tokens and time)")


def look_at_pool(experiment: Experiment, samples: Samples) -> Iterator[Finding]:
    """What the first rows of the pool and the benchmarks say of the run."""
    size, least = samples.size(POOL), experiment.teach.min_kept
    every_source = len(samples.counts.get(POOL, [])) == len(experiment.pool)
    if size is not None and every_source and size.high < least:
        yield problem(
            f"the pool has at most {size.high:,.0f} problems, fewer than teach.min_kept = {least}",
            "name more sources, raise their limit, or lower teach.min_kept",
            ProblemsError,
        )
    elif size is not None and every_source and size.likely < 2 * least:
        yield note(
            f"the pool has about {size.likely:,.0f} problems, and {least} of them must get a verified rationale"
            " (teach.min_kept)",
            "name more sources, or lower teach.min_kept",
        )
    questions = samples.questions.get(POOL, [])
    if experiment.rationales == "from_dataset" and questions:
        solved = samples.solved[POOL]
        if not solved:
            yield problem(
                f"rationales: from_dataset, but of the pool's first {len(questions)} problems none has a solution",
                "map the column (columns: {solution: ...}), choose another data set, or set rationales: teacher",
                StageError,
            )
        elif solved < len(questions):
            yield note(
                f"rationales: from_dataset, and {len(questions) - solved} of the pool's first {len(questions)} problems"
                " have no solution: they are rejected",
                "map the column that holds it, if there is one",
            )
    yield from _leaks(experiment, samples)


def _leaks(experiment: Experiment, samples: Samples) -> Iterator[Finding]:
    """How much of the pool's first rows would be kept out for being in a benchmark."""
    questions = samples.questions.get(POOL, [])
    near = {
        name: sources
        for name, sources in experiment.benchmarks.items()
        if samples.questions.get(name)
        and (size := samples.size(name)) is not None
        and size.high <= _BENCHMARK_ROWS
        and all(source.format != "hub" and "://" not in source.path for source in sources)
    }
    if not questions or not near:
        return
    loaded = {name: load_problems(sources, seed=experiment.seed, name=name).problems for name, sources in near.items()}
    guard = BenchmarkGuard(loaded, experiment.decontaminate)
    leaks = [leak for question in questions if (leak := guard.check(question)) is not None]
    share = len(leaks) / len(questions)
    names = ", ".join(dict.fromkeys(leak.benchmark for leak in leaks))
    found = f"{len(leaks)} of the pool's first {len(questions)} problems are too close to a benchmark ({names})"
    way = "see whether pool and benchmark are the same file; loosen decontaminate where they share wording by design"
    if share == 1:
        yield problem(f"{found}: none is left", way, ProblemsError)
    elif share > _LEAKED:
        yield note(f"{found} and are kept out", way)
    else:
        yield ok(f"{len(leaks)} of the pool's first {len(questions)} problems are too close to {', '.join(near)}")
