"""Examples of an encoder-decoder student in rows and arrays: the prompt to the encoder, the rationale to the decoder.

Nothing is packed here: attention of T5's kind has no way to keep two prompts in one row apart. Instead a row of the
plan is a group of examples of similar length, each on a line of its own, padded to the longest; so little is padding,
and a row takes no more than its tokens, however the lengths are spread.

    >>> group([30, 9, 10, 31], max_tokens=64, seed=0)
    [[3, 0], [2, 1]]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fdd_ray.training.packing import IGNORED, Ints

_MULTIPLE = 8  # line lengths that suit matrix units


def group(lengths: Sequence[int] | Ints, max_tokens: int, seed: int) -> list[list[int]]:
    """Groups of example indices, of similar length; no group has over ``max_tokens`` with its padding.

    Equal lengths change places with the seed, while the number of groups and their sizes stay the same.

    Raises:
        ValueError: If an example alone is longer than ``max_tokens``, or empty.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and (sizes.max() > max_tokens or sizes.min() < 1):
        raise ValueError(f"lengths must be from 1 to max_tokens = {max_tokens}")
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist()
    rows: list[list[int]] = []
    start = 0
    while start < len(order):
        end = start + max_tokens // int(sizes[order[start]])  # the first one of a group is its longest
        rows.append(order[start:end])
        start = end
    return rows


@dataclasses.dataclass(frozen=True)
class PairBatch:
    """One micro-batch of prompts and rationales as arrays of shape (examples, length).

    Attributes:
        input_ids: Token ids of the prompts, for the encoder.
        mask: 1 where ``input_ids`` is no padding.
        decoder_input_ids: The start token and the rationale without its last token.
        labels: What each position of the decoder has to predict; `IGNORED` where there is no loss.
    """

    input_ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]
    decoder_input_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def targets(self) -> npt.NDArray[np.int64]:
        """The label that each position of the decoder has to predict."""
        return self.labels

    def inputs(self, packing: bool) -> dict[str, npt.NDArray[Any]]:
        """What the model's forward pass takes. The decoder's padding comes last, where nothing sees it."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.mask,
            "decoder_input_ids": self.decoder_input_ids,
        }


def collate_pairs(rows: Sequence[Sequence[tuple[Ints, int]]], *, pad_id: int, start_id: int) -> PairBatch:
    """Arrays for the examples of some rows, each on a line of its own.

    Args:
        rows: For each row its examples: token ids, and how many of them are the prompt.
        pad_id: Token id of padding.
        start_id: The token that the decoder begins with.
    """
    examples = [example for row in rows for example in row]
    lines = max(1, len(examples))
    prompt = _rounded(max((size for _, size in examples), default=1))
    reply = _rounded(max((len(ids) - size for ids, size in examples), default=1))
    batch = PairBatch(
        input_ids=np.full((lines, prompt), pad_id, dtype=np.int64),
        mask=np.zeros((lines, prompt), dtype=np.int64),
        decoder_input_ids=np.full((lines, reply), pad_id, dtype=np.int64),
        labels=np.full((lines, reply), IGNORED, dtype=np.int64),
    )
    batch.decoder_input_ids[:, 0] = start_id
    if not examples:
        batch.mask[:, 0] = 1  # an encoder that sees nothing would turn into NaN
    for line, (ids, size) in enumerate(examples):
        target = ids[size:]
        batch.input_ids[line, :size] = ids[:size]
        batch.mask[line, :size] = 1
        batch.decoder_input_ids[line, 1 : len(target)] = target[:-1]
        batch.labels[line, : len(target)] = target
    return batch


def _rounded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE
