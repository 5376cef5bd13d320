"""vLLM behind one async face, in the two forms it is used in.

`InProcessEngine` runs vLLM's engine in this very process, stepped by one thread: the form for CPUs,
where every further process would import all of vLLM again. `ProcessEngine` is vLLM's own `AsyncLLM`
with its engine process: the form for GPUs. One engine per process either way (vLLM keeps its model
parallel state in globals).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fdd_ray.engines.base import EngineSettings, PromptTooLong, Reply, RequestError, Sample, Sampling, resolve_model
from fdd_ray.engines.checkpoints import adapter_rank
from fdd_ray.engines.reload import EXTENSION
from fdd_ray.engines.settle import settle
from fdd_ray.engines.thinking import answer_of, is_open
from fdd_ray.errors import EngineError
from fdd_ray.prompts import Message, prepare_tokenizer, render_prompt
from fdd_ray.store.fetch import fetch_folder

CPU_KV_CACHE_MIB = 256


class Engine(Protocol):
    """What the engine actor drives."""

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat."""
        ...

    async def reload(self, weights: str) -> None:
        """Load other weights of the same architecture in place."""
        ...


def engine_arguments(settings: EngineSettings, weights: str, on_gpu: bool) -> dict[str, Any]:
    """vLLM's engine arguments for one engine.

    Args:
        settings: The role's settings.
        weights: Folder, URL or hub id of the weights to start with.
        on_gpu: Whether the engine has GPUs. ``settings.across_nodes`` then says where they are.
    """
    arguments: dict[str, Any] = {
        "model": _local(weights),
        "revision": settings.revision,
        "trust_remote_code": settings.trust_remote_code,
        "tensor_parallel_size": settings.tensor_parallel if on_gpu else 1,
        "pipeline_parallel_size": settings.pipeline_parallel if on_gpu else 1,
        "dtype": settings.dtype if on_gpu or settings.dtype != "auto" else "float32",
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager if settings.enforce_eager is not None else not on_gpu,
        "disable_log_stats": True,
        "worker_extension_cls": EXTENSION,
    }
    if on_gpu and settings.model_parallel > 1:
        # Said, because inside a placement group, where all engines run, vLLM would always choose Ray's workers.
        arguments["distributed_executor_backend"] = "ray" if settings.across_nodes else "mp"
    if settings.quantization is not None:
        arguments["quantization"] = settings.quantization
    if settings.adapter is not None:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": adapter_rank(adapter_folder(settings))}
    if settings.max_model_len is not None:
        arguments["max_model_len"] = settings.max_model_len
    if on_gpu:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_share
    else:
        # vLLM winds a seeded request's generator back after a partial prefill, which CPU generators
        # cannot do; so on CPU prompts are prefilled whole.
        arguments["enable_chunked_prefill"] = False
    if settings.kv_cache_mib is not None or not on_gpu:
        # Without an explicit size, vLLM on CPU takes a share of all memory for itself.
        arguments["kv_cache_memory_bytes"] = (settings.kv_cache_mib or CPU_KV_CACHE_MIB) << 20
    return {**arguments, **settings.engine_args}


def _local(weights: str) -> str:
    """A folder or hub id that vLLM can load: what lies on an object store is fetched."""
    model = resolve_model(weights)
    return fetch_folder(model) if "://" in model else model


def adapter_folder(settings: EngineSettings) -> Path:
    """The folder of the adapter on this machine; what lies on an object store is fetched."""
    adapter = settings.adapter or ""
    return Path(fetch_folder(adapter) if "://" in adapter else os.path.abspath(os.path.expanduser(adapter)))


class _Chat(NamedTuple):
    """A rendered chat.

    Attributes:
        tokens: Of the prompt.
        opened: Whether the prompt ends inside the thinking.
    """

    tokens: list[int]
    opened: bool

    @property
    def prompt(self) -> dict[str, Any]:
        """As vLLM takes it."""
        return {"prompt_token_ids": self.tokens}


