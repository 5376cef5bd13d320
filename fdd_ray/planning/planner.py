"""Makes plans: goes through the stages as the loop does, from what the run directory has on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from fdd_ray.engines.base import EngineSettings
from fdd_ray.errors import StoreError
from fdd_ray.experiment import Experiment
from fdd_ray.planning.checks import budget_lines, warnings_of
from fdd_ray.planning.estimates import Estimates, Tokens
from fdd_ray.planning.models import Size, size_of
from fdd_ray.planning.observed import Observed
from fdd_ray.planning.plan import Options, Plan, StagePlan, State
from fdd_ray.planning.ranges import ZERO, Range, short, total
from fdd_ray.planning.sizes import SAMPLE, Sized, sizes_of
from fdd_ray.planning.speeds import Speed, device_for, generation, training
from fdd_ray.planning.words import count_texts
from fdd_ray.prompts import load_prompts
from fdd_ray.stages.problems import POOL_FILE
from fdd_ray.store import files
from fdd_ray.store.manifest import EXPERIMENT, Manifest, find_stages
from fdd_ray.store.spent import rows_in_parts, spent

Role = Literal["teacher", "student"]

_ROLES: Final[tuple[Role, ...]] = ("teacher", "student")
_GUESSED: Final = {"teacher": 7e9, "student": 0.5e9}
_SECONDS_PER_ROW: Final = Range(2e-4, 2e-3, 1e-2)  # of stages without a model
_MILLION: Final = 1e6


def make_plan(experiment: Experiment, options: Options | None = None) -> Plan:
    """Plan an experiment, from what its run directory has on.

    Args:
        experiment: The settings.
        options: What is known beside them.

    Raises:
        ProblemsError: If a pool or benchmark file on this machine cannot be read.
        StoreError: If the run directory cannot be.
    """
    planner = _Planner(experiment, options or Options())
    stages = tuple(planner.stages())
    before = spent(experiment.directory) if planner.exists else None
    return Plan(
        experiment,
        stages,
        before,
        tuple(planner.assumptions()),
        (*budget_lines(experiment, stages, before), *warnings_of(experiment, planner.students_size, planner.exists)),
    )


class _Reserved(NamedTuple):
    """What is reserved on the cluster."""

    gpus: float = 0.0
    cpus: float = 0.0

    def beside(self, other: _Reserved) -> _Reserved:
        return _Reserved(self.gpus + other.gpus, self.cpus + other.cpus)


class _Planner:
    def __init__(self, experiment: Experiment, options: Options) -> None:
        self.experiment = experiment
        self.options = options
        directory = experiment.directory
        self.exists = files.exists(files.join(directory, EXPERIMENT))
        self._seen = Observed(find_stages(directory) if self.exists else [], experiment)
        self._sizes = self._problems()
        self._models = {role: self._size(role) for role in _ROLES if self._settings(role) is not None}
        self.students_size = self._models["student"]
        prompts, questions = load_prompts(experiment.prompts), self._sizes["pool"].questions
        self._texts = {role: count_texts(prompts, questions, size) for role, size in self._models.items()}
        student = self._texts["student"]
        self._estimates = Estimates(experiment, self._seen, self._texts.get("teacher", student), student)
        self._speeds = {role: self._speed(role) for role in self._models}
        self._trainer = training(
            experiment.finetune, self.students_size, self._device("student"), options.training_tokens_per_second
        )

    # -- stages -----------------------------------------------------------------------------------

    def stages(self) -> Iterator[StagePlan]:
        """The stages in the order in which `fdd_ray.loop.distill` does them."""
        estimates = self._estimates
        pool = self._sizes["pool"].problems
        benchmarks = total(found.problems for name, found in self._sizes.items() if name != "pool")
        yield self._plain("problems", 0, pool + benchmarks)
        yield self._asking("score", None, benchmarks, estimates.score(ZERO, benchmarks, base=True), "student")
        yield self._asking("rationales", 0, pool, estimates.rationales(pool), "teacher")
        examples = estimates.taught(pool)
        yield self._finetune(0, examples)
        scored = estimates.score(pool, benchmarks, base=False)
        yield self._asking("score", 0, pool + benchmarks, scored, "student")
        for round in range(1, self.experiment.rounds + 1):
            yield self._plain("split", round, pool)
            asked = Range.exact(estimates.asked())
            yield self._asking("synthesise", round, asked, estimates.synthesise(asked), "teacher")
            yield self._plain("curate", round, asked)
            curated, trained = self._seen.done("curate", round), self._seen.done("finetune", round)
            accepted = Range.exact(curated.counts.kept) if curated else estimates.accepted(asked)
            if self.experiment.feedback.policy != "more_rationales":
                pool = pool + accepted
            examples = examples + estimates.added(accepted)
            if trained:  # the student's own rationales are drawn anew in each round
                examples = Range.exact(trained.counts.rows - int(trained.summary.get("own", 0)))
            yield self._finetune(round, examples + estimates.own(examples))
            scored = estimates.score(pool, benchmarks, base=False)
            yield self._asking("score", round, pool + benchmarks, scored, "student")

    def _plain(self, stage: str, round: int, rows: Range) -> StagePlan:
        """A stage without a model; the engines that were started before wait meanwhile."""
        if (done := self._seen.done(stage, round)) is not None:
            return self._done(done)
        plan = StagePlan(stage, round, self._state(stage, round), rows, seconds=rows * _SECONDS_PER_ROW)
        return self._costed(
            plan, plan.seconds, _Reserved(), _Reserved() if stage == "problems" else self._engines(*_ROLES)
        )

    def _asking(self, stage: str, round: int | None, rows: Range, tokens: Tokens, role: Role) -> StagePlan:
        """A stage in which the engines of a role are asked."""
        if (done := self._seen.done(stage, round)) is not None:
            return self._done(done)
        plan = StagePlan(stage, round, self._state(stage, round), rows)
        if plan.state == "unfinished":
            written = rows_in_parts(self._seen.stages[stage, round].path)
            left = max(0.0, 1 - written / rows.likely) if rows.likely else 0.0
            tokens = Tokens(*(part * left for part in tokens))
            plan = dataclasses.replace(plan, rows_written=written)
        settings = self._settings(role)
        if settings is None or not tokens.completion.high:
            return plan
        given, seconds = getattr(self.options, f"{role}_tokens_per_second"), None
        if not given:
            kinds = ("synthesise", "rationales") if role == "teacher" else ("score", "base score")
            seconds = self._seen.stage_seconds(kinds, tokens.prompt, tokens.completion)
        busy = seconds
        if seconds is None or busy is None:
            engines = (1, 1) if settings.endpoint and given else settings.replicas
            seconds = self._speeds[role].seconds(*tokens, engines)
            busy = self._speeds[role].seconds(*tokens, (engines[1], engines[1]))
        price = tokens.prompt * (settings.prompt_price / _MILLION)
        price += tokens.completion * (settings.completion_price / _MILLION)
        plan = dataclasses.replace(plan, seconds=seconds)
        plan = (
            dataclasses.replace(plan, teacher=tokens)
            if role == "teacher"
            else dataclasses.replace(plan, student=tokens)
        )
        return self._costed(plan, busy, self._engines(role), self._engines(*_ROLES), price)

    def _finetune(self, round: int, examples: Range) -> StagePlan:
        if (done := self._seen.done("finetune", round)) is not None:
            return self._done(done)
        settings, tokens = self.experiment.finetune, self._estimates.trained(examples)
        seconds = None if self.options.training_tokens_per_second else self._seen.training_seconds(tokens)
        busy = seconds
        if seconds is None or busy is None:
            seconds = self._trainer.seconds(ZERO, tokens, examples, settings.workers)
            busy = self._trainer.seconds(ZERO, tokens, examples, (settings.workers[1],) * 2)
        plan = StagePlan("finetune", round, self._state("finetune", round), examples, trained=tokens, seconds=seconds)
        workers = settings.workers[1]
        own = _Reserved(workers * self._trainer.gpus, workers * settings.cpus_per_worker)
        return self._costed(plan, busy, own, own.beside(self._engines("teacher")))

    def _done(self, manifest: Manifest) -> StagePlan:
        """What a finished stage took; nothing, if it was copied from another run."""
        plan = StagePlan(manifest.stage, manifest.round, "done", Range.exact(manifest.counts.rows))
        if manifest.forked_from:
            return plan
        teacher, student = (
            Tokens(*(Range.exact(manifest.tokens.get(role, {}).get(kind, 0)) for kind in ("prompt", "completion")))
            for role in _ROLES
        )
        usage = manifest.usage
        trained = manifest.summary.get("tokens", 0) if manifest.stage == "finetune" else 0
        plan = dataclasses.replace(plan, teacher=teacher, student=student, trained=Range.exact(trained))
        plan = dataclasses.replace(plan, seconds=Range.exact(manifest.seconds))
        if usage is None:
            return plan
        return dataclasses.replace(
            plan,
            gpu_seconds=Range.exact(usage.gpu_seconds),
            cpu_seconds=Range.exact(usage.cpu_seconds),
            money=Range.exact(usage.money),
        )

    def _costed(
        self, plan: StagePlan, busy: Range, least: _Reserved, likely: _Reserved, price: Range = ZERO
    ) -> StagePlan:
        """The stage with what it reserves, and what that and its tokens cost.

        Args:
            plan: The stage.
            busy: Its seconds if all of what it asks for comes; with less it takes longer, but reserves less.
            least: What at least is reserved in these.
            likely: What is, where engines wait for other stages.
            price: The price of its tokens.
        """
        times, prices = busy, self.experiment.prices
        gpus = Range(times.low * least.gpus, times.likely * likely.gpus, times.high * likely.gpus)
        cpus = Range(times.low * least.cpus, times.likely * likely.cpus, times.high * likely.cpus)
        money = price + gpus * (prices.gpu_hour / 3600) + cpus * (prices.cpu_hour / 3600)
        return dataclasses.replace(plan, gpu_seconds=gpus, cpu_seconds=cpus, money=money)

    def _engines(self, *roles: Role) -> _Reserved:
        """What all engines of these roles reserve."""
        found = _Reserved()
        for role in roles:
            settings = self._settings(role)
            if settings is not None:
                most = settings.replicas[1]
                found = found.beside(_Reserved(most * self._speeds[role].gpus, most * settings.cpus))
        return found

    def _state(self, stage: str, round: int | None) -> State:
        return "unfinished" if (stage, round) in self._seen.stages else "to do"

    # -- what is known ----------------------------------------------------------------------------

    def _settings(self, role: Role) -> EngineSettings | None:
        return self.experiment.teacher if role == "teacher" else self.experiment.student

    def _problems(self) -> dict[str, Sized]:
        """The sizes of the pool and the benchmarks: as they were loaded, or as their sources tell."""
        experiment, done = self.experiment, self._seen.done("problems", 0)
        if done is not None:
            loaded = {name: int(count) for name, count in done.summary["sizes"].items()}
            found = {name: Sized(Range.exact(count), (), "loaded by this run") for name, count in loaded.items()}
            found["pool"] = found["pool"]._replace(questions=_questions(files.join(done.path, POOL_FILE)))
            if found.keys() == {"pool", *experiment.benchmarks}:
                return found
        return sizes_of(experiment.pool, experiment.benchmarks, self.options.sizes)

    def _size(self, role: Role) -> Size:
        settings = self._settings(role)
        assert settings is not None
        found = None if settings.endpoint else size_of(settings.model)
        if found is not None:
            return found
        source = "behind an endpoint" if settings.endpoint else "not told by its name: assumed"
        return Size(_GUESSED[role], _GUESSED[role], source)

    def _device(self, role: Role) -> str:
        settings = self._settings(role)
        assert settings is not None
        return device_for(settings, self._models[role], self.options.device)

    def _speed(self, role: Role) -> Speed:
        settings = self._settings(role)
        assert settings is not None
        given = getattr(self.options, f"{role}_tokens_per_second")
        return generation(settings, self._models[role], self._device(role), given)

    def assumptions(self) -> Iterator[str]:
        """What the estimates rest on, one line each."""
        for name, sized in self._sizes.items():
            where = name if name == "pool" else f"benchmark {name}"
            yield f"{where}: {_counted(sized.problems)} problems ({sized.how})"
        for role, size in self._models.items():
            settings = self._settings(role)
            assert settings is not None
            known = "" if settings.endpoint else f"{short(size.parameters).replace('G', 'B')} parameters, "
            yield f"{role} {settings.model}: {known}{size.source}; tokens counted by {self._texts[role].how}"
        for role, speed in self._speeds.items():
            yield f"a {role} engine: {speed.how}"
        yield f"a fine-tuning worker: {self._trainer.how}"
        if self._seen.latest("rationales") or self._seen.latest("score"):
            yield "where a stage of this kind is done in the run, its tokens, shares and pace are taken instead"
        else:
            yield (
                "completions are taken as a share of the question's tokens, from that of GSM8K's own solutions up;"
                " how many problems pass is assumed"
            )
        yield "GPU hours are of reserved GPUs: at the least of those at work, likely of all engines, idle ones too"


def _questions(path: str) -> tuple[str, ...]:
    """Some questions of the pool that a run has loaded; none if its file is gone."""
    import pyarrow as pa

    try:
        rows = files.read_rows(path, 0, SAMPLE, pa.schema([("question", pa.string())]))
    except (StoreError, OSError):
        return ()
    return tuple(rows.column("question").to_pylist())


def _counted(count: Range) -> str:
    return f"{count.likely:,.0f}" if count.known else f"{count.low:,.0f} to {count.high:,.0f}"
