"""Stores that are full, read-only, in the way or out of reach: each says what to do, and nothing is lost."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from fdd_ray.cli import main
from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult, read_manifest
from tests import object_store


def _work(folder: StageFolder, size: int = 10) -> StageResult:
    for number in range(8):
        if f"part-{number}.parquet" not in folder.parts():
            folder.write(f"part-{number}.parquet", pa.table({"noise": [os.urandom(size)]}))
    return StageResult(Counts(8, 8), tuple(folder.parts()))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED on a real full disk: this user cannot mount one ({done.stderr.decode().strip()})")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_ends_the_run_and_more_room_lets_it_go_on(small_disk: Path) -> None:
    run = str(small_disk / "run")
    with pytest.raises(StoreError, match=r"cannot write .*part-\d\.parquet: No space left on device; make room"):
        Run(run).once("rationales", 0, {}, lambda folder: _work(folder, 60_000))
    folder = small_disk / "run" / "round-00" / "rationales"
    assert read_manifest(run, 0, "rationales") is None
    before = {path.name: path.read_bytes() for path in folder.glob("part-*")}
    assert 1 <= len(before) < 8
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    done = Run(run).once("rationales", 0, {}, lambda folder: _work(folder, 60_000))
    assert len(done.parts) == 8
    assert {path.name: path.read_bytes() for path in folder.glob("part-*") if path.name in before} == before


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    run = str(small_disk / "run")
    Run(run).once("rationales", 0, {}, _work)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match=r"Read-only file system; it is mounted read-only"):
        Run(run).once("score", 0, {}, _work)
    assert read_manifest(run, 0, "rationales") is not None
    assert main(["status", run]) == StoreError.exit_code  # it has no experiment.yaml, and that is all that is wrong


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from fdd_ray.store import files\n"
        "from fdd_ray.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "files.append_line(sys.argv[1], 'whole')\n"
        "for write in (lambda: files.write_bytes(sys.argv[2], bytes(10_000)),\n"
        "              lambda: files.append_line(sys.argv[1], 'x' * 10_000)):\n"
        "    try:\n        write()\n    except StoreError as error:\n        print(error)\n"
    )
    line, whole = tmp_path / "ledger.jsonl", tmp_path / "a.bin"
    whole.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, line, whole], capture_output=True, text=True, check=True)
    assert done.stdout.count("File too large; raise the limit on the size of files (ulimit -f)") == 2
    assert whole.read_bytes() == b"old"
    assert line.read_bytes() == b"whole\n", "half a line is taken back"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "ledger.jsonl"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_a_file_where_a_folder_belongs(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(StoreError, match="a file is where a folder belongs: move it away"):
        Run(str(tmp_path / "run")).once("rationales", 0, {}, _work)
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_where_a_file_belongs(tmp_path: Path) -> None:
    (tmp_path / "round-00" / "rationales" / "manifest.json" / "x").mkdir(parents=True)
    with pytest.raises(StoreError, match="a folder is where a file belongs"):
        Run(str(tmp_path)).once("rationales", 0, {}, _work)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="File name too long; name a storage with a shorter path"):
        Run(str(tmp_path / ("x" * 300))).once("rationales", 0, {}, _work)
    with pytest.raises(StoreError, match="File name too long"):
        Run(str(tmp_path) + "/x" * 3000).once("rationales", 0, {}, _work)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "give this user the right to"),
        (errno.EIO, "the disk itself fails"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_what_cannot_be_brought_about_here_is_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    """Root may write everywhere and disks do not fail on demand: the error alone is made up here."""

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StoreError, match=advice):
        files.write_bytes(str(tmp_path / "a"), b"x")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_permission() -> None:
    """As a user who is not root: root may write everywhere."""
    code = (
        "import os, sys\n"
        "from fdd_ray.errors import StoreError\n"
        "from fdd_ray.store import files\n"
        "import fsspec.implementations.local\n"
        "if os.geteuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    files.write_bytes(sys.argv[1] + '/run/a', b'x')\nexcept StoreError as error:\n    print(error)\n"
    )
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o555)
        done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True, check=True)
        os.chmod(place, 0o755)
    assert "Permission denied; give this user the right to, or name another storage" in done.stdout


def test_a_kind_of_store_that_is_not_known() -> None:
    with pytest.raises(StoreError, match=r"cannot reach foo://x.*; name a folder, or a URL such as s3://"):
        Run("foo://x/run").once("rationales", 0, {}, _work)


def test_a_package_that_is_missing() -> None:
    code = (
        "import sys\nsys.modules['s3fs'] = None\n"
        "from fdd_ray.errors import DependencyError\nfrom fdd_ray.store.run import Run\n"
        "try:\n    Run('s3://x/run')\nexcept DependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "s3://x/run" in done.stdout and "install fdd-ray[s3]" in done.stdout


@pytest.mark.slow
def test_an_object_store_that_does_not_answer() -> None:
    nowhere = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{object_store.free_port()}", "AWS_ACCESS_KEY_ID": "x"}
    with object_store.environment({**nowhere, "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}):
        with pytest.raises(StoreError, match=r"cannot read s3://x/run.*Could not connect.*check that the store is up"):
            Run("s3://x/run").once("rationales", 0, {}, _work)
        assert main(["status", "s3://x/run"]) == StoreError.exit_code


def test_a_bucket_that_is_missing(s3_storage: str) -> None:
    with pytest.raises(StoreError, match=r"bucket does not exist; check that the bucket exists"):
        Run("s3://no-such-bucket-here/run").once("rationales", 0, {}, _work)


def test_an_object_store_without_credentials(s3_storage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"check .*credentials in the environment"):
        Run(f"{s3_storage}/run").once("rationales", 0, {}, _work)
