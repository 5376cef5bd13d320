"""Which checks there are, and in which order: the experiment's own first, what costs time last.

    examine(Subject())                                   # this machine and the installation
    examine(Subject("jobs/mine.yaml", ["rounds=1"]))     # and all that this experiment needs

Without an experiment nothing is asked of a network, and Ray is neither started nor joined. With one, a cluster that
a run would join is joined (unless ``use_ray`` is off); where a run would start a Ray of its own, this machine is
looked at in its place, and Ray is not started.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fdd_ray.doctor import data, endpoint, host, installation, machine, memory, models, nodes, pitfalls, storage, words
from fdd_ray.doctor.child import ask
from fdd_ray.doctor.findings import Check, Finding, note, of_error, run_checks
from fdd_ray.doctor.room import Node, look_at_room, roles_of
from fdd_ray.doctor.sandbox import look_at_sandbox
from fdd_ray.errors import DependencyError, ExperimentError, FddError, ProblemsError, StoreError
from fdd_ray.experiment import Experiment
from fdd_ray.reasoning.programs import ProgramLimits
from fdd_ray.settings import read_settings

SURVEY_S: Final = 300.0
_HERE: Final = "this machine"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is to be examined.

    Attributes:
        experiment: An experiment file; None for the machine alone.
        overrides: ``a.b=c`` strings that win over it.
        use_ray: Whether a cluster that is up may be joined.
        survey_s: Seconds that joining it and asking its nodes may take.
    """

    experiment: str | None = None
    overrides: Sequence[str] = ()
    use_ray: bool = True
    survey_s: float = SURVEY_S


def examine(subject: Subject, tell: Callable[[Finding], None] = lambda finding: None) -> list[Finding]:
    """Examine a machine, and an experiment if one is named.

    Args:
        subject: What.
        tell: Told of each finding as it comes.
    """
    return run_checks(_Examination(subject).checks(), tell)


