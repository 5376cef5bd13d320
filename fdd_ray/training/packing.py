"""Which examples train in which step, on which worker, in which row: pure and deterministic.

Rationales are short, so several examples share a row of ``max_length`` tokens. A plan is a function of the
examples' lengths and the seed alone: every worker computes it for itself, the same after every restart, and
knows the completion tokens of a whole step without asking the others.

    >>> plan = TrainingPlan([5, 3, 4, 2], [2, 2, 2, 1], max_length=8, rows_per_step=2, epochs=3, seed=0)
    >>> plan.steps
    3
    >>> plan.step(0).completion_tokens
    7

A plan does not depend on how many workers there are; only `Step.share` does. So a run that resumes with
fewer workers still takes the same steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

IGNORED = -100  # label of a position without loss, as in PyTorch and Transformers
_MULTIPLE = 8  # row lengths that suit matrix units

Ints = npt.NDArray[np.integer[Any]]


def pack(lengths: Sequence[int] | Ints, max_length: int, seed: int) -> list[list[int]]:
    """Rows of example indices, none longer than ``max_length`` tokens, by best fit on falling lengths.

    Equal lengths change places with the seed, so examples meet others in each epoch, while the number of
    rows stays the same. The open rows are kept by the room they have left, and the best fit is the lowest
    set bit of an integer: time is linear in the number of examples.

    Raises:
        ValueError: If an example alone is longer than ``max_length``, or empty.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and (sizes.max() > max_length or sizes.min() < 1):
        raise ValueError(f"lengths must be from 1 to max_length = {max_length}")
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    rows: list[list[int]] = []
    rows_by_room: list[list[int]] = [[] for _ in range(max_length + 1)]
    rooms = 0  # bit r is set when some open row has room for r more tokens
    for index, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms &= ~(1 << room)
            rows[row].append(index)
        else:
            room, row = max_length, len(rows)
            rows.append([index])
        left = room - size
        if left:
            rows_by_room[left].append(row)
            rooms |= 1 << left
    return rows


def rows_per_step(batch_tokens: int, max_length: int, workers: int, micro_batch_rows: int) -> int:
    """Rows of one optimiser step: ``batch_tokens`` rounded to what the workers can share evenly.

    That is a whole number of full micro-batches of all workers or, for a batch smaller than one, the same
    number of rows for each worker.
    """
    wanted = batch_tokens / max_length
    unit = workers * min(micro_batch_rows, max(1, round(wanted / workers)))
    return unit * max(1, round(wanted / unit))


