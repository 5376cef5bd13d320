"""A fleet: the engines of one role (teacher or student), as named Ray actors that outlive a stage.

The driver owns a `Fleet`; rows ask through the `FleetClient` that it hands out, which sends each
request to the engine with the fewest requests in flight, and on to another when an engine dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fdd_ray.engines.base import EndpointError, EngineSettings, Reply, RequestError, Sampling
from fdd_ray.errors import EngineError
from fdd_ray.prompts import Message

NAMESPACE = "fdd_ray"
_BACK_OFF_S = 1.0
_CLOSE_S = 10.0
_MAX_CALLS = 4096
_SUSPECT_FROM = 2  # engines that died with a request before it is asked without other suspects


class Fleet:
    """The engines of one role. They start when they are first needed, and stay until released.

    Args:
        role: ``teacher`` or ``student``; part of the actors' names.
        settings: The role's settings.
        run_id: Tells runs on one cluster apart; part of the actors' names.

    Attributes:
        weights: What answers.
        notes: What the user should know of the endpoint, once `wait` has returned.
    """

    def __init__(self, role: str, settings: EngineSettings, run_id: str) -> None:
        self.role = role
        self.settings = settings
        self._run_id = run_id
        self._actors: list[Any] = []
        self.weights = settings.model
        self.notes: tuple[str, ...] = ()
        self._limiter: Any = None

    @property
    def started(self) -> bool:
        """Whether the engines were asked for."""
        return bool(self._actors)

    def start(self) -> None:
        """Ask the cluster for all replicas; returns at once."""
        import ray

        from fdd_ray.engines.actor import EngineActor

        if self._actors:
            return
        gpus = self.gpus_per_replica()
        actor_class = ray.remote(EngineActor)
        options: dict[str, Any] = {
            "num_cpus": self.settings.cpus,
            "num_gpus": gpus,
            "resources": dict(self.settings.resources),
            "namespace": NAMESPACE,
            "max_restarts": self.settings.max_restarts,
            "max_task_retries": 0,
            "max_concurrency": _MAX_CALLS,
            "runtime_env": {"env_vars": _environment(self.settings, gpus > 0)},
        }
        if self.settings.label_selector:
            options["label_selector"] = dict(self.settings.label_selector)
        # The job's id keeps apart two drivers of one run, of which the first is still being cleaned up.
        prefix = f"{self._run_id}-{ray.get_runtime_context().get_job_id()}-{self.role}"
        if self.settings.endpoint is not None:
            # Kept, because an actor ends with its last handle, and engines that die drop theirs.
            self._limiter = self._limits()
        self._actors = [
            actor_class.options(name=f"{prefix}-{i}", **options).remote(
                self.settings, gpus > 0, self.weights, self._limiter
            )
            for i in range(self.settings.replicas[1])
        ]

    def gpus_per_replica(self) -> int:
        """GPUs of one engine on this cluster."""
        import ray

        if self.settings.endpoint is not None:
            return 0
        if self.settings.gpus_per_replica is not None:
            return self.settings.gpus_per_replica
        return self.settings.tensor_parallel if ray.cluster_resources().get("GPU", 0) > 0 else 0

    def _limits(self) -> Any:
        """The actor that keeps the endpoint's limits: one for each endpoint, for as long as the driver lives."""
        import ray

        from fdd_ray.engines.limits import Limits

        endpoint = f"{self.settings.endpoint} {self.settings.api_key_env}".encode()
        job = ray.get_runtime_context().get_job_id()
        name = f"{self._run_id}-{job}-limits-{hashlib.blake2b(endpoint, digest_size=4).hexdigest()}"
        actor_class = ray.remote(Limits).options(
            name=name,
            namespace=NAMESPACE,
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=_MAX_CALLS,
        )
        return actor_class.remote(self.settings.requests_per_minute, self.settings.tokens_per_minute)

    def wait(self, report: Callable[[str], None]) -> None:
        """Wait until the smallest allowed number of engines serves.

        Args:
            report: Told every few seconds what is being waited for.

        Raises:
            EngineError: If that takes longer than ``start_deadline_s``, or an engine cannot start.
        """
        import ray

        need = self.settings.replicas[0]
        waiting = {actor.check.remote(): actor for actor in self._actors}
        begun = time.monotonic()
        ready = 0
        while ready < need:
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=5)
            for reference in done:
                actor = waiting.pop(reference)
                try:
                    self.notes = ray.get(reference)
                    ready += 1
                except ray.exceptions.ActorUnavailableError:  # it is being started again
                    time.sleep(_BACK_OFF_S)
                    waiting[actor.check.remote()] = actor
                except ray.exceptions.RayError as error:
                    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, EndpointError):
                        raise EngineError(f"{self.role}: {error.cause}") from None
                    if ready + len(waiting) < need:
                        raise EngineError(
                            f"a {self.role} engine ({self.weights}) did not start: {_cause(error)};"
                            " see the actor's log in Ray's log folder"
                        ) from error
            waited = time.monotonic() - begun
            if ready < need and waited > self.settings.start_deadline_s:
                raise EngineError(
                    f"{ready} of {need} {self.role} engines ({self.weights}) serve after {waited:.0f} s; each needs"
                    f" {self._demand()}, the cluster has {_shown(ray.cluster_resources())}, of it free"
                    f" {_shown(ray.available_resources())}. Give it more nodes, ask for less"
                    f" ({self.role}.replicas, gpus_per_replica, cpus_per_replica), or raise"
                    f" {self.role}.start_deadline_s"
                )
            if ready < need:
                free = _shown(ray.available_resources())
                at = f" at {self.settings.endpoint}" if self.settings.endpoint is not None else ""
                report(
                    f"waiting for the {self.role} engine{at}: {ready} of {need} serve after {waited:.0f} s"
                    f" (each needs {self._demand()}; free now: {free})"
                )

    def use(self, weights: str) -> None:
        """From now on these weights answer; engines that run load them in place when asked next."""
        self.weights = weights

    def client(self) -> FleetClient:
        """What rows ask through; it can be sent to other processes."""
        return FleetClient(self.role, self.weights, self.settings, tuple(self._actors))

    def release(self) -> None:
        """Stop the engines and give their resources back; they start again when next needed."""
        import ray

        closing = [actor.close.remote() for actor in self._actors]
        ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _demand(self) -> str:
        parts = {
            "CPU": self.settings.cpus,
            "GPU": self.gpus_per_replica(),
            **self.settings.resources,
        }
        return _shown({name: value for name, value in parts.items() if value})