class _Examination:
    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._experiment: Experiment | None = None
        self._address = ""
        self._told: dict[str, Any] | None = None
        self._samples = data.Samples()

    @functools.cached_property
    def _facts(self) -> host.Facts:
        return host.facts()

    def checks(self) -> Iterator[Check]:
        """All checks; each is asked for when those before it have ended, for what they found decides."""
        if self._subject.experiment is not None:
            yield Check("experiment", "the experiment file", self._read, 60, ExperimentError)
        if self._experiment is not None:
            yield Check("experiment", "the settings", self._on(pitfalls.look_at_settings), 60, ExperimentError)
        yield Check("ports", "ports of this machine", machine.look_at_ports, 30)
        if self._experiment is not None:
            yield Check("ports", "the cluster's address", self._find_cluster)
        yield Check("installation", "the packages", self._packages, 60, DependencyError)
        yield Check("machine", _HERE, lambda: machine.look_at_machine(self._facts), 60)
        yield Check("sandbox", "the sandbox of programs", self._sandbox, 120)
        if self._experiment is not None:
            yield from self._experiments(self._experiment)

    def _experiments(self, experiment: Experiment) -> Iterator[Check]:
        """The checks of an experiment that could be read."""
        directory = experiment.directory
        yield Check("storage", f"writing to {directory}", lambda: storage.look_at_storage(directory), 120, StoreError)
        yield Check("storage", f"room in {directory}", self._on(_space), 60, StoreError)
        yield Check("storage", f"the lease of {directory}", lambda: storage.look_at_driver(directory), 60, StoreError)
        for name, sources in {data.POOL: experiment.pool, **experiment.benchmarks}.items():
            for source in sources:
                look = functools.partial(data.look_at_source, name, source, self._samples)
                yield Check("problems", f"the source of {name}", look, data.HUB_S + 60, ProblemsError)
        look_at_pool = functools.partial(pitfalls.look_at_pool, experiment, self._samples)
        yield Check("problems", "the pool", look_at_pool, 90, ProblemsError)
        for role, settings in roles_of(experiment).items():
            if settings.endpoint is not None:
                on_cluster = bool(self._address) and self._subject.use_ray
                asked = functools.partial(endpoint.look_at_endpoint, role, settings, on_cluster=on_cluster)
                yield Check("models", f"the endpoint of the {role}", asked, endpoint.DEADLINE_S + 30)
                continue
            yield Check("models", f"the model of the {role}", functools.partial(models.look_at_model, role, settings))
        yield Check("models", "the tokenizers", self._on(self._words), words.DEADLINE_S + 30)
        if self._address and self._subject.use_ray:
            yield Check("cluster", "the nodes of the cluster", self._survey, self._subject.survey_s + 30)
        yield Check("room", "room on the cluster", self._on(self._room))
        yield Check("room", "memory", self._on(self._memory))
        yield Check("plan", "the plan", self._on(_plan), 90)

    # -- checks -----------------------------------------------------------------------------------

    def _read(self) -> Iterator[Finding]:
        assert self._subject.experiment is not None
        try:
            self._experiment = read_settings(Experiment, self._subject.experiment, self._subject.overrides)
        except ExperimentError as error:
            for line in str(error).splitlines():
                yield of_error(ExperimentError(line))

    def _on(self, look: Callable[[Experiment], Iterable[Finding]]) -> Callable[[], Iterable[Finding]]:
        assert self._experiment is not None
        return functools.partial(look, self._experiment)

    def _find_cluster(self) -> Iterator[Finding]:
        self._address = machine.cluster_address()
        if not self._address:
            yield Finding("ok", "a run would start a Ray of its own here, that only this machine reaches")
            return
        for finding in machine.look_at_address(self._address):
            if finding.level == "problem":
                self._address = ""
            yield finding
        if self._address and not self._subject.use_ray:
            yield note("the cluster is not joined, so nothing is known of its nodes", "run it without --no-ray")

    def _packages(self) -> Iterable[Finding]:
        experiment = self._experiment
        needed = frozenset[str]() if experiment is None else extras_of(experiment)
        engines = (
            experiment is not None and not self._address and any(map(nodes.needs_vllm, roles_of(experiment).values()))
        )
        return installation.look_at_packages(installation.Installation.here(), needed, engines=engines)

    def _sandbox(self) -> Iterable[Finding]:
        return look_at_sandbox(self._experiment.check.programs if self._experiment is not None else ProgramLimits())

    def _words(self, experiment: Experiment) -> Iterable[Finding]:
        # What is not here, or broken, was said by the model's own check.
        folders: dict[words.Role, Path] = {}
        for role in ("teacher", "student"):
            settings = roles_of(experiment).get(role)
            folder = models.folder_of(settings) if settings is not None else None
            if folder is not None and (folder / "config.json").is_file():
                folders[role] = folder
        return words.look_at_words(experiment, folders, self._samples.questions.get(data.POOL, []))

    def _survey(self) -> Iterator[Finding]:
        experiment = self._experiment
        assert experiment is not None
        paths = sorted({path for found in nodes.paths_of(experiment).values() for path in found})
        question = {
            "directory": experiment.directory,
            "variables": nodes.variables_of(experiment),
            "paths": paths,
        }
        with storage.folders_as_they_were(experiment.directory):
            try:
                self._told = ask("fdd_ray.doctor.survey:survey", question, self._subject.survey_s)
            except FddError as error:
                yield of_error(error)
                return
        yield from nodes.look_at_nodes(self._told or {}, experiment, self._facts)

    def _places(self) -> tuple[list[Node], bool, str] | None:
        """The nodes that engines may run on, whether more may come, and what they are called; None if not known."""
        if self._told is not None:
            return nodes.placement_nodes(self._told), self._told["grows"], "the cluster"
        if self._address:
            return None
        facts = self._facts
        resources = {"CPU": float(facts.cpus), "GPU": float(len(facts.gpus))}
        return [Node({name: amount for name, amount in resources.items() if amount}, {})], False, _HERE

    def _room(self, experiment: Experiment) -> Iterator[Finding]:
        places = self._places()
        if places is not None:
            there, grows, where = places
            yield from look_at_room(experiment, there, grows=grows, where=where, joined=self._told is not None)

    def _memory(self, experiment: Experiment) -> Iterator[Finding]:
        places = self._places()
        if places is None:
            return
        gpus = functools.partial(nodes.gpu_bytes, self._told) if self._told is not None else self._own_gpus
        on_cpu: list[tuple[str, float]] = []
        for role, settings in roles_of(experiment).items():
            weights = models.weights_of(settings) if settings.endpoint is None else None
            if weights is None:
                continue
            there = gpus(settings.label_selector) if settings.gpus_per_replica != 0 else []
            if there:
                yield from memory.look_at_engine(role, settings, weights, there)
            elif not settings.gpus_per_replica:
                on_cpu.append(memory.cpu_engines(role, settings, weights))
        yield from self._training(experiment, gpus, on_cpu)
        if self._told is None:  # on a cluster nobody knows which node gets what
            yield from memory.look_at_memory(on_cpu, self._facts.memory_bytes)

    def _training(
        self, experiment: Experiment, gpus: Callable[[Any], list[int]], on_cpu: list[tuple[str, float]]
    ) -> Iterator[Finding]:
        weights, settings = models.weights_of(experiment.student), experiment.finetune
        if weights is None:
            return
        there = gpus(settings.label_selector) if settings.gpus_per_worker != 0 else []
        if there:
            yield from memory.look_at_training(settings, weights, there)
        elif not settings.gpus_per_worker:
            each = memory.training_bytes(settings, weights.parameters, on_gpu=False)
            on_cpu.append((f"{settings.workers[0]} x fine-tuning", settings.workers[0] * each))

    def _own_gpus(self, labels: dict[str, str]) -> list[int]:
        return [gpu.memory_mib << 20 for gpu in self._facts.gpus if gpu.memory_mib] if not labels else []


