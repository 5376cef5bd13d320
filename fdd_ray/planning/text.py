"""A plan for people, and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fdd_ray.planning.estimates import Tokens
from fdd_ray.planning.plan import Plan, StagePlan, Total
from fdd_ray.planning.ranges import Range, short
from fdd_ray.progress import duration
from fdd_ray.report.table import align

_HOUR = 3600


def plan_text(plan: Plan) -> str:
    """The table of stages, what is left to do, what it rests on, and warnings."""
    done = sum(stage.state == "done" for stage in plan.stages)
    lines = [
        f"plan of {plan.experiment.name}, {plan.experiment.directory}: {done} of {len(plan.stages)} stages are done",
        "estimates are written: likely [low, high]",
        "",
        _table(plan),
        "",
        *_totals(plan.remaining),
    ]
    if plan.spent is not None:
        tokens = sum(sum(counts.values()) for counts in plan.spent.tokens.values())
        money = f", money {plan.spent.money:,.2f}" if plan.spent.money else ""
        hours = plan.spent.seconds["gpu"] / _HOUR
        lines.append(f"spent so far: {tokens:,} tokens of all models, {hours:,.2f} GPU hours{money}")
    lines += ["", "assumed:", *(f"  {line}" for line in plan.assumptions)]
    if plan.warnings:
        lines += ["", *(f"look at this: {line}" for line in plan.warnings)]
    return "\n".join(lines)


def plan_json(plan: Plan) -> dict[str, Any]:
    """What ``fdd-ray plan --json`` prints.

    Returns:
        ``experiment``, ``directory``; ``stages``: in order, each with ``stage``, ``round`` (null for the base
        student), ``state`` (``done``, ``unfinished`` or ``to do``), ``rows``, ``rows_written``, ``teacher`` and
        ``student`` tokens, ``trained_tokens``, ``seconds``, ``gpu_hours``, ``cpu_hours`` and ``money``; ``remaining``:
        the sums over what is not done; ``spent`` (null without a run), ``assumptions`` and ``warnings``. Each
        estimate is an object with ``low``, ``likely`` and ``high``, all the same where a number is known.
    """
    remaining = plan.remaining
    return {
        "experiment": plan.experiment.name,
        "directory": plan.experiment.directory,
        "stages": [_stage(stage) for stage in plan.stages],
        "remaining": {
            "teacher": {
                "prompt_tokens": _three(remaining.teacher_prompt),
                "completion_tokens": _three(remaining.teacher_completion),
            },
            "student_tokens": _three(remaining.student_tokens),
            "trained_tokens": _three(remaining.trained),
            "seconds": _three(remaining.seconds),
            "gpu_hours": _three(remaining.gpu_seconds * (1 / _HOUR)),
            "money": _three(remaining.money),
        },
        "spent": None if plan.spent is None else dataclasses.asdict(plan.spent),
        "assumptions": list(plan.assumptions),
        "warnings": list(plan.warnings),
    }


def _stage(stage: StagePlan) -> dict[str, Any]:
    return {
        "stage": stage.stage,
        "round": stage.round,
        "state": stage.state,
        "rows": _three(stage.rows),
        "rows_written": stage.rows_written,
        "teacher": _tokens(stage.teacher),
        "student": _tokens(stage.student),
        "trained_tokens": _three(stage.trained),
        "seconds": _three(stage.seconds),
        "gpu_hours": _three(stage.gpu_seconds * (1 / _HOUR)),
        "cpu_hours": _three(stage.cpu_seconds * (1 / _HOUR)),
        "money": _three(stage.money),
    }


def _tokens(tokens: Tokens) -> dict[str, Any]:
    return {"prompt_tokens": _three(tokens.prompt), "completion_tokens": _three(tokens.completion)}


def _three(found: Range) -> dict[str, float]:
    return {key: round(value, 4) for key, value in dataclasses.asdict(found).items()}


def _table(plan: Plan) -> str:
    columns: list[tuple[str, Callable[[StagePlan], Range], Callable[[float], str]]] = [
        ("rows", lambda stage: stage.rows, short),
        ("teacher prompt", lambda stage: stage.teacher.prompt, short),
        ("teacher completion", lambda stage: stage.teacher.completion, short),
        ("student tokens", lambda stage: stage.student.prompt + stage.student.completion, short),
        ("trained tokens", lambda stage: stage.trained, short),
        ("GPU hours", lambda stage: stage.gpu_seconds * (1 / _HOUR), short),
        ("wall time", lambda stage: stage.seconds, duration),
        ("money", lambda stage: stage.money, short),
    ]
    shown = [column for column in columns if any(column[1](stage).high for stage in plan.stages)]
    rows = [["round", "stage", "state", *(title for title, _, _ in shown)]]
    for stage in plan.stages:
        state = f"{stage.rows_written} rows written" if stage.state == "unfinished" else stage.state
        place = "base" if stage.round is None else str(stage.round)
        rows.append([place, stage.stage, state, *(_cell(of(stage), write) for _, of, write in shown)])
    return align(rows)


def _cell(found: Range, write: Callable[[float], str]) -> str:
    if not found.high:
        return ""
    likely, low, high = write(found.likely), write(found.low), write(found.high)
    return likely if low == high else f"{likely} [{low}, {high}]"


def _totals(remaining: Total) -> list[str]:
    parts: list[tuple[str, Range, Callable[[float], str]]] = [
        ("teacher tokens", remaining.teacher_tokens, short),
        ("student tokens", remaining.student_tokens, short),
        ("trained tokens", remaining.trained, short),
        ("GPU hours", remaining.gpu_seconds * (1 / _HOUR), short),
        ("wall time", remaining.seconds, duration),
        ("money", remaining.money, short),
    ]
    found = [f"    {name.ljust(14)}  {_cell(value, write)}" for name, value, write in parts if value.high]
    return ["left to do:", *found] if found else ["left to do: nothing"]
