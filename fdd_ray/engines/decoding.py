"""Token by token through a Hugging Face model: several sequences at once, each as if it were alone.

A `Batch` holds sequences that were begun together. Each has its own temperature, cut-offs, length and random numbers,
drawn beforehand from its own seed, so a completion does not depend on what else is in the batch (beyond the rounding
of floating-point sums). A sequence that is finished leaves the batch, so one that rambles on costs only itself.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded model, and what decoding has to know of it.

    Attributes:
        model: The Hugging Face model, in evaluation mode, on its device.
        pad: Token id of padding.
        ends: Token ids that end a completion.
        start: What the decoder begins with; None for a decoder-only model.
    """

    model: Any
    pad: int
    ends: frozenset[int]
    start: int | None

    def accepts(self, name: str) -> bool:
        """Whether the forward pass takes an argument of that name."""
        return name in inspect.signature(self.model.forward).parameters


@dataclasses.dataclass(eq=False)
class Completion:
    """One completion in the making.

    Attributes:
        prompt: Token ids of the prompt.
        limit: The most tokens that it may have.
        temperature: 0 takes the likeliest token.
        top_p: Draw from the likeliest tokens with this share together.
        top_k: Draw from this many of the likeliest tokens; 0 for all.
        min_p: Draw from tokens at least this share as likely as the likeliest.
        seed: Of its random numbers; None for a fresh one.
        tokens: What has been written, with the end token.
        ended: Whether the end token was written.
        dropped: Set when nobody waits for it any more.
    """

    prompt: Sequence[int]
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    tokens: list[int] = dataclasses.field(default_factory=list)
    ended: bool = False
    dropped: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is to be added."""
        return self.ended or self.dropped or len(self.tokens) >= self.limit

    def chances(self) -> torch.Tensor:
        """A uniform random number for each token, from the sequence's own generator; on the CPU."""
        import torch

        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed & (2**63 - 1))
        return torch.rand(self.limit, generator=generator, dtype=torch.float64)


class Batch:
    """Sequences that are written together; `step` adds a token to each.

    Args:
        model: What writes.
        sequences: At least one; none of them done.
    """

    def __init__(self, model: Model, sequences: Sequence[Completion]) -> None:
        import torch

        self._model = model
        self.sequences = list(sequences)
        self._device = model.model.device
        self._draws = any(sequence.temperature > 0 for sequence in self.sequences)
        if self._draws:
            self._numbers = self._shaping()
        self._cache: Any = None
        width = max(len(sequence.prompt) for sequence in self.sequences)
        rows, mask = [], []
        for sequence in self.sequences:
            # A decoder goes on from the last token, so what is missing is missing in front.
            padding, ones = [model.pad] * (width - len(sequence.prompt)), [1] * len(sequence.prompt)
            zeros = [0] * len(padding)
            before = model.start is None
            rows.append([*padding, *sequence.prompt] if before else [*sequence.prompt, *padding])
            mask.append([*zeros, *ones] if before else [*ones, *zeros])
        inputs = torch.tensor(rows, device=self._device)
        self._mask = torch.tensor(mask, device=self._device)
        self._encoded: Any = None
        if model.start is not None:
            self._encoded = model.model.get_encoder()(
                input_ids=inputs, attention_mask=self._mask, return_dict=True
            ).last_hidden_state
            inputs = torch.full((len(rows), 1), model.start, device=self._device)
        self._next = inputs

    def step(self) -> list[Completion]:
        """Add a token to each sequence; returns those that are finished now, which leave the batch."""
        logits = self._forward()
        chosen = self._choose(logits)
        for sequence, token in zip(self.sequences, chosen.tolist(), strict=True):
            sequence.tokens.append(token)
            sequence.ended = token in self._model.ends
        self._next = chosen[:, None]
        finished = [sequence for sequence in self.sequences if sequence.done]
        if finished and len(finished) < len(self.sequences):
            self._keep([i for i, sequence in enumerate(self.sequences) if not sequence.done])
        elif finished:
            self.sequences = []
        return finished

    def _forward(self) -> torch.Tensor:
        """The logits of each sequence's next token, in float32."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        arguments: dict[str, Any] = {"use_cache": True, "past_key_values": self._cache, "attention_mask": self._mask}
        if self._encoded is not None:
            # A copy of the container, for some models write into it.
            arguments |= {
                "encoder_outputs": BaseModelOutput(last_hidden_state=self._encoded),
                "decoder_input_ids": self._next,
            }
        else:
            arguments["input_ids"] = self._next
            if self._model.accepts("position_ids"):
                positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
                arguments["position_ids"] = positions[:, -self._next.shape[1] :]
            if self._model.accepts("logits_to_keep"):
                arguments["logits_to_keep"] = 1
        output = self._model.model(**arguments)
        self._cache = output.past_key_values
        if self._encoded is None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=-1)
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _keep(self, indices: list[int]) -> None:
        import torch

        kept = torch.tensor(indices, device=self._device)
        self.sequences = [self.sequences[i] for i in indices]
        self._cache.batch_select_indices(kept)
        self._mask, self._next = self._mask[kept], self._next[kept]
        if self._encoded is not None:
            self._encoded = self._encoded[kept]
        if self._draws:
            self._numbers = {name: values[kept] for name, values in self._numbers.items()}

    def _shaping(self) -> dict[str, torch.Tensor]:
        """What shapes the draws of each sequence, as tensors with a row for each."""
        import torch

        longest = max(sequence.limit for sequence in self.sequences)
        chances = torch.zeros(len(self.sequences), longest, dtype=torch.float64)
        for row, sequence in zip(chances, self.sequences, strict=True):
            row[: sequence.limit] = sequence.chances()
        columns = {
            name: torch.tensor([float(getattr(sequence, name)) for sequence in self.sequences])[:, None]
            for name in ("temperature", "top_p", "top_k", "min_p")
        }
        return {name: values.to(self._device) for name, values in {"chances": chances, **columns}.items()}

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        """A token for each sequence."""
        import torch

        greedy = logits.argmax(-1)
        if not self._draws:
            return greedy
        numbers = self._numbers
        temperature, top_k = numbers["temperature"], numbers["top_k"]
        ordered, tokens = logits.sort(dim=-1, descending=True, stable=True)
        shares = (ordered.double() / torch.where(temperature > 0, temperature, 1.0)).softmax(-1)
        ranks = torch.arange(shares.shape[-1], device=self._device)[None]
        # As in vLLM, top p sees what min p and top k have left.
        kept = ((top_k == 0) | (ranks < top_k)) & (shares >= numbers["min_p"] * shares[:, :1])
        shares = torch.where(kept, shares, 0.0)
        shares = shares / shares.sum(-1, keepdim=True)
        kept &= shares.cumsum(-1) - shares < numbers["top_p"]
        kept[:, 0] = True
        sums = torch.where(kept, shares, 0.0).cumsum(-1)
        at = len(self.sequences[0].tokens)  # all were begun together
        places = torch.searchsorted(sums, numbers["chances"][:, at : at + 1] * sums[:, -1:], right=True)
        last = kept.sum(-1, keepdim=True) - 1
        drawn = tokens.gather(-1, torch.minimum(places, last))[:, 0]
        return torch.where(temperature[:, 0] > 0, drawn, greedy)
