"""Weights & Biases: metrics over the round; ``WANDB_PROJECT`` (default ``fdd_ray``) says where, ``WANDB_MODE`` how.

Its client sends in the background and drops what is not newer than what it knows, so a stage's place in the run is
its step there, and the chart's axis is ``round``. Of this machine nothing is sent: no output, no code, no statistics.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, Final

from fdd_ray.store.access import is_local
from fdd_ray.tracking.facts import Facts
from fdd_ray.tracking.remote import Remote

_INIT_S: Final = 30.0


class Wandb(Remote):
    """A run at Weights & Biases."""

    service: ClassVar[str] = "wandb"
    safe_at_once: ClassVar[bool] = False
    _there: Any = None

    def open(self, name: str) -> None:
        """Begin or resume the run; offline, its files come to ``wandb/`` in a local run directory."""
        import wandb

        here = self.directory if is_local(self.directory) and "WANDB_DIR" not in os.environ else None
        self._there = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fdd_ray"),
            id=self.id,
            name=name,
            resume="allow",
            dir=here,
            config=self.config,
            save_code=False,
            settings=wandb.Settings(
                console="off",
                host="",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
                init_timeout=_INIT_S,
            ),
        )
        self._there.define_metric("round")
        self._there.define_metric("*", step_metric="round")

    def send(self, facts: Facts) -> None:
        """Log one row."""
        self._there.log({"round": facts.step, **facts.values}, step=facts.order)

    def end(self, failed: bool) -> None:
        """Wait until it is sent, or on disk if offline."""
        self._there.finish(exit_code=int(failed))
