"""Fine-tuning in tokens per second: ours beside TRL's SFTTrainer, and beside Ray Train with DeepSpeed by hand.

    python benchmarks/finetuning.py --trl /path/to/other/venv/bin/python
    python benchmarks/finetuning.py --random-layers 24 --random-hidden 1280 --random-vocab 32000 \\
        --size 40000 --max-length 1024 --batch-tokens 65536 --micro-rows 8 --trl PYTHON --profile trace
    ray job submit --working-dir . -- python benchmarks/finetuning.py --workers 4 --work s3://bucket/benchmark

Every side trains the same model on the same examples, token by token: problems of the tiny world with their
programs, rendered once. A token counts when it is trained on: the tokens of prompt, rationale and end token, but no
padding. In all sides only the rationale carries loss. Sides take turns, each in a process of its own; with several
turns one more comes before them that is not counted, since it fills caches.

    tokens/s  those of the steps after the warm-up, by the time between two readings of the clock in the first worker
    wall      the side's process from start to end: imports, Ray where it is not up yet, workers, training, saving;
              only ours renders its examples within it, the others are given token ids

Same for all: number format, AdamW, clipping, workers and threads, and no recomputed activations unless they are asked
for (they are TRL's default, and slow it down). Ray Train by hand has our ZeRO stage, TRL its own data parallelism. A
padded forward pass has as many examples as make the same number of real tokens as our packed rows, to the nearest
whole example, and there are as many of them in a step. TRL's packing fills rows of the same length and
lays those of a forward pass end to end; ``--trl-attention`` names an attention that computes no masked part of that.

MFU counts 6 operations for each parameter and token (of the output layer only where there is loss) and 6 x layers x
width for each token squared of an example; ``finetuning_work.flops_per_token`` says it in full. The peak is that of
bfloat16, by the name of the GPU or by ``--peak-tflops``.

TRL needs an environment of its own, or ours: ``--trl`` names its Python, on a cluster that of every node. TRL runs on
one node. ``--work`` has to be a place that every node reaches where there are several.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from finetuning_work import (
    OURS,
    OURS_PADDED,
    RAY,
    TRL,
    TRL_PACKED,
    Mark,
    Plan,
    Run,
    Shape,
    compare,
    cut,
    flops_per_token,
    steady_pace,
    tokens_by_step,
)
from measure import Ratio, publish

from fdd_ray.store import files

_ALL = (OURS, RAY, TRL, TRL_PACKED, OURS_PADDED)
_HEAD = 64
GOAL = 1.3


def make_examples(count: int) -> list[Any]:
    """Problems of the tiny world with their programs, as the distillation set has them."""
    from fdd_ray.records import Example, problem_id
    from fdd_ray.tiny import make_problems

    return [
        Example(problem_id(problem.question), problem.question, problem.program, "program", "seed", 0)
        for problem in make_problems("pool", count, 1)
    ]


def random_model(base: str, options: argparse.Namespace, folder: str) -> str:
    """A Llama of some size with random weights and the tokenizer of ``base``; returns where it lies."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base)
    heads = max(1, options.random_hidden // _HEAD)
    config = LlamaConfig(
        vocab_size=max(options.random_vocab, len(tokenizer)),
        hidden_size=options.random_hidden,
        intermediate_size=-(-options.random_hidden * 8 // 3 // 64) * 64,
        num_hidden_layers=options.random_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max(2048, options.max_length),
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as local:
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(local)
        tokenizer.save_pretrained(local)
        for path in Path(local).iterdir():
            files.write_bytes(files.join(folder, path.name), path.read_bytes())
    return folder


def prepare(options: argparse.Namespace, local: Path) -> tuple[Plan, float]:
    """Make the model and the examples; the plan, and the operations that a token needs."""
    from transformers import AutoConfig, AutoTokenizer

    from fdd_ray.engines.base import resolve_model
    from fdd_ray.prompts import prepare_tokenizer
    from fdd_ray.records import Example, to_table
    from fdd_ray.store.fetch import fetch_folder
    from fdd_ray.training.examples import read_examples, render
    from fdd_ray.training.packing import IGNORED

    work = files.absolute(options.work or str(local / "work"))
    model = resolve_model(options.model)
    if options.random_layers:
        model = random_model(fetch_folder(model) if "://" in model else model, options, files.join(work, "model"))
    source = fetch_folder(model) if "://" in model else model
    config = AutoConfig.from_pretrained(source)
    if config.is_encoder_decoder:
        raise SystemExit("this compares decoder-only models")
    path = files.join(work, "examples.parquet")
    files.write_table(path, to_table(make_examples(options.size), Example))
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(source), encoder_decoder=False)
    tokens = render(
        read_examples([path]), tokenizer, options.prompts, max_length=options.max_length, drop_too_long=True
    )
    given: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for index in range(len(tokens)):
        ids, prompt = tokens.example(index)
        given["input_ids"].append(ids.tolist())
        given["labels"].append([IGNORED] * max(prompt, 1) + ids[max(prompt, 1) :].tolist())
    (local / "tokens.json").write_text(json.dumps(given), encoding="utf-8")
    pieces = cut(
        tokens.lengths,
        max_length=options.max_length,
        batch_tokens=options.batch_tokens,
        micro_rows=options.micro_rows,
        workers=options.workers,
    )
    plan = Plan(
        model=model,
        examples=path,
        tokens=str(local / "tokens.json"),
        prompts=options.prompts,
        work=work,
        epochs=options.epochs,
        max_length=options.max_length,
        batch_tokens=options.batch_tokens,
        micro_rows=pieces.micro_rows,
        micro_examples=pieces.micro_examples,
        accumulation=pieces.accumulation,
        workers=options.workers,
        threads=options.threads,
        gpus=options.gpus_per_worker,
        zero_stage=options.zero_stage,
        dtype=options.dtype,
        gradient_checkpointing=options.gradient_checkpointing,
        log_steps=10,
        warm_up=options.warm_up,
        learning_rate=options.learning_rate,
        seed=0,
        trl=os.path.abspath(options.trl) if os.path.exists(options.trl or "") else options.trl or sys.executable,
        trl_attention=options.trl_attention,
    )
    steps = len(tokens_by_step(plan, tokens.lengths, tokens.completions, packing=True)) - 1
    if steps < plan.warm_up + 2 * plan.log_steps:
        raise SystemExit(f"{steps} steps are too few after {plan.warm_up} of warm-up; raise --size or --epochs")
    return plan, flops_per_token(Shape.of(config), tokens.lengths, tokens.completions)


def in_own_process(side: str, plan: Path, result: Path) -> float:
    """Run one side; returns the seconds that its process took."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, str(plan), str(result)], capture_output=True, text=True
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return seconds


def one_turn(side: str, plan: Plan, plan_file: Path) -> Run:
    """What one side did in one turn."""
    result = plan_file.with_name("result.json")
    result.unlink(missing_ok=True)
    seconds = in_own_process(side, plan_file, result)
    told = json.loads(result.read_text(encoding="utf-8"))
    try:
        pace = steady_pace([Mark(*mark) for mark in told["marks"]], plan.warm_up)
    except ValueError as error:
        raise SystemExit(f"{side}: {error}") from error
    return Run(pace.tokens_per_second, pace.steps, told["tokens"] / told["steps"], seconds, told["device"])


def measure(options: argparse.Namespace) -> None:
    """All sides in turns."""
    sides = [side for side in _ALL if side not in options.without and (side != OURS_PADDED or options.with_padded)]
    if not options.trl and importlib.util.find_spec("trl") is None:
        sides = [side for side in sides if side not in (TRL, TRL_PACKED)]
        print("TRL is not installed here and no --trl was given: it is left out", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        plan, flops = prepare(options, Path(folder))
        plan_file = Path(folder, "plan.json")
        plan.write(plan_file)
        runs: dict[str, list[Run]] = {side: [] for side in sides}
        for turn in range(options.repeats + (options.repeats > 1)):
            counted = turn > 0 or options.repeats == 1
            for side in sides if turn % 2 else reversed(sides):
                run = one_turn(side, plan, plan_file)
                name = f"turn {turn}" if counted else "first turn, not counted"
                print(f"{name}: {side}: {run.tokens_per_second:,.0f} tokens/s, {run.wall_s:.0f} s", file=sys.stderr)
                if counted:
                    runs[side].append(run)
        rows = compare(runs, workers=plan.workers, flops=flops, peak_tflops=options.peak_tflops)
        lengths = np.asarray([len(i) for i in json.loads(Path(plan.tokens).read_text(encoding="utf-8"))["input_ids"]])
        publish(
            "finetuning",
            rows,
            options.output,
            ratios_of(rows),
            options=vars(options),
            plan=plan.__dict__,
            flops_per_token=flops,
            example_tokens={"examples": len(lengths), "mean": float(lengths.mean()), "longest": int(lengths.max())},
            runs={side: [run._asdict() for run in turns] for side, turns in runs.items()},
        )
        if options.profile:
            in_own_process("profile", plan_file, options.profile.resolve())
            print(f"\na trace of some of our steps, for chrome://tracing or Perfetto: {options.profile}")


def ratios_of(rows: list[dict[str, Any]]) -> list[Ratio]:
    """How many times the tokens per second of each other side ours are."""
    return [
        Ratio(
            f"tokens/s, ours, to {row['side']}",
            row["ours is times"],
            row["times, low"],
            row["times, high"],
            None if row["side"] == OURS_PADDED else GOAL,
        )
        for row in rows
        if row["side"] != OURS and row["ours is times"] != ""
    ]


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="tiny://student", help="a Hugging Face directory, URL or hub id, or a model that we ship")
    add("--random-layers", type=int, default=0, help="train a Llama of so many layers with random weights instead")
    add("--random-hidden", type=int, default=1280, help="its width, a multiple of 64")
    add("--random-vocab", type=int, default=0, help="its vocabulary; at least that of the tokenizer of --model")
    add("--size", type=int, default=3000, help="examples")
    add("--epochs", type=int, default=2, help="passes over the examples")
    add("--prompts", default="tiny", help="prompt set")
    add("--max-length", type=int, default=256, help="tokens of a packed row, and of the longest example")
    add("--batch-tokens", type=int, default=1024, help="tokens of an optimiser step of packed rows, over all workers")
    add("--micro-rows", type=int, default=4, help="packed rows of a forward pass")
    add("--workers", type=int, default=1, help="processes that train")
    add("--threads", type=int, default=1, help="CPU threads of each")
    add("--gpus-per-worker", type=float, default=None, help="default: 1 where there are any; 0: CPUs")
    add("--zero-stage", type=int, choices=range(4), default=1, help="DeepSpeed's, for ours and Ray Train by hand")
    add("--dtype", choices=["auto", "bfloat16", "float32"], default="auto", help="auto: bfloat16 on GPUs, or float32")
    add("--gradient-checkpointing", action="store_true", help="compute activations again in the backward pass")
    add("--learning-rate", type=float, default=1e-4, help="AdamW's")
    add("--warm-up", type=int, default=10, help="optimiser steps that are not counted")
    add("--repeats", type=int, default=5, help="turns of each side; one more is not counted if more than 1")
    add("--trl", metavar="PYTHON", help="a Python that has TRL")
    add("--trl-attention", help="attention of TRL's packing, such as flash_attention_2; default: Transformers' choice")
    add("--with-padded", action="store_true", help="also ours without packing")
    add("--without", nargs="+", default=[], choices=_ALL, help="sides to leave out")
    add("--peak-tflops", type=float, help="peak TFLOP/s of one GPU, for MFU; default: by its name")
    add("--profile", type=Path, metavar="FOLDER", help="write a torch.profiler trace of some of our steps")
    add("--work", help="folder or URL for models and data that every node reaches; default: a temporary folder")
    add("--output", type=Path, default=Path("benchmarks/results"), help="where the JSON goes")
    add("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.side:
        measure(options)
        return
    import finetuning_sides

    side, plan_file, result = options.side
    plan = Plan.read(Path(plan_file))
    if side == "profile":
        finetuning_sides.profile(plan, Path(result))
    else:
        Path(result).write_text(json.dumps(finetuning_sides.SIDES[side](plan)), encoding="utf-8")


if __name__ == "__main__":
    main()
