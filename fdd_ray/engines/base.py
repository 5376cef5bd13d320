"""What an engine is: it turns a chat into completions. And what an experiment may say about one."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from fdd_ray.engines.endpoint import check_endpoint_settings
from fdd_ray.engines.sampling import SamplingSettings
from fdd_ray.engines.thinking import CLOSE, OPEN
from fdd_ray.errors import EngineError, ExperimentError
from fdd_ray.prompts import Message
from fdd_ray.settings import setting
from fdd_ray.tiny import model_path

_HUB_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """One role's model (teacher or student) and the engines that serve it."""

    model: str = setting(
        help="A Hugging Face model folder or hub id; tiny://teacher and tiny://student are the shipped miniatures."
        " With an endpoint: the model's name there."
    )
    endpoint: str | None = setting(
        None,
        "Base URL of an OpenAI-compatible endpoint that serves the model, such as https://api.example.com/v1;"
        " default: vLLM serves it on this cluster.",
    )
    api_key_env: str | None = setting(
        "OPENAI_API_KEY",
        "Name of the environment variable that holds the endpoint's key, set where Ray's nodes start; null sends none.",
    )
    answers_as: str | None = setting(
        None, "The name an endpoint gives the model in its replies, where that is not the name it is asked by."
    )
    requests_per_minute: float | None = setting(
        None, "Most requests that all replicas together send to the endpoint in a minute; default: no limit.", gt=0
    )
    tokens_per_minute: float | None = setting(
        None, "Most prompt and completion tokens of all replicas together in a minute; default: no limit.", gt=0
    )
    prompt_price: float = setting(0.0, "Price of a million prompt tokens, in the currency of your bill.", ge=0)
    completion_price: float = setting(0.0, "Price of a million completion tokens.", ge=0)
    engine: Literal["vllm", "transformers", "simulated"] = setting(
        "vllm",
        "What runs the model: vLLM; transformers for encoder-decoder students (T5), which vLLM does not serve;"
        " simulated runs none, for harnesses (see fdd_ray.engines.simulated).",
    )
    revision: str | None = setting(None, "Hub revision: a branch, tag or commit.")
    quantization: str | None = setting(
        None, "vLLM's name for how the weights are quantised, such as fp8 or awq; default: as the checkpoint says."
    )
    adapter: str | None = setting(
        None, "A LoRA adapter that the teacher wears: a folder in PEFT's format, or its URL; default: none."
    )
    trust_remote_code: bool = setting(False, "Let the hub repository's own Python code run. Off unless you trust it.")
    replicas: tuple[int, int] = setting(
        (1, 1), "Engines: one number, or [min, max]; all of max are asked for, work starts at min.", ge=1
    )
    gpus_per_replica: int | None = setting(
        None,
        "GPUs of one engine; default: tensor_parallel x pipeline_parallel if nodes that are up have GPUs, otherwise 0"
        " (CPU). Say it where nodes come only when asked for.",
        ge=0,
    )
    cpus_per_replica: float | None = setting(
        None, "Logical CPUs one engine reserves; default: 1, or 0.1 with an endpoint.", ge=0
    )
    threads: int = setting(1, "CPU threads of one engine that runs without a GPU.", ge=1)
    tensor_parallel: int = setting(1, "GPUs that share each layer of one copy of the model.", ge=1)
    pipeline_parallel: int = setting(
        1, "Groups of tensor_parallel GPUs that one copy of the model is cut into, layer after layer.", ge=1
    )
    across_nodes: bool | None = setting(
        None, "Let the GPUs of one engine lie on several nodes; default: only if no node that is up has enough of them."
    )
    resources: dict[str, float] = setting(
        factory=dict, help="Custom Ray resources one engine reserves, such as {teacher: 1}.", gt=0
    )
    label_selector: dict[str, str] = setting(factory=dict, help="Ray node labels an engine's node must have.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = setting(
        "auto", "Precision of the weights; auto is the model's own on a GPU and float32 on a CPU."
    )
    max_model_len: int | None = setting(None, "Longest prompt plus completion, in tokens; default: the model's.", ge=1)
    max_num_seqs: int = setting(
        256, "Completions one engine works on at once; with an endpoint, requests one replica has in flight.", ge=1
    )
    kv_cache_mib: int | None = setting(
        None, "Key-value cache of one engine in MiB; default: vLLM's choice on a GPU, 256 on a CPU.", ge=1
    )
    gpu_memory_share: float = setting(0.9, "Share of a GPU's memory that an engine may take.", gt=0, le=1)
    enforce_eager: bool | None = setting(
        None, "Run without compilation or CUDA graphs; default: only on a CPU, where compiling costs more."
    )
    in_process: bool | None = setting(
        None, "Run vLLM inside the actor's own process instead of one beside it; default: only on a CPU."
    )
    sampling: SamplingSettings = setting(
        factory=SamplingSettings, help="How tokens are drawn, beside the temperature, top_p and length of each stage."
    )
    chat_template_kwargs: dict[str, Any] = setting(
        factory=dict, help="Passed to the model's chat template, such as {enable_thinking: false}."
    )
    thinking: Literal["strip", "keep"] = setting(
        "strip", "What becomes of the thinking before a reasoning model's answer; its tokens are counted either way."
    )
    thinking_open: str = setting(OPEN, "What begins the thinking; it may stand in the prompt.")
    thinking_close: str = setting(CLOSE, "What ends the thinking.")
    engine_args: dict[str, Any] = setting(factory=dict, help="Further vLLM engine arguments, passed on as they are.")
    max_restarts: int = setting(20, "How often a dead engine is started again.", ge=0)
    start_deadline_s: float = setting(1800.0, "Seconds until the first replicas must serve.", gt=0)
    idle_release_s: float | None = setting(
        None,
        "Seconds without a stage that asks them after which the engines are given back, so that an autoscaling cluster"
        " can let their nodes go; they start anew when asked again. Default: kept while nobody else needs the room.",
        gt=0,
    )
    request_deadline_s: float = setting(
        900.0, "Seconds until a single request must be answered; waiting for a rate limit is not counted.", gt=0
    )
    request_tries: int = setting(4, "How often a request is tried before its row is set down as failed.", ge=1)

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model is empty; give a folder, a hub id, or tiny://teacher")
        if self.gpus_per_replica is not None and self.gpus_per_replica not in (0, self.model_parallel):
            raise ValueError(
                f"gpus_per_replica is {self.gpus_per_replica} but tensor_parallel x pipeline_parallel is"
                f" {self.tensor_parallel} x {self.pipeline_parallel}; an engine uses one GPU for each of these ranks"
            )
        if not self.thinking_open or not self.thinking_close:
            raise ValueError("thinking_open and thinking_close cannot be empty; to leave thinking alone say keep")
        if self.adapter is not None and self.engine == "transformers":
            raise ValueError("adapter: only vLLM serves adapters; merge it into the model")
        check_endpoint_settings(self)

    @property
    def model_parallel(self) -> int:
        """GPUs of one copy of the model."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def cpus(self) -> float:
        """Logical CPUs one engine reserves."""
        if self.cpus_per_replica is not None:
            return self.cpus_per_replica
        return 1.0 if self.endpoint is None else 0.1

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What tokens cost by the prices given, in the currency of the prices."""
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        n: Completions for one prompt.
        temperature: 0 is greedy.
        top_p: Nucleus share.
        max_tokens: Longest completion.
        seed: Makes a draw repeatable; None leaves it to the engine.
    """

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
    """One completion as an engine returns it; ``finish`` is ``stop``, or ``length`` if it was cut off."""

    text: str
    finish: str
    tokens: int


@dataclasses.dataclass(frozen=True)
class Reply:
    """An engine's answer to one request."""

    samples: tuple[Sample, ...]
    prompt_tokens: int

    @property
    def completion_tokens(self) -> int:
        """Tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)


class RequestError(EngineError):
    """One request cannot be served; asking again would not help, so its row is rejected.

    Attributes:
        reason: The code under which the row is counted.
    """

    reason = "request_refused"


class PromptTooLong(RequestError):
    """The prompt leaves no room for a completion."""

    reason = "prompt_too_long"


class ContentFiltered(RequestError):
    """The endpoint refuses to answer this prompt, or withholds its answer."""

    reason = "content_filter"


class EndpointError(EngineError):
    """An endpoint did not serve a request. Its engine has made all tries, so nobody else tries again."""


class Asker(Protocol):
    """What a row function sees of the engines of a role."""

    async def ask(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat.

        Raises:
            RequestError: If this request cannot be served.
            EngineError: If no engine could serve it within its tries and deadline; asking later may help.
        """
        ...


