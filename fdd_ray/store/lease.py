"""One driver at a time: the lease on a run directory.

    lease = Lease(directory, say=print)
    lease.take()           # or a StoreError that says who drives this run
    lease.check("round 0 rationales")   # before anything is written that others rely on
    lease.release()

A lease is a file ``lease/<number>.json`` that only its driver ever writes; the highest number drives.
It is taken by making the next number, which only one of several contenders can do, and renewed in the
background. A driver that finds a higher number, or its own file changed, has lost the run: it was taken
for dead (paused for long, or cut off from the store), and every later check fails. Numbers only grow,
so a driver that wakes up late can never be mistaken for the one that holds the run now.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.access import is_local

FOLDER = "lease"
# A driver that gave no sign for this long is taken for dead. Long enough for a store to be out of reach or
# a driver to be starved for half a minute; short enough that a run taken up on another host waits no longer.
EXPIRY_S = 60.0
# Four renewals fit into an expiry, so that three may fail.
RENEW_S = 15.0
# On a store without conditional puts the last of two writers wins: time for the other's to arrive.
SETTLE_S = 1.0
# Clocks of hosts that share a store differ by less than this; a lease that ended longer ago is not waited for.
SKEW_S = 300.0
_POLL_S = 1.0


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who drives, or drove, a run.

    Attributes:
        number: The lease's number.
        token: Tells this taking of the lease from any other.
        host: Name of the host.
        system: That host's boot and process namespace; process ids mean something only within it.
        pid: The driver's process.
        begun: When that process began, in the unit of its system; a process id may be used again.
        since: Seconds since 1970 when the lease was taken.
        renewed: When it was last renewed.
        expires: When it ends unless it is renewed.
        released: Whether the driver gave it back.
    """

    number: int
    token: str
    host: str
    system: str
    pid: int
    begun: float
    since: float
    renewed: float
    expires: float
    released: bool = False

    def alive(self) -> bool | None:
        """Whether the driver is at work; None where that cannot be seen from here, only its expiry."""
        if self.released:
            return False
        if self.system == _system():
            return _process_begun(self.pid) == self.begun
        return None

    def seems_alive(self, now: float | None = None) -> bool:
        """`alive`, or by the expiry where the process cannot be seen."""
        alive = self.alive()
        return alive if alive is not None else (now or time.time()) < self.expires

    def __str__(self) -> str:
        """Who this is, for messages."""
        return f"process {self.pid} on {self.host} (since {_clock(self.since)}, lease until {_clock(self.expires)})"


