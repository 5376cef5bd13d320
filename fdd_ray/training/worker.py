"""The training loop of one Ray Train worker, with DeepSpeed.

In the order in which it happens: load the student, render and plan the examples, resume from a step checkpoint
if there is one, take the remaining steps, export. Whatever decides about the data order or the learning rate
is a function of the step number, so a run that was killed and resumed takes the very steps it would have taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import fsspec
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from fdd_ray.errors import FddError, TrainingError
from fdd_ray.settings import to_plain
from fdd_ray.store.fetch import fetch_folder
from fdd_ray.training.examples import Tokens, read_examples, render
from fdd_ray.training.export import export, gathered_weights
from fdd_ray.training.model import CompletionLoss, load_student, parameter_groups
from fdd_ray.training.packing import Batch, TrainingPlan, collate, micro_batches, rows_per_step
from fdd_ray.training.schedule import learning_rate
from fdd_ray.training.settings import FinetuneSettings

logger = logging.getLogger(__name__)

_STATE = "fdd_state.json"
_TAG = "step"
_REPORT_EVERY_S = 1.0


@dataclasses.dataclass(frozen=True)
class Job:
    """What the driver hands to every worker; see `fdd_ray.training.fit.finetune`."""

    settings: FinetuneSettings
    base_model: str
    examples: tuple[str, ...]
    prompts: str
    output: str
    marks: str
    seed: int
    trust_remote_code: bool
    gpu: bool
    progress: Any | None


@dataclasses.dataclass
class Totals:
    """What is summed over the steps, and over restarts."""

    fingerprint: str
    workers: int
    step: int = 0
    seconds: float = 0.0
    loss_first: float = 0.0
    epoch: int = 0
    epoch_loss: float = 0.0
    epoch_tokens: int = 0


def train_loop(job: Job) -> dict[str, Any]:
    """Fine-tune on this worker.

    Returns:
        The metrics of the fine-tuning; or ``{"error": message}`` for a mistake that a restart would only
        repeat, so that Ray Train does not spend its retries on it.
    """
    restarts = _mark_start(job.marks) if dist.get_rank() == 0 else 0
    _quiet()
    torch.set_num_threads(job.settings.threads)
    dtype = _dtype(job)
    problem, made = "", None
    try:
        made = _prepare(job, dtype)
    except FddError as error:
        problem = str(error)
    problems: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, problem)  # or the others would wait for this worker in the first step
    if any(problems) or made is None:
        return {"error": next(text for text in problems if text)}
    model, tokenizer, tokens = made
    return _Training(job, model, tokenizer, tokens, dtype, restarts).run()


def _quiet() -> None:
    """Keep progress bars and notices meant for DeepSpeed's authors out of the driver's output."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def _mark_start(marks: str) -> int:
    """Tell the driver that the workers have started; returns how often they had started before."""
    filesystem, path = fsspec.core.url_to_fs(marks)
    filesystem.makedirs(path, exist_ok=True)
    filesystem.invalidate_cache()
    before = len(filesystem.find(path))  # object stores know no empty folders
    filesystem.pipe_file(f"{path}/{uuid.uuid4().hex}", b"started")
    return before


def _dtype(job: Job) -> torch.dtype:
    if job.settings.dtype == "auto":
        return torch.bfloat16 if job.gpu else torch.float32
    return torch.bfloat16 if job.settings.dtype == "bfloat16" else torch.float32


def _prepare(job: Job, dtype: torch.dtype) -> tuple[Any, Any, Tokens]:
    """The student, its tokenizer and the rendered examples."""
    settings = job.settings
    path = fetch_folder(job.base_model) if "://" in job.base_model else job.base_model
    try:
        model, tokenizer = load_student(
            path, dtype=dtype, packing=settings.packing, trust_remote_code=job.trust_remote_code
        )
    except OSError as error:
        raise TrainingError(f"cannot load the student {job.base_model}: {error}") from error
    tokens = render(
        read_examples(job.examples),
        tokenizer,
        job.prompts,
        max_length=settings.max_length,
        drop_too_long=settings.drop_too_long,
    )
    longest = int(tokens.lengths.max())
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and longest > positions:
        raise TrainingError(
            f"an example has {longest} tokens, but {job.base_model} knows {positions} positions; "
            f"set finetune.max_length to at most {positions}"
        )
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model, tokenizer, tokens


