"""What a machine has: processors, memory, GPUs, room for what Ray lays aside, and ports.

look_at_machine(host.facts())                        # this one
look_at_machine(facts, "node 10.0.0.2: ")            # a node, from what it told
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from fdd_ray.doctor import host
from fdd_ray.doctor.findings import Finding, note, ok, problem
from fdd_ray.doctor.installation import look_at_devices
from fdd_ray.doctor.sizes import gib
from fdd_ray.errors import EngineError, StoreError

# Ray lays objects aside on disk until this share of it is used, then it fails (local_fs_capacity_threshold).
_FULL: Final = 0.95
_NEARLY_FULL: Final = 0.90
_LEAST_FREE: Final = 2 << 30
# Ray's object store takes this share of a machine's memory, and lies in shared memory.
_STORE_SHARE: Final = 0.3
_STORE_MOST: Final = 200e9
_LEAST_SHM: Final = 1 << 30
_LEAST_FILES: Final = 8192  # below it Ray itself warns: engines, map actors and sockets each need some
_LEAST_MEMORY: Final = 4 << 30
# What `ray start --head` opens where it is not told otherwise, as cluster/local.sh and `ray job submit` expect it.
RAY_PORTS: Final = {6379: "Ray's head (GCS)", 8265: "Ray's dashboard and jobs"}


def look_at_machine(facts: host.Facts, where: str = "") -> Iterator[Finding]:
    """Findings about a machine.

    Args:
        facts: What it has.
        where: Put before each finding; empty for this machine.
    """
    gpus = f"{len(facts.gpus)} GPUs ({_named(facts.gpus)})" if facts.gpus else "no GPU"
    yield ok(f"{where}{facts.host}: {facts.cpus} CPUs, {gib(facts.memory_bytes)} of memory, {gpus}")
    if facts.gpu_error:
        yield problem(
            f"{where}{facts.gpu_error}, so GPUs that are there cannot be used",
            "see that the driver is loaded and this process may use it (in a container: --gpus all)",
            EngineError,
        )
    for finding in look_at_devices(facts.packages, len(facts.gpus)):
        yield Finding(finding.level, where + finding.found, finding.next, finding.exit_code)
    if facts.gpus and not facts.compiler:
        yield note(f"{where}there is no C compiler, which Triton needs beside GPUs", "install gcc (build-essential)")
    if facts.memory_bytes < _LEAST_MEMORY:
        yield note(
            f"{where}{gib(facts.memory_bytes)} of memory is little: an engine takes about 1 GiB beside its weights",
            "use a machine with more, or raise the container's limit",
        )
    yield from _temporary(facts, where)
    yield from _shared(facts, where)
    if facts.open_files < _LEAST_FILES:
        yield note(
            f"{where}a process may open {facts.open_files:,} files at most", f"raise it (ulimit -n {_LEAST_FILES})"
        )


def look_at_ports() -> Iterator[Finding]:
    """Whether Ray could begin here: by itself for a run, or with ``ray start`` on its usual ports."""
    if why := host.can_listen():
        yield problem(
            f"no port can be opened on 127.0.0.1 ({why}), which Ray's processes talk through",
            "see what forbids it (a sandbox, a limit on sockets), or run on another machine",
            EngineError,
        )
        return
    taken = [port for port in RAY_PORTS if not host.listens("127.0.0.1", port, 1.0)]
    if taken:
        names = ", ".join(f"{port} ({RAY_PORTS[port]})" for port in taken)
        yield note(
            f"something listens on port {names} of this machine",
            "good if it is your Ray; else give `ray start --head` other ports. A Ray of the run's own needs none",
        )
    else:
        free = ", ".join(map(str, RAY_PORTS))
        yield ok(f"ports can be opened; {free}, which `ray start --head` takes, are free")


def look_at_address(address: str) -> Iterator[Finding]:
    """Whether the cluster that a run would join answers.

    Args:
        address: ``HOST:PORT``, as ``RAY_ADDRESS`` or ``ray start`` give it; may have a scheme.
    """
    name, _, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    if not name or not port.isdecimal():
        yield problem(
            f"RAY_ADDRESS is {address!r}, which is no HOST:PORT",
            "set it to the address that `ray start --head` printed, or unset it for a Ray of the run's own",
            EngineError,
        )
    elif why := host.listens(name, int(port)):
        yield problem(
            f"no Ray answers at {name}:{port} ({why}), the cluster that a run would join (RAY_ADDRESS)",
            "start it, correct RAY_ADDRESS, or unset it for a Ray of the run's own; see also firewalls and VPNs",
            EngineError,
        )
    else:
        yield ok(f"the cluster that a run would join answers at {name}:{port}")


def _named(gpus: tuple[host.Gpu, ...]) -> str:
    kinds = dict.fromkeys(gpus)
    return ", ".join(f"{gpus.count(kind)} x {kind.name}, {gib(kind.memory_mib << 20)}" for kind in kinds)


def _temporary(facts: host.Facts, where: str) -> Iterator[Finding]:
    disk = facts.temporary
    used = 1 - disk.free / disk.total if disk.total else 1.0
    what = f"{where}{disk.path}, where Ray lays aside what memory does not hold: {gib(disk.free)} free, {used:.0%} used"
    move = "make room there, or set RAY_TMPDIR to a folder on another disk where Ray is started"
    if used >= _FULL:
        yield problem(f"{what}; from {_FULL:.0%} on Ray writes nothing there any more", move, StoreError)
    elif used >= _NEARLY_FULL or disk.free < _LEAST_FREE:
        yield note(f"{what}; Ray stops at {_FULL:.0%}", move)
    else:
        yield ok(what)


def _shared(facts: host.Facts, where: str) -> Iterator[Finding]:
    shm = facts.shm
    if shm is None:
        return
    wanted = min(facts.memory_bytes * _STORE_SHARE, _STORE_MOST)
    container = "in a container: --shm-size, or an emptyDir with medium: Memory"
    if shm.free < min(wanted, _LEAST_SHM):
        yield note(
            f"{where}{shm.path} has {gib(shm.free)} free: Ray's objects go to disk instead, slowly, and workers that"
            " share GPUs may fail",
            container,
        )
    elif shm.free < wanted:
        yield note(
            f"{where}{shm.path} has {gib(shm.free)} free, less than the {gib(wanted)} that Ray's object store takes"
            " (30 % of memory), so it would lie on disk",
            f"make it larger ({container}), or start Ray with a smaller --object-store-memory",
        )
    else:
        yield ok(f"{where}{shm.path} has {gib(shm.free)} free, for Ray's object store of {gib(wanted)}")


def cluster_address() -> str:
    """The address of the cluster that a run would join; empty if it would start a Ray of its own.

    As `fdd_ray.cluster.ray_session` decides it: ``RAY_ADDRESS``, else what ``ray start`` noted on this machine,
    if it still answers.
    """
    given = os.environ.get("RAY_ADDRESS", "")
    if given == "local":
        return ""
    if given not in ("", "auto"):
        return given
    from ray._private.utils import read_ray_address

    noted = read_ray_address(None) or ""
    if given == "auto":
        return noted or "auto"
    name, _, port = noted.rpartition(":")
    return noted if name and port.isdecimal() and not host.listens(name, int(port)) else ""
