"""What two models made of the same problems: the attempts of a score stage, and their paired difference.

before = read_attempts("runs/tiny/base/score")
after = read_attempts("runs/tiny/round-01/score")
compare(before, after)["gsm8k"].paired.difference
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fdd_ray.errors import StoreError
from fdd_ray.records import Attempt, schema_of, stable_seed
from fdd_ray.stages.score import POOL
from fdd_ray.statistics import PairedDifference, paired_bootstrap
from fdd_ray.store import files
from fdd_ray.store.manifest import MANIFEST, to_manifest

_COLUMNS = ("subject", "problem_id", "gold", "pass_rate")


class Tried(NamedTuple):
    """How one problem went: its known answer, and the pass rate (right attempts / attempts)."""

    gold: str
    pass_rate: float


# By benchmark, then by problem id.
Attempts = Mapping[str, Mapping[str, Tried]]


class Difference(NamedTuple):
    """A paired difference, and how many problems only one of the two was asked (or with another answer)."""

    paired: PairedDifference
    unpaired: int

    def as_plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**self.paired._asdict(), "unpaired": self.unpaired}


def read_attempts(folder: str) -> dict[str, dict[str, Tried]]:
    """The attempts at benchmarks in the folder of a finished score stage.

    Raises:
        StoreError: If the stage is not finished, or its files were changed.
    """
    content = files.read_json(files.join(folder, MANIFEST))
    if content is None:
        raise StoreError(f"{folder} is no finished score stage: it has no {MANIFEST}; run its experiment to its end")
    manifest = to_manifest(folder, content)
    found: dict[str, dict[str, Tried]] = {}
    for row in files.read_tables(manifest.outputs, schema_of(Attempt), _COLUMNS).to_pylist():
        if row["subject"] != POOL:
            found.setdefault(row["subject"], {})[row["problem_id"]] = Tried(row["gold"], row["pass_rate"])
    return found


def compare(before: Attempts, after: Attempts) -> dict[str, Difference]:
    """The difference on each benchmark that both were asked, over the problems they share; sorted by name."""
    found = {}
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        shared = sorted(problem for problem in old.keys() & new.keys() if old[problem].gold == new[problem].gold)
        if shared:
            paired = paired_bootstrap(
                [old[problem].pass_rate for problem in shared],
                [new[problem].pass_rate for problem in shared],
                seed=stable_seed("bootstrap", name),
            )
            found[name] = Difference(paired, len(old.keys() | new.keys()) - len(shared))
    return found
