"""The lease with real drivers in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdd_ray.errors import StoreError
from fdd_ray.store import files, lease
from fdd_ray.store.lease import Holder, Lease, read_holder
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.run import Counts, Run, StageResult, read_manifest


class Drivers:
    """Starts drivers and ends those that are left."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, directory: str, seconds: float, *more: str, expiry_s: float = 60, renew_s: float = 15
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.store.driving", directory, str(expiry_s), str(renew_s), str(seconds)]
        driver = subprocess.Popen(
            [*command, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._started.append(driver)
        return driver

    def end(self) -> None:
        for driver in self._started:
            if driver.poll() is None:
                driver.kill()
            driver.communicate()


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    started = Drivers()
    yield started
    started.end()


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A run directory on disk, and one in an object store."""
    if request.param == "local":
        return str(tmp_path / "run")
    return f"{request.getfixturevalue('s3_storage')}/run"


def _first_line(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    return driver.stdout.readline().strip()


def _nothing(folder: object) -> StageResult:
    return StageResult(Counts())


def test_a_second_driver_is_refused_and_told_by_whom(root: str, drivers: Drivers) -> None:
    first = drivers.start(root, 20)
    assert _first_line(first) == "taken"
    second = drivers.start(root, 0)
    out, _ = second.communicate(timeout=60)
    assert second.returncode == StoreError.exit_code
    assert f"is in use by process {first.pid} on " in out
    assert re.search(r"since \d{4}-.* UTC, lease until \d{4}-.* UTC", out)
    assert f"end it with `kill {first.pid}`" in out
    assert first.poll() is None


@pytest.mark.slow
def test_of_many_drivers_that_come_at_once_one_drives(root: str, drivers: Drivers) -> None:
    started = [drivers.start(root, 8) for _ in range(4)]
    codes = sorted(driver.wait(90) for driver in started)
    assert codes == [0, 4, 4, 4]
    assert len([event for event in read_ledger(root) if event["event"] == "stage started"]) == 1


def test_a_dead_driver_on_this_host_is_followed_at_once(root: str, drivers: Drivers) -> None:
    first = drivers.start(root, 60)
    assert _first_line(first) == "taken"
    first.send_signal(signal.SIGKILL)  # not waited for: a zombie is as dead
    time.sleep(0.5)
    holder = read_holder(root)
    assert holder is not None and not holder.seems_alive()
    begun = time.monotonic()
    with Run(root) as run:
        assert time.monotonic() - begun < 10
        run.once("rationales", 0, {}, _nothing)
    assert [e["event"] for e in read_ledger(root) if e["event"].startswith("run")] == [
        "run started", "run resumed", "run ended",
    ]  # fmt: skip


def test_a_driver_elsewhere_is_waited_for_and_followed_when_dead(root: str, drivers: Drivers) -> None:
    first = drivers.start(root, 60, "elsewhere", expiry_s=3, renew_s=0.5)
    assert _first_line(first) == "taken"
    first.kill()
    said: list[str] = []
    waiting = Lease(root, said.append, expiry_s=3, renew_s=0.5)
    begun = time.monotonic()
    waiting.take()
    assert time.monotonic() - begun >= 3
    assert said and said[0].startswith("waiting up to 3 s for process ")
    waiting.check()
    waiting.release()


def test_a_driver_elsewhere_that_renews_is_not_followed(root: str, drivers: Drivers) -> None:
    first = drivers.start(root, 60, "elsewhere", expiry_s=3, renew_s=0.5)
    assert _first_line(first) == "taken"
    with pytest.raises(StoreError, match=rf"is in use by process {first.pid} on"):
        Lease(root, expiry_s=3, renew_s=0.5).take()
    assert first.poll() is None


def test_a_driver_that_was_taken_for_dead_writes_nothing_more(
    root: str, drivers: Drivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_S", 2.0)
    first = drivers.start(root, 6, "elsewhere", expiry_s=2, renew_s=0.5)
    assert _first_line(first) == "taken"
    time.sleep(1)
    first.send_signal(signal.SIGSTOP)
    with Run(root) as run:  # a host of another name: waits for the expiry, then takes the run
        parts = files.list_names(f"{root}/round-00/rationales", ".parquet")
        first.send_signal(signal.SIGCONT)
        out, _ = first.communicate(timeout=60)
        assert first.returncode == StoreError.exit_code
        assert "lost the run: process " in out and "What was written before is kept" in out
        assert read_manifest(root, 0, "rationales") is None
        # What it wrote after it woke is at most the part it was about to write and one until its next renewal.
        assert len(files.list_names(f"{root}/round-00/rationales", ".parquet")) <= len(parts) + 7
        run.once("score", None, {}, _nothing)


def test_the_manifest_is_not_written_without_the_lease(tmp_path: Path) -> None:
    root = str(tmp_path)

    def usurped(folder: object) -> StageResult:
        other = read_holder(root)
        assert other is not None
        stolen = {**vars(other), "number": other.number + 1, "token": "another"}
        files.write_json(f"{root}/lease/{other.number + 1:08d}.json", stolen)
        return StageResult(Counts())

    run = Run(root)
    with pytest.raises(StoreError, match=r"round 0 rationales stops: this driver .* lost the run"):
        run.once("rationales", 0, {}, usurped)
    assert read_manifest(root, 0, "rationales") is None


def test_a_process_id_that_was_used_again_is_not_the_driver(tmp_path: Path) -> None:
    held = Lease(str(tmp_path))
    held.take()
    path = tmp_path / "lease" / "00000001.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "begun": content["begun"] - 1}))
    assert content["pid"] == os.getpid()
    holder = read_holder(str(tmp_path))
    assert holder is not None and holder.alive() is False
    Lease(str(tmp_path)).take()


def test_the_lease_is_renewed_and_given_back(tmp_path: Path) -> None:
    held = Lease(str(tmp_path), expiry_s=5, renew_s=0.1)
    held.take()
    first = read_holder(str(tmp_path))
    time.sleep(0.5)
    second = read_holder(str(tmp_path))
    assert first is not None and second is not None
    assert second.expires > first.expires and second.token == first.token
    held.release()
    last = read_holder(str(tmp_path))
    assert last is not None and last.released and not last.seems_alive()
    again = Lease(str(tmp_path))
    again.take()
    assert files.list_names(f"{tmp_path}/lease") == ["00000002.json"]


def test_a_torn_lease_is_waited_for(tmp_path: Path) -> None:
    files.write_bytes(f"{tmp_path}/lease/00000007.json", b'{"num')
    said: list[str] = []
    Lease(str(tmp_path), said.append, expiry_s=0.5, renew_s=0.1).take()
    assert "an unknown host" in said[0]
    holder = read_holder(str(tmp_path))
    assert holder is not None and holder.number == 8


def test_a_lease_that_ended_long_ago_is_not_waited_for(tmp_path: Path) -> None:
    old = time.time() - 3600
    gone = Holder(3, "x", "elsewhere", "another system", 1, 1.0, old, old, old + 60)
    files.write_json(f"{tmp_path}/lease/00000003.json", vars(gone))
    said: list[str] = []
    Lease(str(tmp_path), said.append).take()
    assert not said


def test_a_store_out_of_reach_for_a_while_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Lease(str(tmp_path), expiry_s=5, renew_s=0.1)
    held.take()
    write, refused = files.write_bytes, threading.Event()

    def refuse(path: str, data: bytes) -> None:
        refused.set()
        raise StoreError("out of reach")

    monkeypatch.setattr(files, "write_bytes", refuse)
    assert refused.wait(30.0)
    monkeypatch.setattr(files, "write_bytes", write)
    before = after = read_holder(str(tmp_path))
    deadline = time.monotonic() + 30.0
    while after == before and time.monotonic() < deadline:
        time.sleep(0.05)
        after = read_holder(str(tmp_path))
    held.check()
    assert before is not None and after is not None and after.renewed > before.renewed
