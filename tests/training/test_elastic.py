"""Fine-tuning on as many workers as there are: a node is killed, and comes back."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.errors import ExperimentError
from fdd_ray.settings import parse_settings
from fdd_ray.training import FinetuneSettings
from tests.engines.clusters import Node, cluster, eventually, in_own_process
from tests.training.tuning import Told, told, tune, weights

# 120 examples of about 60 tokens in rows of 256: 8 steps an epoch with 4 rows in a step. No worker may fail.
SETTINGS = FinetuneSettings(
    epochs=4,
    learning_rate=1e-3,
    max_length=256,
    micro_batch_rows=1,
    batch_tokens=1024,
    zero_stage=2,
    workers=(1, 2),
    checkpoint_steps=4,
    max_failures=0,
    grow_after_s=2.0,
    label_selector={"part": "trainer"},
    gpus_per_worker=0,
)
TRAINER = Node(cpus=1, labels={"part": "trainer"})


@dataclasses.dataclass
class Paced(Told):
    """It lets the first group of workers reach step 6, and a later one go on in view of the test."""

    folder: Path

    def __post_init__(self) -> None:
        super().__init__(self.folder)

    def remote(self, done: int, total: int, info: dict[str, Any]) -> None:
        super().remote(done, total, info)
        resumed = info["resumed_from"]
        if done >= 6 and not resumed:
            self._wait_for("gone")
        elif resumed == 4 and done >= 6:
            self._wait_for("back")
        if resumed <= 4:
            time.sleep(1.1)  # progress is told once a second: so that no step is missed

    def _wait_for(self, name: str) -> None:
        assert eventually(lambda: (self.folder / name).exists(), 200)


def saw(folder: Path, step: int, resumed_from: int) -> bool:
    """Whether a group of workers that went on from one step has reached another."""
    return any(done == step and info["resumed_from"] == resumed_from for done, _, info in told(folder))


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(600)
@in_own_process
def test_a_group_shrinks_with_a_killed_node_and_grows_when_it_is_back() -> None:
    import torch

    from tests.training.conftest import write_examples

    with tempfile.TemporaryDirectory() as name, cluster(TRAINER, TRAINER) as own:
        folder = Path(name)
        files = write_examples(folder)
        (elastic := folder / "elastic").mkdir()
        _, victim = own.list_all_nodes()
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(tune, SETTINGS, elastic, files, Paced(elastic))
            assert eventually(lambda: saw(elastic, step=6, resumed_from=0) or running.done(), 200)
            own.remove_node(victim, allow_graceful=False)  # SIGKILL
            (elastic / "gone").touch()
            assert eventually(lambda: saw(elastic, step=6, resumed_from=4) or running.done(), 200)
            own.add_node(**TRAINER.arguments())
            (elastic / "back").touch()
            result = running.result(timeout=300)
        expected = tune(SETTINGS, folder / "undisturbed", files)

        assert result.restarts == 2 and expected.restarts == 0  # with fewer, and with more again
        assert result.workers == expected.workers == 2
        assert result.resumed_from >= 8 and result.resumed_from % 4 == 0
        counts = ("steps", "epochs", "examples", "tokens", "completion_tokens", "parameters")
        assert all(getattr(result, count) == getattr(expected, count) for count in counts)
        assert result.loss_first == pytest.approx(expected.loss_first, rel=1e-6)
        assert result.loss_last == pytest.approx(expected.loss_last, rel=1e-4)
        ours, theirs = weights(result.output), weights(expected.output)
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5) for name in theirs)


def test_what_cannot_be_elastic_is_refused_with_advice() -> None:
    with pytest.raises(
        ExperimentError, match=r"workers is \[1, 4\] with zero_stage 3.*zero_stage to 2, or workers to 4"
    ):
        parse_settings(FinetuneSettings, "{workers: [1, 4], zero_stage: 3}")
    assert parse_settings(FinetuneSettings, "{workers: 4, zero_stage: 3}").workers == (4, 4)
    assert parse_settings(FinetuneSettings, "{workers: [1, 4], zero_stage: 2}").workers == (1, 4)
