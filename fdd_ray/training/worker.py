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
from typing import Any

import fsspec
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from fdd_ray.errors import FddError
from fdd_ray.settings import to_plain
from fdd_ray.training import checkpoints
from fdd_ray.training.checkpoints import Totals
from fdd_ray.training.examples import Tokens
from fdd_ray.training.export import export, gathered_weights
from fdd_ray.training.job import Job, Student, dtype_of, load_base, prepare
from fdd_ray.training.lora import gathered_adapters, merge
from fdd_ray.training.model import CompletionLoss, parameter_groups
from fdd_ray.training.packing import Batch, TrainingPlan, collate, micro_batches, pack, rows_per_step
from fdd_ray.training.pairs import PairBatch, collate_pairs, group
from fdd_ray.training.schedule import learning_rate
from fdd_ray.training.settings import FinetuneSettings

logger = logging.getLogger(__name__)

_REPORT_EVERY_S = 1.0


def train_loop(job: Job) -> dict[str, Any]:
    """Fine-tune on this worker.

    Returns:
        The metrics of the fine-tuning; or ``{"error": message}`` for a mistake that a restart would only
        repeat, so that Ray Train does not spend its retries on it.
    """
    started = time.monotonic()
    restarts = _mark_start(job.marks) if dist.get_rank() == 0 else 0
    _quiet()
    torch.set_num_threads(job.settings.threads)
    dtype = dtype_of(job)
    problem, made = "", None
    try:
        made = prepare(job, dtype)
    except FddError as error:
        problem = str(error)
    problems: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, problem)  # or the others would wait for this worker in the first step
    if any(problems) or made is None:
        return {"error": next(text for text in problems if text)}
    training = _Training(job, *made, dtype, restarts)
    return {"prepare_seconds": time.monotonic() - started, **training.run()}


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


class _Training:
    """One worker's state between the steps."""

    def __init__(self, job: Job, student: Student, tokens: Tokens, dtype: torch.dtype, restarts: int) -> None:
        settings = job.settings
        self.job, self.settings, self.restarts = job, settings, restarts
        self.student, self.tokens = student, tokens
        model = student.model
        self.trained_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.rank, self.workers = dist.get_rank(), dist.get_world_size()
        self.device = get_device()
        # A group of an encoder-decoder student is as large as a whole micro-batch of packed rows, or as the batch.
        grouped = settings.packing and student.decoder_start is not None
        rows_at_once = 1 if grouped else settings.micro_batch_rows
        row_tokens = settings.max_length
        if grouped:
            row_tokens *= max(
                1, min(settings.micro_batch_rows, settings.batch_tokens // settings.workers[1] // row_tokens)
            )
        rows = rows_per_step(settings.batch_tokens, row_tokens, settings.workers[1], rows_at_once)
        self.plan = TrainingPlan(
            tokens.lengths,
            tokens.completions,
            max_length=row_tokens,
            rows_per_step=rows,
            epochs=settings.epochs,
            seed=job.seed,
            packing=settings.packing,
            arrange=group if grouped else pack,
        )
        self.micro_batches = micro_batches(rows, self.workers, rows_at_once)
        self.loss = CompletionLoss(model, settings.packing)
        self.engine = initialize(model, settings, self.micro_batches, dtype, self.device)
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
        for parameters in self.engine.optimizer.param_groups:
            parameters["lr"] = rate
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

    def _batch(self, rows: list[list[int]]) -> Batch | PairBatch:
        examples = [[self.tokens.example(index) for index in row] for row in rows]
        pad, start = self.student.tokenizer.pad_token_id, self.student.decoder_start
        if start is not None:
            return collate_pairs(examples, pad_id=pad, start_id=start)
        return collate(examples, pad_id=pad, max_length=self.settings.max_length)

    def _fingerprint(self) -> str:
        """Tells whether a checkpoint belongs to this very fine-tuning."""
        ignored = ("workers", "grow_after_s", "checkpoint_steps", "max_failures", "start_deadline_s", "threads")
        settings = {key: value for key, value in to_plain(self.settings).items() if key not in ignored}
        parts = [
            settings,
            self.job.base_model,
            self.job.seed,
            self.plan.rows_per_step,
            self.plan.max_length,
            self.tokens.digest(),
        ]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def _checkpoint(self) -> None:
        """Every worker saves its shard; Ray Train puts the shards together in its storage."""
        totals = self.totals
        totals.epoch_loss = float(self.epoch_loss)
        report = {"step": totals.step, "seconds_left": totals.seconds / totals.step * (self.plan.steps - totals.step)}
        with tempfile.TemporaryDirectory(prefix="fdd-checkpoint-") as folder:
            adapters = self.settings.lora is not None
            checkpoints.save(self.engine, folder, totals, first=self.rank == 0, adapters=adapters)
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _resume(self) -> int:
        """Go on from Ray Train's latest checkpoint, if it is one of this fine-tuning; returns its step."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        stage = self.settings.zero_stage
        with checkpoint.as_directory() as folder:
            saved = checkpoints.read_totals(folder)
            ours = saved.fingerprint == self.totals.fingerprint
            if not ours or not checkpoints.fits(saved.workers, self.workers, stage):
                # A wrong optimiser state is worse than steps taken twice.
                logger.warning(
                    "starting over: the checkpoint at step %d is of %s",
                    saved.step,
                    f"{saved.workers} workers, and ZeRO 3 cannot go on with {self.workers}"
                    if ours
                    else "another fine-tuning",
                )
                return 0
            checkpoints.load(
                self.engine,
                folder,
                saved=saved.workers,
                rank=self.rank,
                workers=self.workers,
                zero_stage=stage,
                adapters=self.settings.lora is not None,
            )
        self.totals = dataclasses.replace(saved, workers=self.workers)
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
        totals, began = self.totals, time.monotonic()
        first, student = self.rank == 0, self.student
        if self.settings.lora is not None:
            adapters = gathered_adapters(self.engine.module, keep=first)
            if first:
                merged = merge(load_base(self.job), adapters)
                merged.generation_config = student.model.generation_config
                export(merged, student.tokenizer, merged.state_dict(), self.job.output)
        else:
            weights = gathered_weights(self.engine.module, keep=first)
            if first:
                export(student.model, student.tokenizer, weights, self.job.output)
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
            "parameters": self.student.parameters,
            "trained_parameters": self.trained_parameters,
            "lossy": self.tokens.lossy,
            "restarts": self.restarts,
            "resumed_from": self.resumed_from,
            "export_seconds": time.monotonic() - began,
        }


def initialize(
    model: Any, settings: FinetuneSettings, micro_batches: int, dtype: torch.dtype, device: torch.device
) -> Any:
    """The DeepSpeed engine around a model, with PyTorch's AdamW."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.type == "cuda" else "cpu")
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
