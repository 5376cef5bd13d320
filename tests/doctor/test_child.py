"""Work in a process of its own: answers, errors, deaths and deadlines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fdd_ray.doctor.child import ask
from fdd_ray.errors import EngineError, ProblemsError

HERE = "tests.doctor.test_child"


def echo(question: Any) -> Any:
    print("words for nobody")
    return {"said": question, "variable": os.environ.get("DOCTOR_CHILD")}


def refuse(question: Any) -> Any:
    raise ProblemsError("cannot read x; bring it")


def crash(question: Any) -> Any:
    raise KeyError("odd")


def die(question: Any) -> Any:
    print("last words", flush=True)
    os.abort()


def hang(question: Any) -> Any:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(question).write_text(str(process.pid))
    time.sleep(600)


def test_one_whose_asker_is_killed_ends_too(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"from fdd_ray.doctor.child import ask; ask('{HERE}:hang', {str(note)!r}, 600)"
    with subprocess.Popen([sys.executable, "-c", code]) as asker:
        assert _within(60, lambda: note.exists() and bool(note.read_text()))
        asker.kill()
    pid = int(note.read_text())
    assert _within(20, lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.1)
    return now


def test_an_answer_comes_back() -> None:
    told = ask(f"{HERE}:echo", {"a": [1, None, "x"]}, 60, {"DOCTOR_CHILD": "yes"})
    assert told == {"said": {"a": [1, None, "x"]}, "variable": "yes"}


def test_errors_come_back_as_what_they_are() -> None:
    with pytest.raises(ProblemsError, match=r"cannot read x; bring it"):
        ask(f"{HERE}:refuse", None, 60)
    with pytest.raises(RuntimeError, match="KeyError: 'odd'"):
        ask(f"{HERE}:crash", None, 60)


def test_a_process_that_dies_is_told_of() -> None:
    with pytest.raises(EngineError, match=r"ended with -6 and without an answer.*last words"):
        ask(f"{HERE}:die", None, 60)


def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(EngineError, match="no answer within 5 s"):
        ask(f"{HERE}:hang", str(note), 5)
    assert time.monotonic() - began < 30
    pid = int(note.read_text())
    assert _within(10, lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
