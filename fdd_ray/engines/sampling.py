"""What an experiment may say of how a role's engines draw tokens, beside what its stages say.

    teacher:
      sampling: {top_k: 20, min_p: 0.05, stop: ['\\nQuestion:']}

Temperature, top_p and length belong to each stage; these belong to the model, whose card names them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fdd_ray.settings import setting


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """Further ways to shape what is drawn. What is not given is left to the engine."""

    top_k: int | None = setting(None, "Draw from the k likeliest tokens only.", ge=1)
    min_p: float | None = setting(
        None, "Draw from tokens at least this share as likely as the likeliest one.", ge=0, le=1
    )
    repetition_penalty: float | None = setting(
        None, "Above 1, tokens of the prompt and the completion become less likely.", gt=0
    )
    presence_penalty: float | None = setting(
        None, "Above 0, tokens that the completion already has become less likely.", ge=-2, le=2
    )
    frequency_penalty: float | None = setting(
        None, "Above 0, tokens become less likely with each time that the completion has them.", ge=-2, le=2
    )
    stop: tuple[str, ...] = setting(
        factory=tuple, help=r"Texts that end a completion, and are not part of it: one, or a list; \n is a line break."
    )

    def __post_init__(self) -> None:
        if "" in self.stop:
            raise ValueError("stop has an empty text in it, which would end every completion at once; take it out")

    def given(self) -> dict[str, Any]:
        """What was said, by the names that vLLM and its server know."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # Settings hold no control characters, and what ends a completion is often a line break.
        plain["stop"] = [text.replace("\\n", "\n") for text in self.stop] or None
        return {name: value for name, value in plain.items() if value is not None}
