"""Work that is done aside, in a process of its own."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import pytest

from fdd_ray.errors import ProblemsError, StageError
from fdd_ray.flow import aside

pytestmark = pytest.mark.cluster
_DEADLINE_S = 120.0


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
    pid, number = aside(functools.partial(_where, more=2), 40, label="split", deadline_s=_DEADLINE_S)
    assert pid != os.getpid() and number == 42


def test_what_it_raises_is_raised_here(ray_local: None) -> None:
    with pytest.raises(ProblemsError, match=r"^ours$"):
        aside(_refuse, "ours", label="round 1 split", deadline_s=_DEADLINE_S)
    with pytest.raises(StageError, match=r"round 1 split.*KeyError"):
        aside(_refuse, "theirs", label="round 1 split", deadline_s=_DEADLINE_S)


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(ray_local: None, tmp_path: Path) -> None:
    assert aside(_die_once, str(tmp_path / "mark"), label="split", deadline_s=_DEADLINE_S) == "there"


def test_what_takes_too_long_is_ended(ray_local: None) -> None:
    with pytest.raises(StageError, match=r"round 1 split: not finished after 1 s .*flow\.stall_deadline_s"):
        aside(time.sleep, 600, label="round 1 split", deadline_s=1.0)
