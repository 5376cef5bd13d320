"""A fleet: the engines of one role (teacher or student), as named Ray actors that outlive a stage.

The driver owns a `Fleet`; rows ask through the `fdd_ray.engines.client.FleetClient` that it hands out. Every
engine has a `fdd_ray.engines.placement.Place` on the cluster. All of ``replicas``' maximum are asked for; work
starts when the minimum serves, and engines that find their place later get work from then on. What has found
none yet can be given up (`shed`), what has can be given back (`release`): see `fdd_ray.engines.room`. A fleet that
is not asked for long gives itself back, if its settings say so (`rest`).

    fleet = Fleet("teacher", settings, run_id)
    fleet.start()
    fleet.wait(print)
    reply = await fleet.client().ask(messages, Sampling())
    fleet.release()
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from fdd_ray.engines.base import EndpointError, EngineSettings
from fdd_ray.engines.client import FleetClient, cause_of
from fdd_ray.engines.placement import Place, Shape, cluster_shown, goes_across, gpus_of, shape_of
from fdd_ray.errors import EngineError
from fdd_ray.labels import this_node

NAMESPACE = "fdd_ray"
_BACK_OFF_S = 1.0
_CLOSE_S = 10.0
_MAX_CALLS = 4096


@dataclasses.dataclass
class _Replica:
    """One engine.

    Attributes:
        place: What it reserves.
        actor: Its Ray actor.
        starts_with: The weights it is made with, also when Ray starts it again.
        loaded: The weights it has, as far as is known.
        up: Resolved once it served.
    """

    place: Place
    actor: Any
    starts_with: str
    loaded: str
    up: Any


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
        self._replicas: list[_Replica] = []
        self._numbers = itertools.count()
        self.weights = settings.model
        self.notes: tuple[str, ...] = ()
        self._limiter: Any = None
        self._shape: Shape | None = None
        self._lock = threading.RLock()  # the timer's thread gives back, any other may be the driver's
        self._timer: threading.Timer | None = None

    @property
    def started(self) -> bool:
        """Whether any engine was asked for and not given up."""
        return bool(self._replicas)

    @property
    def placed(self) -> int:
        """Engines that have found their place on the cluster."""
        return sum(replica.place.placed for replica in self._replicas)

    @property
    def has_least(self) -> bool:
        """Whether as many engines have found a place as work starts with."""
        return self.placed >= self.settings.replicas[0]

    def start(self) -> None:
        """Ask the cluster for all replicas that there are not yet; returns at once. Ends a `rest`.

        Raises:
            EngineError: If an engine goes over several nodes, and its weights cannot be read on all of them; or if
                it cannot be told whether it has GPUs.
        """
        with self._lock:
            self._wake()
            missing = self.settings.replicas[1] - len(self._replicas)
            if missing <= 0:
                return
            if not self._replicas:
                self._shape = None  # the cluster may have other nodes by now
            shape = self.shape()
            if len(shape.bundles) > 1 and ("://" in self.weights and not self.weights.startswith("tiny://")):
                raise EngineError(
                    f"{self.role}: an engine over several nodes reads its weights on each of them, and {self.weights}"
                    " is fetched on one only; give a hub id, or a folder on a file system that all nodes share"
                )
            if self.settings.endpoint is not None and self._limiter is None:
                # Kept, because an actor ends with its last handle, and engines that die drop theirs.
                self._limiter = self._limits()
            self._replicas += [self._replica(Place(shape, self._name())) for _ in range(missing)]

    def shape(self) -> Shape:
        """What one engine reserves on this cluster."""
        if self._shape is None:
            gpus = gpus_of(self.settings, self.role)
            self._shape = shape_of(self.settings, gpus, goes_across(self.settings, gpus))
        return self._shape

    def gpus_per_replica(self) -> int:
        """GPUs of one engine on this cluster; they stay as they are while any is asked for."""
        return int(self.shape().total().get("GPU", 0))

    def wait(self, report: Callable[[str], None]) -> None:
        """Wait until the smallest allowed number of engines serves, and all that served before have the weights.

        An engine that will not load other weights in place is started anew with them.

        Args:
            report: Told every few seconds what is being waited for.

        Raises:
            EngineError: If that takes longer than ``start_deadline_s``, or an engine cannot start.
        """
        import ray

        self.reload(report)
        need = self.settings.replicas[0]
        waiting = {replica.actor.check.remote(): replica.actor for replica in self._replicas}
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
                            f"a {self.role} engine ({self.weights}) did not start: {cause_of(error)};"
                            " see the actor's log in Ray's log folder"
                        ) from error
            waited = time.monotonic() - begun
            if ready < need and waited > self.settings.start_deadline_s:
                raise EngineError(
                    f"{ready} of {need} {self.role} engines ({self.weights}) serve after {waited:.0f} s"
                    f" ({self.placed} have found a place); each needs {self.shape()}, {cluster_shown()}. Give it more"
                    f" nodes, ask for less ({self.role}.replicas, gpus_per_replica, cpus_per_replica), or raise"
                    f" {self.role}.start_deadline_s"
                )
            if ready < need:
                at = f" at {self.settings.endpoint}" if self.settings.endpoint is not None else ""
                report(
                    f"waiting for the {self.role} engine{at}: {ready} of {need} serve after {waited:.0f} s"
                    f" ({self.placed} have found a place; each needs {self.shape()}; {cluster_shown()})"
                )

    def use(self, weights: str) -> None:
        """From now on these weights answer; engines that run load them in place when asked next."""
        self.weights = weights

    def client(self) -> FleetClient:
        """What rows ask through; it can be sent to other processes."""
        return FleetClient(self.role, self.weights, self.settings, tuple(r.actor for r in self._replicas))

    def release(self, only: Callable[[Place], bool] = lambda place: True) -> None:
        """Stop engines and give their resources back; they start again when next needed.

        Args:
            only: Which, by their places; all of them by default.
        """
        with self._lock:
            going = [replica for replica in self._replicas if only(replica.place)]
            self._replicas = [replica for replica in self._replicas if replica not in going]
            if not self._replicas:
                self._wake()
            if going:
                self._end(going)

    def rest(self, report: Callable[[Fleet, int], None]) -> None:
        """Nobody asks the engines for now: after ``idle_release_s`` they are given back, unless started again before.

        Args:
            report: Told of this fleet, and how many engines had a place, when that happens; in another thread.
        """
        with self._lock:
            if self.settings.idle_release_s is not None and self._replicas and self._timer is None:
                self._timer = threading.Timer(self.settings.idle_release_s, lambda: self._give_back(timer, report))
                self._timer.daemon = True
                timer = self._timer
                timer.start()

    def _give_back(self, timer: threading.Timer, report: Callable[[Fleet, int], None]) -> None:
        with self._lock:
            if self._timer is timer:  # not, if it went off while somebody started the engines again
                self._timer = None
                placed = self.placed
                self.release()
                report(self, placed)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shed(self) -> None:
        """Give up engines that have not found a place, so that they take none which somebody else needs."""
        self.release(only=lambda place: not place.placed)

    def drop_one(self) -> bool:
        """Release one engine beyond the smallest allowed number; returns False if there is none."""
        placed = [replica.place for replica in self._replicas if replica.place.placed]
        if len(placed) <= self.settings.replicas[0]:
            return False
        self.release(only=lambda place: place is placed[-1])
        return True

    def _end(self, going: Sequence[_Replica]) -> None:
        import ray

        # An engine without a place has no process yet, and nothing to close.
        closing = [replica.actor.close.remote() for replica in going if replica.place.placed]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for replica in going:
            ray.kill(replica.actor)
            replica.place.free()

    def reload(self, report: Callable[[str], None]) -> None:
        """Give engines that have other weights the ones that shall answer.

        Args:
            report: Told of engines that have to start anew for it.
        """
        import ray

        loading = {}
        for replica in self._replicas:
            if replica.loaded != self.weights:
                if ray.wait([replica.up], timeout=0)[0]:
                    loading[replica.actor.use.remote(self.weights)] = replica
                else:  # it never served, so nothing is lost if it starts with the right ones
                    self._renew(replica)
        if loading:
            ray.wait(list(loading), num_returns=len(loading), timeout=self.settings.start_deadline_s)
        for reference, replica in loading.items():
            try:
                ray.get(reference, timeout=0)
                replica.loaded = self.weights
            except (ray.exceptions.RayError, TimeoutError) as error:
                report(f"a {self.role} engine does not load other weights in place ({cause_of(error)}): it starts anew")
                self._renew(replica)

    def _renew(self, replica: _Replica) -> None:
        """Another engine in an engine's place."""
        import ray

        if replica.place.placed:
            ray.wait([replica.actor.close.remote()], timeout=_CLOSE_S)
        ray.kill(replica.actor)
        new = self._replica(replica.place)
        self._replicas = [new if old is replica else old for old in self._replicas]

    def _replica(self, place: Place) -> _Replica:
        import ray

        from fdd_ray.engines.actor import EngineActor

        gpus, across = int(place.shape.total().get("GPU", 0)), len(place.shape.bundles) > 1
        settings = dataclasses.replace(self.settings, across_nodes=across) if gpus > 1 else self.settings
        actor: Any = (
            ray.remote(EngineActor)
            .options(
                name=self._name(),
                namespace=NAMESPACE,
                max_restarts=self.settings.max_restarts,
                max_task_retries=0,
                max_concurrency=_MAX_CALLS,
                runtime_env={"env_vars": _environment(self.settings, gpus > 0)},
                **place.options(),
            )
            .remote(settings, gpus > 0, self.weights, self._limiter)
        )
        return _Replica(place, actor, self.weights, self.weights, actor.ready.remote())

    def _name(self) -> str:
        """A name that nothing else on the cluster has."""
        import ray

        # The job's id keeps apart two drivers of one run, of which the first is still being cleaned up.
        return f"{self._run_id}-{ray.get_runtime_context().get_job_id()}-{self.role}-{next(self._numbers)}"

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
            label_selector=this_node(),
        )
        return actor_class.remote(self.settings.requests_per_minute, self.settings.tokens_per_minute)


def _environment(settings: EngineSettings, on_gpu: bool) -> dict[str, str]:
    variables = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
    if not on_gpu:
        # More than one spinning OpenMP thread per engine was measured to be slower than one.
        variables |= {"OMP_NUM_THREADS": str(settings.threads), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    return variables
