"""The driver that the chaos harness kills: the command line, with a scripted trainer where one is asked for.

Fine-tuning with Ray Train has a fixed cost of some twenty seconds, too much for hundreds of runs. With
``CHAOS_TRAINER=scripted`` a student is a folder whose ``simulated.json`` says how skilled the simulated
engine is with it; everything else is the real thing.

With ``CHAOS_CALLS=FOLDER`` engines log each request before they answer it, as the simulated engine does by
itself, and its tokens afterwards: the class of the engine actors is replaced by one that is sent along.

    CHAOS_TRAINER=scripted python benchmarks/chaos_driver.py run experiment.yaml --set rounds=1
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fdd_ray import cli, training
from fdd_ray.engines import actor
from fdd_ray.store import files
from fdd_ray.training import fit

_SECONDS = 1.0


def scripted_training(settings: Any, *, examples: Sequence[str], output: str, **given: Any) -> fit.FinetuneResult:
    """Stands in for `fdd_ray.training.finetune`: a student that is the better the more examples it was given."""
    number = sum(files.count_rows(path) for path in examples)
    time.sleep(_SECONDS)
    Path(output).mkdir(parents=True, exist_ok=True)
    files.write_json(f"{output}/simulated.json", {"right": number / (number + 60)})
    return fit.FinetuneResult(
        output=output, steps=1, epochs=1, examples=number, rejected_too_long=0, tokens=0, completion_tokens=0,
        loss_first=1.0, loss_last=0.5, seconds=_SECONDS, tokens_per_second=0.0, workers=1, zero_stage=0,
        parameters=0, restarts=0, resumed_from=0, total_seconds=_SECONDS,
    )  # fmt: skip


def recording(base: type, folder: str) -> type:
    """An engine actor that logs what it is asked, ``time key``, and what that took, ``key tokens``."""

    class RecordingEngineActor(base):  # type: ignore[misc]
        async def generate(self, weights: str, messages: Any, sampling: Any) -> Any:
            from fdd_ray.engines.simulated import call_key

            key = call_key(weights, messages[-1]["content"], sampling.seed)
            _append(f"{os.getpid()}.log", f"{time.time():.6f} {key}")
            reply = await super().generate(weights, messages, sampling)
            _append(f"{os.getpid()}.tokens", f"{key} {reply.prompt_tokens + reply.completion_tokens}")
            return reply

    def _append(name: str, line: str) -> None:
        with open(os.path.join(folder, name), "a", encoding="utf-8") as file:
            file.write(line + "\n")

    return RecordingEngineActor


def main() -> int:
    """Run one fdd-ray command; its modules are imported after the trainer was replaced."""
    if os.environ.get("CHAOS_TRAINER") == "scripted":
        training.finetune = scripted_training
        fit.warm_up = lambda: None
    if calls := os.environ.get("CHAOS_CALLS"):
        actor.EngineActor = recording(actor.EngineActor, calls)  # type: ignore[misc, assignment]
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
