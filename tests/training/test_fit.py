"""Fine-tuning for real: two workers, DeepSpeed, a killed worker, a cluster that is too small."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fdd_ray.errors import TrainingError
from fdd_ray.tiny import model_path
from fdd_ray.training import FinetuneResult, FinetuneSettings
from tests.training.conftest import tiny_examples
from tests.training.tuning import KillsItsWorker, told, tune, weights

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

# 120 examples of about 60 tokens in rows of 256: 8 steps an epoch with 4 rows in a step
SETTINGS = FinetuneSettings(
    epochs=6,
    learning_rate=1e-3,
    max_length=256,
    micro_batch_rows=1,
    batch_tokens=1024,
    zero_stage=2,
    workers=(2, 2),
    checkpoint_steps=0,
)


@pytest.fixture(scope="module")
def undisturbed(ray_session, tmp_path_factory, example_files) -> FinetuneResult:
    return tune(SETTINGS, tmp_path_factory.mktemp("undisturbed"), example_files)


def mean_loss(folder: str) -> float:
    """Loss of a completion token over all examples, by Transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from fdd_ray.training.examples import render

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = render(tiny_examples(120), tokenizer, "tiny", max_length=256, drop_too_long=True)
    total = 0.0
    for index in range(len(tokens)):
        ids, prompt = tokens.example(index)
        inputs = torch.from_numpy(ids).long()[None]
        labels = inputs.clone()
        labels[:, :prompt] = -100
        with torch.no_grad():
            total += float(model(input_ids=inputs, labels=labels).loss) * (len(ids) - prompt)
    return total / int(tokens.completions.sum())


def test_two_workers_train_a_student_that_loads(undisturbed):
    result = undisturbed
    assert result.examples == 120 and result.rejected_too_long == 0
    assert result.workers == 2 and result.restarts == 0 and result.resumed_from == 0
    assert min(result.start_seconds, result.prepare_seconds, result.export_seconds) > 0
    assert result.prepare_seconds + result.seconds + result.export_seconds < result.total_seconds
    assert result.steps % 6 == 0 and result.tokens / 1024 <= result.steps <= 1.3 * result.tokens / 1024
    assert result.loss_last < 0.5 * result.loss_first
    # the last epoch's mean lies above the loss of the student that it ends with
    assert mean_loss(result.output) < 1.1 * result.loss_last
    names = {path.name for path in Path(result.output).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert "generation_config.json" in names
    assert weights(result.output).keys() == weights(str(model_path("student"))).keys()
    assert not (Path(result.output).parent / "work" / "tune").exists()  # the checkpoints are gone


def test_it_equals_plain_pytorch(undisturbed, example_files):
    """Two workers with ZeRO-2, packed rows and micro-batches make the student that one loop would make."""
    import torch

    from fdd_ray.training.examples import read_examples, render
    from fdd_ray.training.model import CompletionLoss, load_student, parameter_groups
    from fdd_ray.training.packing import TrainingPlan, collate
    from fdd_ray.training.schedule import learning_rate

    model, tokenizer = load_student(str(model_path("student")), dtype=torch.float32, packing=True)
    tokens = render(read_examples(example_files), tokenizer, "tiny", max_length=256, drop_too_long=True)
    plan = TrainingPlan(tokens.lengths, tokens.completions, 256, rows_per_step=4, epochs=6, seed=7)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1.0)
    loss = CompletionLoss(model, packing=True)
    for number, step in plan.from_step(0):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, plan.steps, peak=1e-3, warmup_share=0.03, min_share=0.0)
        rows = [[tokens.example(index) for index in row] for row in step.rows]
        (loss(model, collate(rows, pad_id=0, max_length=256)) / step.completion_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    expected, got = model.state_dict(), weights(undisturbed.output)
    assert undisturbed.steps == plan.steps
    assert all(torch.allclose(got[name], expected[name], rtol=1e-2, atol=5e-4) for name in got)


def test_a_killed_worker_costs_steps_but_changes_nothing(ray_session, undisturbed, tmp_path, example_files):
    import torch

    progress = KillsItsWorker(tmp_path)
    settings = dataclasses.replace(SETTINGS, checkpoint_steps=4)
    result = tune(settings, tmp_path, example_files, progress)

    assert progress.killed.exists()
    assert result.restarts == 1 and result.resumed_from == 4
    assert result.steps == undisturbed.steps and result.tokens == undisturbed.tokens
    assert result.loss_first == pytest.approx(undisturbed.loss_first, rel=1e-6)
    assert result.loss_last == pytest.approx(undisturbed.loss_last, rel=1e-4)
    expected, got = weights(undisturbed.output), weights(result.output)
    assert all(torch.allclose(got[name], expected[name], rtol=1e-4, atol=1e-6) for name in expected)
    calls = told(tmp_path)
    assert [call[0] for call in calls[:6]] == [1, 2, 3, 4, 5, 6]
    done, total, info = calls[-1]
    assert done == total == result.steps and info["loss"] > 0 and info["resumed_from"] == 4


def test_a_mistake_is_reported_at_once_and_not_repeated(ray_session, tmp_path):
    with pytest.raises(TrainingError, match=r"cannot read the examples in .*absent\.parquet"):
        tune(dataclasses.replace(SETTINGS, workers=(1, 1)), tmp_path, [str(tmp_path / "absent.parquet")])


def test_a_cluster_that_is_too_small_is_not_waited_for_for_ever(ray_session, tmp_path, example_files):
    settings = dataclasses.replace(SETTINGS, resources={"unobtainium": 1.0}, start_deadline_s=3.0)
    with pytest.raises(TrainingError, match=r"start_deadline_s = 3 s; awaited: 2 x .*'unobtainium': 1.0"):
        tune(settings, tmp_path, example_files)
