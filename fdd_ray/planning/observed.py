"""What the finished stages of a run tell about those to come: tokens of a row, shares that are kept, speeds.

seen = Observed(find_stages("runs/tiny"), experiment)
seen.completion("rationales")     # completion tokens of one sample, or None if that stage is not done
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from fdd_ray.experiment import Experiment
from fdd_ray.planning.ranges import Range
from fdd_ray.store.manifest import Found, Manifest

_PROMPT_WEIGHT = 0.1


@dataclasses.dataclass(frozen=True)
class PerRow:
    """Tokens of one row of a stage."""

    prompt: float
    completion: float


class Observed:
    """The latest finished stage of each kind.

    Args:
        stages: The stages of the run that were begun.
        experiment: Its settings.
    """

    def __init__(self, stages: Sequence[Found], experiment: Experiment) -> None:
        self.stages: Mapping[tuple[str, int | None], Found] = {(item.stage, item.round): item for item in stages}
        self._experiment = experiment
        self._latest: dict[str, Manifest] = {}
        for item in sorted(stages, key=lambda item: -1 if item.round is None else item.round):
            if item.manifest is not None:
                self._latest["base score" if item.round is None else item.stage] = item.manifest

    def done(self, stage: str, round: int | None) -> Manifest | None:
        """The manifest of a stage that is finished."""
        item = self.stages.get((stage, round))
        return item.manifest if item is not None else None

    def latest(self, stage: str) -> Manifest | None:
        """The manifest of the latest finished stage of a kind; the base's scoring is ``base score``."""
        return self._latest.get(stage)

    def tokens(self, stage: str) -> PerRow | None:
        """Tokens of a row of the latest stage of a kind."""
        manifest = self._latest.get(stage)
        if manifest is None or not manifest.counts.rows or not manifest.tokens:
            return None
        prompt = sum(int(counts.get("prompt", 0)) for counts in manifest.tokens.values())
        completion = sum(int(counts.get("completion", 0)) for counts in manifest.tokens.values())
        return PerRow(prompt / manifest.counts.rows, completion / manifest.counts.rows)

    def kept(self, stage: str) -> float | None:
        """The share of rows that the latest stage of a kind kept."""
        manifest = self._latest.get(stage)
        return manifest.counts.kept / manifest.counts.rows if manifest is not None and manifest.counts.rows else None

    def example_tokens(self) -> float | None:
        """Tokens of an example of the latest fine-tuning."""
        manifest = self._latest.get("finetune")
        if manifest is None:
            return None
        seen = float(manifest.summary.get("examples", 0)) * float(manifest.summary.get("epochs", 0))
        return float(manifest.summary["tokens"]) / seen if seen else None

    def stage_seconds(self, kinds: Sequence[str], prompt: Range, completion: Range) -> Range | None:
        """Wall-clock seconds of a stage with these tokens, at the pace of the latest one of its kinds."""
        for kind in kinds:
            manifest, tokens = self._latest.get(kind), self.tokens(kind)
            if manifest is None or tokens is None or not manifest.seconds:
                continue
            work = (tokens.completion + _PROMPT_WEIGHT * tokens.prompt) * manifest.counts.rows
            return (completion + prompt * _PROMPT_WEIGHT) * Range.about(manifest.seconds / work, 1.7)
        return None

    def training_seconds(self, tokens: Range) -> Range | None:
        """Wall-clock seconds of a fine-tuning on so many tokens, at the pace of the latest one."""
        manifest = self._latest.get("finetune")
        if manifest is None or not manifest.summary.get("tokens"):
            return None
        steps, whole = float(manifest.summary["seconds"]), manifest.seconds
        pace = Range.about(steps / float(manifest.summary["tokens"]), 1.5)
        return tokens * pace + Range.about(max(whole - steps, 1.0), 1.5)
