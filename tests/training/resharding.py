"""Workers of DeepSpeed without Ray, that save and load step checkpoints: what `test_checkpoints` starts.

python -m tests.training.resharding RANK WORKERS PORT FOLDER SAVED_BY
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fdd_ray.training import checkpoints
from fdd_ray.training.model import parameter_groups
from fdd_ray.training.settings import FinetuneSettings
from fdd_ray.training.worker import initialize

# ZeRO stage and number format. DeepSpeed has an optimiser for bfloat16 with stage 1, and another for all else.
KINDS = ((0, torch.float32), (1, torch.float32), (2, torch.float32), (1, torch.bfloat16), (2, torch.bfloat16))
STEPS = 3


def name_of(stage: int, dtype: torch.dtype) -> str:
    """What a kind is called in file names."""
    return f"zero{stage}-{str(dtype).removeprefix('torch.')}"


def model() -> Any:
    """Sizes that no number of workers divides."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(7, 11), torch.nn.ReLU(), torch.nn.Linear(11, 3))


def whole_state(engine: Any) -> dict[str, Any]:
    """The model's weights, and the optimiser's weights and moments of each group, put together from all workers."""
    state = {name: parameter.detach().clone() for name, parameter in engine.module.named_parameters()}
    sharded = bool(engine.zero_optimization())
    inner = engine.optimizer.optimizer if sharded else engine.optimizer
    for number, (group, original) in enumerate(
        zip(inner.param_groups, parameter_groups(engine.module, 0.0), strict=True)
    ):
        for at, tensor in enumerate(group["params"]):
            parts = {"master": tensor.detach(), **inner.state[tensor]}
            for name in ("master", "exp_avg", "exp_avg_sq"):
                part = parts[name].flatten()
                if sharded:
                    pieces = [torch.empty_like(part) for _ in range(dist.get_world_size())]
                    dist.all_gather(pieces, part)
                    part = torch.cat(pieces)[: sum(weight.numel() for weight in original["params"])]
                state[f"{number}.{at}.{name}"] = part.clone()
            state[f"{number}.{at}.steps"] = torch.as_tensor(parts["step"])
    return state


def train(engine: Any, rank: int, workers: int, first: int, steps: int) -> None:
    """Steps of six rows each, whoever takes them, with the mean gradient."""
    for number in range(first, first + steps):
        torch.manual_seed(100 + number)
        rows = torch.randn(6, 7)
        mine = rows[rank::workers].to(next(engine.module.parameters()).dtype)
        loss = (engine(mine).float() ** 2).sum() * workers / len(rows)
        engine.backward(loss)
        engine.step()


def work(rank: int, workers: int, saved_by: int, folder: Path) -> None:
    """Go on from what ``saved_by`` workers left (0: nothing), note the state, take steps, save and note it again."""
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # DeepSpeed asks for it
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-of{workers}", rank=rank, world_size=workers)
    for stage, dtype in KINDS:
        settings = FinetuneSettings(zero_stage=stage, learning_rate=1e-2)
        net = model().to(dtype)
        engine = initialize(net, settings, 1, dtype, torch.device("cpu"))
        kind = folder / name_of(stage, dtype)
        step = 0
        if saved_by:
            before = kind / f"by{saved_by}"
            totals = checkpoints.read_totals(str(before))
            step = totals.step
            checkpoints.load(
                engine, str(before), saved=saved_by, rank=rank, workers=workers, zero_stage=stage, adapters=False
            )
            loaded = whole_state(engine)
            if rank == 0:
                torch.save(loaded, kind / f"loaded-by{workers}-of{saved_by}.pt")
        train(engine, rank, workers, step, STEPS)
        now = kind / f"by{workers}"
        now.mkdir(parents=True, exist_ok=True)
        totals = checkpoints.Totals("mine", workers, step + STEPS)
        checkpoints.save(engine, str(now), totals, first=rank == 0, adapters=False)
        state = whole_state(engine)
        if rank == 0:
            torch.save(state, kind / f"state-of{workers}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main(folder: Path) -> None:
    """Three steps of two workers, three of three that go on from there, and three of one."""
    forks = multiprocessing.get_context("fork")
    for workers, saved_by in ((2, 0), (3, 2), (1, 3)):
        group = [forks.Process(target=work, args=(rank, workers, saved_by, folder)) for rank in range(workers)]
        for process in group:
            process.start()
        for process in group:
            process.join()
        if any(process.exitcode for process in group):
            raise SystemExit(f"of {workers} workers, some failed: {[process.exitcode for process in group]}")


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed  # noqa: F401  # before the forks

    main(Path(sys.argv[1]))
