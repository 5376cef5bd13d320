"""MLflow: metrics over the round. The environment says where: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``.

Its server makes the ids of runs; ours is found again by the tag ``fdd_ray.run``. Its client is enough to speak
to a server (``pip install 'fdd-ray[mlflow]'``); a database of one's own needs all of MLflow.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, Final

from fdd_ray.tracking.facts import Facts
from fdd_ray.tracking.remote import Remote

_TAG: Final = "fdd_ray.run"


class MLflow(Remote):
    """A run at an MLflow server, or in a database of its."""

    service: ClassVar[str] = "mlflow"
    safe_at_once: ClassVar[bool] = True
    _client: Any = None
    _run_id: str = ""

    def open(self, name: str) -> None:
        """Begin or resume the run."""
        from mlflow import MlflowClient

        self._client = client = MlflowClient()
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fdd_ray")
        experiment = client.get_experiment_by_name(title)
        place = client.create_experiment(title) if experiment is None else experiment.experiment_id
        found = client.search_runs([place], f"tags.`{_TAG}` = '{self.id}'", max_results=1)
        if found:
            self._run_id = found[0].info.run_id
            client.update_run(self._run_id, status="RUNNING")
            return
        self._run_id = client.create_run(place, tags={_TAG: self.id, "mlflow.runName": name}).info.run_id
        for key, value in self.config.items():
            client.log_param(self._run_id, key, value)

    def send(self, facts: Facts) -> None:
        """Log a stage's metrics, without those that are there: a driver may have been killed before it noted them."""
        from mlflow.entities import Metric

        time = int(facts.time * 1000)
        new = [
            Metric(name, value, time, facts.step)
            for name, value in facts.values.items()
            if not any(
                (known.step, known.timestamp) == (facts.step, time)
                for known in self._client.get_metric_history(self._run_id, name)
            )
        ]
        if new:
            self._client.log_batch(self._run_id, metrics=new)

    def end(self, failed: bool) -> None:
        """Say how the driver ended; the run may still go on."""
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")
