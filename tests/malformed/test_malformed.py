"""Malformed inputs of every kind: one clear error with the next step, and nothing lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fdd_ray.cli import main

from . import command_cases, layered_cases, model_cases, parquet_cases, row_cases, run_cases, yaml_cases
from .harness import Case, Place, RayStarts, check

_KINDS = (yaml_cases, layered_cases, row_cases, parquet_cases, model_cases, run_cases, command_cases)
CASES = [case for kind in _KINDS for case in kind.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_malformed_input(case: Case, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    before = _ray_is_up()  # of other tests
    check(case, place, capsys)
    assert _ray_is_up() == before
    assert not (place.folder / "owned").exists()


def test_the_experiment_that_is_spoiled_is_a_good_one(place: Place) -> None:
    with pytest.raises(RayStarts):
        main(["run", place.experiment()])


def test_every_case_is_another_one() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(CASES) >= 400


def test_a_path_that_is_no_text_is_named_by_the_program_itself(place: Place) -> None:
    command = [sys.executable, "-m", "fdd_ray.cli", "run", b"caf\xe9.yaml"]
    done = subprocess.run(command, capture_output=True, cwd=place.folder)
    assert done.returncode == 2
    assert done.stderr.startswith(b"fdd-ray: cannot read the experiment caf\\udce9.yaml: No such file")
    assert b"Traceback" not in done.stderr


def _ray_is_up() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
