"""A Ray cluster as a user has it, started with ``ray start``: nodes of this machine, a token, the dashboard.

    with Cluster(environment) as cluster:
        cluster.start_head()
        worker = cluster.start_worker(cpus=2)
        job = cluster.submit(log, "--experiment", "jobs/tiny.yaml")
        worker.kill()

Everything is the cluster's own: ports, Ray's folder, the home directory with the token. What is ended are
processes of these nodes, never by ``ray stop``, which ends every Ray of the machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import requests

from tests.object_store import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_MARK = "FDD_RAY_TEST_NODE"
_START_S = 300.0
# On a machine that is too busy for Ray's patience, `ray start` gives up.
_TRIES = 4
_STORE_BYTES = 100 << 20


class Node:
    """A node: all processes that descend from the command that started it.

    Args:
        command: What starts it.
        environment: What with.
        log: Where its output goes.
        stdin: A file descriptor to read from.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path, stdin: int | None = None) -> None:
        self._mark = secrets.token_hex(8)
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                env={**environment, _MARK: self._mark},
                cwd=ROOT,
                stdin=stdin,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Those that live."""
        found: dict[int, psutil.Process] = {}
        # Ray writes over the environment of some, but not of the raylet, whose children these are.
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get(_MARK) == self._mark:
                    found |= {process.pid: process for process in (each, *each.children(recursive=True))}
        return [process for process in found.values() if _lives(process)]

    def kill(self) -> None:
        """SIGKILL to everything at once, as when the machine is gone."""
        deadline = time.monotonic() + 30
        while left := self.processes():
            assert time.monotonic() < deadline, f"still there: {left}"
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.1)
        self.process.wait(30)

    def words(self) -> str:
        """The end of what its command said."""
        return self._log.read_text(errors="replace")[-3000:]


class Cluster:
    """Nodes and jobs; a context manager that leaves nothing running.

    Args:
        environment: Of nodes and submitter, such as the credentials of a store.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Ray keeps sockets in it, whose paths may not be long.
        self.folder = Path(tempfile.mkdtemp(prefix="fdd-ray-", dir="/tmp"))
        self.home = self.folder / "home"
        self.home.mkdir()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        self.bare = clean | {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.home), "RAY_AUTH_MODE": "token"}
        self.environment = self.bare | {"RAY_JOB_STOP_WAIT_TIME_S": "60"} | dict(environment)
        self.address = self.dashboard = ""
        self._nodes: list[Node] = []

    def __enter__(self) -> Cluster:
        made = self.ray("get-auth-token", "--generate")
        assert made.returncode == 0, made.stderr
        return self

    def __exit__(self, *exc: object) -> None:
        for node in self._nodes:
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def token(self) -> str:
        """What lets in."""
        return (self.home / ".ray" / "auth_token").read_text().strip()

    def start_head(self) -> Node:
        """A head with a dashboard and no CPUs, on ports that are free."""
        dashboard = free_port()
        self.address, self.dashboard = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{dashboard}"
        words = ["--head", f"--port={self.address.partition(':')[2]}", "--dashboard-host=127.0.0.1"]
        words += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
        return self._start(
            self.environment, 0, words, lambda: self.get("/api/jobs/").status_code == 200 and len(self.nodes()) == 1
        )

    def start_worker(self, cpus: float = 2, environment: Mapping[str, str] | None = None) -> Node:
        """A node that joins; with an environment of its own, one that was set up otherwise."""
        before = self.nodes()
        chosen = self.environment if environment is None else environment
        return self._start(chosen, cpus, [f"--address={self.address}"], lambda: len(self.nodes()) > len(before))

    def running(self) -> list[Node]:
        """The nodes whose command has not ended."""
        return [node for node in self._nodes if node.process.poll() is None]

    def nodes(self) -> list[str]:
        """The ids of all nodes that ever were."""
        answer = self.get("/nodes?view=summary")
        found = answer.json()["data"]["summary"] if answer.status_code == 200 else []
        return [node["raylet"]["nodeId"] for node in found]

    def get(self, path: str, token: str | None = None, timeout: float = 60) -> requests.Response:
        """What the dashboard answers; with the cluster's token unless another is given ("" for none)."""
        bearer = self.token if token is None else token
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        try:
            return requests.get(self.dashboard + path, headers=headers, timeout=timeout)
        except requests.RequestException:
            nobody = requests.Response()
            nobody.status_code = 0
            return nobody

    def stop(self, job: str) -> requests.Response:
        """What ``ray job stop`` asks of the dashboard, without the seconds that the command takes to start."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.post(f"{self.dashboard}/api/jobs/{job}/stop", headers=headers, timeout=120)

    def ray(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``ray WORDS`` by the submitter."""
        own = self.environment | {"RAY_API_SERVER_ADDRESS": self.dashboard} | environment
        return subprocess.run(
            [BIN / "ray", *words], env=own, cwd=ROOT, capture_output=True, text=True, timeout=_START_S
        )

    def submit(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        """``ray job submit`` of jobs/distill.py with ``words``; what it prints goes to a file."""
        command = [BIN / "ray", "job", "submit", f"--submission-id={log.stem}", "--working-dir", "."]
        command += ["--", "python", "jobs/distill.py", *words]
        own = self.environment | {"RAY_API_SERVER_ADDRESS": self.dashboard}
        with log.open("wb") as file:
            return subprocess.Popen(command, env=own, cwd=ROOT, stdout=file, stderr=file)

    def _start(self, environment: Mapping[str, str], cpus: float, words: list[str], ready: Callable[[], bool]) -> Node:
        command = [
            str(BIN / "ray"), "start", "--block", f"--num-cpus={cpus:g}", f"--object-store-memory={_STORE_BYTES}",
            f"--temp-dir={self.folder / 'ray'}", f"--dashboard-agent-listen-port={free_port()}",
            "--disable-usage-stats", *words,
        ]  # fmt: skip
        for left in reversed(range(_TRIES)):
            node = Node(command, environment, self.folder / f"node-{len(self._nodes)}.log")
            self._nodes.append(node)
            wait_for(lambda node=node: node.process.poll() is not None or ready(), _START_S, node.words)  # type: ignore[misc]
            if node.process.poll() is None:
                return node
            assert left, node.words()
            node.kill()
        raise AssertionError("not reached")


def wait_for(true: Callable[[], bool], seconds: float, words: Callable[[], str]) -> None:
    """Wait until something is true; else fail with ``words``."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, words()
        time.sleep(0.2)


def listening(processes: list[psutil.Process]) -> dict[str, set[str]]:
    """By name of a process, the addresses on which it listens."""
    found: dict[str, set[str]] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(process.name(), set()).add(connection.laddr.ip.removeprefix("::ffff:"))
    return found


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
