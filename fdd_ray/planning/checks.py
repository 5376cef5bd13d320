"""What a plan warns of: budgets that end the run early, prices that are not given, students that are large."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import yaml

from fdd_ray.experiment import Experiment
from fdd_ray.planning.models import Size
from fdd_ray.planning.plan import StagePlan
from fdd_ray.planning.ranges import Range, short
from fdd_ray.settings import changed_keys, to_plain
from fdd_ray.store import files
from fdd_ray.store.manifest import EXPERIMENT
from fdd_ray.store.spent import Spent

_SMALL: Final = 1e9
# Families that think before they answer.
_THINKS: Final = re.compile(r"(?<![a-z])(?:r1|qwq|qwen3|gpt-oss)(?![a-z0-9])|think|reasoning", re.I)
# What may be another in every call without any stage being another.
_FREE: Final = ("budget.", "prices.", "flow.", "rounds:", "storage:", "name:")


def budget_lines(experiment: Experiment, stages: Sequence[StagePlan], before: Spent | None) -> Iterator[str]:
    """One line for each part of the budget that ends the run before its last stage, by the low or high estimate."""
    budget = experiment.budget
    limits: list[tuple[str, float | None, float, list[Range]]] = [
        ("teacher_tokens", budget.teacher_tokens, 0.0, [stage.teacher_tokens for stage in stages]),
        ("money", budget.money, 0.0, [stage.money for stage in stages]),
        ("hours", budget.hours, 0.0, [stage.seconds * (1 / 3600) for stage in stages]),
    ]
    for name, limit, used, costs in limits:
        if limit is None:
            continue
        if before is not None:
            used = _set_aside(name, before, stages)
        if line := _crossed(name, limit, used, stages, costs):
            yield line
    asked = [stage for stage in stages if stage.stage == "synthesise" and stage.state != "done"]
    most = budget.problems_per_round
    if most is not None and asked and asked[0].rows.likely > most:
        yield (
            f"budget.problems_per_round = {most:,}: the run stops before {asked[0].label}, which asks for"
            f" {asked[0].rows.likely:,.0f}; raise it, or lower feedback.new_problems or feedback.ask_share"
        )


def _set_aside(name: str, before: Spent, stages: Sequence[StagePlan]) -> float:
    """What was paid for beside the stages that are done: those that were set aside, the rows of unfinished ones."""
    done = [stage for stage in stages if stage.state == "done"]
    if name == "money":
        return max(0.0, before.money - sum(stage.money.likely for stage in done))
    if name == "hours":
        return max(0.0, before.seconds["stage"] - sum(stage.seconds.likely for stage in done)) / 3600
    tokens = sum(sum(counts.values()) for counts in before.tokens.values())
    known = sum(
        stage.teacher_tokens.likely + stage.student.prompt.likely + stage.student.completion.likely for stage in done
    )
    return max(0.0, tokens - known)


def _crossed(name: str, limit: float, used: float, stages: Sequence[StagePlan], costs: Sequence[Range]) -> str:
    """Where the sum of costs reaches the limit; empty if it does not."""
    sums = {"low": used, "likely": used, "high": used}
    reached: dict[str, str] = {}
    for stage, cost in zip(stages, costs, strict=True):
        for kind in sums:
            sums[kind] += getattr(cost, kind)
            if sums[kind] >= limit and kind not in reached:
                reached[kind] = stage.label
    if not reached:
        return ""
    ends = f"budget.{name} = {limit:,.10g}"
    if "low" in reached:
        place = reached["high"] if reached["high"] == reached["low"] else f"{reached['high']} to {reached['low']}"
        return f"{ends}: the run ends early, in {place}; it needs {_span(sums)}"
    how = "likely" if "likely" in reached else "possibly"
    return f"{ends}: the run {how} ends early, in {reached.get('likely', reached['high'])}; it needs {_span(sums)}"


def _span(sums: dict[str, float]) -> str:
    return f"{short(sums['low'])} to {short(sums['high'])}"


def warnings_of(experiment: Experiment, student: Size, exists: bool) -> Iterator[str]:
    """What should be looked at before the run."""
    if student.parameters > _SMALL:
        yield (
            f"the student has about {student.parameters / 1e9:.3g}B parameters, more than the 1B that students"
            " are meant to have at most here"
        )
    teacher = experiment.teacher
    if teacher is not None and teacher.endpoint is not None:
        if not teacher.prompt_price and not teacher.completion_price:
            yield "teacher.prompt_price and teacher.completion_price are 0, so the teacher's tokens cost nothing here"
        if "example.com" in teacher.endpoint:
            yield "teacher.endpoint leads to an example; fill in your vendor's, and its name of the model"
    if (
        teacher is not None
        and _THINKS.search(teacher.model)
        and teacher.chat_template_kwargs.get("enable_thinking", True)
    ):
        yield (
            "the teacher seems to think before it answers: its completions may be ten times as long as planned, until a"
            " stage of this run is done and tells"
        )
    if exists:
        changed = [line for line in _changes(experiment) if not line.startswith(_FREE)]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            yield (
                f"the run was started with other settings ({'; '.join(changed[:3])}{more}); fdd-ray run refuses what no"
                " longer fits, and names the ways on"
            )


def _changes(experiment: Experiment) -> list[str]:
    data = files.read_bytes(files.join(experiment.directory, EXPERIMENT))
    try:
        before: Any = yaml.safe_load(data or b"")
    except (yaml.YAMLError, RecursionError):
        return []
    # New settings have defaults that change nothing; only those that both know are compared.
    after = to_plain(experiment)
    return [line for line in changed_keys(before, after) if "(absent)" not in line] if before else []
