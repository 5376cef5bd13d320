"""The sides of `finetuning.py`: each trains as the plan says and tells what the clock said.

Ours is the fine-tuning of a run, unchanged: the progress that its first worker tells, about once a second and after
the losses are there, is where the clock is read. The second is a loop as one writes it for Ray Train and DeepSpeed by
hand: a DataLoader, a batch padded to its longest example, the model's own loss. The third starts `finetuning_trl.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from finetuning_work import OURS, OURS_PADDED, RAY, TRL, TRL_PACKED, Plan, our_rows, tokens_by_step

from fdd_ray.cluster import ray_session
from fdd_ray.progress import Reporter
from fdd_ray.store import files
from fdd_ray.store.fetch import fetch_folder
from fdd_ray.training import FinetuneSettings, finetune
from fdd_ray.training.packing import IGNORED

Told = dict[str, Any]
_TRL_SCRIPT = Path(__file__).with_name("finetuning_trl.py")


@contextlib.contextmanager
def _session() -> Iterator[Any]:
    """Ray, joined or started; its workers need not find these files."""
    import ray

    for name in (__name__, Plan.__module__):
        ray.cloudpickle.register_pickle_by_value(sys.modules[name])
    with ray_session(Reporter()):
        nodes = sum(node["Alive"] for node in ray.nodes())
        if nodes > 1:  # shown if the side fails
            print(f"the cluster has {nodes} nodes: --work must be a place that all of them reach", file=sys.stderr)
        yield ray


class Board:
    """An actor that keeps what the first worker tells."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, item: Any) -> None:
        """Told by the worker."""
        self.kept.append(item)

    def read(self) -> list[Any]:
        """Asked by the driver."""
        return self.kept


class Clock:
    """Stands in for the progress of a fine-tuning: called in the first worker, it reads the clock there."""

    def __init__(self, board: Any) -> None:
        self.board = board

    @property
    def update(self) -> Any:
        """What a worker takes for an actor's method."""
        return self

    def remote(self, done: int, total: int, info: dict[str, Any]) -> None:
        """After a step whose loss is known."""
        self.board.keep.remote((done, time.perf_counter(), _device_name()))


class Tracer(Clock):
    """Traces the steps between the first call after the warm-up and the next one."""

    def __init__(self, board: Any, warm_up: int) -> None:
        super().__init__(board)
        self.warm_up = warm_up
        self.profiler: Any = None
        self.since = 0
        self.done = False

    def remote(self, done: int, total: int, info: dict[str, Any]) -> None:
        """Start, or stop and hand over the trace."""
        import torch
        from torch.profiler import ProfilerActivity

        if self.done or done < self.warm_up:
            return
        if self.profiler is None:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self.profiler, self.since = torch.profiler.profile(activities=activities), done
            self.profiler.start()
            return
        self.profiler.stop()
        self.done = True
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trace.json.gz")
            self.profiler.export_chrome_trace(str(path))
            self.board.keep.remote((done - self.since, path.read_bytes()))
        self.profiler = None


def _device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _settings(plan: Plan, packing: bool) -> FinetuneSettings:
    rows = our_rows(plan, packing)
    return FinetuneSettings(
        epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        max_length=plan.max_length,
        micro_batch_rows=plan.micro_rows if packing else plan.micro_examples,
        batch_tokens=rows * plan.max_length,
        packing=packing,
        zero_stage=plan.zero_stage,  # type: ignore[arg-type]
        gradient_checkpointing=plan.gradient_checkpointing,
        dtype=plan.dtype,  # type: ignore[arg-type]
        workers=(plan.workers, plan.workers),
        gpus_per_worker=plan.gpus,
        cpus_per_worker=float(plan.threads),
        threads=plan.threads,
        checkpoint_steps=0,
        max_failures=0,
    )


