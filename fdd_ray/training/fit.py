"""Fine-tune a student on the cluster, from the driver's side.

Ray Train's ``fit`` runs in an actor of its own, the launcher, not in the driver: there it can be ended when the
workers do not start in time, the driver never imports PyTorch, and its Ctrl-C keeps its meaning (``fit``
replaces the handler for good).

What a fine-tuning costs before its first step is processes and their imports, one after the other: the launcher
(once per driver; `warm_up` starts it early), Ray Train's controller and its helpers, the workers. So helpers
that have nothing to do are left out, processes get no environment of their own, which would keep them from
those that Ray has ready, and no kernels are compiled (see `worker.initialize`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from fdd_ray.errors import TrainingError
from fdd_ray.labels import matches, this_node
from fdd_ray.training.lora import require_peft
from fdd_ray.training.settings import FinetuneSettings

_CAUSE_LINES = 15
_WATCH_S = 1.0
_GROUP_START_S = 60  # Ray Train's own time limit for one try to start the workers

_launchers: dict[str, Any] = {}  # this driver's launcher, by Ray session


@dataclasses.dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning did, summed over restarts.

    Attributes:
        output: Where the student was exported to, in Hugging Face format.
        steps: Optimiser steps.
        epochs: Passes over the examples.
        examples: Examples trained on.
        rejected_too_long: Examples left out because they are longer than ``max_length``.
        tokens: Tokens seen in all epochs, without padding.
        completion_tokens: Those of them that carry loss.
        loss_first: Mean loss of a completion token in the first step.
        loss_last: The same over the last epoch.
        seconds: Time spent on steps.
        tokens_per_second: ``tokens`` / ``seconds``.
        workers: How many workers trained (at the end).
        zero_stage: DeepSpeed ZeRO stage.
        parameters: Parameters of the student.
        restarts: How often the workers were started again, after a failure or as another number.
        resumed_from: Step at which the last start began; 0 without a checkpoint.
        total_seconds: Time of the whole call, with start-up and export.
        trained_parameters: Parameters that were trained: all of the student's, or those of the adapters.
        lossy: Examples whose rationale the student's tokenizer does not give back as it was.
        start_seconds: Time until the workers had started, looked at every second.
        prepare_seconds: Time from then to the first step, of the last start: model, examples, optimiser.
        export_seconds: Time that the export took.
    """

    output: str
    steps: int
    epochs: int
    examples: int
    rejected_too_long: int
    tokens: int
    completion_tokens: int
    loss_first: float
    loss_last: float
    seconds: float
    tokens_per_second: float
    workers: int
    zero_stage: int
    parameters: int
    restarts: int
    resumed_from: int
    total_seconds: float
    trained_parameters: int = 0
    lossy: int = 0
    start_seconds: float = 0.0
    prepare_seconds: float = 0.0
    export_seconds: float = 0.0


def finetune(
    settings: FinetuneSettings,
    *,
    base_model: str,
    examples: Sequence[str],
    prompts: str,
    output: str,
    work_dir: str,
    run_name: str,
    seed: int,
    revision: str | None = None,
    trust_remote_code: bool = False,
    keep_checkpoints: bool = False,
    progress: Any | None = None,
    watch: Callable[[], None] | None = None,
) -> FinetuneResult:
    """Fine-tune ``base_model`` on ``examples`` and export the student to ``output``.

    Ray must be initialised. Calling again with the same ``work_dir`` and ``run_name`` after the driver
    died goes on from the last step checkpoint.

    Args:
        settings: How to fine-tune.
        base_model: A Hugging Face directory or hub id.
        examples: Parquet files with rows of `fdd_ray.records.Example`; paths or URLs.
        prompts: Name of the prompt set, or the path of its folder.
        output: Directory or URL for the student in Hugging Face format; replaced only when whole.
        work_dir: Directory or URL for Ray Train's step checkpoints, which all nodes can reach.
        run_name: Name of this fine-tuning within ``work_dir``.
        seed: Seed of the data order and of dropout.
        revision: Revision of a hub id: a branch, tag or commit.
        trust_remote_code: Let the model bring its own code from the hub.
        keep_checkpoints: Keep the step checkpoints after success.
        progress: A Ray actor with ``update(done, total, info)``, called about once a second.
        watch: Called every second; what it raises ends the workers, and another call goes on from there.

    Raises:
        TrainingError: If the workers do not start in time, or fail for good, or nobody can tell whether they need GPUs.
        DependencyError: If adapters are asked for and peft is not installed.
    """
    if settings.lora is not None:
        require_peft()
    import fsspec
    import ray

    began = time.monotonic()
    resources = _resources_per_worker(settings)
    work_dir = _absolute(work_dir)
    run_dir = f"{work_dir.rstrip('/')}/{run_name}"
    marks = f"{run_dir}/starts-{uuid.uuid4().hex[:8]}"
    job = {
        "settings": settings,
        "base_model": _absolute(base_model) if os.path.isdir(base_model) else base_model,
        "examples": tuple(map(_absolute, examples)),
        "prompts": _absolute(prompts) if os.sep in prompts else prompts,
        "output": _absolute(output),
        "marks": marks,
        "seed": seed,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "gpu": resources.get("GPU", 0) > 0,
        "progress": progress,
    }
    warm_up()
    running = _launchers[_session()].fit.remote(job, resources, work_dir, run_name)
    filesystem, path = fsspec.core.url_to_fs(marks)
    started = ended = False
    start_seconds = 0.0
    try:
        while not (ended := bool(ray.wait([running], timeout=_WATCH_S)[0])):
            if watch is not None:
                watch()
            if not started:
                filesystem.invalidate_cache()
                started = bool(filesystem.exists(path))
                start_seconds = time.monotonic() - began
            if not started and time.monotonic() - began > settings.start_deadline_s:
                raise _not_started(settings, resources)
        metrics = ray.get(running)
    except ray.exceptions.RayError as error:
        raise TrainingError(f"fine-tuning {run_name} failed: {_last_lines(error)}") from None
    finally:
        if not ended:  # with the launcher end the controller and the workers that it started
            ray.kill(_launchers.pop(_session()))
    if "error" in metrics:
        raise TrainingError(f"fine-tuning {run_name} failed: {metrics['error']}")
    if not keep_checkpoints:
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm(fsspec.core.url_to_fs(run_dir)[1], recursive=True)
    total_seconds = time.monotonic() - began
    return FinetuneResult(output=output, total_seconds=total_seconds, start_seconds=start_seconds, **metrics)