def resolve_model(model: str) -> str:
    """The folder or hub id behind the name of a model; ``tiny://`` names are looked up in the package.

    Raises:
        ExperimentError: If a folder is named that holds no model, or it can be neither folder nor hub id.
    """
    scheme, found, name = model.partition("://")
    if found and scheme == "tiny":
        if name not in ("teacher", "student"):
            raise ExperimentError(f"model {model!r}: the tiny world has tiny://teacher and tiny://student")
        return str(model_path(name))  # type: ignore[arg-type]
    if found:
        _check_scheme(model, scheme)
        return model
    looks_local = model.startswith((".", "/", "~"))
    path = Path(os.path.expanduser(model))
    try:
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise ExperimentError(f"model {model!r}: {path} has no config.json; give a Hugging Face model folder")
            return str(path.resolve())
        if path.exists():
            raise ExperimentError(f"model {model!r} is a file; give the folder that it is in, in Hugging Face format")
    except OSError as error:
        raise ExperimentError(
            f"model {model!r}: cannot read {error.filename}: {error.strerror}; check the path and your rights to it"
        ) from error
    if looks_local:
        raise ExperimentError(f"model {model!r}: there is no such folder; check the path (relative to {Path.cwd()})")
    if not _HUB_ID.fullmatch(model):
        raise ExperimentError(
            f"model {model!r}: there is no such folder, and a hub id is owner/name; check it (relative to {Path.cwd()})"
        )
    return model


def check_model(settings: EngineSettings) -> None:
    """See that a role's model is one, as far as its files on this machine tell.

    Raises:
        ExperimentError: With what is wrong and what to do.
    """
    from fdd_ray.engines.checkpoints import check_adapter, check_quantization
    from fdd_ray.engines.folders import check_model_folder

    if settings.engine == "simulated" or settings.endpoint is not None:
        return
    if settings.engine == "transformers":
        from fdd_ray.engines.transformers import check_transformers_settings

        check_transformers_settings(settings)
    path = os.path.expanduser(settings.model)
    folder = Path(path if os.path.isdir(path) else resolve_model(settings.model))
    if folder.is_dir():
        check_model_folder(
            folder,
            trust_remote_code=settings.trust_remote_code,
            engine_args=settings.engine_args,
            engine=settings.engine,
        )
    if settings.quantization is not None:
        check_quantization(settings.quantization, folder)
    if settings.adapter is not None:
        check_adapter(settings.adapter, folder)


def _check_scheme(model: str, scheme: str) -> None:
    """Refuse a URL of no known kind, such as a mistyped tiny://."""
    from fsspec import available_protocols

    if scheme not in available_protocols():
        raise ExperimentError(
            f"model {model!r}: {scheme}:// is no kind of URL that is known; give a folder, a hub id or tiny://student"
        )
