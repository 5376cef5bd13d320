"""The loss on packed rows is the loss on single ones, for a real Llama."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fdd_ray.errors import TrainingError
from fdd_ray.tiny import model_path
from fdd_ray.training.examples import render
from fdd_ray.training.model import CompletionLoss, check_packing, load_student, model_inputs
from fdd_ray.training.packing import IGNORED, Batch, TrainingPlan, collate, pack
from tests.training.conftest import tiny_examples


def tiny_llama(**changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    values = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "tie_word_embeddings": True,
    }
    return LlamaForCausalLM(LlamaConfig(**(values | changes)))


def random_examples(count: int = 13) -> list[tuple[np.ndarray, int]]:
    random = np.random.default_rng(1)
    return [(random.integers(1, 97, n), int(random.integers(0, n))) for n in random.integers(2, 20, count)]


def batch_of(rows: list[list[tuple[np.ndarray, int]]]) -> Batch:
    return collate(rows, pad_id=0, max_length=48)


def gradients(model) -> torch.Tensor:
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return grads


def test_packed_and_single_rows_have_the_same_loss_and_gradient():
    model, examples = tiny_llama(), random_examples()
    completions = [len(ids) - max(prompt, 1) for ids, prompt in examples]
    plan = TrainingPlan([len(ids) for ids, _ in examples], completions, 48, 4, 1, seed=0)
    packed = CompletionLoss(model, packing=True)
    assert len(plan.step(0).rows[0]) > 1

    total = 0.0
    for _, step in plan.from_step(0):
        loss = packed(model, batch_of([[examples[i] for i in row] for row in step.rows]))
        loss.backward()
        total += float(loss.detach())
    expected = gradients(model)

    single = 0.0
    for ids, prompt in examples:  # Transformers' own loss, one example at a time, is the reference
        labels = np.where(np.arange(len(ids)) < max(prompt, 1), -100, ids)
        count = int((labels != -100).sum())
        if count:
            mean = model(input_ids=torch.from_numpy(ids)[None], labels=torch.from_numpy(labels)[None]).loss
            (mean * count).backward()
            single += float(mean.detach()) * count
    assert total == pytest.approx(single, rel=1e-5)
    assert torch.allclose(gradients(model), expected, rtol=1e-4, atol=1e-5)

    unpacked = CompletionLoss(model, packing=False)
    loss = unpacked(model, batch_of([[example] for example in examples]))
    assert float(loss.detach()) == pytest.approx(single, rel=1e-5)


def test_each_example_of_the_shipped_student_has_the_loss_that_it_has_alone():
    """To 1e-5 for a completion token; rows whose examples see each other are off by far more."""
    model, tokenizer = load_student(str(model_path("student")), dtype=torch.float32, packing=True)
    model.eval()
    tokens = render(tiny_examples(60), tokenizer, "tiny", max_length=256, drop_too_long=False)
    rows = pack(tokens.lengths, 256, seed=0)
    batch = collate([[tokens.example(index) for index in row] for row in rows], pad_id=0, max_length=256)
    assert min(len(row) for row in rows[:-1]) > 1

    def packed_losses(**changes) -> list[list[float]]:
        with torch.no_grad():
            logits = model(**model_inputs(batch, True) | changes, use_cache=False).logits
        targets = torch.from_numpy(batch.targets())
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        told = targets != IGNORED
        return [
            [float(each[number][told[number] & (segments == place + 1)].mean()) for place in range(len(row))]
            for number, (row, segments) in enumerate(zip(rows, torch.from_numpy(batch.segments), strict=True))
        ]

    alone: list[list[float]] = []
    for row in rows:
        alone.append([])
        for ids, prompt in map(tokens.example, row):
            inputs = torch.from_numpy(ids).long()[None]
            labels = inputs.clone()
            labels[:, :prompt] = IGNORED
            with torch.no_grad():
                alone[-1].append(float(model(input_ids=inputs, labels=labels).loss))  # Transformers' own loss
    assert sum(map(len, alone)) == len(tokens) == 60
    for packed, single in zip(packed_losses(), alone, strict=True):
        assert packed == pytest.approx(single, rel=0, abs=1e-5)
    causal = torch.from_numpy(np.tri(batch.input_ids.shape[1], dtype=np.bool_))
    seeing_others = packed_losses(attention_mask=causal.expand(len(rows), 1, -1, -1))
    others = [[loss for row in losses for loss in row[1:]] for losses in (seeing_others, alone)]
    assert max(abs(a - b) for a, b in zip(*others, strict=True)) > 1e-2


def test_logits_are_computed_for_labelled_positions_only():
    model = tiny_llama()
    shapes = []
    model.get_output_embeddings().register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape)))
    batch = batch_of([random_examples()[:3]])
    CompletionLoss(model, packing=True)(model, batch)
    assert shapes == [(1, int((batch.labels != -100).sum()), 97)]


def test_an_empty_batch_has_no_loss_but_a_gradient_for_every_parameter():
    model = tiny_llama()
    loss = CompletionLoss(model, packing=True)(model, batch_of([]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(gradients(model).abs().max()) == 0.0


def test_a_model_that_ignores_the_mask_is_refused():
    model = tiny_llama()
    check_packing(model, "tiny")
    forward = model.model.forward
    model.model.forward = lambda attention_mask=None, **rest: forward(**rest | {"position_ids": None})
    with pytest.raises(TrainingError, match="packing: false"):
        check_packing(model, "tiny")


def test_a_model_without_positions_is_refused():
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(TrainingError, match="cannot train on packed rows"):
        check_packing(model, "bloom")


def test_without_packing_the_mask_is_plain():
    inputs = model_inputs(batch_of([[example] for example in random_examples()]), packing=False)
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape
    assert bool(inputs["attention_mask"].all())
