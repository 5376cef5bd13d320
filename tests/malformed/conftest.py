"""A folder for each case that other users can enter, and a Ray that must not start."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import fdd_ray.comparison
import fdd_ray.evaluation
import fdd_ray.resources
from fdd_ray.cli import main

from .harness import Place, RayStarts


def _refuse(*_: object) -> None:
    raise RayStarts


@pytest.fixture(scope="session")
def all_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a run imports on its way is imported: the user of an unprivileged case may not be able to."""
    place = Place(tmp_path_factory.mktemp("good"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fdd_ray.resources, "ray_session", _refuse)
        with pytest.raises(RayStarts):
            main(["run", place.experiment(student={"model": str(place.model())})])
    assert main(["status", str(place.run)]) == 0


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, all_is_imported: None) -> Iterator[Place]:
    """An empty folder, the current one; ``RayStarts`` is raised where Ray would be started."""
    for module in (fdd_ray.resources, fdd_ray.comparison, fdd_ray.evaluation):
        monkeypatch.setattr(module, "ray_session", _refuse)
    folder = Path(tempfile.mkdtemp(prefix="malformed-"))
    folder.chmod(0o777)
    monkeypatch.chdir(folder)
    yield Place(folder)
    shutil.rmtree(folder)
