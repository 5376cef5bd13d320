"""Work that is done aside, in a process of its own."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest

from fdd_ray.errors import ProblemsError, StageError
from fdd_ray.flow import aside

pytestmark = pytest.mark.cluster


def _where(number: int, *, more: int = 0) -> tuple[int, int]:
    return os.getpid(), number + more


def _refuse(what: str) -> None:
    raise ProblemsError(what) if what == "ours" else KeyError(what)


def _die_once(mark: str) -> str:
    if not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "there"


def test_it_runs_elsewhere_and_comes_back(ray_local: None) -> None:
    ticks: list[int] = []
    pid, number = aside(functools.partial(_where, more=2), 40, label="split", tick=lambda: ticks.append(1))
    assert pid != os.getpid() and number == 42


def test_what_it_raises_is_raised_here(ray_local: None) -> None:
    with pytest.raises(ProblemsError, match=r"^ours$"):
        aside(_refuse, "ours", label="round 1 split")
    with pytest.raises(StageError, match=r"round 1 split.*KeyError"):
        aside(_refuse, "theirs", label="round 1 split")


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(ray_local: None, tmp_path: Path) -> None:
    assert aside(_die_once, str(tmp_path / "mark"), label="split") == "there"