def room_for(fleets: Iterable[Fleet]) -> bool:
    """Whether the cluster, as it is now, has the GPUs that all replicas of these fleets need together."""
    import ray

    need = sum(fleet.gpus_per_replica() * fleet.settings.replicas[1] for fleet in fleets)
    return need <= float(ray.cluster_resources().get("GPU", 0))


def make_room(fleets: Iterable[Fleet], gpus: float, report: Callable[[str], None]) -> None:
    """Release fleets, in order, until ``gpus`` GPUs are free or none of them holds any."""
    import ray

    for fleet in fleets:
        if gpus <= ray.available_resources().get("GPU", 0):
            return
        if fleet.started and fleet.gpus_per_replica() > 0:
            report(f"the {fleet.role} engines give their GPUs back")
            fleet.release()
            _await_gpus(gpus)


def _await_gpus(gpus: float, deadline_s: float = 60.0) -> None:
    """Wait until freed GPUs are counted as available, which takes Ray a moment."""
    import ray

    begun = time.monotonic()
    while ray.available_resources().get("GPU", 0) < gpus and time.monotonic() - begun < deadline_s:
        time.sleep(0.5)


@dataclasses.dataclass
class FleetClient:
    """Asks the engines of a role; one per process, used by many rows at once.

    Args:
        role: The role, for messages.
        weights: The weights that shall answer.
        settings: The role's settings (deadlines and tries).
        actors: Handles of the engine actors.
    """

    role: str
    weights: str
    settings: EngineSettings
    actors: tuple[Any, ...]
    _lanes: list[_Lane] = dataclasses.field(default_factory=list, init=False, repr=False)
    _suspects: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock, init=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.role, self.weights, self.settings, self.actors)

    async def ask(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat, from the engine with the fewest requests in flight.

        An engine that dies takes all its requests with it, and one of them may be the cause. One that was
        there twice is a suspect: suspects are asked one after the other, so that whichever kills engines
        soon runs out of tries, and the others do not.

        Raises:
            RequestError: If the request itself cannot be served; it is not tried again.
            EngineError: If no engine answered within the tries and the deadline.
        """
        from ray.exceptions import RayActorError, RayTaskError

        # An engine that asks an endpoint keeps the deadline itself, for it knows when a request was sent.
        deadline_s = self.settings.request_deadline_s if self.settings.endpoint is None else None
        trouble = "no engine was free"
        deaths = 0
        for attempt in range(self.settings.request_tries):
            try:
                async with self._suspects if deaths >= _SUSPECT_FROM else contextlib.nullcontext():
                    return await self._ask_once(messages, sampling, deadline_s)
            except RayTaskError as error:
                if isinstance(error.cause, (RequestError, EndpointError)):
                    raise error.cause from None
                trouble = f"the engine failed: {_cause(error)}"
            except RayActorError as error:
                deaths += 1
                trouble = f"the engine died: {_cause(error)}"
            except TimeoutError:
                trouble = f"no answer within {self.settings.request_deadline_s:.0f} s"
            await asyncio.sleep(_BACK_OFF_S * 2**attempt * random.uniform(0.5, 1.5))
        raise EngineError(f"{self.role}: gave up after {self.settings.request_tries} tries: {trouble}")

    async def _ask_once(self, messages: Sequence[Message], sampling: Sampling, deadline_s: float | None) -> Reply:
        from ray.exceptions import RayActorError

        lane = await self._pick()
        lane.in_flight += 1
        try:
            reference = lane.actor.generate.remote(self.weights, list(messages), sampling)
            async with asyncio.timeout(deadline_s):
                reply: Reply = await reference
            return reply
        except RayActorError:
            lane.lost()
            raise
        finally:
            lane.in_flight -= 1

    async def _pick(self) -> _Lane:
        """The serving engine with the fewest requests in flight; waits for one if none serves."""
        if not self._lanes:
            self._lanes = [_Lane(actor) for actor in self.actors]
        begun = time.monotonic()
        while time.monotonic() - begun < self.settings.start_deadline_s:
            for lane in self._lanes:
                lane.watch()
            serving = [lane for lane in self._lanes if lane.serving]
            if serving:
                return min(serving, key=lambda lane: lane.in_flight)
            if all(lane.gone for lane in self._lanes):
                raise EngineError(
                    f"all {self.role} engines are dead and out of restarts; see their logs in Ray's log"
                    f" folder, or raise {self.role}.max_restarts"
                )
            await asyncio.sleep(0.2)
        raise EngineError(f"no {self.role} engine served within start_deadline_s = {self.settings.start_deadline_s:g}")


class _Lane:
    """One engine as a client sees it: serving, starting (again), or gone for good."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.in_flight = 0
        self.serving = False
        self.gone = False
        self._watcher: asyncio.Task[None] | None = None

    def lost(self) -> None:
        """Note that the engine died; it serves again once it answers."""
        self.serving = False

    def watch(self) -> None:
        """Make sure that someone is waiting for the engine to come up."""
        if not self.serving and not self.gone and (self._watcher is None or self._watcher.done()):
            self._watcher = asyncio.ensure_future(self._await_ready())

    async def _await_ready(self) -> None:
        from ray.exceptions import ActorUnavailableError, RayActorError

        try:
            await self.actor.ready.remote()
            self.serving = True
        except ActorUnavailableError:
            await asyncio.sleep(1.0)  # it is being started again
        except RayActorError:
            self.gone = True


def _environment(settings: EngineSettings, on_gpu: bool) -> dict[str, str]:
    variables = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
    if not on_gpu:
        # More than one spinning OpenMP thread per engine was measured to be slower than one.
        variables |= {"OMP_NUM_THREADS": str(settings.threads), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    return variables


def _shown(resources: dict[str, float]) -> str:
    hidden = ("node:", "memory", "object_store_memory")
    parts = [f"{value:g} {name}" for name, value in sorted(resources.items()) if not name.startswith(hidden)]
    return ", ".join(parts) or "nothing"


def _cause(error: BaseException) -> str:
    """What an error says at its end: its last line that names an exception, and what follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [i for i, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception)\b", line)]
    said = lines[named[-1] : named[-1] + 4] if named else lines[-1:]
    return " ".join(said)[:400] or type(error).__name__
