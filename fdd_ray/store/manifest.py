"""What is written down about a stage: its account of rows, its cost, its files, and what it depends on.

    manifest = read_manifest("runs/tiny", 0, "rationales")
    manifest.counts.kept, manifest.outputs, manifest.usage.gpu_seconds

A manifest is written last, so that there is one exactly where a stage is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.settings import changed_keys
from fdd_ray.store import files

EXPERIMENT = "experiment.yaml"
MANIFEST = "manifest.json"
STARTED = "started.json"
BASE = "base"


@dataclasses.dataclass(frozen=True)
class Counts:
    """What became of the rows that a stage read: ``rows == kept + sum(rejected) + failed``."""

    rows: int = 0
    kept: int = 0
    rejected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failed: int = 0

    @property
    def reasons(self) -> str:
        """What was rejected, by reason, the most frequent first, as text."""
        ordered = sorted(self.rejected.items(), key=lambda item: -item[1])
        return ", ".join(f"{reason} {n}" for reason, n in ordered) or "none"

    def check(self, where: str) -> None:
        """Raise unless every row is accounted for."""
        total = self.kept + sum(self.rejected.values()) + self.failed
        if total != self.rows:
            raise StoreError(
                f"{where}: {self.rows} rows went in, but {self.kept} kept + {sum(self.rejected.values())} rejected"
                f" + {self.failed} failed = {total}; rows were lost or doubled, do not use this stage's output"
            )


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a stage cost.

    Attributes:
        tokens: ``prompt`` and ``completion`` tokens by name of the model.
        engine_seconds: Seconds of engines reserved, summed over replicas.
        cpu_seconds: Seconds of CPUs reserved by engines and trainers, summed over CPUs.
        gpu_seconds: Seconds of GPUs reserved, summed over GPUs.
        money: In the currency of the prices that the experiment gives; 0 where it gives none.
    """

    tokens: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    engine_seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    money: float = 0.0


@dataclasses.dataclass(frozen=True)
class StageResult:
    """What a stage hands to its manifest.

    Attributes:
        counts: The accounting of its rows.
        parts: File names of its main output, relative to the stage's folder.
        tokens: Prompt and completion tokens by role (``teacher``, ``student``).
        summary: Anything else worth keeping; plain JSON values.
        usage: What it cost, if it knows more than its tokens.
    """

    counts: Counts
    parts: tuple[str, ...] = ()
    tokens: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    usage: Usage | None = None


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file of a finished stage as it was when the stage finished.

    Attributes:
        bytes: Its size.
        hash: blake2b of its content in hex; empty for files too large to be read again cheaply.
        rows: Of a Parquet file; otherwise None.
    """

    bytes: int
    hash: str = ""
    rows: int | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A finished stage, as its manifest tells it; ``forked_from`` is the run it was copied from, if it was."""

    stage: str
    round: int | None
    path: str
    fingerprint: str
    depends_on: Mapping[str, Any]
    counts: Counts
    parts: tuple[str, ...]
    tokens: Mapping[str, Mapping[str, int]]
    summary: Mapping[str, Any]
    seconds: float
    reused: bool = False
    usage: Usage | None = None
    files: Mapping[str, FileRecord] = dataclasses.field(default_factory=dict)
    begun: float = 0.0
    forked_from: str = ""

    @property
    def label(self) -> str:
        """How the stage is called in progress lines and messages."""
        return stage_label(self.stage, self.round)

    @property
    def outputs(self) -> list[str]:
        """Full paths of the stage's parts."""
        return [files.join(self.path, name) for name in self.parts]


@dataclasses.dataclass(frozen=True)
class Started:
    """What a stage was begun with, and when (seconds since 1970)."""

    depends_on: Mapping[str, Any]
    begun: float = 0.0


def stage_label(stage: str, round: int | None) -> str:
    """How a stage is called in progress lines and messages."""
    return f"{stage} of the base" if round is None else f"round {round} {stage}"


def stage_argument(stage: str, round: int | None) -> str:
    """How a stage is named on the command line: ``rationales:0``, ``score:base``."""
    return f"{stage}:{BASE if round is None else round}"


def round_name(round: int | None) -> str:
    """The folder of a round; None means the base student."""
    return BASE if round is None else f"round-{round:02d}"


def read_manifest(directory: str, round: int | None, stage: str) -> Manifest | None:
    """The manifest of a finished stage, or None."""
    folder = files.join(directory, round_name(round), stage)
    content = files.read_json(files.join(folder, MANIFEST))
    return None if content is None else to_manifest(folder, content, reused=True)


