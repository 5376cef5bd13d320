"""The distillation set as tokens: read from Parquet, rendered as the student will be asked."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fdd_ray.errors import TrainingError
from fdd_ray.prompts import load_prompts, render_example
from fdd_ray.records import Example, from_table, schema_of


def read_examples(paths: Iterable[str]) -> list[Example]:
    """The examples of some Parquet files (paths or URLs), sorted by content.

    Sorting makes the fine-tuning a function of the set: which worker wrote which file, and in which order,
    leaves no trace.

    Raises:
        TrainingError: If a file cannot be read or has other columns.
    """
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    examples: list[Example] = []
    schema = schema_of(Example)
    columns = schema.names
    for path in paths:
        try:
            filesystem, name = fsspec.core.url_to_fs(path)
            table = pq.read_table(name, filesystem=filesystem, columns=columns)
            if other := [f.name for f in table.schema if f.type != schema.field(f.name).type]:
                raise TypeError(f"the column {other[0]} is {table.schema.field(other[0]).type}")
            examples += from_table(table, Example)
        except (OSError, ValueError, ImportError, pa.ArrowKeyError, TypeError) as error:
            raise TrainingError(
                f"cannot read the examples in {path}: {error}; it must be a Parquet file with the columns "
                f"{', '.join(columns)} that every worker can reach"
            ) from error
    return sorted(examples, key=lambda e: (e.problem_id, e.kind, e.rationale, e.question))


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The rendered examples in one flat array.

    Attributes:
        ids: Token ids of all examples, one after the other.
        ends: Where each example ends in ``ids``.
        prompts: How many tokens of each example are the prompt.
        rejected_too_long: Examples left out because they are longer than a row.
        lossy: Examples whose rationale the tokenizer does not give back as it was.
    """

    ids: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    prompts: npt.NDArray[np.int32]
    rejected_too_long: int
    lossy: int = 0

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.ends, prepend=0)

    @property
    def completions(self) -> npt.NDArray[np.int64]:
        """Tokens of each example that carry loss; the very first token of a row cannot."""
        return np.asarray(self.lengths - np.maximum(self.prompts, 1), dtype=np.int64)

    @property
    def longest_side(self) -> int:
        """Tokens of the longest prompt or reply, which is what an encoder or a decoder has to take."""
        return int(max(self.prompts.max(), (self.lengths - self.prompts).max()))

    def example(self, index: int) -> tuple[npt.NDArray[np.int32], int]:
        """Token ids of one example, and how many of them are the prompt."""
        start = self.ends[index - 1] if index else 0
        return self.ids[start : self.ends[index]], int(self.prompts[index])

    def digest(self) -> str:
        """A hash of all tokens and where the examples begin and end."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.ids, self.ends, self.prompts):
            digest.update(array.tobytes())
        return digest.hexdigest()


def render(
    examples: Sequence[Example], tokenizer: Any, prompts: str, *, max_length: int, drop_too_long: bool
) -> Tokens:
    """The examples as tokens, without those longer than ``max_length``.

    Args:
        examples: What to render.
        tokenizer: The student's tokenizer, with a chat template.
        prompts: Name of the prompt set.
        max_length: Tokens of the longest example that fits into a row.
        drop_too_long: False makes a longer example an error.

    Raises:
        TrainingError: If no example is left, one is too long and must not be left out, or the tokenizer cannot
            write programs.
    """
    prompt_set = load_prompts(prompts)
    ids: list[list[int]] = []
    prompt_lengths: list[int] = []
    rejected = 0
    lossy: list[Example] = []
    for example in examples:
        messages = prompt_set.student(example.kind, example.question)
        tokens, prompt = render_example(tokenizer, messages, example.rationale)
        if len(tokens) <= max_length:
            ids.append(tokens)
            prompt_lengths.append(prompt)
            if not _same(tokenizer.decode(tokens[prompt:-1]), example):
                lossy.append(example)
            continue
        rejected += 1
        if not drop_too_long:
            raise TrainingError(
                f"the example of problem {example.problem_id} has {len(tokens)} tokens, more than "
                f"finetune.max_length = {max_length}; raise max_length or set finetune.drop_too_long: true"
            )
    if not ids:
        raise TrainingError(
            f"there is nothing to train on: {len(examples)} examples were read, {rejected} of them are longer "
            f"than finetune.max_length = {max_length}"
        )
    programs = [example for example in lossy if example.kind == "program"]
    if 2 * len(programs) > len(ids):
        raise TrainingError(
            f"the student's tokenizer cannot write {len(programs)} of {len(ids)} rationales, first the program of"
            f" problem {programs[0].problem_id}: newlines, indentation or signs are lost, as T5's and FLAN-T5's"
            " vocabularies lack them; set kind: chain, or choose a student of another family, such as CodeT5+"
        )
    return Tokens(
        ids=np.concatenate([np.asarray(tokens, dtype=np.int32) for tokens in ids]),
        ends=np.cumsum([len(tokens) for tokens in ids], dtype=np.int64),
        prompts=np.asarray(prompt_lengths, dtype=np.int32),
        rejected_too_long=rejected,
        lossy=len(lossy),
    )


def _same(written: str, example: Example) -> bool:
    """Whether a rationale came back from its tokens; in a chain of thought white space says nothing."""
    if example.kind == "chain":
        return written.split() == example.rationale.split()
    return written.strip() == example.rationale.strip()
