"""What tests ask the kernel about sandbox workers and about this process."""

from __future__ import annotations

import os
from pathlib import Path


def workers_of(parent: int | None = None) -> list[int]:
    """The sandbox workers that are children of ``parent``, or of this process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            owner = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if int(owner) == (parent or os.getpid()) and "monty" in command:
            found.append(int(folder.name))
    return found


def is_running(pid: int) -> bool:
    """Whether the process is there and not only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resident_mib(pid: int, field: str = "VmRSS") -> float:
    """Memory of a process in MiB, now or (``VmHWM``) at its most; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def open_files() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