def _finetune(ray: Any, plan: Plan, packing: bool, clock: Callable[[Any], Clock]) -> tuple[Any, list[Any]]:
    """Our fine-tuning; its result, and what the clock left on the board."""
    board = ray.remote(Board).options(num_cpus=0).remote()
    result = finetune(
        _settings(plan, packing),
        base_model=plan.model,
        examples=[plan.examples],
        prompts=plan.prompts,
        output=files.join(plan.work, "student"),
        work_dir=files.join(plan.work, "ray"),
        run_name="ours",
        seed=plan.seed,
        progress=clock(board),
    )
    kept: list[Any] = ray.get(board.read.remote())
    return result, kept


def ours(plan: Plan, packing: bool) -> Told:
    """Our fine-tuning, with the tokens of each step out of its plan."""
    import numpy as np

    with _session() as ray:
        result, kept = _finetune(ray, plan, packing, Clock)
    given = json.loads(Path(plan.tokens).read_text(encoding="utf-8"))
    lengths = np.asarray([len(ids) for ids in given["input_ids"]])
    completions = np.asarray([sum(label != IGNORED for label in labels) for labels in given["labels"]])
    tokens = tokens_by_step(plan, lengths, completions, packing=packing)
    if result.steps != len(tokens) - 1 or result.tokens != tokens[-1]:
        raise RuntimeError(f"{result.steps} steps of {result.tokens} tokens, but {len(tokens) - 1} of {tokens[-1]}")
    marks = [(step, tokens[step], seconds) for step, seconds, _ in kept]
    return {"marks": marks, "steps": result.steps, "tokens": result.tokens, "device": kept[0][-1]}


def profile(plan: Plan, folder: Path) -> int:
    """Write a trace of some of our steps into ``folder``; returns how many steps.

    Raises:
        RuntimeError: If the training ended before there was one.
    """
    with _session() as ray:
        _, kept = _finetune(ray, plan, True, lambda board: Tracer(board, plan.warm_up))
    if not kept:
        raise RuntimeError(f"the training ended right after {plan.warm_up} steps; raise --size or --epochs")
    steps, trace = kept[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "finetuning.trace.json.gz").write_bytes(trace)
    return int(steps)


