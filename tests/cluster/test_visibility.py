"""What a node says of a storage: with a process that has another file system where the driver's is."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fdd_ray.visibility import look

ASK = "import sys; from fdd_ray.visibility import look; print(look(*sys.argv[1:4], late_s=0.6))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which the driver wrote."""
    made = tmp_path / "runs" / "tiny" / ".visible-1"
    made.mkdir(parents=True)
    (made / "driver").write_text("driver")
    return made


def asked_elsewhere(folder: Path, *before: str) -> str:
    """What a process answers that sees another file system at the storage."""
    words = shlex.join([sys.executable, "-c", ASK, str(folder), "node", "driver"])
    script = " && ".join([*before, words])
    done = subprocess.run(["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, timeout=120)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"NOT TESTED with another file system: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_node_that_sees_the_folder_writes_its_file_there(folder: Path) -> None:
    assert look(str(folder), "node", "driver") == ""
    assert (folder / "node").read_text() == "node"
    assert asked_elsewhere(folder) == ""


def test_a_node_with_a_disk_of_its_own_is_found_out_and_writes_nothing(folder: Path) -> None:
    storage = folder.parents[1]
    answer = asked_elsewhere(folder, f"mount -t tmpfs none {shlex.quote(str(storage))}")
    assert answer == f"{folder} as it is seen there does not hold what the driver wrote"
    # The same path, made by an earlier run of that machine.
    mount = f"mount -t tmpfs none {shlex.quote(str(storage))} && mkdir -p {folder} && echo old > {folder}/driver"
    assert asked_elsewhere(folder, mount) == answer
    assert not (folder / "node").exists()


def test_a_node_that_may_only_read_is_found_out(folder: Path) -> None:
    storage = shlex.quote(str(folder.parents[1]))
    answer = asked_elsewhere(folder, f"mount --bind {storage} {storage} && mount -o remount,bind,ro {storage}")
    assert answer == f"cannot write {folder}/node: Read-only file system"
