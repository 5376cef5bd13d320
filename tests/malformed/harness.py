"""One malformed input, given to the command line as a user would, and what must be said about it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from fdd_ray.cli import main
from fdd_ray.tiny import model_path

GOOD_ROWS = [{"question": f"Ann has {n} apples and buys 2. How many?", "answer": f"{n} + 2.\n#### {n + 2}"}
             for n in range(1, 31)]  # fmt: skip
_NOBODY = 65534
_MOST_CHARACTERS = 1500
_MOST_SECONDS = 10.0  # far more than any case takes; a bomb that goes off takes for ever
# What a run that was refused may add to its directory: that it was begun, and with what.
_MAY_APPEAR = ("experiment.yaml", "started.json", "pool-rejections.parquet")
_MAY_GROW = ("/ledger/",)
_LEASE = "/lease/"  # who works on the run just now: no result, and taken over by the next driver


class RayStarts(BaseException):
    """Raised in place of starting Ray; no handler of ours catches it."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder of a test's own, with what cases are made of."""

    folder: Path

    @property
    def run(self) -> Path:
        """The run directory of `experiment`."""
        return self.folder / "runs" / "case"

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def rows(self, name: str = "pool.jsonl", rows: Sequence[Any] = GOOD_ROWS) -> Path:
        """A JSONL file of problems as GSM8K has them; they are good unless others are given."""
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def settings(self, **changes: Any) -> dict[str, Any]:
        """An experiment that needs nothing but the student; with the defaults it is a good one."""
        return {
            "name": "case",
            "storage": str(self.folder / "runs"),
            "rounds": 0,
            "kind": "chain",
            "rationales": "from_dataset",
            "prompts": "tiny",
            "pool": {"format": "gsm8k", "path": str(self.folder / "pool.jsonl")},
            "benchmarks": {},
            "student": {"model": "tiny://student"},
            "teach": {"min_kept": 1},
        } | changes

    def experiment(self, **changes: Any) -> str:
        """The path of an experiment file with ``changes``; the pool is written too unless it exists."""
        if not (self.folder / "pool.jsonl").exists():
            self.rows()
        return str(self.write("x.yaml", yaml.safe_dump(self.settings(**changes), sort_keys=False)))

    def model(self, name: str = "model") -> Path:
        """A good model folder: a copy of the tiny student."""
        return Path(shutil.copytree(model_path("student"), self.folder / name))


Make = Callable[[Place], Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A malformed input.

    Attributes:
        name: What is wrong with it; the name of its test.
        make: Writes it and returns the arguments of ``fdd-ray``.
        code: The exit code.
        wrong: Part of the message that says what is wrong, and where.
        todo: Part of the message that says what to do.
        unprivileged: Run as a user who may not read everything.
    """

    name: str
    make: Make
    code: int
    wrong: str
    todo: str
    unprivileged: bool = False


def check(case: Case, place: Place, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a case, check everything that holds for all of them, and return the message."""
    arguments = list(case.make(place))
    before = contents(place.folder)
    capsys.readouterr()
    begun = time.monotonic()
    with nobody() if case.unprivileged else as_is():
        code = main(arguments)
    seconds = time.monotonic() - begun
    said = capsys.readouterr()
    message = said.err
    assert code == case.code, message
    assert message.startswith("fdd-ray: ") or "\nfdd-ray: " in message
    assert "Traceback" not in said.out + message
    assert len(message) < _MOST_CHARACTERS, f"{len(message)} characters"
    assert case.wrong in message, message
    assert case.todo in message, message
    assert all(line.isprintable() for line in message.splitlines()), "control characters reach the terminal"
    assert seconds < _MOST_SECONDS
    after = contents(place.folder)
    assert {name: after.get(name) for name in before} == before, "something was lost or changed"
    for name in after.keys() - before.keys():
        allowed = name.endswith(_MAY_APPEAR) or any(part in name for part in _MAY_GROW)
        assert allowed, f"{name} was left behind"
    return message


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder; a link counts as where it points to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if _LEASE in str(path):
            continue
        if path.is_symlink():
            found[str(path)] = os.readlink(path).encode()
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


@contextmanager
def as_is() -> Iterator[None]:
    """No change of user."""
    yield


@contextmanager
def nobody() -> Iterator[None]:
    """Give up the rights of root, who may read everything; other users keep their own."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
