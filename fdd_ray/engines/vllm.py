"""vLLM behind one async face, in the two forms it is used in.

`InProcessEngine` runs vLLM's engine in this very process, stepped by one thread: the form for CPUs,
where every further process would import all of vLLM again. `ProcessEngine` is vLLM's own `AsyncLLM`
with its engine process: the form for GPUs. One engine per process either way (vLLM keeps its model
parallel state in globals).
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fdd_ray.engines.base import EngineSettings, PromptTooLong, Reply, RequestError, Sample, Sampling, resolve_model
from fdd_ray.engines.reload import EXTENSION
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
        on_gpu: Whether the engine has GPUs.
    """
    arguments: dict[str, Any] = {
        "model": _local(weights),
        "revision": settings.revision,
        "trust_remote_code": settings.trust_remote_code,
        "tensor_parallel_size": settings.tensor_parallel if on_gpu else 1,
        "dtype": settings.dtype if on_gpu or settings.dtype != "auto" else "float32",
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager if settings.enforce_eager is not None else not on_gpu,
        "disable_log_stats": True,
        "worker_extension_cls": EXTENSION,
    }
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


def _parameters(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed if sampling.temperature > 0 else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _reply(output: Any) -> Reply:
    samples = tuple(
        Sample(item.text, item.finish_reason or "stop", len(item.token_ids))
        for item in sorted(output.outputs, key=lambda item: item.index)
    )
    return Reply(samples, len(output.prompt_token_ids))


def _require_reset(done: bool) -> None:
    """Prompts that the old weights have read must not be continued by the new ones."""
    if not done:
        raise EngineError("vLLM could not drop its prefix cache after loading weights; it must start again")


class _Prompts:
    """Renders chats and refuses those that leave no room for a completion."""

    def __init__(self, tokenizer: Any, max_model_len: int) -> None:
        self._tokenizer = prepare_tokenizer(tokenizer)
        self._max_model_len = max_model_len

    def __call__(self, messages: Sequence[Message]) -> dict[str, Any]:
        tokens = render_prompt(self._tokenizer, messages)
        if len(tokens) >= self._max_model_len:
            raise PromptTooLong(f"the prompt has {len(tokens)} tokens; the model takes {self._max_model_len}")
        return {"prompt_token_ids": tokens}


class InProcessEngine:
    """vLLM's engine in this process, stepped by a thread of its own.

    Args:
        arguments: See `engine_arguments`.
        on_death: Called with the exception when the engine breaks; it must end the process, since a
            broken engine inside a living actor would be asked for ever.
    """

    def __init__(self, arguments: dict[str, Any], on_death: Callable[[BaseException], None]) -> None:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments), enable_multiprocessing=False)
        self._prompts = _Prompts(self._engine.get_tokenizer(), self._engine.vllm_config.model_config.max_model_len)
        self._on_death = on_death
        self._ids = itertools.count()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[Reply]]] = {}
        threading.Thread(target=self._work, name="vllm-engine", daemon=True).start()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat."""
        prompt, parameters = self._prompts(messages), _parameters(sampling)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        request = str(next(self._ids))

        def add() -> None:
            try:
                self._waiting[request] = (loop, future)
                self._engine.add_request(request, prompt, parameters)
            except ValueError as error:  # vLLM's word for a request it will not take
                del self._waiting[request]
                _settle(loop, future, error=RequestError(str(error)))

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
            _settle(loop, future, result=None)

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
                _settle(*entry, result=_reply(output))


def _settle(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: Any = None,
    error: BaseException | None = None,
) -> None:
    """Finish a future from another thread, unless it was cancelled."""

    def finish() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    loop.call_soon_threadsafe(finish)


class ProcessEngine:
    """vLLM's AsyncLLM, with the engine in a process beside this one.

    Args:
        arguments: See `engine_arguments`.
        on_death: Called with the exception when the engine is dead; it must end the process.
    """

    def __init__(self, arguments: dict[str, Any], on_death: Callable[[BaseException], None]) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self._prompts = _Prompts(self._engine.get_tokenizer(), self._engine.vllm_config.model_config.max_model_len)
        self._on_death = on_death
        self._ids = itertools.count()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat."""
        from vllm.v1.engine.exceptions import EngineDeadError

        prompt, parameters = self._prompts(messages), _parameters(sampling)
        try:
            async for output in self._engine.generate(prompt, parameters, str(next(self._ids))):
                if output.finished:
                    return _reply(output)
        except EngineDeadError as error:
            self._on_death(error)
            raise
        except ValueError as error:
            raise RequestError(str(error)) from error
        raise RequestError("vLLM ended the request without a completion")

    async def reload(self, weights: str) -> None:
        """Load other weights of the same architecture in place; requests in flight finish first."""
        path = await asyncio.to_thread(_local, weights)
        await self._engine.pause_generation(mode="wait")
        try:
            await self._engine.collective_rpc("reload_completely", kwargs={"weights_path": path})
            _require_reset(await self._engine.reset_prefix_cache())
        finally:
            await self._engine.resume_generation()
