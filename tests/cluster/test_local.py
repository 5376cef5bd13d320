"""cluster/local.sh, run for real but for its ports: it listens to this machine alone and asks for the token."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.cluster.nodes import BIN, ROOT, Node, listening, wait_for
from tests.object_store import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

LOOPBACK = {"127.0.0.1", "::1"}
JOIN = """
import sys
from fdd_ray.cluster import ray_session
from fdd_ray.errors import EngineError
from fdd_ray.progress import Reporter
for left in (3, 2, 1, 0):
    try:
        with ray_session(Reporter()):
            import ray
            print(ray.get_runtime_context().gcs_address, ray.get(ray.remote(lambda: "worked").remote()), flush=True)
            sys.stdin.read()
            break
    except EngineError as error:  # a busy machine is too slow for Ray, which says so
        if not left or "timed out during startup" not in str(error):
            raise
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory with a short path, in which Ray's own folder is too."""
    folder = Path(tempfile.mkdtemp(prefix="fdd-ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """Of a user who has no token yet."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return clean | {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_TMPDIR": str(home)}


def test_the_local_cluster_keeps_to_itself_and_is_found_by_runs(home: Path, environment: dict[str, str]) -> None:
    port, dashboard = free_port(), free_port()
    command = ["bash", str(ROOT / "cluster" / "local.sh"), "up", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += [f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
    node = Node([*command, "--num-cpus=2", "--object-store-memory=104857600"], environment, home / "up.log")
    try:
        assert node.process.wait(300) == 0, node.words()
        url = f"http://127.0.0.1:{dashboard}/api/jobs/"
        token = home / ".ray" / "auth_token"
        assert token.stat().st_mode & 0o777 == 0o600 and token.parent.stat().st_mode & 0o077 == 0
        bearer = {"Authorization": f"Bearer {token.read_text().strip()}"}
        wait_for(lambda: requests.get(url, headers=bearer, timeout=60).status_code == 200, 120, node.words)
        assert requests.get(url, timeout=60).status_code == 401
        assert token.read_text().strip() not in node.words()
        addresses = listening(node.processes())
        assert {"gcs_server", "raylet"} <= set(addresses)
        assert set.union(*addresses.values()) <= LOOPBACK, addresses
        # A run that is started in another shell joins it.
        done = subprocess.run(
            [sys.executable, "-c", JOIN],
            env=environment,
            cwd=ROOT,
            input="",
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.stdout.split() == [f"127.0.0.1:{port}", "worked"], done.stderr
    finally:
        node.kill()


def test_a_run_of_its_own_keeps_to_itself_and_does_not_wait_for_a_cluster_that_is_gone(
    home: Path, environment: dict[str, str]
) -> None:
    (home / "ray").mkdir()
    (home / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")  # as a crash leaves it
    log = home / "run.log"
    read, write = os.pipe()
    node = Node([sys.executable, "-c", JOIN], environment, log, stdin=read)
    try:
        wait_for(lambda: "worked" in node.words() or node.process.poll() is not None, 600, node.words)
        assert "worked" in node.words()  # without a look at who listens there, Ray fails after two minutes
        assert "the cluster that `ray start` began here is gone" in node.words()
        addresses = listening(node.processes())
        assert {"gcs_server", "raylet"} <= set(addresses)
        assert set.union(*addresses.values()) <= LOOPBACK, addresses
        os.close(write)
        assert node.process.wait(120) == 0, node.words()
    finally:
        node.kill()