def warm_up() -> None:
    """Start the launcher, if there is none yet: its imports then run beside whatever comes before `finetune`."""
    import ray
    from ray._private.services import find_gcs_addresses

    if _session() in _launchers:
        return
    _launchers.clear()
    context = ray.get_runtime_context()
    environment = {}
    if len(find_gcs_addresses()) > 1:
        # Ray Train looks its own actors up by address, and would ask the wrong cluster of this machine.
        environment = {"env_vars": {"RAY_ADDRESS": context.gcs_address}}
    launcher = ray.remote(num_cpus=0)(_Launcher).options(label_selector=this_node(), runtime_env=environment)
    _launchers[_session()] = launcher.remote()


def _absolute(path: str) -> str:
    """Ray Train's workers run in a directory of their own."""
    return path if "://" in path else os.path.abspath(path)


def _session() -> str:
    """Tells one Ray cluster and driver from another."""
    import ray

    context = ray.get_runtime_context()
    return f"{context.get_node_id()}-{context.get_job_id()}"


class _Launcher:
    """An actor that runs Ray Train."""

    def __init__(self) -> None:
        import ray

        defaults = {
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(_GROUP_START_S),
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a failure, or the end, is seen that much earlier
            # Nobody announces the end of the only node.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": str(int(len(ray.nodes()) > 1)),
        }
        for name, value in defaults.items():
            os.environ.setdefault(name, value)
        import ray.train.torch

    def fit(self, job: dict[str, Any], resources: dict[str, float], work_dir: str, run_name: str) -> Any:
        """The metrics of rank 0, or ``{"error": why}``."""
        return _fit(job, resources, work_dir, run_name)


def _fit(job: dict[str, Any], resources: dict[str, float], work_dir: str, run_name: str) -> Any:
    from ray.train.torch import TorchConfig
    from ray.train.v2._internal.logging.logging import LoggingManager
    from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    from fdd_ray.training.elastic import ElasticTrainer

    settings: FinetuneSettings = job["settings"]
    least, most = settings.workers
    trainer_of: Any = TorchTrainer
    if least != most:
        trainer_of = functools.partial(ElasticTrainer, grow_after_s=settings.grow_after_s)
    trainer = trainer_of(
        _train,
        train_loop_config=job,
        torch_config=TorchConfig(backend="nccl" if job["gpu"] else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=most if least == most else (least, most),
            use_gpu=job["gpu"],
            resources_per_worker=resources,
            label_selector=settings.label_selector or None,
        ),
        run_config=RunConfig(
            name=run_name,
            storage_path=work_dir,
            failure_config=FailureConfig(
                max_failures=settings.max_failures,
                controller_failure_limit=math.ceil(settings.start_deadline_s / _GROUP_START_S),
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result: Any = trainer.fit()
    except TrainingFailedError as error:
        logs = LoggingManager.get_log_directory()
        return {"error": f"{_last_lines(error)}\nRay Train's logs are in {logs} on each node"}
    return result.return_value


def _train(job: dict[str, Any]) -> dict[str, Any]:
    """Runs on a worker."""
    from fdd_ray.training.job import Job
    from fdd_ray.training.worker import train_loop

    return train_loop(Job(**job))


def _resources_per_worker(settings: FinetuneSettings) -> dict[str, float]:
    import ray

    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
        selector = settings.label_selector
        if not gpus and not any(node["Alive"] and matches(node["Labels"] or {}, selector) for node in ray.nodes()):
            raise TrainingError(
                f"cannot tell whether the workers need GPUs: no node labelled {selector} is up yet, and the cluster has"
                " no GPU; set finetune.gpus_per_worker, to 0 for CPUs"
            )
    wanted = {"CPU": settings.cpus_per_worker, "GPU": gpus, **settings.resources}
    return {name: amount for name, amount in wanted.items() if amount}


def _not_started(settings: FinetuneSettings, resources: dict[str, float]) -> TrainingError:
    import ray

    def known(amounts: dict[str, float]) -> str:
        shown = {name: amount for name, amount in sorted(amounts.items()) if name in {"CPU", "GPU", *resources}}
        return str(shown)

    labels = f" on nodes labelled {settings.label_selector}" if settings.label_selector else ""
    return TrainingError(
        f"the workers did not start within finetune.start_deadline_s = {settings.start_deadline_s:g} s; awaited: "
        f"{settings.workers[0]} x {resources}{labels}; the cluster has {known(ray.cluster_resources())}, of which "
        f"{known(ray.available_resources())} are free; ask for less, or give the cluster more"
    )


def _last_lines(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return "\n".join(lines[-_CAUSE_LINES:])
