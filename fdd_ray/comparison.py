"""Several policies and seeds as one experiment: every arm is a run, and what arms have in common is done once.

    arms = policy_arms(["fdd", "random", "more_rationales"])
    folder = run_comparison("jobs/tiny.yaml", arms, seeds=[0, 1, 2])

The runs of one seed begin with the finished stages of the first arm's run that are the same under their settings
(a fork each), so the initialisation is paid for once. They stand side by side in one folder, with the table and
the plot of `fdd_ray.report.comparison`. Given again, the same call goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fdd_ray.cluster import ray_session
from fdd_ray.errors import ExperimentError
from fdd_ray.experiment import load_experiment
from fdd_ray.launch import run_experiment
from fdd_ray.policy import POLICIES
from fdd_ray.progress import Reporter
from fdd_ray.report.comparison import ARMS, Arm, read_arms
from fdd_ray.store import files
from fdd_ray.store.fork import write_fork

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,31}")


def policy_arms(policies: Sequence[str]) -> list[Arm]:
    """An arm for each feedback policy.

    Raises:
        ExperimentError: If there is no such policy.
    """
    for policy in policies:
        if policy not in POLICIES:
            raise ExperimentError(f"--policies {policy}: there is no such policy; there are {', '.join(POLICIES)}")
    return [Arm(policy, (f"feedback.policy={policy}",)) for policy in policies]


def run_comparison(
    path: str | Path, arms: Sequence[Arm], seeds: Sequence[int], overrides: Iterable[str] = (), *, equal: bool = True
) -> str:
    """Run all arms with all seeds and return the folder of the comparison.

    Args:
        path: The experiment file that all arms share.
        arms: What is compared; differences are to the first.
        seeds: The seeds; each arm runs with each of them.
        overrides: ``a.b=c`` strings for all arms.
        equal: Insist that each round of each arm accepts the same number of rows (``feedback.exact``).

    Raises:
        FddError: Whatever stopped a run; the same call goes on from there.
    """
    shared = [*(["feedback.exact=true"] if equal else []), *overrides]
    _require_sensible(arms, seeds)
    experiment = load_experiment(path, shared)
    folder = files.join(files.absolute(experiment.storage), f"{experiment.name}-compare")
    plans = {
        (arm.name, seed): [*shared, *arm.overrides, f"seed={seed}", f"name={arm.name}-seed{seed}", f"storage={folder}"]
        for seed in seeds
        for arm in arms
    }
    # All that can be wrong is said before the first run begins.
    rounds = [load_experiment(path, plan).rounds for plan in plans.values()]
    if not any(rounds) and any(text.startswith("feedback.") for arm in arms for text in arm.overrides):
        raise ExperimentError(f"{path}: rounds is 0, and feedback matters from round 1 on; raise rounds")
    _write_arms(folder, arms, seeds)
    reporter = Reporter()
    reporter.say(f"comparison of {len(arms)} arms with {len(seeds)} seeds: {folder}")
    with ray_session(reporter):
        for number, ((name, seed), plan) in enumerate(plans.items(), start=1):
            reporter.say(f"run {number} of {len(plans)}: {name}, seed {seed}")
            if name != arms[0].name:
                write_fork(files.join(folder, f"{name}-seed{seed}"), files.join(folder, f"{arms[0].name}-seed{seed}"))
            run_experiment(path, plan)
    return folder


def _require_sensible(arms: Sequence[Arm], seeds: Sequence[int]) -> None:
    names = [arm.name for arm in arms]
    if len(arms) < 2 or len(set(names)) < len(names):
        raise ExperimentError(f"a comparison needs two arms or more, each with a name of its own; given: {names}")
    for name in names:
        if not _NAME.fullmatch(name):
            raise ExperimentError(f"an arm cannot be called {name!r}; use letters, digits and underscore, at most 32")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ExperimentError(f"a comparison needs seeds, each once; given: {list(seeds)}")


def _write_arms(folder: str, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
    """Note what is compared; more seeds and arms may be added to what is there, none changed.

    Raises:
        ExperimentError: If an arm of the same name was run with other settings.
        StoreError: If what is there was not written by a comparison.
    """
    path = files.join(folder, ARMS)
    had, before_seeds = read_arms(folder) or ({}, [])
    for arm in arms:
        before = had.get(arm.name)
        if before is not None and before != list(arm.overrides):
            raise ExperimentError(
                f"{folder} has an arm {arm.name!r} with other settings ({', '.join(before)}); give the arm another"
                " name, or the comparison another place (--set name=...)"
            )
        had[arm.name] = list(arm.overrides)
    if had and next(iter(had)) != arms[0].name:
        raise ExperimentError(
            f"{folder} compares with the arm {next(iter(had))!r}; name it first again, or give the comparison"
            " another place (--set name=...)"
        )
    plain = {"arms": had, "seeds": sorted({*before_seeds, *seeds})}
    files.write_json(path, plain)


def with_overrides(arm: Sequence[str]) -> Arm:
    """An arm from the words after ``--arm``: its name, then its settings.

    Raises:
        ExperimentError: If there is no setting.
    """
    name, *settings = arm
    if not settings or not all("=" in setting for setting in settings):
        raise ExperimentError(
            f"--arm {' '.join(arm)}: give a name, then settings, such as --arm long finetune.epochs=9"
        )
    return dataclasses.replace(Arm(name, ()), overrides=tuple(settings))
