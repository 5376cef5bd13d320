"""Encoder-decoder students: what goes to the encoder and the decoder, and that the loss is transformers' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fdd_ray.errors import TrainingError
from fdd_ray.prompts import decoder_start
from fdd_ray.records import Example
from fdd_ray.training.examples import render
from fdd_ray.training.model import CompletionLoss, load_student
from fdd_ray.training.packing import IGNORED, TrainingPlan
from fdd_ray.training.pairs import collate_pairs, group
from tests.training.conftest import tiny_examples
from tests.training.t5 import save_t5, sentence_piece_tokenizer


@pytest.mark.parametrize("seed", range(5))
def test_groups_hold_every_example_once_and_their_padding_too(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 257, 500)
    rows = group(lengths, 1024, seed)
    assert sorted(index for row in rows for index in row) == list(range(500))
    assert max(len(row) * max(lengths[index] for index in row) for row in rows) <= 1024
    assert [len(row) for row in rows] == [len(row) for row in group(lengths, 1024, seed + 1)]
    assert sum(len(row) * max(lengths[index] for index in row) for row in rows) < 1.15 * lengths.sum()
    with pytest.raises(ValueError, match="max_tokens = 8"):
        group([9], 8, 0)


def test_each_epoch_has_every_example_in_another_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 101)
    plan = TrainingPlan(lengths, lengths // 2, 256, rows_per_step=2, epochs=3, seed=1, arrange=group)
    seen: dict[int, list[int]] = {}
    for _, step in plan.from_step(0):
        seen.setdefault(step.epoch, []).extend(index for row in step.rows for index in row)
    assert [sorted(indices) for indices in seen.values()] == [list(range(101))] * 3
    assert len({tuple(indices) for indices in seen.values()}) == 3


def test_collate_worked_example() -> None:
    rows = [[(np.array([5, 6, 7, 1]), 2), (np.array([8, 9, 1]), 1)], [(np.array([4, 1]), 1)]]
    batch = collate_pairs(rows, pad_id=0, start_id=3)
    n = IGNORED
    assert batch.input_ids.tolist() == [[5, 6] + [0] * 6, [8] + [0] * 7, [4] + [0] * 7]
    assert batch.mask.tolist() == [[1, 1] + [0] * 6, [1] + [0] * 7, [1] + [0] * 7]
    assert batch.decoder_input_ids.tolist() == [[3, 7] + [0] * 6, [3, 9] + [0] * 6, [3] + [0] * 7]
    assert batch.targets().tolist() == [[7, 1] + [n] * 6, [9, 1] + [n] * 6, [1] + [n] * 7]


def gradients(model) -> torch.Tensor:
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return grads


def test_the_loss_of_a_batch_is_the_sum_of_single_losses_by_transformers(tmp_path: Path) -> None:
    model, tokenizer = load_student(save_t5(tmp_path), dtype=torch.float32, packing=True)
    tokens = render(tiny_examples(7), tokenizer, "tiny", max_length=256, drop_too_long=False)
    start = decoder_start(model, "t5", TrainingError)
    assert start == tokenizer.pad_token_id
    loss = CompletionLoss(model, packing=True)
    batch = collate_pairs([[tokens.example(i) for i in range(7)]], pad_id=tokenizer.pad_token_id, start_id=start)
    together = loss(model, batch)
    together.backward()
    expected = gradients(model)

    total = 0.0
    for index in range(7):
        ids, prompt = (torch.from_numpy(part).long()[None] if i == 0 else part
                       for i, part in enumerate(tokens.example(index)))  # fmt: skip
        assert ids[0, prompt - 1] == ids[0, -1] == tokenizer.eos_token_id
        mean = model(input_ids=ids[:, :prompt], labels=ids[:, prompt:]).loss
        (mean * (ids.shape[1] - prompt)).backward()
        total += float(mean.detach()) * (ids.shape[1] - prompt)
    assert float(together.detach()) == pytest.approx(total, rel=1e-5)
    assert torch.allclose(gradients(model), expected, rtol=1e-3, atol=1e-4)

    empty = loss(model, collate_pairs([], pad_id=tokenizer.pad_token_id, start_id=start))
    empty.backward()
    assert float(empty.detach()) == 0.0 and float(gradients(model).abs().max()) == 0.0


def test_a_model_that_does_not_say_how_its_decoder_begins_is_refused(tmp_path: Path) -> None:
    folder = save_t5(tmp_path, decoder_start_token_id=None)
    with pytest.raises(TrainingError, match="set decoder_start_token_id"):
        load_student(folder, dtype=torch.float32, packing=True)


def test_a_tokenizer_that_cannot_write_programs_is_found_out() -> None:
    from fdd_ray.prompts import prepare_tokenizer

    tokenizer = prepare_tokenizer(sentence_piece_tokenizer(), encoder_decoder=True)
    programs = tiny_examples(20)
    assert any("\n" in example.rationale for example in programs)
    with pytest.raises(TrainingError, match=r"cannot write \d+ of 20 rationales.*set kind: chain.*CodeT5\+"):
        render(programs, tokenizer, "tiny", max_length=512, drop_too_long=False)
    chains = [Example(e.problem_id, e.question, "so many apples\nhas Tom", "chain", "seed", 0) for e in programs]
    assert render(chains, tokenizer, "tiny", max_length=512, drop_too_long=False).lossy == 0
    strange = [Example(e.problem_id, e.question, "日本", "chain", "seed", 0) for e in programs[:3]]
    assert render([*chains, *strange], tokenizer, "tiny", max_length=512, drop_too_long=False).lossy == 3
