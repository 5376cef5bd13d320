"""The arithmetic of the fine-tuning benchmark: paces, operations, equal batches and the rows of its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's arithmetic; benchmarks are scripts, not a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import finetuning_work

    return finetuning_work


def test_the_steady_pace_leaves_the_warm_up_out(work: Any) -> None:
    marks = [
        work.Mark(1, 100, 50.0),
        work.Mark(10, 1_000, 60.0),
        work.Mark(20, 2_100, 61.0),
        work.Mark(30, 3_000, 62.0),
    ]
    assert work.steady_pace(marks, 10) == (1_000.0, 20)
    assert work.steady_pace(marks, 11) == (900.0, 10)
    for short in (marks[:2], marks[1:2] * 2, []):
        with pytest.raises(ValueError, match="after 10 steps"):
            work.steady_pace(short, 10)


def test_operations_are_those_of_parameters_that_a_token_meets_and_of_pairs_that_see_each_other(work: Any) -> None:
    lengths, completions = np.asarray([4, 6]), np.asarray([1, 3])
    matrices = 6 * (100 * 10 + 10 * 4)
    attention = 12 * 2 * 8 * (4 * 4 / 2 + 6 * 6 / 2)
    shape = work.Shape(body=100, head=10, layers=2, width=8)
    assert work.flops_per_token(shape, lengths, completions) == pytest.approx((matrices + attention) / 10)


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_looked_up_and_not_multiplied(work: Any, tied: bool) -> None:
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=tied,
    )
    attention = 32 * 64 + 2 * 32 * 32 + 64 * 32  # queries, keys and values of half as many heads, output
    layer = attention + 3 * 32 * 48 + 2 * 32
    assert work.Shape.of(config) == (3 * layer + 32, 97 * 32, 3, 64)


def test_utilisation_is_the_share_of_what_all_workers_could_do(work: Any) -> None:
    assert work.utilisation(1e5, 3e9, 989.0, 1) == pytest.approx(0.30334, rel=1e-4)
    assert work.utilisation(1e5, 3e9, 989.0, 4) == pytest.approx(0.30334 / 4, rel=1e-4)


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.0),
        ("Tesla T4", 65.0),
        ("NVIDIA GeForce GTX 1080", None),
        ("cpu", None),
    ],
)
def test_peaks_go_by_whole_words_of_a_name(work: Any, device: str, peak: float | None) -> None:
    assert work.peak_of(device) == peak


@pytest.mark.parametrize(("workers", "micro_rows", "batch_tokens"), [(1, 4, 1024), (2, 4, 8192), (3, 2, 5000)])
def test_padded_steps_have_as_many_tokens_as_packed_ones(
    work: Any, workers: int, micro_rows: int, batch_tokens: int
) -> None:
    lengths = np.random.default_rng(0).integers(30, 110, 4_000)
    pieces = work.cut(lengths, max_length=256, batch_tokens=batch_tokens, micro_rows=micro_rows, workers=workers)
    assert pieces.rows_per_step == workers * pieces.accumulation * pieces.micro_rows
    assert pieces.micro_rows <= micro_rows
    packed = int(lengths.sum()) / len(work.pack(lengths, 256, 0)) * pieces.rows_per_step
    padded = float(lengths.mean()) * pieces.micro_examples * workers * pieces.accumulation
    half_an_example = float(lengths.mean()) * workers * pieces.accumulation / 2
    assert abs(padded - packed) <= half_an_example * 1.001


def test_tokens_are_counted_step_by_step_to_the_last(work: Any, tmp_path: Path) -> None:
    lengths = np.random.default_rng(1).integers(30, 110, 200)
    completions = lengths // 3
    pieces = work.cut(lengths, max_length=256, batch_tokens=2048, micro_rows=4, workers=1)
    plan = work.Plan(
        model="m", examples="e", tokens="t", prompts="tiny", work="w", epochs=3, max_length=256, batch_tokens=2048,
        micro_rows=pieces.micro_rows, micro_examples=pieces.micro_examples, accumulation=pieces.accumulation,
        workers=1, threads=1, gpus=None, zero_stage=1, dtype="auto", gradient_checkpointing=False, log_steps=10,
        warm_up=10, learning_rate=1e-4, seed=0, trl="python", trl_attention=None,
    )  # fmt: skip
    plan.write(tmp_path / "plan.json")
    assert work.Plan.read(tmp_path / "plan.json") == plan
    for packing in (True, False):
        tokens = work.tokens_by_step(plan, lengths, completions, packing=packing)
        assert tokens[0] == 0 and tokens[-1] == 3 * int(lengths.sum())
        steps = np.diff(tokens)
        assert steps.min() > 0 and len(steps) % 3 == 0
        assert np.median(steps) == pytest.approx(2048, rel=0.1)


def test_rows_hold_medians_spread_and_what_ours_is_times(work: Any) -> None:
    def turns(*paces: float, device: str = "cpu") -> list[Any]:
        return [work.Run(pace, 40, 1000.0, 60.0 + pace / 100, device) for pace in paces]

    runs = {work.OURS: turns(300, 200, 220), work.TRL: turns(100, 110, 100)}
    mine, other = work.compare(runs, workers=2, flops=1e9)
    assert (mine["tokens/s"], mine["low"], mine["high"]) == (220, 200, 300)
    assert mine["tokens/s per worker"] == 110 and mine["ours is times"] == 1 and mine["MFU %"] == ""
    assert other["ours is times"] == pytest.approx(2.2)
    assert other["times, low"] == pytest.approx(200 / 110) and other["times, high"] == pytest.approx(3)
    assert (other["wall s"], other["wall, low"], other["wall, high"]) == (61, 61, pytest.approx(61.1))
    assert mine.keys() == other.keys()

    known = work.compare({work.OURS: turns(100, device="NVIDIA L4")}, workers=1, flops=1.21e9)
    assert known[0]["MFU %"] == pytest.approx(0.1) and known[0]["tokens/s per GPU"] == 100
    given = work.compare({work.TRL: turns(100)}, workers=1, flops=1e9, peak_tflops=1.0)
    assert given[0]["MFU %"] == pytest.approx(10) and given[0]["ours is times"] == ""
