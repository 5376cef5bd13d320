"""TRL's side of `finetuning.py`: a script of its own, since TRL may live in another environment.

    python benchmarks/finetuning_trl.py settings.json tokens.json result.json

It needs TRL alone. With several workers it is started by ``torch.distributed.run``. What is not set here is TRL's
default, but for three things that all sides share: the size of the batches, the number format, and whether
activations are computed again in the backward pass (which TRL does by default).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):  # type: ignore[misc]
    """Reads the clock when TRL logs, every ten steps by default: it has then waited for the loss of the last one."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, float, float]] = []
        self.tokens = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **others: Any) -> None:
        """Called by TRL; the last time, with the summary of the whole training, is no reading of a step."""
        now = time.perf_counter()
        logs = logs or {}
        self.tokens = float(logs.get("num_tokens", self.tokens))
        if "num_tokens" in logs and "train_runtime" not in logs:
            self.marks.append((state.global_step, self.tokens, now))


def main() -> None:
    """Train, and write what the clock said."""
    settings, tokens, result = (Path(name) for name in sys.argv[1:])
    plan = json.loads(settings.read_text(encoding="utf-8"))
    torch.set_num_threads(plan["threads"])
    cpu = plan["cpu"] or not torch.cuda.is_available()
    half = plan["dtype"] == "bfloat16" or (plan["dtype"] == "auto" and not cpu)
    examples = json.loads(tokens.read_text(encoding="utf-8"))
    attention = {"attn_implementation": plan["attention"]} if plan["attention"] else {}
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            num_train_epochs=plan["epochs"],
            per_device_train_batch_size=plan["batch"],
            gradient_accumulation_steps=plan["accumulation"],
            max_length=plan["max_length"],
            packing=plan["packing"],
            learning_rate=plan["learning_rate"],
            gradient_checkpointing=plan["gradient_checkpointing"],
            bf16=half,
            use_cpu=cpu,
            model_init_kwargs=attention,
            save_strategy="no",
            report_to="none",
            seed=plan["seed"],
        )
        clock = Clock()
        trainer = SFTTrainer(
            model=plan["model"], args=config, train_dataset=Dataset.from_dict(examples), callbacks=[clock]
        )
        trainer.train()
        trainer.save_model()
        if trainer.is_world_process_zero():
            # With packing TRL also counts the padding to a multiple of 8: scaled, the tokens add up to what they are.
            real = plan["epochs"] * sum(map(len, examples["input_ids"]))
            scale = real / clock.tokens
            marks = [(step, counted * scale, seconds) for step, counted, seconds in clock.marks]
            device = "cpu" if cpu else torch.cuda.get_device_name()
            told = {"marks": marks, "steps": trainer.state.global_step, "tokens": real, "device": device}
            told |= {"counted": clock.tokens, "attention": trainer.model.config._attn_implementation}
            result.write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
