from __future__ import annotations

import os
import time
from pathlib import Path

import fsspec
import pytest

from fdd_ray.errors import StoreError
from fdd_ray.store import fetch
from fdd_ray.store.fetch import fetch_folder

URL = "memory://models/student"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fetch.tempfile, "gettempdir", lambda: str(tmp_path))
    store = fsspec.filesystem("memory")
    store.pipe_file("/models/student/config.json", b"{}")
    store.pipe_file("/models/student/deep/weights.safetensors", b"one")
    return tmp_path / f"fdd_ray-{os.getuid()}" / "folders"


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    assert fetch_folder(str(tmp_path)) == str(tmp_path)


def test_a_folder_is_fetched_once_and_anew_when_it_changed(cache: Path) -> None:
    first = fetch_folder(URL)
    assert Path(first, "config.json").read_bytes() == b"{}"
    assert Path(first, "deep", "weights.safetensors").read_bytes() == b"one"
    Path(first, "mark").touch()
    assert fetch_folder(URL) == first and Path(first, "mark").exists()
    time.sleep(0.01)
    fsspec.filesystem("memory").pipe_file("/models/student/deep/weights.safetensors", b"two")
    second = fetch_folder(URL)
    assert second != first and Path(second, "deep", "weights.safetensors").read_bytes() == b"two"
    assert not list(cache.glob("*.part"))


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match="nothing at memory://models/none"):
        fetch_folder("memory://models/none")


def test_a_fetch_that_is_cut_off_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    monkeypatch.setattr(type(store), "get_file", lambda self, name, target: Path(target).write_bytes(b""))
    with pytest.raises(StoreError, match="was cut off"):
        fetch_folder(URL)
    assert list(cache.iterdir()) == []


def test_only_a_few_old_folders_are_kept(cache: Path) -> None:
    fetch_folder(URL)
    for number in range(8):
        old = cache / str(number)
        old.mkdir()
        os.utime(old, (number, number))
    fsspec.filesystem("memory").pipe_file("/models/student/config.json", b"[]")
    fresh = fetch_folder(URL)
    left = {place.name for place in cache.iterdir()}
    assert Path(fresh).name in left and len(left) == 4


def test_a_cache_that_others_can_write_to_is_refused(cache: Path) -> None:
    fetch_folder(URL)
    cache.parent.chmod(0o777)
    with pytest.raises(StoreError, match="can be written to by others"):
        fetch_folder(URL)
