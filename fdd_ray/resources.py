"""What a run holds on the cluster: Ray, the engines of both roles, and the account of what they cost.

Ray starts when the first stage needs it; a run whose stages are all done needs none. Engines start when
their role is first asked, and where there is room the other role's start beside them, so that loading
overlaps with work. A role that no stage has asked for its settings' ``idle_release_s`` gives its engines back.
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
from fdd_ray.engines.placement import Place, Shape, has_gpus
from fdd_ray.engines.room import claim, leave_room, room_for
from fdd_ray.experiment import Experiment
from fdd_ray.metrics import of_run
from fdd_ray.overseer import Overseer
from fdd_ray.progress import Reporter
from fdd_ray.prompts import PromptSet
from fdd_ray.store.manifest import StageResult, Usage
from fdd_ray.store.run import StageFolder, round_seconds
from fdd_ray.store.spent import Spent
from fdd_ray.training.fit import warm_up
from fdd_ray.training.settings import FinetuneSettings
from fdd_ray.visibility import require_visible

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
        self._metrics = of_run(experiment.name)
        reporter.tell = self._metrics.progressed
        self.overseer = Overseer(
            _meter(experiment, before),
            {fleet.role: fleet.settings.cost for fleet in self._fleets()},
            grace_s=experiment.flow.grace_s,
            say=reporter.say,
            tell=self._spent,
        )
        for role, counts in before.by_role.items():
            reporter.spent(role, counts["prompt"], counts["completion"])
        reporter.charge(lambda: self.overseer.meter.money)
        self._prompts = prompts
        self._start_early = start_early
        self._stack = contextlib.ExitStack()
        self._ray_is_up = False
        self._training = (0.0, 0.0)
        self._note: Callable[..., None] = _nowhere  # into the ledger, of the stage at work
        self._asked: dict[str, float] = {}  # when the engines of a role were asked for
        self._begun: float | None = None  # when the stage at work began
        self._held: list[tuple[float, float, float]] = []  # engine-, CPU- and GPU-seconds of what it gave back

    def close(self) -> None:
        """Give everything back."""
        for fleet in self._fleets():
            fleet.release()
            self._metrics.engines(fleet.role, 0)
        self._stack.close()

    def start_ray(self) -> None:
        """Make sure that Ray is there."""
        if not self._ray_is_up:
            self._check_endpoint()
            with self._waiting("Ray"):
                self._stack.enter_context(ray_session(self.reporter))
            self._ray_is_up = True
            self.overseer.watch_for_sigterm()
            require_visible(self.experiment.directory)
            if self._start_early:
                warm_up()

    def asking(self, role: Literal["teacher", "student"], report: Callable[[str], None]) -> Asking:
        """What a stage asks a role with; starts Ray and the engines if need be."""
        fleet = self.student if role == "student" else self.teacher
        assert fleet is not None, "the experiment was checked to name a teacher"
        self.start_ray()
        others = [other for other in self._fleets() if other is not fleet]
        self._start(fleet)
        # Those that wait for a place, but are not asked now, must not take the one that comes free.
        with self._waiting(f"{role} place"):
            claim(lambda: fleet.has_least, fleet.shape(), others, report)
        if self._start_early and room_for(self._fleets(), self._rows()):
            for other in others:
                if other.settings.idle_release_s is None:  # others would only wait to be given back
                    self._start(other)
        with self._waiting(f"{role} weights"):
            fleet.reload(report)
        with self._waiting(f"{role} engines", ahead=time.monotonic() - self._asked[role]):
            fleet.wait(report)
        leave_room(fleet, others, self._rows(), report)
        for note in fleet.notes:
            self.reporter.say(note)
        experiment = self.experiment
        return Asking(fleet.client(), self._prompts, experiment.check, experiment.kind, experiment.seed)

    @contextlib.contextmanager
    def training(self, report: Callable[[str], None]) -> Iterator[FinetuneSettings]:
        """Room on the cluster for the workers of a fine-tuning.

        Yields:
            Its settings, with the GPUs of a worker decided by the nodes that it may run on.

        Raises:
            EngineError: If that is not said, and cannot be seen either.
        """
        self.start_ray()
        settings = self._finetune_settings()
        with self._waiting("training place"):
            for shape in _workers(settings):
                place = Place(shape)
                try:
                    claim(lambda place=place: place.placed, shape, self._fleets(), report)  # type: ignore[misc]
                finally:
                    place.free()  # Ray Train asks for a place of its own
        gpus = settings.gpus_per_worker or 0.0
        cpus, gpus = settings.workers[1] * settings.cpus_per_worker, settings.workers[1] * gpus
        self._training = (cpus, gpus)
        begun = time.monotonic()
        try:
            yield settings
        finally:
            self._training = (0.0, 0.0)
            seconds = time.monotonic() - begun
            self._held.append((0.0, cpus * seconds, gpus * seconds))

    def metered(self, work: Work) -> Work:
        """``work`` with its cost noted in its result; not begun if the budget is used up.

        What is reserved is looked at when the stage ends, beside the workers of a fine-tuning and what was given back
        before; a stage that was resumed knows the tokens of all its rows, but only the time since it was resumed.
        """

        def run(folder: StageFolder) -> StageResult:
            meter = self.overseer.meter
            meter.require(folder.label)
            self._begun, self._held, self._note = time.monotonic(), [], folder.note
            meter.begin(self._money_per_second)
            try:
                with self._metrics.stage(folder.name, folder.round), self.reporter.at_work(folder.name, folder.round):
                    result = work(folder)
            finally:
                self._note = _nowhere
                engines, cpus, gpus = self._end_stage(time.monotonic() - self._begun)
            tokens_cost = sum(
                fleet.settings.cost(counts.get("prompt", 0), counts.get("completion", 0))
                for fleet in self._fleets()
                for role, counts in result.tokens.items()
                if role == fleet.role
            )
            money = tokens_cost + self.experiment.prices.of(cpus, gpus)
            usage = Usage(
                engine_seconds=round(engines, 2),
                cpu_seconds=round(cpus, 2),
                gpu_seconds=round(gpus, 2),
                money=round(money, 6),
            )
            return dataclasses.replace(result, usage=usage)

        return run

    def require_budget(self) -> None:
        """Raise `BudgetError` if the budget is used up; to be called every second by what works without rows."""
        self.overseer.meter.require("fine-tuning")

    def _spent(self, role: str, prompt_tokens: int, completion_tokens: int, money: float) -> None:
        self._metrics.spent(role, prompt_tokens, completion_tokens, money)
        self.reporter.spent(role, prompt_tokens, completion_tokens)

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

    def _start(self, fleet: Fleet) -> None:
        """Ask for the engines of a role, and remember since when they are asked for."""
        if not fleet.started:
            self._asked[fleet.role] = time.monotonic()
        fleet.start()

    @contextlib.contextmanager
    def _waiting(self, what: str, **more: float) -> Iterator[None]:
        """Note in the ledger how long the stage at work waited for something."""
        begun = time.monotonic()
        yield
        more = {"seconds": time.monotonic() - begun, **more}
        self._note("waited", what=what, **{name: round_seconds(seconds) for name, seconds in more.items()})

    def _fleets(self) -> list[Fleet]:
        return [self.student, *([self.teacher] if self.teacher else [])]

    def _end_stage(self, seconds: float) -> tuple[float, float, float]:
        """Engine-, CPU- and GPU-seconds of the stage that ends; nobody asks the roles until the next one does."""
        reserved = self._reserved()
        self.overseer.meter.end()
        held, self._begun = self._held, None
        engines, cpus, gpus = (sum(amounts) for amounts in zip((0.0, 0.0, 0.0), *held, strict=True))
        self.overseer.meter.add(money=self.experiment.prices.of(cpus, gpus))
        for fleet in self._fleets():
            fleet.rest(self._given_back)
        return reserved[0] * seconds + engines, reserved[1] * seconds + cpus, reserved[2] * seconds + gpus

    def _reserved(self) -> tuple[int, float, float]:
        """Engines, CPUs and GPUs that are reserved now."""
        engines, (cpus, gpus) = 0, self._training
        for fleet in self._fleets():
            replicas = fleet.placed if fleet.started else 0
            self._metrics.engines(fleet.role, replicas)
            if replicas:
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

    def _finetune_settings(self) -> FinetuneSettings:
        """The settings of a fine-tuning, with the GPUs of a worker."""
        settings = self.experiment.finetune
        gpus = settings.gpus_per_worker
        if gpus is None:
            gpus = float(has_gpus(settings.label_selector, "finetune.gpus_per_worker"))
        return dataclasses.replace(settings, gpus_per_worker=gpus)

    def _given_back(self, fleet: Fleet, engines: int) -> None:
        """A role had nothing to do for long; what it held in the stage at work is still to be paid."""
        self.reporter.say(
            f"the {fleet.role} engines had nothing to do for {fleet.settings.idle_release_s:g} s: they are given back,"
            " and start anew when asked"
        )
        self._metrics.engines(fleet.role, 0)
        seconds = time.monotonic() - self._begun if self._begun is not None else 0.0
        held = engines * seconds
        self._held.append((held, held * fleet.settings.cpus, held * fleet.gpus_per_replica()))


def _nowhere(event: str, **fields: object) -> None:
    """Takes what is noted while no stage is at work."""


def _workers(settings: FinetuneSettings) -> list[Shape]:
    """What the workers of a fine-tuning need at least; nothing, if they reserve nothing."""
    each = {"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker or 0.0, **settings.resources}
    each = {name: amount for name, amount in each.items() if amount}
    return [Shape((each,) * settings.workers[0], dict(settings.label_selector))] if each else []


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
