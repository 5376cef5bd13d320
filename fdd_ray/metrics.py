"""The run's numbers as Prometheus metrics, through the agents with which every node of Ray exports its own.

    metrics = of_run("gsm8k_tiny")
    with metrics.stage("score", 2):
        metrics.progressed("rows", 32)
        metrics.spent("student", 4100, 900, 0.0)

`METRICS` names them all; Prometheus reads ``fdd_rows`` as ``ray_fdd_rows_total``, for Ray puts ``ray_`` before every
name and ``_total`` after counters. Counters grow from zero in each driver; gauges say what the manifests say, also of
stages that were done before (engines apart). Labels are names of settings, stages and roles: nothing that a
model wrote, and no reason of a rejection, ever becomes one.

Without Ray nothing happens; gauges are kept until there is one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from fdd_ray.store.manifest import BASE, Manifest

NOBODY = "nobody"
_POOL = "pool"
_TELL_EVERY_S = 5.0  # half the report interval of a Ray that nobody told otherwise


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric, as Ray is told of it; ``name`` is without Ray's prefix and suffix, the first label is the run."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    labels: tuple[str, ...]
    help: str

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


_STAGE = ("run", "stage", "round")
_SCORE = ("run", "round", "benchmark")
METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("fdd_rows", "counter", "rows", _STAGE, "Rows that this driver saw finished, whatever became of them."),
        Metric("fdd_steps", "counter", "steps", _STAGE, "Optimiser steps of fine-tuning that this driver saw done."),
        Metric(
            "fdd_tokens", "counter", "tokens", ("run", "role", "kind"), "Tokens used while this driver was at work."
        ),
        Metric("fdd_token_money", "counter", "currency", ("run", "role"), "What these tokens cost at an endpoint."),
        Metric("fdd_engines_placed", "gauge", "engines", ("run", "role"), "Engines that have a place on the cluster."),
        Metric("fdd_stage_rows", "gauge", "rows", (*_STAGE, "role", "outcome"), "Rows of a finished stage."),
        Metric("fdd_stage_kept_share", "gauge", "share", _STAGE, "Kept rows of all rows of a finished stage."),
        Metric("fdd_stage_tokens", "gauge", "tokens", (*_STAGE, "role", "kind"), "Tokens of a finished stage."),
        Metric("fdd_stage_money", "gauge", "currency", (*_STAGE, "role"), "What a finished stage cost in all."),
        Metric("fdd_stage_seconds", "gauge", "seconds", (*_STAGE, "role"), "Wall-clock seconds of a finished stage."),
        Metric("fdd_accuracy", "gauge", "share", _SCORE, "Accuracy of a round's student on a benchmark."),
        Metric("fdd_accuracy_low", "gauge", "share", _SCORE, "Lower end of its 95 % Wilson interval."),
        Metric("fdd_accuracy_high", "gauge", "share", _SCORE, "Upper end of its 95 % Wilson interval."),
        Metric("fdd_easy_share", "gauge", "share", ("run", "round"), "Pool problems that the student finds easy."),
        Metric("fdd_loss", "gauge", "nats", ("run", "round"), "Mean loss of a completion token over the last epoch."),
    )
}


class RunMetrics:
    """The metrics of one run, told by its driver; may be used from any thread.

    Args:
        run: Its name.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._stage = {"stage": "", "round": ""}
        self._lock = threading.Lock()
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._session = ""
        self._teller: threading.Thread | None = None

    @contextlib.contextmanager
    def stage(self, name: str, round: int | None) -> Iterator[None]:
        """Rows and steps belong to this stage while the block runs; ``round`` None means the base student."""
        self._stage = {"stage": name, "round": _round(round)}
        try:
            yield
        finally:
            self._stage = {"stage": "", "round": ""}

    def progressed(self, unit: str, count: int) -> None:
        """``count`` more rows or steps of the stage at work are finished."""
        if self._stage["stage"]:
            self._add("fdd_steps" if unit == "steps" else "fdd_rows", count, **self._stage)

    def spent(self, role: str, prompt_tokens: int, completion_tokens: int, money: float) -> None:
        """The engines of a role used tokens."""
        self._add("fdd_tokens", prompt_tokens, role=role, kind="prompt")
        self._add("fdd_tokens", completion_tokens, role=role, kind="completion")
        self._add("fdd_token_money", money, role=role)

    def engines(self, role: str, placed: int) -> None:
        """How many engines of a role have a place."""
        self._set("fdd_engines_placed", placed, role=role)

    def finished(self, manifest: Manifest) -> None:
        """A stage is done, now or before."""
        counts, place = manifest.counts, {"stage": manifest.stage, "round": _round(manifest.round)}
        role = next(iter(sorted(manifest.tokens)), NOBODY)
        rejected = sum(counts.rejected.values())
        for outcome, rows in (("kept", counts.kept), ("rejected", rejected), ("failed", counts.failed)):
            self._set("fdd_stage_rows", rows, **place, role=role, outcome=outcome)
        if counts.rows:
            self._set("fdd_stage_kept_share", counts.kept / counts.rows, **place)
        for name, tokens in manifest.tokens.items():
            for kind in ("prompt", "completion"):
                self._set("fdd_stage_tokens", tokens.get(kind, 0), **place, role=name, kind=kind)
        if manifest.usage is not None:
            self._set("fdd_stage_money", manifest.usage.money, **place, role=role)
        self._set("fdd_stage_seconds", manifest.seconds, **place, role=role)
        self._summary(manifest)

    def _summary(self, manifest: Manifest) -> None:
        summary, round = manifest.summary, _round(manifest.round)
        if manifest.stage == "score":
            for benchmark, found in summary.get("accuracy", {}).items():
                if benchmark != _POOL:
                    for name, key in (("", "value"), ("_low", "low"), ("_high", "high")):
                        if key in found:
                            self._set(f"fdd_accuracy{name}", found[key], round=round, benchmark=benchmark)
        elif manifest.stage == "split" and manifest.counts.kept:
            self._set("fdd_easy_share", summary.get("easy", 0) / manifest.counts.kept, round=round)
        elif manifest.stage == "finetune" and summary.get("loss_last") is not None:
            self._set("fdd_loss", summary["loss_last"], round=round)

    def _set(self, name: str, value: float, **labels: str) -> None:
        with self._lock:
            self._gauges[name, tuple(labels.items())] = float(value)
            session = self._joined()
            if session:
                self._tell(name, labels, float(value))

    def _add(self, name: str, count: float, **labels: str) -> None:
        with self._lock:
            session = self._joined()
            if session and count > 0:  # Ray refuses to count nothing
                _of_ray(session, name).inc(count, {"run": self._run, **labels})

    def _joined(self) -> str:
        """The Ray session that this process is in, or nothing; one that is new is told the gauges so far."""
        session = _session()
        if session and session != self._session:
            self._session = session
            self._tell_all()
            if self._teller is None:
                self._teller = threading.Thread(target=self._keep_telling, name="metrics", daemon=True)
                self._teller.start()
        return session

    def _tell(self, name: str, labels: Mapping[str, str], value: float) -> None:
        _of_ray(self._session, name).set(value, {"run": self._run, **labels})

    def _tell_all(self) -> None:
        for (name, labels), value in self._gauges.items():
            self._tell(name, dict(labels), value)

    def _keep_telling(self) -> None:
        """Say every gauge again and again: Ray drops one that was not told for twice its report interval."""
        while True:
            time.sleep(_TELL_EVERY_S)
            with self._lock:
                if not _up():
                    self._teller, self._session = None, ""
                    return
                self._tell_all()


@functools.cache
def of_run(name: str) -> RunMetrics:
    """The metrics of the run of this name; always the same object in a process."""
    return RunMetrics(name)


def _round(round: int | None) -> str:
    return BASE if round is None else str(round)


def _up() -> bool:
    """Whether this process is in a Ray; what has not been imported is not up, and its import takes seconds."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _session() -> str:
    """Names the Ray that this process is in; empty if it is in none."""
    if not _up():
        return ""
    import ray

    context = ray.get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"


@functools.lru_cache(maxsize=len(METRICS))
def _of_ray(session: str, name: str) -> Any:
    """The metric as Ray has it; its objects are of no use in another session."""
    from ray.util.metrics import Counter, Gauge

    metric = METRICS[name]
    made = Counter if metric.kind == "counter" else Gauge
    return made(name, f"{metric.help} Unit: {metric.unit}.", metric.labels)