def micro_batches(rows_per_step: int, workers: int, micro_batch_rows: int) -> int:
    """Forward passes of each worker in one optimiser step (gradient accumulation)."""
    return -(-rows_per_step // (workers * micro_batch_rows))


class Step(NamedTuple):
    """One optimiser step.

    Attributes:
        epoch: Counted from 0.
        rows: Example indices of each packed row, longest row first.
        tokens: Tokens of the step on all workers, without padding.
        completion_tokens: Those of them that carry loss.
    """

    epoch: int
    rows: list[list[int]]
    tokens: int
    completion_tokens: int

    def share(self, rank: int, workers: int, count: int) -> list[list[list[int]]]:
        """The rows of one worker in ``count`` micro-batches.

        Rows are dealt like cards from longest to shortest, so workers get equal work and a micro-batch
        holds rows of similar length. The last step of an epoch may be short: then some micro-batches are
        empty, but every worker has the same number of them and none waits for another for ever.
        """
        mine = self.rows[rank::workers]
        size = -(-len(self.rows[::workers]) // count)
        return [mine[i * size : (i + 1) * size] for i in range(count)]


@dataclasses.dataclass
class TrainingPlan:
    """All optimiser steps of a fine-tuning.

    Attributes:
        lengths: Tokens of each example.
        completions: Tokens of each example that carry loss.
        max_length: Tokens of a row.
        rows_per_step: Rows of an optimiser step on all workers.
        epochs: Passes over the examples; each is packed and shuffled anew.
        seed: Seed of packing and order.
        packing: False gives each example a row of its own.
        arrange: What puts examples into rows: given lengths, ``max_length`` and a seed, it must make the same
            number of rows for every seed.
    """

    lengths: Sequence[int] | Ints
    completions: Sequence[int] | Ints
    max_length: int
    rows_per_step: int
    epochs: int
    seed: int
    packing: bool = True
    arrange: Callable[[Ints, int, int], list[list[int]]] = pack
    _epoch: int = dataclasses.field(default=-1, init=False, repr=False)
    _rows: list[list[int]] = dataclasses.field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self.lengths = np.asarray(self.lengths, dtype=np.int64)
        self.completions = np.asarray(self.completions, dtype=np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of each epoch; best fit needs the same number of rows in every one."""
        return -(-len(self._rows_of(max(self._epoch, 0))) // self.rows_per_step)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.steps_per_epoch

    def step(self, number: int) -> Step:
        """The step ``number``, counted from 0 over all epochs."""
        epoch, position = divmod(number, self.steps_per_epoch)
        first = position * self.rows_per_step
        rows = self._rows_of(epoch)[first : first + self.rows_per_step]
        sizes = [int(np.sum(np.take(self.lengths, row))) for row in rows]
        ordered = [rows[i] for i in sorted(range(len(rows)), key=lambda i: -sizes[i])]
        completion = sum(int(np.sum(np.take(self.completions, row))) for row in rows)
        return Step(epoch, ordered, sum(sizes), completion)

    def from_step(self, number: int) -> Iterator[tuple[int, Step]]:
        """``(number, step)`` from ``number`` to the last step: what a resumed run has left to do."""
        for remaining in range(number, self.steps):
            yield remaining, self.step(remaining)

    def _rows_of(self, epoch: int) -> list[list[int]]:
        """The rows of an epoch in training order; the latest epoch asked for is kept."""
        if epoch != self._epoch:
            packing_seed, order_seed = np.random.SeedSequence([self.seed, epoch]).generate_state(2)
            if self.packing:
                rows = self.arrange(np.asarray(self.lengths), self.max_length, int(packing_seed))
            else:
                rows = [[index] for index in range(len(self.lengths))]
            order = np.random.default_rng(order_seed).permutation(len(rows))
            self._rows = [rows[i] for i in order]
            self._epoch = epoch
        return self._rows


@dataclasses.dataclass(frozen=True)
class Batch:
    """One micro-batch of rows as arrays of shape (rows, length).

    Attributes:
        input_ids: Token ids; the pad token where a row has ended.
        labels: The same ids where there is loss, else `IGNORED`. A position is predicted from the one
            before it, so the first token of a segment never has a label.
        positions: Position of each token within its own example.
        segments: 1, 2, ... for the examples of a row, 0 for padding.
    """

    input_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]

    def attention_mask(self) -> npt.NDArray[np.bool_]:
        """Which token (third axis) may see which (fourth): earlier ones of the same segment.

        Shape (rows, 1, length, length). Padding sees padding, because a token that sees nothing would
        turn into NaN.
        """
        same = self.segments[:, None, :, None] == self.segments[:, None, None, :]
        length = self.segments.shape[1]
        return np.asarray(same & np.tri(length, dtype=np.bool_))

    def targets(self) -> npt.NDArray[np.int64]:
        """The label that each position has to predict: ``labels`` moved one to the left."""
        return np.pad(self.labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED)

    def inputs(self, packing: bool) -> dict[str, npt.NDArray[Any]]:
        """What the model's forward pass takes.

        Without packing all padding comes last, where no token of a causal model can see it, so that the mask
        can be all ones; it is given nevertheless, or Transformers would look for packed rows on its own.
        """
        mask = self.attention_mask() if packing else np.ones_like(self.input_ids)
        return {"input_ids": self.input_ids, "position_ids": self.positions, "attention_mask": mask}


def collate(rows: Sequence[Sequence[tuple[Ints, int]]], *, pad_id: int, max_length: int) -> Batch:
    """Arrays for rows of examples, as long as the longest row (rounded up, but at most ``max_length``).

    Args:
        rows: For each row its examples: token ids, and how many of them are the prompt.
        pad_id: Token id of padding.
        max_length: Tokens of the longest row that is allowed.
    """
    longest = max((sum(len(ids) for ids, _ in row) for row in rows), default=0)
    length = min(max_length, max(1, -(-longest // _MULTIPLE)) * _MULTIPLE)
    shape = (max(1, len(rows)), length)
    batch = Batch(
        input_ids=np.full(shape, pad_id, dtype=np.int64),
        labels=np.full(shape, IGNORED, dtype=np.int64),
        positions=np.zeros(shape, dtype=np.int64),
        segments=np.zeros(shape, dtype=np.int64),
    )
    for index, row in enumerate(rows):
        start = 0
        for segment, (ids, prompt) in enumerate(row, start=1):
            end = start + len(ids)
            batch.input_ids[index, start:end] = ids
            first = max(prompt, 1)
            batch.labels[index, start + first : end] = ids[first:]
            batch.positions[index, start:end] = np.arange(len(ids))
            batch.segments[index, start:end] = segment
            start = end
    return batch