def read_started(folder: str) -> Started | None:
    """What the stage in this folder was begun with, or None.

    Raises:
        StoreError: If ``started.json`` is torn or not ours.
    """
    path = files.join(folder, STARTED)
    content = files.read_json(path)
    if content is None:
        return None
    try:
        return Started(dict(content["depends_on"]), float(content.get("begun", 0.0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{path} does not say what the stage was begun with ({error}); restore it, or set the stage aside with"
            " fdd-ray run ... --from-stage STAGE"
        ) from error


@dataclasses.dataclass(frozen=True)
class Found:
    """A stage that was begun in a run directory; ``manifest`` is None while it is not done."""

    stage: str
    round: int | None
    path: str
    manifest: Manifest | None
    started: Started | None

    @property
    def argument(self) -> str:
        """How it is named on the command line."""
        return stage_argument(self.stage, self.round)

    @property
    def begun(self) -> float:
        """When it was begun, in seconds since 1970."""
        return self.manifest.begun if self.manifest else self.started.begun if self.started else 0.0

    @property
    def depends_on(self) -> Mapping[str, Any]:
        """Settings, seed and inputs that it is a function of."""
        known = self.manifest or self.started
        return known.depends_on if known else {}


def find_stages(directory: str) -> list[Found]:
    """Every stage that was begun in a run directory, in the order in which they were begun."""
    found = []
    for name in files.list_names(directory):
        round = int(name[6:]) if name.startswith("round-") and name[6:].isdecimal() else None
        if round is None and name != BASE:
            continue
        for stage in files.list_names(files.join(directory, name)):
            path = files.join(directory, name, stage)
            manifest, started = read_manifest(directory, round, stage), read_started(path)
            if manifest is not None or started is not None:
                found.append(Found(stage, round, path, manifest, started))
    return sorted(found, key=lambda item: (item.begun, item.round or 0))


def to_manifest(folder: str, content: Mapping[str, Any], reused: bool = False) -> Manifest:
    """A manifest from the content of its file.

    Raises:
        StoreError: If something is missing in it.
    """
    try:
        usage = content.get("usage")
        return Manifest(
            stage=content["stage"],
            round=content["round"],
            path=folder,
            fingerprint=str(content["fingerprint"]),
            depends_on=_mapping(content, "depends_on"),
            counts=_counts(_mapping(content, "counts")),
            parts=_names(content, "parts"),
            tokens=_mapping(content, "tokens"),
            summary=_mapping(content, "summary"),
            seconds=float(content["seconds"]),
            reused=reused,
            usage=None if usage is None else Usage(**usage),
            files={name: FileRecord(**record) for name, record in content.get("files", {}).items()},
            begun=float(content.get("begun", 0.0)),
            forked_from=str(content.get("forked_from", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{files.join(folder, MANIFEST)} is no manifest of this version ({error}); restore it, set the stage aside"
            " with fdd-ray run ... --from-stage STAGE, or use a new run directory"
        ) from error


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content[key]
    if not isinstance(value, dict):
        raise TypeError(f"{key} is {_shown(value)}, not a mapping")
    return value


def _names(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = content[key]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{key} is {_shown(value)}, not a list of file names")
    return tuple(value)


def _counts(content: Mapping[str, Any]) -> Counts:
    counts = Counts(**content)
    rejected = _mapping(dict(content, rejected=counts.rejected), "rejected")
    numbers = {"rows": counts.rows, "kept": counts.kept, "failed": counts.failed, **rejected}
    for name, number in numbers.items():
        if type(number) is not int or number < 0:
            raise TypeError(f"{_shown(name)} in counts is {_shown(number)}, not a number of rows")
    return counts


def _shown(value: Any) -> str:
    """A value of a file that anyone may have written, short and without control characters."""
    return ascii(value)[:60]


def fingerprint(stage: str, round: int | None, depends_on: Mapping[str, Any]) -> str:
    """A hash of all that a stage is a function of."""
    text = json.dumps([stage, round, depends_on], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def refuse_changes(done: Manifest | Started, depends_on: Mapping[str, Any], stage: str, round: int | None) -> None:
    """Raise, naming the settings, if a stage was done or begun with others.

    Raises:
        StoreError: With the ways on: the old settings, the stage anew, or a fork.
    """
    changes = changed_keys(done.depends_on, depends_on)
    if changes:
        word = "done" if isinstance(done, Manifest) else "begun"
        raise StoreError(
            f"{stage_label(stage, round)} was {word} with other settings: {'; '.join(changes[:5])}"
            f"{f' and {len(changes) - 5} more' if len(changes) > 5 else ''}."
            f" Put them back; or do this stage and all later ones anew with --from-stage {stage_argument(stage, round)}"
            " (what is there is set aside, not deleted); or keep this run as it is and go on in another one with"
            " --fork NEW_RUN"
        )


def count_outcomes(tally: Mapping[tuple[str, str], int]) -> Counts:
    """The account of rows that were counted by (outcome, reason)."""
    return Counts(
        rows=sum(tally.values()),
        kept=sum(n for (outcome, _), n in tally.items() if outcome == "kept"),
        rejected=dict(sorted((reason, n) for (outcome, reason), n in tally.items() if outcome == "rejected")),
        failed=sum(n for (outcome, _), n in tally.items() if outcome == "failed"),
    )


def merge_counts(parts: list[Counts]) -> Counts:
    """The sum of several accounts."""
    rejected: Counter[str] = Counter()
    for part in parts:
        rejected.update(part.rejected)
    return Counts(
        sum(part.rows for part in parts),
        sum(part.kept for part in parts),
        dict(sorted(rejected.items())),
        sum(part.failed for part in parts),
    )
