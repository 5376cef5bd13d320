"""A driver for tests that run several: does one stage in a process of its own.

    python -m tests.store.driving DIRECTORY EXPIRY_S RENEW_S SECONDS [hold]

Prints ``taken`` once it has the lease, then does a stage that takes SECONDS; exits like fdd-ray.
"""

from __future__ import annotations

import sys
import time

import pyarrow as pa

from fdd_ray.errors import FddError
from fdd_ray.store import lease
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult


def work(folder: StageFolder, seconds: float) -> StageResult:
    print("taken", flush=True)
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        time.sleep(0.1)
        folder.write(f"part-{number:03d}.parquet", pa.table({"id": [str(number)]}))
        folder.note("part written", part=f"part-{number:03d}.parquet", rows=1)
        number += 1
    return StageResult(Counts(number, number), tuple(folder.parts()))


def main() -> int:
    directory, expiry_s, renew_s, seconds = sys.argv[1], *map(float, sys.argv[2:5])
    lease.EXPIRY_S, lease.RENEW_S = expiry_s, renew_s
    if "elsewhere" in sys.argv[5:]:
        lease._system = lambda: "another host"  # type: ignore[assignment]
    try:
        with Run(directory, say=lambda text: print(text, flush=True)) as run:
            run.once("rationales", 0, {}, lambda folder: work(folder, seconds))
    except FddError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return error.exit_code
    print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
