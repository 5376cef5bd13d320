"""Joining a Ray cluster, or starting one on this machine, for the length of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from fdd_ray.errors import EngineError
from fdd_ray.labels import this_node
from fdd_ray.progress import Reporter, StageProgress
from fdd_ray.store import files

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@contextlib.contextmanager
def ray_session(reporter: Reporter) -> Iterator[None]:
    """Ray, joined or started; left again at the end if it was this call that came in.

    A cluster named by ``RAY_ADDRESS`` (set inside ``ray job submit``) or started on this machine with
    ``ray start`` is joined; otherwise one is started here, that only this machine reaches, and ends with the run.

    Meanwhile what Ray itself prints in the driver goes to stderr: stdout is for results.
    """
    import ray

    with _ray_prints_to_stderr():
        if ray.is_initialized():
            yield
            return
        with _found(reporter) as address:
            yield from _session(address, reporter)


@contextlib.contextmanager
def _ray_prints_to_stderr() -> Iterator[None]:
    """Ray's threads print warnings of its nodes on stdout, whatever ``log_to_driver`` says; no setting changes it."""
    from ray._private import worker

    before = worker.print_worker_logs
    worker.print_worker_logs = lambda data, print_file, *how, **more: before(data, sys.stderr, *how, **more)
    try:
        yield
    finally:
        worker.print_worker_logs = before


def _session(address: str | None, reporter: Reporter) -> Iterator[None]:
    import ray

    begun = time.monotonic()
    # Ray's own processes warn on the terminal of things that nobody can act on, such as Ray Data's actors.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        context: Any = ray.init(
            address,
            include_dashboard=False,
            log_to_driver=os.environ.get("FDD_RAY_WORKER_LOGS", "0") == "1",
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray has no common class for what can go wrong here
        ray.shutdown()
        raise EngineError(
            f"Ray did not start, or the cluster cannot be joined: {type(error).__name__}: {str(error)[:300]};"
            " on a busy machine try the same command again, otherwise look at RAY_ADDRESS and `ray status`"
        ) from error
    interrupt_on_sigterm()  # Ray puts a handler of its own, which leaves processes behind
    _quiet_ray_data()
    shape = ray.cluster_resources()
    reporter.say(
        f"Ray is up after {time.monotonic() - begun:.0f} s: {shape.get('CPU', 0):g} CPUs, {shape.get('GPU', 0):g} GPUs;"
        f" logs of its workers: {files.join(str(context.address_info.get('session_dir', '')), 'logs')}"
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _found(reporter: Reporter) -> Iterator[str | None]:
    """What `ray.init` is to be told: "local" to start a cluster, None to look for one as it does."""
    from ray._private.utils import read_ray_address

    if os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        yield None
        return
    noted = None if os.environ.get("RAY_ADDRESS") == "local" else read_ray_address(None)
    host, _, port = (noted or "").rpartition(":")
    if noted and not _listens(host, port):  # Ray would wait for it for two minutes, then fail
        reporter.say(f"the cluster that `ray start` began here is gone ({noted}); this run starts one of its own")
        noted = None
    with _loopback() if not noted or host in _LOOPBACK else contextlib.nullcontext():
        yield None if noted else "local"


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Keep to the loopback interface: by itself Ray listens to the network, without asking for a token.

    Ray does this on desktops, where firewalls would ask about it. Elsewhere it takes 127.0.0.1 for the machine's
    address in the network, and so would not even find a cluster that keeps to itself, as cluster/local.sh makes one.
    """
    from ray._private import ray_constants

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, enabled = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
        ray_constants.ENABLE_RAY_CLUSTER = enabled


def _listens(host: str, port: str) -> bool:
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def interrupt_on_sigterm() -> None:
    """Make SIGTERM, the polite end of Slurm, Kubernetes and spot machines, end a run like Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _quiet_ray_data() -> None:
    """Our own progress lines say what Ray Data's bars would, once."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class ProgressBoard:
    """A tiny actor on which a training worker writes how far it is, for the driver to read."""

    def __init__(self) -> None:
        self._state: tuple[int, int, dict[str, Any]] = (0, 0, {})

    def update(self, done: int, total: int, info: dict[str, Any]) -> None:
        """Written by the worker."""
        self._state = (done, total, info)

    def read(self) -> tuple[int, int, dict[str, Any]]:
        """Read by the driver."""
        return self._state


@contextlib.contextmanager
def progress_board(progress: StageProgress) -> Iterator[Any]:
    """A `ProgressBoard` actor whose state is carried over to ``progress`` while the block runs."""
    import ray

    board: Any = ray.remote(ProgressBoard).options(num_cpus=0, label_selector=this_node()).remote()
    stop = threading.Event()

    def carry() -> None:
        while not stop.wait(1.0):
            with contextlib.suppress(ray.exceptions.RayError):
                done, total, info = ray.get(board.read.remote(), timeout=5)
                if total and not progress.total:
                    progress.start(total, int(info.get("resumed_from", 0)))
                if total:
                    progress.update(
                        done, ", ".join(f"{key} {value:.4g}" for key, value in info.items() if _plain(value))
                    )

    thread = threading.Thread(target=carry, name="progress-board", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        stop.set()
        thread.join()
        ray.kill(board)


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
