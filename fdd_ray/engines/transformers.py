"""Hugging Face transformers behind the engines' async face: for what vLLM does not serve, T5's family above all.

    student: {model: google/flan-t5-small, engine: transformers, max_num_seqs: 128}

One thread owns the model, so the actor's event loop stays free. Requests that wait are taken together, sorted by
length and begun as one batch; while it is being written, those that came later are begun beside it, up to
``max_num_seqs`` sequences and a few batches, which take turns. So nobody waits for the longest completion of others.

``engine_args``: ``attn_implementation`` (such as eager or sdpa), passed on to transformers. ``sampling`` may give top_k
and min_p; its penalties and stop texts need vLLM.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from fdd_ray.engines.base import EngineSettings, PromptTooLong, Reply, Sample, Sampling, resolve_model
from fdd_ray.engines.decoding import Batch, Completion, Model
from fdd_ray.engines.settle import settle
from fdd_ray.engines.thinking import answer_of, is_open
from fdd_ray.errors import EngineError, ExperimentError
from fdd_ray.prompts import Message, decoder_start, prepare_tokenizer, render_prompt
from fdd_ray.records import stable_seed
from fdd_ray.store.fetch import fetch_folder

_ARGUMENTS: Final = {"attn_implementation"}
_SAMPLING: Final = {"top_k", "min_p"}
_BATCHES: Final = 4
_GATHER_S: Final = 0.01  # requests of one stage arrive in a burst; a batch of the first one alone would be a waste
_SIDE_WITHOUT_LIMIT: Final = 2048  # tokens that an encoder or decoder without positions of its own may take


def check_transformers_settings(settings: EngineSettings) -> None:
    """Refuse what this engine does not know.

    Raises:
        ExperimentError: With what it is.
    """
    unknown = sorted(set(settings.engine_args) - _ARGUMENTS)
    if unknown:
        raise ExperimentError(
            f"engine_args {', '.join(unknown)}: the transformers engine knows {', '.join(sorted(_ARGUMENTS))}; take the"
            " others out"
        )
    unknown = sorted(set(settings.sampling.given()) - _SAMPLING)
    if unknown:
        raise ExperimentError(
            f"sampling.{unknown[0]}: the transformers engine knows {', '.join(sorted(_SAMPLING))}; leave it out, or use"
            " engine: vllm"
        )
    if settings.model_parallel > 1:
        raise ExperimentError(
            "tensor_parallel and pipeline_parallel: the transformers engine runs a model on one GPU; set both to 1"
        )
    if settings.quantization is not None:
        raise ExperimentError("quantization: the transformers engine has none of its own; leave it out")


@dataclasses.dataclass(eq=False)
class _Request:
    """A chat that waits for its completions, or is being answered."""

    prompt: list[int]
    opened: bool
    completions: list[Completion]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Reply]


@dataclasses.dataclass(eq=False)
class _Reload:
    """Other weights that are to be loaded once all requests before it are answered."""

    weights: str
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A model with its tokenizer, and how long a prompt and a completion may be, alone and together, in tokens."""

    model: Model
    tokenizer: Any
    side: int
    together: int
    keeps_special: bool

    def room(self, prompt: int) -> int:
        """The most tokens that a completion may have; none or fewer if the prompt is too long."""
        if prompt > self.side:
            return 0
        return min(self.together - prompt, self.side if self.model.start is not None else self.together)


