"""Adapters: what is trained, what is refused, and that the merged student is base + s B A."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from fdd_ray.errors import DependencyError, TrainingError
from fdd_ray.tiny import model_path
from fdd_ray.training.lora import add_adapters, gathered_adapters, merge, require_peft
from fdd_ray.training.model import CompletionLoss, load_student, parameter_groups
from fdd_ray.training.packing import collate
from fdd_ray.training.pairs import collate_pairs
from fdd_ray.training.settings import LoraSettings
from tests.training.t5 import save_t5

LORA = LoraSettings(rank=3, alpha=12.0)


def make(kind: str, tmp_path: Path, dtype: torch.dtype = torch.float32):
    folder = save_t5(tmp_path / "t5") if kind == "t5" else str(model_path("student"))
    return load_student(folder, dtype=dtype, packing=True)[0]


def batch_for(kind: str):
    random = np.random.default_rng(0)
    rows = [[(random.integers(5, 900, 20), 8), (random.integers(5, 900, 16), 5)]]
    return collate_pairs(rows, pad_id=0, start_id=0) if kind == "t5" else collate(rows, pad_id=0, max_length=64)


def train(model, batch, steps: int = 5) -> list[float]:
    loss = CompletionLoss(model, packing=True)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0), lr=2e-3)
    losses = []
    for _ in range(steps):
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(value.detach()))
    return losses


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_only_adapters_are_trained_and_the_merged_model_says_the_same(kind: str, tmp_path: Path) -> None:
    base, model, batch = make(kind, tmp_path), make(kind, tmp_path), batch_for(kind)
    add_adapters(model, LORA, name=kind, seed=1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = train(model, batch)
    assert losses[-1] < 0.95 * losses[0]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != ("lora_" in name), name
    adapters = gathered_adapters(model, keep=True)
    names = {path.rsplit(".", 1)[-1] for path in adapters}
    assert names == ({"q", "k", "v", "o", "wi_0", "wi_1", "wo"} if kind == "t5" else
                     {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})  # fmt: skip
    merged = merge(make(kind, tmp_path), adapters)
    for name, weight in merged.state_dict().items():
        change = weight - base.state_dict()[name]
        adapter = adapters.get(name.removesuffix(".weight"))
        if adapter is None:
            assert not change.any(), name
        else:
            assert torch.allclose(change, 4.0 * adapter.up @ adapter.down, atol=1e-6), name
            assert int(torch.linalg.matrix_rank(change, tol=1e-4)) == 3
    said = [CompletionLoss(each, packing=True)(each, batch).item() for each in (model, merged, base)]
    assert said[0] == pytest.approx(said[1], rel=1e-4) and said[2] > 1.02 * said[0]


def test_a_merged_model_keeps_its_number_format(tmp_path: Path) -> None:
    model, base = make("llama", tmp_path), make("llama", tmp_path, torch.bfloat16)
    add_adapters(model, LoraSettings(rank=2, targets=("q_proj",)), name="llama", seed=1)
    train(model, batch_for("llama"))
    adapters = gathered_adapters(model, keep=True)
    assert {path.rsplit(".", 1)[-1] for path in adapters} == {"q_proj"}
    old = base.model.layers[0].self_attn.q_proj.weight.detach().clone()
    merged = merge(base, adapters)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    assert not torch.equal(merged.model.layers[0].self_attn.q_proj.weight, old)


def test_a_transposed_layer_is_merged_the_right_way(tmp_path: Path) -> None:
    """GPT-2 keeps its weights as (inputs, outputs)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    def gpt2():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=960, n_positions=64, n_embd=32, n_layer=1, n_head=2)
        return GPT2LMHeadModel(config).eval()

    model, batch = gpt2(), batch_for("llama")
    add_adapters(model, LoraSettings(rank=2, targets=("c_attn",)), name="gpt2", seed=1)
    train(model.eval(), batch)
    merged = merge(gpt2(), gathered_adapters(model, keep=True))
    said = [CompletionLoss(each, packing=True)(each, batch).item() for each in (model, merged)]
    assert said[0] == pytest.approx(said[1], rel=1e-4)


def test_adapters_begin_the_same_for_a_seed(tmp_path: Path) -> None:
    def first(seed: int) -> torch.Tensor:
        model = make("llama", tmp_path)
        add_adapters(model, LORA, name="llama", seed=seed)
        return gathered_adapters(model, keep=True)["model.layers.0.mlp.up_proj"].down

    assert torch.equal(first(1), first(1)) and not torch.equal(first(1), first(2))


@pytest.mark.parametrize("target", ["q", "embed_tokens", "lm_head", "input_layernorm"])
def test_targets_that_are_no_inner_linear_layers_are_refused(target: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"{target} names no inner linear layer of s; it has .*q_proj"):
        add_adapters(make("llama", tmp_path), LoraSettings(targets=("v_proj", target)), name="s", seed=0)


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_peft()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(DependencyError, match=r"pip install 'fdd-ray\[lora\]'"):
        require_peft()


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("lora", [False, True])
def test_gradient_checkpointing_changes_nothing_but_memory(kind: str, lora: bool, tmp_path: Path) -> None:
    from fdd_ray.training.job import checkpoint_activations

    found = []
    for checkpointing in (False, True):
        model, batch = make(kind, tmp_path), batch_for(kind)
        if lora:
            add_adapters(model, LoraSettings(rank=3, dropout=0.2), name=kind, seed=1)
        runs: list[int] = []
        block = model.encoder.block[0] if kind == "t5" else model.model.layers[0]
        inner = block.layer[0] if kind == "t5" else block.self_attn
        inner.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        if checkpointing:
            checkpoint_activations(model)
        model.train()
        torch.manual_seed(3)
        loss = CompletionLoss(model, packing=True)(model, batch)
        loss.backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
        assert float(grads.abs().max()) > 0
        assert len(runs) == (2 if checkpointing else 1), "activations are recomputed in the backward pass"
        found.append((float(loss.detach()), grads))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert float((found[0][1] - found[1][1]).norm()) < 1e-5 * float(found[0][1].norm())