class _Training:
    """One worker's state between the steps."""

    def __init__(self, job: Job, model: Any, tokenizer: Any, tokens: Tokens, dtype: torch.dtype, restarts: int) -> None:
        settings = job.settings
        self.job, self.settings, self.restarts = job, settings, restarts
        self.model, self.tokenizer, self.tokens = model, tokenizer, tokens
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.rank, self.workers = dist.get_rank(), dist.get_world_size()
        self.device = get_device()
        rows = rows_per_step(settings.batch_tokens, settings.max_length, settings.workers[1], settings.micro_batch_rows)
        self.plan = TrainingPlan(
            tokens.lengths,
            tokens.completions,
            max_length=settings.max_length,
            rows_per_step=rows,
            epochs=settings.epochs,
            seed=job.seed,
            packing=settings.packing,
        )
        self.micro_batches = micro_batches(rows, self.workers, settings.micro_batch_rows)
        self.loss = CompletionLoss(model, settings.packing)
        self.engine = _initialize(model, settings, self.micro_batches, dtype)
        self.totals = Totals(self._fingerprint(), self.workers)
        self.epoch_loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.resumed_from = self._resume()

    def run(self) -> dict[str, Any]:
        """Take the steps that are left, export, and say how it went."""
        totals, began, reported = self.totals, time.monotonic() - self.totals.seconds, 0.0
        self.engine.train()
        for number, step in self.plan.from_step(totals.step):
            if step.epoch != totals.epoch:
                totals.epoch, totals.epoch_tokens = step.epoch, 0
                self.epoch_loss.zero_()
            step_loss = self._step(number, step.share(self.rank, self.workers, self.micro_batches), step)
            self.epoch_loss += step_loss
            totals.epoch_tokens += step.completion_tokens
            totals.step = number + 1
            if number == 0:
                totals.loss_first = float(step_loss) / step.completion_tokens
            totals.seconds = time.monotonic() - began
            every = self.settings.checkpoint_steps
            if every and totals.step % every == 0 and totals.step < self.plan.steps:
                self._checkpoint()
            last = totals.step == self.plan.steps
            if self.rank == 0 and (last or time.monotonic() - reported >= _REPORT_EVERY_S):
                reported = time.monotonic()
                self._tell_progress(float(step_loss) / step.completion_tokens)
        return self._finish()

    def _step(self, number: int, micro_batches: list[list[list[int]]], step: Any) -> torch.Tensor:
        """One optimiser step; returns the summed loss of all workers.

        The gradient is that of (sum of token losses) / (completion tokens of the whole step), whatever worker
        and micro-batch a token is in. DeepSpeed averages over the workers, hence the factor; it is told not
        to average over micro-batches.
        """
        settings = self.settings
        rate = learning_rate(
            number,
            self.plan.steps,
            peak=settings.learning_rate,
            warmup_share=settings.warmup_share,
            min_share=settings.min_lr_share,
        )
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((self.job.seed << 32) + number * self.workers + self.rank)  # for dropout
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for rows in micro_batches:
            loss = self.loss(self.engine, self._batch(rows), self.device)
            self.engine.backward(loss * (self.workers / step.completion_tokens), scale_wrt_gas=False)
            self.engine.step()
            total += loss.detach()
        if self.workers > 1:
            dist.all_reduce(total)
        return total

    def _batch(self, rows: list[list[int]]) -> Batch:
        return collate(
            [[self.tokens.example(index) for index in row] for row in rows],
            pad_id=self.tokenizer.pad_token_id,
            max_length=self.settings.max_length,
        )

    def _fingerprint(self) -> str:
        """Tells whether a checkpoint belongs to this very fine-tuning."""
        ignored = ("workers", "checkpoint_steps", "max_failures", "start_deadline_s", "threads")
        settings = {key: value for key, value in to_plain(self.settings).items() if key not in ignored}
        parts = [settings, self.job.base_model, self.job.seed, self.plan.rows_per_step, self.tokens.digest()]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def _checkpoint(self) -> None:
        """Every worker saves its shard; Ray Train puts the shards together in its storage."""
        self.totals.epoch_loss = float(self.epoch_loss)
        with tempfile.TemporaryDirectory(prefix="fdd-checkpoint-") as folder:
            self.engine.save_checkpoint(folder, tag=_TAG)
            if self.rank == 0:
                Path(folder, _STATE).write_text(json.dumps(dataclasses.asdict(self.totals)), encoding="utf-8")
            ray.train.report({"step": self.totals.step}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _resume(self) -> int:
        """Go on from Ray Train's latest checkpoint, if it is one of this fine-tuning; returns its step."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            saved = Totals(**json.loads(Path(folder, _STATE).read_text(encoding="utf-8")))
            if (saved.fingerprint, saved.workers) != (self.totals.fingerprint, self.workers):
                # DeepSpeed's shards fit one number of workers only, and a wrong optimiser state is worse
                # than steps taken twice.
                logger.warning(
                    "starting over: the checkpoint at step %d is of %s",
                    saved.step,
                    "another fine-tuning" if saved.workers == self.workers else f"{saved.workers} workers",
                )
                return 0
            self.engine.load_checkpoint(folder, tag=_TAG)
        self.totals = saved
        self.epoch_loss.fill_(saved.epoch_loss)
        return saved.step

    def _tell_progress(self, loss: float) -> None:
        if self.job.progress is None:
            return
        done = self.totals.step
        seen = done / self.plan.steps * self._all_tokens()
        info = {
            "loss": loss,
            "epoch": self.totals.epoch + 1,
            "tokens_per_second": seen / max(self.totals.seconds, 1e-9),
            "resumed_from": self.resumed_from,
        }
        self.job.progress.update.remote(done, self.plan.steps, info)

    def _all_tokens(self) -> int:
        return int(self.tokens.lengths.sum()) * self.settings.epochs

    def _finish(self) -> dict[str, Any]:
        """Export the student; what a worker that dies here has not finished, its successor does again."""
        totals = self.totals
        weights = gathered_weights(self.engine.module, keep=self.rank == 0)
        if self.rank == 0:
            export(self.model, self.tokenizer, weights, self.job.output)
        return {
            "steps": self.plan.steps,
            "epochs": self.settings.epochs,
            "examples": len(self.tokens),
            "rejected_too_long": self.tokens.rejected_too_long,
            "tokens": self._all_tokens(),
            "completion_tokens": int(self.tokens.completions.sum()) * self.settings.epochs,
            "loss_first": totals.loss_first,
            "loss_last": float(self.epoch_loss) / totals.epoch_tokens,
            "seconds": totals.seconds,
            "tokens_per_second": self._all_tokens() / max(totals.seconds, 1e-9),
            "workers": self.workers,
            "zero_stage": self.settings.zero_stage,
            "parameters": self.parameters,
            "restarts": self.restarts,
            "resumed_from": self.resumed_from,
        }


def _initialize(model: Any, settings: FinetuneSettings, micro_batches: int, dtype: torch.dtype) -> Any:
    """The DeepSpeed engine around a model, with PyTorch's AdamW."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if get_device().type == "cuda" else "cpu")
    import deepspeed

    # On CPUs DeepSpeed would compile a shared-memory all-reduce when it first starts (80 s), which only its
    # inference uses. Training goes through gloo with or without it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settings.micro_batch_rows,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": settings.clip_norm,
        "zero_optimization": {"stage": settings.zero_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if dtype == torch.bfloat16:  # DeepSpeed keeps the optimiser's copy of the weights in float32
        config["bf16"] = {"enabled": True}
        if settings.zero_stage > 0:
            config["data_types"] = {"grad_accum_dtype": "fp32"}
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    return engine
