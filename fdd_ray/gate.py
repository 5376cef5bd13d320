"""The gate through which work is let in: it counts how often each piece was begun, and it can be closed.

A stage that is told to end (its budget is used up, or the machine is being taken away) closes its gate:
what is being worked on is finished and written, nothing new is begun. And a piece of work that was begun
again and again without ever being finished is poison: its worker dies of it.

    gate = Gate.open()
    await gate.enter("part-b-1")    # 1: go on; 2 and more: it was begun before; 0: the gate is closed
    gate.close()
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fdd_ray.errors import EngineError
from fdd_ray.labels import this_node

_DEADLINE_S = 300.0


class _Gate:
    """The Ray actor behind a gate."""

    def __init__(self) -> None:
        self._closed = False
        self._begun: Counter[str] = Counter()

    def enter(self, name: str) -> int:
        if self._closed:
            return 0
        self._begun[name] += 1
        return self._begun[name]

    def leave(self, names: Sequence[str]) -> None:
        for name in names:
            self._begun.pop(name, None)

    def close(self) -> None:
        self._closed = True

    def reset(self) -> None:
        self._closed = False
        self._begun.clear()


@dataclasses.dataclass(frozen=True)
class Gate:
    """A handle that can be sent to other processes.

    Attributes:
        actor: The Ray actor; it ends with the last handle.
    """

    actor: Any

    @classmethod
    def open(cls) -> Gate:
        """A new gate; Ray must be initialised."""
        import ray

        options = {"max_restarts": -1, "max_task_retries": -1, "label_selector": this_node()}
        return cls(ray.remote(num_cpus=0)(_Gate).options(**options).remote())

    async def enter(self, name: str) -> int:
        """How often ``name`` was begun, this time included; 0 if the gate is closed."""
        return int(await self.actor.enter.remote(name))

    async def leave(self, names: Sequence[str]) -> None:
        """Note that ``names`` are finished; their counts are forgotten."""
        await self.actor.leave.remote(list(names))

    def reset(self) -> None:
        """Open the gate again, and forget what was begun: another stage begins."""
        self._tell(self.actor.reset)

    def close(self) -> None:
        """Let nothing in any more; what is in goes on."""
        self._tell(self.actor.close)

    def _tell(self, method: Any) -> None:
        import ray

        try:
            ray.get(method.remote(), timeout=_DEADLINE_S)
        except ray.exceptions.RayError as error:
            raise EngineError(
                f"the gate of the stages, a Ray actor on the driver's node that needs no CPU, gave no answer within"
                f" {_DEADLINE_S:g} s ({type(error).__name__}); look at `ray status` and Ray's logs, and run the same"
                " command again"
            ) from error