def by_hand(plan: Plan) -> Told:
    """Ray Train and DeepSpeed without us."""
    given = json.loads(Path(plan.tokens).read_text(encoding="utf-8"))
    with _session() as ray:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        gpus = _gpus(ray, plan)
        trainer = TorchTrainer(
            _loop,
            train_loop_config={"plan": plan, "data": ray.put(given), "half": _half(plan, gpus > 0)},
            scaling_config=ScalingConfig(
                num_workers=plan.workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": plan.threads} | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=RunConfig(name="by-hand", storage_path=files.join(plan.work, "ray")),
        )
        return dict(trainer.fit().return_value)


def _loop(config: dict[str, Any]) -> Told:
    """Runs on each worker."""
    import deepspeed
    import ray
    import ray.train.torch
    import torch
    import torch.distributed as dist
    from torch.nn.utils.rnn import pad_sequence
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM

    plan: Any = config["plan"]
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    # As in our own worker: a kernel for CPUs that is compiled at the first start, and not used in training.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    model = AutoModelForCausalLM.from_pretrained(
        fetch_folder(plan.model) if "://" in plan.model else plan.model,
        dtype=torch.bfloat16 if config["half"] else torch.float32,
    )
    if plan.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, fused=True),
        config={
            "train_micro_batch_size_per_gpu": plan.micro_examples,
            "gradient_accumulation_steps": plan.accumulation,
            "gradient_clipping": 1.0,
            "bf16": {"enabled": config["half"]},
            "zero_optimization": {"stage": plan.zero_stage},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
        },
    )
    given = ray.get(config["data"])
    pad = model.config.pad_token_id or 0

    def collate(rows: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
        ids, labels = ([torch.tensor(part) for part in side] for side in zip(*rows, strict=True))
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        }

    loader: Any = DataLoader(
        list(zip(given["input_ids"], given["labels"], strict=True)),  # type: ignore[arg-type]
        batch_size=plan.micro_examples,
        shuffle=True,
        collate_fn=collate,
    )
    loader = ray.train.torch.prepare_data_loader(loader)
    engine.train()
    marks: list[tuple[int, float, float]] = []
    tokens = torch.zeros((), dtype=torch.int64, device=engine.device)
    for epoch in range(plan.epochs):
        if plan.workers > 1:
            loader.sampler.set_epoch(epoch)
        for number, batch in enumerate(loader, start=1):
            last = epoch == plan.epochs - 1 and number == len(loader)
            loss = engine(**batch, use_cache=False).loss
            engine.backward(loss)
            boundary = engine.is_gradient_accumulation_boundary()
            engine.step()
            tokens += batch["attention_mask"].sum()
            if boundary and (last or engine.global_steps % plan.log_steps == 0):
                loss.item()  # as if it were logged: waits for the device
                marks.append((engine.global_steps, int(tokens), time.perf_counter()))
    if dist.get_rank() == 0 and plan.zero_stage < 3:
        with tempfile.TemporaryDirectory() as folder:
            engine.module.save_pretrained(folder)
    every: list[Any] = [None] * plan.workers
    dist.all_gather_object(every, [int(tokens), *(seen for _, seen, _ in marks)])
    total, *seen = (sum(part) for part in zip(*every, strict=True))
    return {
        "marks": [(step, count, seconds) for (step, _, seconds), count in zip(marks, seen, strict=True)],
        "steps": engine.global_steps,
        "tokens": total,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def trl(plan: Plan, packing: bool) -> Told:
    """TRL in its own environment: on this machine, or on a node of the cluster that Ray is told to join."""
    tokens = Path(plan.tokens).read_text(encoding="utf-8")
    script = _TRL_SCRIPT.read_text(encoding="utf-8")
    if os.environ.get("RAY_ADDRESS", "local") in ("", "local"):
        return _run_trl(plan, packing, script, tokens, plan.gpus == 0)
    with _session() as ray:
        gpus = _gpus(ray, plan)
        task = ray.remote(_run_trl).options(num_cpus=plan.workers * plan.threads, num_gpus=plan.workers * gpus)
        told: Told = ray.get(task.remote(plan, packing, script, tokens, not gpus))
        return told


def _run_trl(plan: Plan, packing: bool, script: str, tokens: str, cpu: bool) -> Told:
    settings = {
        "model": fetch_folder(plan.model) if "://" in plan.model else plan.model,
        "epochs": plan.epochs,
        "batch": plan.micro_rows if packing else plan.micro_examples,
        "accumulation": plan.accumulation,
        "max_length": plan.max_length,
        "packing": packing,
        "learning_rate": plan.learning_rate,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "dtype": plan.dtype,
        "cpu": cpu,
        "threads": plan.threads,
        "seed": plan.seed,
        "attention": plan.trl_attention if packing else None,
    }
    environment = os.environ | {"OMP_NUM_THREADS": str(plan.threads)}
    if cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    else:  # otherwise one process takes all GPUs that it sees
        seen = environment.get("CUDA_VISIBLE_DEVICES")
        devices = seen.split(",") if seen else [str(number) for number in range(plan.workers)]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices[: plan.workers])
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={plan.workers}"]
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder, name) for name in ("finetuning_trl.py", "settings.json", "tokens.json", "result.json")]
        for path, text in zip(names, (script, json.dumps(settings), tokens), strict=False):
            path.write_text(text, encoding="utf-8")
        command = [plan.trl, *(several if plan.workers > 1 else []), *map(str, names)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
        if done.returncode or not names[-1].exists():
            raise RuntimeError(f"TRL ended with {done.returncode}:\n{done.stderr[-3000:]}")
        told: Told = json.loads(names[-1].read_text(encoding="utf-8"))
        return told


def _gpus(ray: Any, plan: Plan) -> float:
    if plan.gpus is not None:
        return plan.gpus
    return 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0


def _half(plan: Plan, gpu: bool) -> bool:
    return plan.dtype == "bfloat16" or (plan.dtype == "auto" and gpu)


SIDES: dict[str, Callable[[Plan], Told]] = {
    OURS: lambda plan: ours(plan, True),
    OURS_PADDED: lambda plan: ours(plan, False),
    RAY: by_hand,
    TRL: lambda plan: trl(plan, False),
    TRL_PACKED: lambda plan: trl(plan, True),
}
