"""What a live view shows: a run at one moment, as plain values.

View("tiny", "/runs/tiny", stages=(StageView("problems", 0, "done", 1.2, "300 of 310 kept"),))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal

from fdd_ray.progress import Standing
from fdd_ray.store.manifest import Manifest

StageState = Literal["to come", "working", "done", "skipped", "copied", "stopped"]
RunState = Literal["at work", "finished", "failed", "interrupted", "killed"]
DONE: Final = ("done", "skipped", "copied")
# A wait is called unusual when it is this many times the longest before it in the same stage, and not short.
UNUSUAL: Final = 3.0
SHORT_S: Final = 30.0
_POOL: Final = "pool"


@dataclasses.dataclass(frozen=True)
class StageView:
    """One stage.

    Attributes:
        stage: Its name.
        round: Its round; None for the base student.
        state: ``skipped`` was done before this process began, ``copied`` in another run.
        seconds: What it took, or how long it has been at work; None if that is not known.
        note: What came of it, in words.
        kept: Rows kept of a finished stage.
        rows: Rows that it read.
        scores: Accuracy by benchmark, from 0 to 1.
        standing: How far it is, while it is at work.
    """

    stage: str
    round: int | None
    state: StageState = "to come"
    seconds: float | None = None
    note: str = ""
    kept: int = 0
    rows: int = 0
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    standing: Standing | None = None


@dataclasses.dataclass(frozen=True)
class View:
    """One run.

    Attributes:
        name: What the run is called.
        directory: Its folder.
        state: Whether it is at work, or how it ended.
        seconds: Since this process, or the run's driver, began.
        stages: All of them, those to come included, by round.
        tokens: (prompt, completion) tokens by role, over the whole run.
        money: What it cost, by the prices it was given; 0 where there are none.
        quiet_s: Seconds since something last finished; None if that is not known.
        longest_s: The longest such wait before, in the stage at work; None if nothing has finished in it.
    """

    name: str
    directory: str
    state: RunState = "at work"
    seconds: float = 0.0
    stages: tuple[StageView, ...] = ()
    tokens: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    money: float = 0.0
    quiet_s: float | None = None
    longest_s: float | None = None

    def later(self, seconds: float) -> View:
        """The view after these seconds, if nothing happened in them."""
        stages = [
            dataclasses.replace(stage, seconds=stage.seconds + seconds)
            if stage.state == "working" and stage.seconds is not None
            else stage
            for stage in self.stages
        ]
        quiet = None if self.quiet_s is None else self.quiet_s + seconds
        return dataclasses.replace(self, seconds=self.seconds + seconds, quiet_s=quiet, stages=tuple(stages))

    @property
    def unusual(self) -> bool:
        """Whether nothing finished for longer than it ever took in this stage."""
        quiet, longest = self.quiet_s, self.longest_s
        return quiet is not None and longest is not None and quiet > max(SHORT_S, UNUSUAL * longest)


def planned(rounds: int) -> tuple[StageView, ...]:
    """The stages of a run of this many rounds, all to come; `fdd_ray.loop` does them in about this order."""
    first = ("problems", "rationales", "finetune", "score")
    later = ("split", "synthesise", "curate", "finetune", "score")
    seed = (StageView("score", None), *(StageView(name, 0) for name in first))
    return (*seed, *(StageView(name, number) for number in range(1, rounds + 1) for name in later))


# An evaluation on its own.
EVALUATION: Final = (StageView("problems", 0), StageView("score", None))


def done_view(manifest: Manifest) -> StageView:
    """A finished stage."""
    scores = _scores(manifest.summary) if manifest.stage == "score" else {}
    state: StageState = "copied" if manifest.forked_from else "skipped" if manifest.reused else "done"
    counts = manifest.counts
    return StageView(
        manifest.stage, manifest.round, state, manifest.seconds, _note(manifest), counts.kept, counts.rows, scores
    )


def _note(manifest: Manifest) -> str:
    counts, summary = manifest.counts, manifest.summary
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    if manifest.stage == "split" and {"easy", "hard"} <= summary.keys():
        return f"{summary['easy']} easy, {summary['hard']} hard"
    if manifest.stage == "finetune":
        return f"{counts.kept:,} examples"
    if manifest.stage == "score":
        return f"{counts.rows:,} problems{failed}"
    return f"{counts.kept:,} of {counts.rows:,} kept{failed}"


def _scores(summary: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy by benchmark; what does not look like it (the file may be anyone's) is left out."""
    found = summary.get("accuracy")
    items = found.items() if isinstance(found, Mapping) else ()
    values = {name: entry.get("value") for name, entry in items if name != _POOL and isinstance(entry, Mapping)}
    return {str(name): float(value) for name, value in values.items() if isinstance(value, (int, float))}
