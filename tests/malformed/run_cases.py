"""Run directories that were torn, changed by hand, belong to others or may not be written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.cli import main

from .harness import Case, Make, Place, RayStarts

Change = Callable[[Path], Any]
_PROBLEMS = "round-00/problems"
_RATIONALES = "round-00/rationales"


def begun(place: Place) -> list[str]:
    """A run whose stages up to the first fine-tuning are done, and the arguments that go on with it.

    The stages before it are done by the program itself but for the score of the base, which needs an engine:
    its manifest is put there as an engine that solves nothing would have left it.
    """
    arguments = ["run", place.experiment()]
    for _ in range(2):
        with pytest.raises(RayStarts):
            main(arguments)
        started = place.run / "base/score/started.json"
        manifest = json.loads(started.read_text()) | {
            "stage": "score", "round": None, "counts": {"rows": 0, "kept": 0, "rejected": {}, "failed": 0},
            "parts": [], "tokens": {}, "summary": {"accuracy": {}}, "seconds": 1.0,
        }  # fmt: skip
        (place.run / "base/score/manifest.json").write_text(json.dumps(manifest))
    assert (place.run / _RATIONALES / "manifest.json").is_file()
    assert (place.run / "round-00/finetune/started.json").is_file()
    return arguments


def again(change: Change, *overrides: str) -> Make:
    """The same command once more, after a change of the run directory."""

    def make(place: Place) -> Sequence[str]:
        arguments = begun(place)
        change(place.run)
        return [*arguments, *(part for text in overrides for part in ("--set", text))]

    return make


def looked_at(change: Change, command: str = "status") -> Make:
    """``status`` or ``report`` of a run, after a change of its directory."""

    def make(place: Place) -> Sequence[str]:
        begun(place)
        change(place.run)
        return [command, str(place.run)]

    return make


def cut(name: str, share: float = 0.5) -> Change:
    """Cut a file off after a share of its bytes."""

    def change(run: Path) -> None:
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: int(len(data) * share)])

    return change


def wrote(name: str, content: str | bytes) -> Change:
    """Put another content into a file."""
    return lambda run: (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def edited(name: str, **values: Any) -> Change:
    """Change values of a JSON file; None removes one."""

    def change(run: Path) -> None:
        content = json.loads((run / name).read_text()) | values
        (run / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def removed(name: str) -> Change:
    """Remove a file."""
    return lambda run: (run / name).unlink()


def read_only(name: str) -> Change:
    """Let nobody write to a folder; the rest of the run belongs to everybody."""

    def change(run: Path) -> None:
        for path in (run.parent, *run.rglob("*"), run):
            path.chmod(0o777)
        (run / name).chmod(0o555)

    return change


def _file_for_storage(place: Place) -> Sequence[str]:
    return ["run", place.experiment(storage=str(place.write("storage", "a file")))]


def _file_for_run(place: Place) -> Sequence[str]:
    place.write("runs/case", "a file")
    return ["run", place.experiment()]


def _file_for_stage(place: Place) -> Sequence[str]:
    place.write("runs/case/round-00/problems", "a file")
    return ["run", place.experiment()]


def _read_only_storage(place: Place) -> Sequence[str]:
    (place.folder / "runs").mkdir()
    return ["run", place.experiment()]


def _storage(url: str) -> Make:
    return lambda place: ["run", place.experiment(storage=url)]


_RESTORE = "remove it and run again"
_NAME = "--fork NEW_RUN"
_ANEW = "--from-stage problems:0"
_NEW = "use a new run directory"
_PLACE = "name another storage"

CASES = [
    # Another experiment under the same name.
    Case("another seed", again(lambda run: None, "seed=5"), 4, "with other settings: seed: 0 -> 5", _NAME),
    Case("another pool", again(lambda run: None, "pool.limit=5"), 4, "pool[0].limit: None -> 5", _NAME),
    Case("another student", again(lambda run: None, "student.model=tiny://teacher"), 4,
         "score of the base was done with other settings: student.model: 'tiny://student' -> 'tiny://teacher'", _NAME),
    Case("other prompts", again(lambda run: None, "prompts=default"), 4, "prompts: 'tiny@", _NAME),
    # Torn or foreign files.
    Case("a torn manifest", again(cut(f"{_PROBLEMS}/manifest.json")), 4, "problems/manifest.json is torn", _RESTORE),
    Case("an empty manifest", again(wrote(f"{_PROBLEMS}/manifest.json", "")), 4,
         "problems/manifest.json is torn", _RESTORE),
    Case("a manifest of zeros", again(wrote(f"{_PROBLEMS}/manifest.json", bytes(500))), 4,
         "is torn or not JSON", _RESTORE),
    Case("a manifest in UTF-16", again(wrote(f"{_PROBLEMS}/manifest.json", b"\xff\xfe{")), 4, "is torn or not JSON",
         _RESTORE),
    Case("a manifest that is a list", again(wrote(f"{_PROBLEMS}/manifest.json", "[]")), 4,
         "is no manifest of this", _NEW),
    Case("a manifest of another version", again(edited(f"{_PROBLEMS}/manifest.json", counts={"read": 3})), 4,
         "is no manifest of this version", _NEW),
    Case("a manifest without counts", again(edited(f"{_PROBLEMS}/manifest.json", counts=None)), 4,
         "is no manifest of this version", _NEW),
    Case("a torn manifest of the base", again(cut("base/score/manifest.json")), 4, "base/score/manifest.json is torn",
         _RESTORE),
    Case("a torn manifest of rationales", again(cut(f"{_RATIONALES}/manifest.json")), 4,
         "rationales/manifest.json is torn",
         _RESTORE),
    Case("a torn beginning", again(cut("round-00/finetune/started.json")), 4,
         "finetune/started.json is torn", _RESTORE),
    Case("a torn pool", again(cut(f"{_PROBLEMS}/pool.parquet")), 4, "pool.parquet is not what round 0 problems wrote",
         _ANEW),
    Case("an empty pool table", again(wrote(f"{_PROBLEMS}/pool.parquet", b"")), 4, "found 0 bytes", _ANEW),
    Case("a pool that is gone", again(removed(f"{_PROBLEMS}/pool.parquet")), 4, "pool.parquet", _ANEW),
    # Places.
    Case("storage that is a file", _file_for_storage, 4, "Not a directory", _PLACE),
    Case("a run that is a file", _file_for_run, 4, "Not a directory", _PLACE),
    Case("a stage that is a file", _file_for_stage, 4, "Not a directory", _PLACE),
    Case("storage that may not be written", _read_only_storage, 4, "Permission denied", _PLACE, unprivileged=True),
    Case("a ledger that may not be written", again(read_only("ledger")), 4,
         "Permission denied", _PLACE, unprivileged=True),
    Case("a stage that may not be written", again(read_only("round-00/finetune")), 4, "Permission denied", _PLACE,
         unprivileged=True),
    Case("a run that may not be read", again(lambda run: run.chmod(0)), 4,
         "Permission denied", _PLACE, unprivileged=True),
    # Looking at a run.
    Case("status of nothing", lambda _: ["status", "none"], 4, "there is no run at", "give the folder of a run"),
    Case("status of a file", lambda place: ["status", place.experiment()], 4, "there is no run at", "give the folder"),
    Case("status of all runs", lambda place: [begun(place), "status", str(place.run.parent)][1:], 4,
         "there is no run at",
         "give the folder of a run"),
    Case("report of nothing", lambda _: ["report", "none"], 4, "there is no run at", "give the folder of a run"),
    Case("status with a torn manifest", looked_at(cut(f"{_PROBLEMS}/manifest.json")), 4,
         "problems/manifest.json is torn",
         _RESTORE),
    Case("report with a torn manifest", looked_at(cut(f"{_RATIONALES}/manifest.json"), "report"), 4,
         "is torn", _RESTORE),
    Case("status with a foreign manifest", looked_at(wrote("base/score/manifest.json", '{"a": 1}')), 4,
         "base/score/manifest.json is no manifest of this version", _NEW),
    Case("status without accuracy", looked_at(edited("base/score/manifest.json", summary={})), 4,
         "base/score/manifest.json", _NEW),
    # Half-done stages, and parts that stages need.
    Case("storage at an unknown URL", _storage("nosuch://bucket/runs"), 4, "Protocol not known: nosuch",
         "name a folder, or a URL"),
    Case("status of nowhere", lambda _: ["status", "nosuch://x"], 4, "Protocol not known: nosuch",
         "name a folder, or a URL"),
    Case("a beginning of a list", again(wrote("round-00/finetune/started.json", "[]")), 4,
         "started.json does not say", "--from-stage"),
    Case("a beginning without its inputs", again(wrote("round-00/finetune/started.json", "{}")), 4,
         "started.json does not say", "--from-stage"),
    Case("a part that is gone", again(lambda run: [p.unlink() for p in (run / _RATIONALES).glob("part-*.parquet")]), 4,
         "is not what round 0 rationales wrote", "--from-stage rationales:0"),
    Case("a torn part",
         again(lambda run: [p.write_bytes(b"PAR1") for p in (run / _RATIONALES).glob("part-*.parquet")]), 4,
         "is not what round 0 rationales wrote", "--from-stage rationales:0"),
    # Values that no driver writes.
    Case("counts of words", looked_at(edited(f"{_RATIONALES}/manifest.json", counts={"rows": "x"})), 4,
         "rationales/manifest.json is no manifest of this version ('rows' in counts is 'x'", _NEW),
    Case("counts below nothing", looked_at(edited(f"{_RATIONALES}/manifest.json", counts={"rejected": {"a": -1}})), 4,
         "'a' in counts is -1, not a number of rows", _NEW),
    Case("settings of numbers in a manifest", again(edited(f"{_PROBLEMS}/manifest.json", depends_on=3)), 4,
         "problems/manifest.json is no manifest of this version (depends_on is 3, not a mapping)", _NEW),
    Case("parts of numbers in a manifest", again(edited(f"{_RATIONALES}/manifest.json", parts=[1])), 4,
         "rationales/manifest.json is no manifest of this version (parts is [1]", _NEW),
    Case("an event that is no event", looked_at(wrote("ledger/x.jsonl", '{"time": "noon"}\n')), 4,
         "ledger/x.jsonl:1: this is no event of this version", "remove the line"),
    Case("an event that counts words",
         looked_at(wrote("ledger/x.jsonl", '{"time": 1, "event": "part written", "rows": "\\u001b[2J"}\n')), 4,
         "ledger/x.jsonl:1: this is no event of this version", "remove the line"),
]  # fmt: skip
