"""What a worker reserves, where an experiment does not say whether it needs a GPU."""

from __future__ import annotations

import pytest
import ray

from fdd_ray.errors import TrainingError
from fdd_ray.training.fit import _resources_per_worker
from fdd_ray.training.settings import FinetuneSettings

LABELS = {"role": "trainer"}


def test_nodes_that_are_not_there_yet_are_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def cluster(gpus: float, **labels: str) -> None:
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": gpus})
        gone = {"Alive": False, "Labels": LABELS}
        monkeypatch.setattr(ray, "nodes", lambda: [gone, {"Alive": True, "Labels": labels}])

    cluster(0, other="label")
    with pytest.raises(TrainingError, match=r"'role': 'trainer'.* is up yet.*set finetune.gpus_per_worker, to 0"):
        _resources_per_worker(FinetuneSettings(label_selector=LABELS))
    assert _resources_per_worker(FinetuneSettings(label_selector=LABELS, gpus_per_worker=0)) == {"CPU": 1.0}
    assert _resources_per_worker(FinetuneSettings(label_selector=LABELS, gpus_per_worker=2)) == {"CPU": 1.0, "GPU": 2}
    assert _resources_per_worker(FinetuneSettings()) == {"CPU": 1.0}
    cluster(0, **LABELS)
    assert _resources_per_worker(FinetuneSettings(label_selector=LABELS)) == {"CPU": 1.0}
    cluster(4, other="label")
    assert _resources_per_worker(FinetuneSettings(label_selector=LABELS)) == {"CPU": 1.0, "GPU": 1.0}
