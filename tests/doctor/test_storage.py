"""Storage that can be written, that cannot, that is full, and that is in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fdd_ray.doctor import host
from fdd_ray.doctor.host import Disk
from fdd_ray.doctor.storage import look_at_driver, look_at_space, look_at_storage
from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.lease import Lease

GIB = 1 << 30


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    (finding,) = look_at_storage(str(tmp_path / "runs" / "mine"))
    assert finding.level == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "experiment.yaml").write_text("name: x")
    list(look_at_storage(str(tmp_path / "runs" / "mine")))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["experiment.yaml", "mine", "runs"]


def test_a_file_where_the_folder_belongs(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    (finding,) = look_at_storage(str(tmp_path / "runs" / "mine"))
    assert (finding.level, finding.exit_code) == ("problem", 4) and "cannot write" in finding.found
    assert "a file is where a folder belongs" in finding.next


@pytest.mark.skipif(os.getuid() == 0 and not os.path.isdir("/proc/self"), reason="needs a place that nobody may write")
def test_a_place_that_nobody_may_write(tmp_path: Path) -> None:
    (finding,) = look_at_storage("/proc/fdd-ray-doctor/mine")
    assert (finding.level, finding.exit_code) == ("problem", 4)
    if os.getuid():
        tmp_path.chmod(0o500)
        (finding,) = look_at_storage(str(tmp_path / "mine"))
        tmp_path.chmod(0o700)
        assert finding.exit_code == 4 and "give this user the right" in finding.next


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "disk_of", lambda path: Disk(path, 100 * GIB, 2 * GIB))
    levels = [next(iter(look_at_space(str(tmp_path), needed * GIB, "4 students"))).level for needed in (0.1, 1.5, 2.5)]
    assert levels == ["ok", "note", "problem"]
    (finding,) = look_at_space(str(tmp_path), 2.5 * GIB, "4 students")
    assert finding.exit_code == 4 and "2.0 GiB free" in finding.found and "2.5 GiB there (4 students)" in finding.found
    monkeypatch.setattr(host, "disk_of", lambda path: Disk(path, 100 * GIB, 0))
    assert [f.level for f in look_at_space(str(tmp_path), 0, "")] == ["problem"]
    assert list(look_at_space("s3://bucket/runs", 9e12, "")) == []


def test_a_store_that_does_not_keep_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "read_bytes", lambda path: b"other")
    (finding,) = look_at_storage(str(tmp_path))
    assert (finding.level, finding.exit_code) == ("problem", 4)

    def fails(path: str) -> bytes:
        raise StoreError("cannot read x: lost; mend it")

    monkeypatch.setattr(files, "read_bytes", fails)
    (finding,) = look_at_storage(str(tmp_path))
    assert finding.next == "mend it" and list(tmp_path.iterdir()) == []


def test_a_store_without_its_package() -> None:
    (finding,) = look_at_storage("gs://bucket/runs")
    assert finding.level == "problem" and finding.exit_code in (4, 8) and finding.next


def test_an_object_store(s3_storage: str) -> None:
    (finding,) = look_at_storage(f"{s3_storage}/runs/mine")
    assert finding.level == "ok" and files.sizes(s3_storage) == {}
    (finding,) = look_at_storage("s3://no-such-bucket-of-ours/runs")
    assert (finding.level, finding.exit_code) == ("problem", 4)


def test_another_driver(tmp_path: Path) -> None:
    assert list(look_at_driver(str(tmp_path))) == []
    lease = Lease(str(tmp_path))
    lease.take()
    (finding,) = look_at_driver(str(tmp_path))
    assert (finding.level, finding.exit_code) == ("problem", 4) and f"process {os.getpid()}" in finding.found
    lease.release()
    assert list(look_at_driver(str(tmp_path))) == []
