"""A run's scores, rows and cost where people follow experiments: TensorBoard, Weights & Biases, MLflow.

    with Tracking(("tensorboard", "wandb"), "/runs/gsm8k", "gsm8k", config={}, say=print) as tracking:
        tracking.finished(manifest)

Every number comes from manifests (`fdd_ray.tracking.facts`) and has the same name everywhere; its step is its
round. What was written before is not written twice, so a run may be killed and go on as often as it likes. Keys of
services come from the environment alone: ``WANDB_API_KEY`` (or ``WANDB_MODE=offline``), ``MLFLOW_TRACKING_URI``
and what else their clients read there. A service that does not answer is named, and never ends a run.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from fdd_ray.errors import DependencyError, ExperimentError
from fdd_ray.store.manifest import Manifest
from fdd_ray.tracking.facts import Facts, facts_of

Tracker = Literal["tensorboard", "wandb", "mlflow"]
_MOST_FAILURES: Final = 3
_OFFLINE: Final = ("offline", "disabled", "dryrun")


class _Writer(Protocol):
    """What each tracker is."""

    def finished(self, facts: Facts) -> None:
        """A stage is done, now or before."""

    def close(self, failed: bool) -> None:
        """The driver ends."""


class Tracking:
    """Tells all trackers of a run what its stages found; a context manager.

    Args:
        names: The trackers.
        directory: The run directory; its lease is held.
        run: The run's name.
        config: A few settings, for the services' tables of runs; plain scalars.
        say: Told of a tracker that fails.

    Raises:
        DependencyError: If the package of one is not installed.
        ExperimentError: If the environment does not say where one is, or gives it no key.
    """

    def __init__(
        self,
        names: Sequence[Tracker],
        directory: str,
        run: str,
        *,
        config: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        for name in names:
            _require(name)
        self._directory, self._run, self._config, self._say = directory, run, config, say
        self._names = list(dict.fromkeys(names))
        self._writers: dict[str, _Writer] = {}
        self._failures: dict[str, int] = {}
        self._before: list[Manifest] = []

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        for name, writer in self._writers.items():
            self._attempt(name, lambda writer=writer: writer.close(kind is not None))  # type: ignore[misc]

    def finished(self, manifest: Manifest) -> None:
        """A stage is done, now or before; stages come in the order of the loop."""
        self._attempt("tracking", lambda: self._tell(manifest))

    def _tell(self, manifest: Manifest) -> None:
        facts = facts_of(manifest, self._before)
        self._before.append(manifest)
        for name in self._names:
            if self._failures.get(name, 0) < _MOST_FAILURES:
                self._attempt(name, lambda name=name: self._writer(name).finished(facts))  # type: ignore[misc]

    def _writer(self, name: str) -> _Writer:
        if name not in self._writers:
            self._writers[name] = self._make(name)
        return self._writers[name]

    def _make(self, name: str) -> _Writer:
        if name == "tensorboard":
            from fdd_ray.tracking.tensorboard import TensorBoard

            return TensorBoard(self._directory)
        if name == "wandb":
            from fdd_ray.tracking.wandb import Wandb

            return Wandb(self._directory, self._run, self._config)
        from fdd_ray.tracking.mlflow import MLflow

        return MLflow(self._directory, self._run, self._config)

    def _attempt(self, name: str, act: Callable[[], None]) -> None:
        """What shows numbers must not end what makes them, whatever its client raises."""
        try:
            act()
        except Exception as error:
            self._failures[name] = self._failures.get(name, 0) + 1
            last = self._failures[name] == _MOST_FAILURES
            text = " ".join(str(error).split())[:200]
            self._say(
                f"warning: {name} was not told of a stage ({type(error).__name__}: {text});"
                f" {'it is left out until the run is started again' if last else 'it will be told later'}"
            )


def _require(name: Tracker) -> None:
    if name == "tensorboard":
        return  # its files are written without it
    if importlib.util.find_spec(name) is None:
        raise DependencyError(
            f"track: {name} is not installed; install it with: pip install 'fdd-ray[{name}]', or leave it out of track"
        )
    if name == "wandb" and os.environ.get("WANDB_MODE") not in _OFFLINE and not os.environ.get("WANDB_API_KEY"):
        raise ExperimentError(
            "track: wandb needs a key; export WANDB_API_KEY on the machine that drives the run, or WANDB_MODE=offline"
            " to send the numbers later with wandb sync, or leave it out of track"
        )
    if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise ExperimentError(
            "track: mlflow needs to know where; export MLFLOW_TRACKING_URI on the machine that drives the run (the URL"
            " of a server, or sqlite:////folder/mlflow.db), or leave it out of track"
        )
