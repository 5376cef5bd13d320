"""What a run holds on the cluster: Ray, the engines of both roles, and the account of what they cost.

Ray starts when the first stage needs it; a run whose stages are all done needs none. Engines start when
their role is first asked, and where there is room the other role's start beside them, so that loading
overlaps with work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import Literal

from fdd_ray.budget import Meter
from fdd_ray.checking import Asking
from fdd_ray.cluster import ray_session
from fdd_ray.engines.fleet import Fleet
from fdd_ray.engines.placement import Place, Shape
from fdd_ray.engines.room import claim, leave_room, room_for
from fdd_ray.experiment import Experiment
from fdd_ray.overseer import Overseer
from fdd_ray.progress import Reporter
from fdd_ray.prompts import PromptSet
from fdd_ray.store.manifest import StageResult, Usage
from fdd_ray.store.run import StageFolder
from fdd_ray.store.spent import Spent
from fdd_ray.training.fit import warm_up

Work = Callable[[StageFolder], StageResult]


class Resources:
    """Ray, engines and accounts of one run.

    Args:
        experiment: The settings.
        run_id: Tells the engines of runs on one cluster apart.
        prompts: The prompt set.
        before: What the run cost before.
        reporter: Where progress is shown.
        start_early: Load what later stages need while earlier ones are at work, where there is room.
    """

    def __init__(
        self,
        experiment: Experiment,
        run_id: str,
        prompts: PromptSet,
        before: Spent,
        reporter: Reporter,
        *,
        start_early: bool = True,
    ) -> None:
        self.experiment = experiment
        self.reporter = reporter
        self.student = Fleet("student", experiment.student, run_id)
        asks_teacher = experiment.rounds > 0 or experiment.rationales == "teacher"
        self.teacher = Fleet("teacher", experiment.teacher, run_id) if experiment.teacher and asks_teacher else None
        self.overseer = Overseer(
            _meter(experiment, before),
            {fleet.role: fleet.settings.cost for fleet in self._fleets()},
            grace_s=experiment.flow.grace_s,
            say=reporter.say,
        )
        self._prompts = prompts
        self._start_early = start_early
        self._stack = contextlib.ExitStack()
        self._ray_is_up = False
        self._training = (0.0, 0.0)

    def close(self) -> None:
        """Give everything back."""
        for fleet in self._fleets():
            if fleet.started:
                fleet.release()
        self._stack.close()

    def start_ray(self) -> None:
        """Make sure that Ray is there."""
        if not self._ray_is_up:
            self._check_endpoint()
            self._stack.enter_context(ray_session(self.reporter))
            self._ray_is_up = True
            self.overseer.watch_for_sigterm()
            if self._start_early:
                warm_up()

    def asking(self, role: Literal["teacher", "student"], report: Callable[[str], None]) -> Asking:
        """What a stage asks a role with; starts Ray and the engines if need be."""
        fleet = self.student if role == "student" else self.teacher
        assert fleet is not None, "the experiment was checked to name a teacher"
        self.start_ray()
        others = [other for other in self._fleets() if other is not fleet]
        fleet.start()
        # Those that wait for a place, but are not asked now, must not take the one that comes free.
        claim(lambda: fleet.has_least, fleet.shape(), others, report)
        if self._start_early and room_for(self._fleets(), self._rows()):
            for other in others:
                other.start()
        fleet.wait(report)
        leave_room(fleet, others, self._rows(), report)
        for note in fleet.notes:
            self.reporter.say(note)
        experiment = self.experiment
        return Asking(fleet.client(), self._prompts, experiment.check, experiment.kind, experiment.seed)

    @contextlib.contextmanager
    def training(self, report: Callable[[str], None]) -> Iterator[None]:
        """Room on the cluster for the workers of a fine-tuning."""
        self.start_ray()
        settings = self.experiment.finetune
        for shape in self._workers():
            place = Place(shape)
            try:
                claim(lambda place=place: place.placed, shape, self._fleets(), report)  # type: ignore[misc]
            finally:
                place.free()  # Ray Train asks for a place of its own
        gpus = self._gpus_per_worker()
        self._training = (settings.workers[1] * settings.cpus_per_worker, settings.workers[1] * gpus)
        try:
            yield
        finally:
            self._training = (0.0, 0.0)

    def metered(self, work: Work) -> Work:
        """``work`` with its cost noted in its result; not begun if the budget is used up.

        What is reserved is looked at when the stage ends; a stage that was resumed knows the tokens of all its
        rows, but only the time since it was resumed.
        """

        def run(folder: StageFolder) -> StageResult:
            meter = self.overseer.meter
            meter.require(folder.label)
            begun = time.monotonic()
            meter.begin(self._money_per_second)
            try:
                result = work(folder)
            finally:
                meter.end()
            seconds = time.monotonic() - begun
            engines, cpus, gpus = self._reserved()
            tokens_cost = sum(
                fleet.settings.cost(counts.get("prompt", 0), counts.get("completion", 0))
                for fleet in self._fleets()
                for role, counts in result.tokens.items()
                if role == fleet.role
            )
            money = tokens_cost + self.experiment.prices.of(cpus * seconds, gpus * seconds)
            usage = Usage(
                engine_seconds=round(engines * seconds, 2),
                cpu_seconds=round(cpus * seconds, 2),
                gpu_seconds=round(gpus * seconds, 2),
                money=round(money, 6),
            )
            return dataclasses.replace(result, usage=usage)

        return run

    def require_budget(self) -> None:
        """Raise `BudgetError` if the budget is used up; to be called every second by what works without rows."""
        self.overseer.meter.require("fine-tuning")

    def _check_endpoint(self) -> None:
        """Say that a teacher's endpoint does not serve before anything is claimed on the cluster.

        Where its key is known on the cluster only, the engines find out when they start.
        """
        settings = self.teacher.settings if self.teacher is not None else None
        if settings is None or settings.endpoint is None:
            return
        if settings.api_key_env is None or settings.api_key_env in os.environ:
            from fdd_ray.engines.openai import check_endpoint

            check_endpoint(settings)

    def _fleets(self) -> list[Fleet]:
        return [self.student, *([self.teacher] if self.teacher else [])]

    def _reserved(self) -> tuple[int, float, float]:
        """Engines, CPUs and GPUs that are reserved now."""
        engines, (cpus, gpus) = 0, self._training
        for fleet in self._fleets():
            if fleet.started:
                replicas = fleet.placed
                engines += replicas
                cpus += replicas * fleet.settings.cpus
                gpus += replicas * fleet.gpus_per_replica()
        return engines, cpus, gpus

    def _money_per_second(self) -> float:
        _, cpus, gpus = self._reserved()
        return self.experiment.prices.of(cpus, gpus)

    def _rows(self) -> Shape:
        """What the map actors of a stage need at least."""
        flow = self.experiment.flow
        return Shape(({"CPU": flow.map_actors[0] * flow.cpus_per_map_actor},))

    def _workers(self) -> list[Shape]:
        """What the workers of a fine-tuning need at least; nothing, if they reserve nothing."""
        settings = self.experiment.finetune
        each = {"CPU": settings.cpus_per_worker, "GPU": self._gpus_per_worker(), **settings.resources}
        each = {name: amount for name, amount in each.items() if amount}
        return [Shape((each,) * settings.workers[0], dict(settings.label_selector))] if each else []

    def _gpus_per_worker(self) -> float:
        import ray

        given = self.experiment.finetune.gpus_per_worker
        return given if given is not None else float(ray.cluster_resources().get("GPU", 0) > 0)


def _meter(experiment: Experiment, before: Spent) -> Meter:
    """A meter that knows what the run cost before, at the prices of now."""
    money = experiment.prices.of(before.seconds["cpu"], before.seconds["gpu"])
    teacher_tokens = 0
    for role in (experiment.teacher, experiment.student):
        counts = before.tokens.get(role.model) if role is not None else None
        if role is not None and counts is not None:
            money += role.cost(counts["prompt"], counts["completion"])
            if role is experiment.teacher:
                teacher_tokens = counts["prompt"] + counts["completion"]
    return Meter(experiment.budget, teacher_tokens=teacher_tokens, money=money, seconds=before.seconds["stage"])