class _Manner:
    """How a role's engine reads chats and writes replies: the part that both forms of the engine share.

    Args:
        settings: The role's settings.
        tokenizer: The model's.
        max_model_len: Longest prompt plus completion, in tokens.
    """

    def __init__(self, settings: EngineSettings, tokenizer: Any, max_model_len: int) -> None:
        self._settings = settings
        self._tokenizer = prepare_tokenizer(tokenizer)
        if settings.chat_template_kwargs:
            template = functools.partial(tokenizer.apply_chat_template, **settings.chat_template_kwargs)
            self._tokenizer.apply_chat_template = template
        self._special_tags = bool({settings.thinking_open, settings.thinking_close} & set(tokenizer.all_special_tokens))
        self._max_model_len = max_model_len
        self.lora = _lora_request(settings)

    def read(self, messages: Sequence[Message]) -> _Chat:
        """The chat as tokens; refused if it leaves no room for a completion."""
        tokens = render_prompt(self._tokenizer, messages)
        if len(tokens) >= self._max_model_len:
            raise PromptTooLong(f"the prompt has {len(tokens)} tokens; the model takes {self._max_model_len}")
        # The tag is a handful of tokens, or one.
        ending = self._tokenizer.decode(tokens[-16:])
        return _Chat(tokens, is_open(ending, self._settings.thinking_open))

    def parameters(self, sampling: Sampling) -> Any:
        """vLLM's parameters of a draw."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed if sampling.temperature > 0 else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
            # Special tokens are left out of the text otherwise, and where the thinking ended would be lost.
            skip_special_tokens=not self._special_tags,
            **self._settings.sampling.given(),
        )

    def reply(self, output: Any, chat: _Chat) -> Reply:
        """The answers in a finished output, without the thinking, but with all tokens counted."""
        samples = []
        for item in sorted(output.outputs, key=lambda item: item.index):
            text, finish = item.text, item.finish_reason or "stop"
            if self._settings.thinking == "strip":
                tags = (self._settings.thinking_open, self._settings.thinking_close)
                text, finish = answer_of(text, finish, *tags, opened=chat.opened)
            samples.append(Sample(text, finish, len(item.token_ids)))
        return Reply(tuple(samples), len(output.prompt_token_ids))


def _lora_request(settings: EngineSettings) -> Any:
    if settings.adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, str(adapter_folder(settings)))


def _require_reset(done: bool) -> None:
    """Prompts that the old weights have read must not be continued by the new ones."""
    if not done:
        raise EngineError("vLLM could not drop its prefix cache after loading weights; it must start again")


class InProcessEngine:
    """vLLM's engine in this process, stepped by a thread of its own.

    Args:
        arguments: See `engine_arguments`.
        settings: The role's settings.
        on_death: Called with the exception when the engine breaks; it must end the process, since a
            broken engine inside a living actor would be asked for ever.
    """

    def __init__(
        self, arguments: dict[str, Any], settings: EngineSettings, on_death: Callable[[BaseException], None]
    ) -> None:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments), enable_multiprocessing=False)
        longest = self._engine.vllm_config.model_config.max_model_len
        self._manner = _Manner(settings, self._engine.get_tokenizer(), longest)
        self._on_death = on_death
        self._ids = itertools.count()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[Reply], _Chat]] = {}
        threading.Thread(target=self._work, name="vllm-engine", daemon=True).start()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat."""
        chat, parameters = self._manner.read(messages), self._manner.parameters(sampling)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        request = str(next(self._ids))

        def add() -> None:
            try:
                self._waiting[request] = (loop, future, chat)
                self._engine.add_request(request, chat.prompt, parameters, lora_request=self._manner.lora)
            except ValueError as error:  # vLLM's word for a request it will not take
                del self._waiting[request]
                settle(loop, future, error=RequestError(str(error)))

        self._inbox.put(add)
        try:
            return await future
        except asyncio.CancelledError:
            self._inbox.put(lambda: self._abort(request))
            raise

    async def reload(self, weights: str) -> None:
        """Load other weights of the same architecture in place; requests in flight finish first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def load() -> None:
            while self._engine.has_unfinished_requests():
                self._step()
            self._engine.collective_rpc("reload_completely", kwargs={"weights_path": _local(weights)})
            _require_reset(self._engine.reset_prefix_cache())
            settle(loop, future, result=None)

        self._inbox.put(load)
        await future

    def _abort(self, request: str) -> None:
        if self._waiting.pop(request, None) is not None:
            self._engine.abort_request([request])

    def _work(self) -> None:
        try:
            while True:
                busy = self._engine.has_unfinished_requests()
                if not busy:
                    self._inbox.get()()
                while not self._inbox.empty():
                    self._inbox.get()()
                if self._engine.has_unfinished_requests():
                    self._step()
        except BaseException as error:
            self._on_death(error)

    def _step(self) -> None:
        for output in self._engine.step():
            if output.finished and (entry := self._waiting.pop(output.request_id, None)):
                loop, future, chat = entry
                settle(loop, future, result=self._manner.reply(output, chat))


class ProcessEngine:
    """vLLM's AsyncLLM, with the engine in a process beside this one.

    Args:
        arguments: See `engine_arguments`.
        settings: The role's settings.
        on_death: Called with the exception when the engine is dead; it must end the process.
    """

    def __init__(
        self, arguments: dict[str, Any], settings: EngineSettings, on_death: Callable[[BaseException], None]
    ) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        longest = self._engine.vllm_config.model_config.max_model_len
        self._manner = _Manner(settings, self._engine.get_tokenizer(), longest)
        self._on_death = on_death
        self._ids = itertools.count()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat."""
        from vllm.v1.engine.exceptions import EngineDeadError

        chat, parameters = self._manner.read(messages), self._manner.parameters(sampling)
        request = str(next(self._ids))
        try:
            async for output in self._engine.generate(chat.prompt, parameters, request, lora_request=self._manner.lora):
                if output.finished:
                    return self._manner.reply(output, chat)
        except EngineDeadError as error:
            self._on_death(error)
            raise
        except ValueError as error:
            raise RequestError(str(error)) from error
        raise RequestError("vLLM ended the request without a completion")

    async def reload(self, weights: str) -> None:
        """Load other weights of the same architecture in place; requests in flight finish first.

        An engine that cannot, as with some ways of quantising, has half of each weights then, and ends.
        """
        path = await asyncio.to_thread(_local, weights)
        try:
            await self._engine.pause_generation(mode="wait")
            await self._engine.collective_rpc("reload_completely", kwargs={"weights_path": path})
            _require_reset(await self._engine.reset_prefix_cache())
            await self._engine.resume_generation()
        except Exception as error:
            self._on_death(error)
            raise