def extras_of(experiment: Experiment) -> frozenset[str]:
    """The extras of the package without which an experiment does not run."""
    needed: set[str] = set()  # trackers are seen to with the settings
    paths = [experiment.storage, *(source.path for source in experiment.pool)]
    paths += [source.path for sources in experiment.benchmarks.values() for source in sources]
    for role in roles_of(experiment).values():
        paths.append(role.model)
        if role.endpoint is not None:
            needed.add("api")
    schemes = {path.partition("://")[0] for path in paths if "://" in path}
    needed |= {"s3"} if schemes & {"s3", "s3a"} else set()
    needed |= {"gcs"} if schemes & {"gs", "gcs"} else set()
    needed |= {"lora"} if experiment.finetune.lora is not None else set()
    needed |= {"latex"} if experiment.check.second_opinion == "math_verify" else set()
    return frozenset(needed)


def _space(experiment: Experiment) -> Iterator[Finding]:
    """Students of all rounds, and the step checkpoint of one fine-tuning."""
    weights = models.weights_of(experiment.student)
    students = experiment.rounds + 1
    if weights is None:
        yield from storage.look_at_space(experiment.directory, 0, f"{students} students of a size that is not known")
        return
    each = weights.disk_bytes or weights.parameters * 2
    checkpoint = weights.parameters * 12 if experiment.finetune.checkpoint_steps and not experiment.finetune.lora else 0
    what = f"{students} students" + (", and the step checkpoints of one fine-tuning" if checkpoint else "")
    yield from storage.look_at_space(experiment.directory, students * each + 2 * checkpoint, what)


def _plan(experiment: Experiment) -> Iterator[Finding]:
    try:
        yield from pitfalls.look_at_plan(experiment)
    except ProblemsError:
        yield note("there is no plan, for the pool or a benchmark cannot be read", "correct that first")
