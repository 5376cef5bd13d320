"""Fine-tuning as the tests of this folder do it, and looking at what came of it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from fdd_ray.tiny import model_path
from fdd_ray.training import FinetuneResult, FinetuneSettings, finetune


def tune(
    settings: FinetuneSettings, folder: Path, files: list[str], progress: Any = None, base: str | None = None
) -> FinetuneResult:
    """Fine-tune the tiny student (or ``base``) on Parquet files; the student goes to ``folder/student``."""
    return finetune(
        settings,
        base_model=base or str(model_path("student")),
        examples=files,
        prompts="tiny",
        output=str(folder / "student"),
        work_dir=str(folder / "work"),
        run_name="tune",
        seed=7,
        progress=progress,
    )


def weights(folder: str | Path) -> dict[str, Any]:
    """A student's weights."""
    from safetensors.torch import load_file

    return load_file(Path(folder) / "model.safetensors")


class Told:
    """A stand-in for the progress actor, called inside the first worker: it notes each call in ``folder/calls``."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"

    @property
    def update(self) -> Told:
        return self

    def remote(self, done: int, total: int, info: dict[str, Any]) -> None:
        with self.calls.open("a") as file:
            file.write(json.dumps([done, total, info]) + "\n")


class KillsItsWorker(Told):
    """It kills the worker after step 6, once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.killed = folder / "killed"

    def remote(self, done: int, total: int, info: dict[str, Any]) -> None:
        super().remote(done, total, info)
        if not self.killed.exists():
            if done == 6:
                self.killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1.1)  # progress is told once a second: so that this step is not missed


def told(folder: Path) -> list[tuple[int, int, dict[str, Any]]]:
    """What `Told` noted: steps taken, steps in all, and the rest, of each call."""
    calls = folder / "calls"
    lines = calls.read_text().splitlines(keepends=True) if calls.exists() else []
    return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]