class TransformersEngine:
    """Implements `fdd_ray.engines.vllm.Engine` with Hugging Face transformers.

    Args:
        settings: The role's settings.
        on_gpu: Whether the engine has a GPU.
        weights: Folder, URL or hub id of the weights to start with.
        on_death: Called with the exception when the engine breaks; it must end the process.

    Raises:
        ExperimentError: If the settings ask for what this engine does not know.
    """

    def __init__(
        self, settings: EngineSettings, on_gpu: bool, weights: str, on_death: Callable[[BaseException], None]
    ) -> None:
        check_transformers_settings(settings)
        self._settings = settings
        self._on_gpu = on_gpu
        self._on_death = on_death
        self._loaded = self._load(weights)
        self._inbox: queue.SimpleQueue[_Request | _Reload] = queue.SimpleQueue()
        self._waiting: deque[_Request | _Reload] = deque()
        self._batches: list[Batch] = []
        self._requests: dict[Completion, _Request] = {}
        threading.Thread(target=self._work, name="transformers-engine", daemon=True).start()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat.

        Raises:
            PromptTooLong: If the chat leaves no room for a completion.
        """
        loaded = self._loaded
        prompt = render_prompt(loaded.tokenizer, messages)
        room = loaded.room(len(prompt))
        if room < 1:
            most = min(loaded.side, loaded.together)
            raise PromptTooLong(f"the prompt has {len(prompt)} tokens; the model takes {most}")
        opened = is_open(loaded.tokenizer.decode(prompt[-16:]), self._settings.thinking_open)
        completions = [self._completion(prompt, min(sampling.max_tokens, room), sampling, i) for i in range(sampling.n)]
        loop = asyncio.get_running_loop()
        request = _Request(prompt, opened, completions, loop, loop.create_future())
        self._inbox.put(request)
        try:
            return await request.future
        except asyncio.CancelledError:
            for completion in completions:
                completion.dropped = True
            raise

    async def reload(self, weights: str) -> None:
        """Load other weights in place; requests in flight finish first. If that fails, the old ones stay.

        Raises:
            EngineError: If they cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        request = _Reload(weights, loop, loop.create_future())
        self._inbox.put(request)
        await request.future

    def _completion(self, prompt: list[int], limit: int, sampling: Sampling, number: int) -> Completion:
        given = self._settings.sampling
        return Completion(
            prompt,
            limit,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=given.top_k or 0,
            min_p=given.min_p or 0.0,
            seed=None if sampling.seed is None else stable_seed(sampling.seed, "completion", number),
        )

    # -- the engine's thread --------------------------------------------------------------------

    def _work(self) -> None:
        import torch

        try:
            if not self._on_gpu:
                torch.set_num_threads(self._settings.threads)
            with torch.inference_mode():
                while True:
                    self._receive()
                    self._admit()
                    for batch in self._batches:
                        # Several completions of one request may be finished by the same step.
                        for request in {id(r): r for r in map(self._requests.__getitem__, batch.step())}.values():
                            self._settle_if_done(request)
                    self._batches = [batch for batch in self._batches if batch.sequences]
        except BaseException as error:
            self._on_death(error)

    def _receive(self) -> None:
        """Move what has arrived to the waiting; without work, wait for something, and for what comes with it."""
        if not self._batches and not self._waiting:
            self._waiting.append(self._inbox.get())
            while True:
                try:
                    self._waiting.append(self._inbox.get(timeout=_GATHER_S))
                except queue.Empty:
                    break
                if len(self._waiting) >= self._settings.max_num_seqs:
                    break
        while not self._inbox.empty():
            self._waiting.append(self._inbox.get())

    def _admit(self) -> None:
        """Begin a batch of those that wait, as far as there is room; load weights when their turn has come."""
        running = sum(len(batch.sequences) for batch in self._batches)
        free = self._settings.max_num_seqs - running
        chosen: list[Completion] = []
        while self._waiting and len(self._batches) < _BATCHES:
            first = self._waiting[0]
            if isinstance(first, _Reload):
                if not self._batches and not chosen:
                    self._waiting.popleft()
                    self._reload(first)
                    continue
                break
            left = [completion for completion in first.completions if completion not in self._requests]
            for completion in left[: free - len(chosen)]:
                self._requests[completion] = first
                if not completion.dropped:
                    chosen.append(completion)
            if any(completion not in self._requests for completion in first.completions):
                break
            self._waiting.popleft()
            self._settle_if_done(first)
        chosen.sort(key=lambda completion: len(completion.prompt))
        # Prompts of very different lengths would be mostly padding.
        start = 0
        for end in range(1, len(chosen) + 1):
            if end == len(chosen) or len(chosen[end].prompt) > 2 * len(chosen[start].prompt) + 64:
                self._batches.append(Batch(self._loaded.model, chosen[start:end]))
                start = end

    def _settle_if_done(self, request: _Request) -> None:
        """Answer a request all of whose completions are finished."""
        if not all(completion.done for completion in request.completions):
            return
        samples = tuple(self._sample(completion, request.opened) for completion in request.completions)
        for completion in request.completions:
            self._requests.pop(completion, None)
        settle(request.loop, request.future, Reply(samples, len(request.prompt)))

    def _sample(self, completion: Completion, opened: bool) -> Sample:
        loaded, settings = self._loaded, self._settings
        ids = completion.tokens[:-1] if completion.ended else completion.tokens
        text = loaded.tokenizer.decode(
            ids, skip_special_tokens=not loaded.keeps_special, clean_up_tokenization_spaces=False
        )
        finish = "stop" if completion.ended else "length"
        if settings.thinking == "strip":
            text, finish = answer_of(text, finish, settings.thinking_open, settings.thinking_close, opened=opened)
        return Sample(text, finish, len(completion.tokens))

    def _reload(self, request: _Reload) -> None:
        try:
            self._loaded = self._load(request.weights)
        except Exception as error:
            why = " ".join(str(error).split())[:400]
            refusal = EngineError(f"cannot load {request.weights}: {why}; see that the folder is whole")
            settle(request.loop, request.future, error=refusal)
        else:
            settle(request.loop, request.future, None)

    def _load(self, weights: str) -> _Loaded:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        settings = self._settings
        name = resolve_model(weights)
        path = fetch_folder(name) if "://" in name else name
        source: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code, "revision": settings.revision}
        config = AutoConfig.from_pretrained(path, **source)
        encoder_decoder = bool(config.is_encoder_decoder)
        loader: Any = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
        dtype: Any = "auto" if self._on_gpu else torch.float32
        if settings.dtype != "auto":
            dtype = getattr(torch, settings.dtype)
        model = loader.from_pretrained(path, dtype=dtype, **settings.engine_args, **source)
        model.eval()
        if self._on_gpu:
            model.to("cuda")
        tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(path, **source), encoder_decoder=encoder_decoder)
        tokenizer("a")  # sets a tokenizer's state that calls would otherwise set, from two threads at once
        tags = {settings.thinking_open, settings.thinking_close}
        keeps_special = settings.thinking == "strip" and bool(tags & set(tokenizer.all_special_tokens))
        if settings.chat_template_kwargs:
            template = functools.partial(tokenizer.apply_chat_template, **settings.chat_template_kwargs)
            tokenizer.apply_chat_template = template
        start = decoder_start(model, path, EngineError) if encoder_decoder else None
        made = Model(model, int(tokenizer.pad_token_id or 0), _ends_of(model, tokenizer), start)
        return _Loaded(made, tokenizer, *_lengths(settings, config), keeps_special)


def _ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a completion: the tokenizer's, and those that the model's own configuration names."""
    found = {tokenizer.eos_token_id}
    named = model.generation_config.eos_token_id
    found |= set(named) if isinstance(named, (list, tuple)) else {named}
    return frozenset(int(token) for token in found if token is not None)


def _lengths(settings: EngineSettings, config: Any) -> tuple[int, int]:
    """The longest prompt (and completion, for an encoder-decoder model), and the longest of both together."""
    own = getattr(config, "max_position_embeddings", None)
    if config.is_encoder_decoder:
        # T5 knows no positions, only distances; a limit keeps the memory within bounds.
        side = int(own or _SIDE_WITHOUT_LIMIT)
        return (side, 2 * side) if settings.max_model_len is None else (settings.max_model_len, settings.max_model_len)
    together = settings.max_model_len or int(own or _SIDE_WITHOUT_LIMIT)
    return together, together