class Lease:
    """This process's hold on a run directory.

    Args:
        directory: The run directory.
        say: Told what is waited for.
        expiry_s: Seconds without renewal after which others may take the run.
        renew_s: Seconds between renewals.
    """

    def __init__(
        self,
        directory: str,
        say: Callable[[str], None] = lambda text: None,
        expiry_s: float | None = None,
        renew_s: float | None = None,
    ) -> None:
        self._directory = directory
        self._say = say
        self._expiry_s = EXPIRY_S if expiry_s is None else expiry_s
        self._renew_s = RENEW_S if renew_s is None else renew_s
        self._held: Holder | None = None
        self._lost = ""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether the lease was taken and not given back."""
        return self._held is not None

    def take(self) -> Holder | None:
        """Take the lease, waiting for a driver elsewhere that may be dead.

        Returns:
            Who held it before, if anyone did.

        Raises:
            StoreError: If another driver is at work.
        """
        before = read_holder(self._directory)
        while True:
            current = read_holder(self._directory)
            if current is not None and not current.released:
                self._outlast(current)
            mine = self._mine(1 if current is None else current.number + 1)
            if self._create(mine):
                break
        self._held, self._lost = mine, ""
        self._stop.clear()
        self._thread = threading.Thread(target=self._renew_often, name="lease", daemon=True)
        self._thread.start()
        self._forget(mine.number)
        return before

    def check(self, what: str = "this run") -> None:
        """Make sure, at the store, that the run is still ours.

        Raises:
            StoreError: If another driver took it; nothing may be written any more.
        """
        with self._lock:
            held = self._held
            if held is not None and not self._lost:
                found = read_holder(self._directory)
                if found is None or found.token != held.token:
                    taken = f"{found} took it" if found is not None else "its lease was removed"
                    self._lost = f"this driver (process {held.pid} on {held.host}) lost the run: {taken}"
        self.check_known(what)

    def check_known(self, what: str = "this run") -> None:
        """Like `check`, by what the renewals found out; asks the store nothing."""
        if self._lost:
            raise StoreError(
                f"{what} stops: {self._lost}, for there was no sign of this driver for {self._expiry_s:g} s (it was"
                f" paused, or cut off from {self._directory}). What was written before is kept; let the other driver"
                " go on, or end it and run the same command again"
            )

    def release(self) -> None:
        """Give the lease back; nothing happens if it was never taken or is lost."""
        held = self._held
        if held is None:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._renew_s)
        with self._lock, contextlib.suppress(StoreError):  # an end must not hide what led to it
            if not self._lost:
                self._write(dataclasses.replace(held, renewed=time.time(), released=True))
        self._held = None

    def _mine(self, number: int) -> Holder:
        now = time.time()
        pid = os.getpid()
        begun = _process_begun(pid)
        assert begun is not None, "this process runs"
        return Holder(
            number, secrets.token_hex(8), socket.gethostname(), _system(), pid, begun, now, now, now + self._expiry_s
        )

    def _create(self, mine: Holder) -> bool:
        path = _path(self._directory, mine.number)
        if not files.create_bytes(path, _encode(mine)):
            return False
        if is_local(path):
            return True
        time.sleep(SETTLE_S)
        found = read_holder(self._directory)
        return found is not None and found.token == mine.token

    def _outlast(self, current: Holder) -> None:
        """Return once the driver is known or taken to be dead; refuse if it shows a sign of life."""
        alive = current.alive()
        if alive is None:
            over_s = time.time() - current.expires
            if over_s > SKEW_S:
                return
            self._wait(current)
        elif alive:
            raise self._refusal(current)

    def _wait(self, current: Holder) -> None:
        """Watch a driver elsewhere for one whole expiry, by this host's clock alone."""
        deadline = time.monotonic() + self._expiry_s
        self._say(f"waiting up to {self._expiry_s:.0f} s for {current}: it may be dead, this shows when it is not")
        while time.monotonic() < deadline:
            time.sleep(min(_POLL_S, self._expiry_s / 4))
            found = read_holder(self._directory)
            if found is None or found.released:
                return
            if (found.token, found.renewed) != (current.token, current.renewed):
                raise self._refusal(found)

    def _refusal(self, holder: Holder) -> StoreError:
        return StoreError(
            f"{self._directory} is in use by {holder}; wait for it, end it with `kill {holder.pid}` on {holder.host},"
            " or give this run another name (--set name=...). fdd-ray status shows how far it is"
        )

    def _renew_often(self) -> None:
        while not self._stop.wait(self._renew_s):
            # A store out of reach is no loss yet: the next renewal, or the next check, tells.
            with contextlib.suppress(StoreError):
                self.check()
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            if self._held is not None and not self._stop.is_set() and not self._lost:
                now = time.time()
                renewed = dataclasses.replace(self._held, renewed=now, expires=now + self._expiry_s)
                self._write(renewed)
                self._held = renewed

    def _write(self, holder: Holder) -> None:
        files.write_bytes(_path(self._directory, holder.number), _encode(holder))

    def _forget(self, number: int) -> None:
        folder = files.join(self._directory, FOLDER)
        with contextlib.suppress(StoreError):  # tidiness only
            files.remove_litter(folder)
            for name in files.list_names(folder, ".json"):
                if name < _name(number):
                    files.remove(files.join(folder, name))


def read_holder(directory: str) -> Holder | None:
    """Who drives or last drove a run, or None if nobody ever did.

    A lease that cannot be read (it was torn by a crash of its host) counts as held by an unknown driver
    from when this is called, so it is waited for.
    """
    folder = files.join(directory, FOLDER)
    while True:
        names = files.list_names(folder, ".json")
        if not names:
            return None
        data = files.read_bytes(files.join(folder, names[-1]))
        if data is not None:  # else it was cleared away just now by the next driver
            return _decode(data, names[-1])


def _encode(holder: Holder) -> bytes:
    return (json.dumps(dataclasses.asdict(holder), indent=2) + "\n").encode()


def _decode(data: bytes, name: str) -> Holder:
    number = int(name.removesuffix(".json")) if name.removesuffix(".json").isdecimal() else 0
    try:
        content: dict[str, Any] = json.loads(data)
        return Holder(**content)
    except (ValueError, TypeError):
        return Holder(number, "torn", "an unknown host", "", 0, 0.0, 0.0, 0.0, time.time())


def _name(number: int) -> str:
    return f"{number:08d}.json"


def _path(directory: str, number: int) -> str:
    return files.join(directory, FOLDER, _name(number))


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


@functools.cache
def _system() -> str:
    """What process ids of this process are valid in: a boot of a host, and a process namespace of it."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return socket.gethostname()


def _process_begun(pid: int) -> float | None:
    """When a process of this system began, in ticks or seconds; None if there is none, or only its zombie."""
    try:
        # The name, in brackets, may hold anything; state is the first field after it, the start the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
