"""Step checkpoints at another number of workers: cut anew without a changed bit, and trained on as before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fdd_ray.training import checkpoints
from fdd_ray.training.checkpoints import repartition
from tests.training import resharding


def shard(vectors: list[torch.Tensor], workers: int, *, lean: bool) -> list[dict[str, Any]]:
    """States as DeepSpeed saves them: moments padded at the end, weights (``lean``) without the padding."""
    states: list[dict[str, Any]] = [
        {
            "clip_grad": 1.0,
            "base_optimizer_state": {"state": {}, "param_groups": ["kept"]},
            "single_partition_of_fp32_groups": [],
        }
        for _ in range(workers)
    ]
    for group, vector in enumerate(vectors):
        size = size_of(vector, workers)
        padded = torch.cat([vector, torch.zeros(size * workers - len(vector))])
        for rank, state in enumerate(states):
            mine = slice(rank * size, (rank + 1) * size)
            state["base_optimizer_state"]["state"][group] = {
                "step": torch.tensor(5.0), "exp_avg": 10 * padded[mine], "exp_avg_sq": 100 * padded[mine],
            }  # fmt: skip
            state["single_partition_of_fp32_groups"].append((vector if lean else padded)[mine])
    return states


def size_of(vector: torch.Tensor, workers: int) -> int:
    """Numbers of a partition: DeepSpeed takes an even number."""
    return -(-len(vector) // (2 * workers)) * 2


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2), (2, 3), (3, 2), (4, 3), (1, 8), (8, 1), (5, 5)])
def test_a_partition_is_what_that_many_workers_would_have_saved(old: int, new: int, lean: bool) -> None:
    vectors = [torch.arange(1.0, count + 1) for count in (37, 3, 16, 1)]  # some partitions are all padding
    saved, expected = shard(vectors, old, lean=lean), shard(vectors, new, lean=False)
    for rank in range(new):
        got = repartition(
            saved, [len(vector) for vector in vectors], [size_of(vector, new) for vector in vectors], rank
        )
        assert got["clip_grad"] == 1.0 and got["base_optimizer_state"]["param_groups"] == ["kept"]
        for group in range(len(vectors)):
            ours, theirs = (s["base_optimizer_state"]["state"][group] for s in (got, expected[rank]))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs), (rank, group)
            masters = (s["single_partition_of_fp32_groups"][group] for s in (got, expected[rank]))
            assert torch.equal(*masters), (rank, group)


def test_only_sharded_weights_need_the_same_number_of_workers() -> None:
    assert [checkpoints.fits(2, 3, stage) for stage in (0, 1, 2, 3)] == [True, True, True, False]
    assert checkpoints.fits(2, 2, 3)


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What real workers saved, loaded and saved again, for each kind of optimiser; see `resharding`."""
    folder = tmp_path_factory.mktemp("resized")
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.resharding", str(folder)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("stage", "dtype"), resharding.KINDS)
def test_deepspeed_goes_on_with_more_and_with_fewer_workers(resized: Path, stage: int, dtype: torch.dtype) -> None:
    kind = resized / resharding.name_of(stage, dtype)
    for old, new in ((2, 3), (3, 1)):
        saved, loaded = torch.load(kind / f"state-of{old}.pt"), torch.load(kind / f"loaded-by{new}-of{old}.pt")
        assert saved.keys() == loaded.keys() and any(name.endswith("exp_avg_sq") for name in saved)
        assert all(torch.equal(saved[name], loaded[name]) for name in saved), (old, new)
        assert all(
            int(steps) == checkpoints.read_totals(str(kind / f"by{old}")).step
            for name, steps in loaded.items()
            if name.endswith("steps")
        )

    expected = plain_pytorch().state_dict()
    got = torch.load(kind / "state-of1.pt")
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 5e-3}
    start = resharding.model().state_dict()
    for name, weight in expected.items():
        assert torch.allclose(got[name].float(), weight, **close), name
        assert not torch.allclose(start[name], weight, **close), name


def plain_pytorch() -> Any:
    """The nine steps by one loop."""
    from fdd_ray.training.model import parameter_groups

    model = resharding.model()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-2)
    for number in range(3 * resharding.STEPS):
        torch.manual_seed(100 + number)
        (model(torch.randn(6, 7)) ** 2).sum().div(6).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model
