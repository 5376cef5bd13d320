"""What it costs in teacher tokens to be killed in the middle of the teacher's stage and to go on.

    python benchmarks/chaos.py --half               # vLLM
    python benchmarks/chaos.py --half --simulated   # the simulated engine

The driver is killed when half of the rationales are on disk; the same command is given again. What was in
flight is asked twice, and nothing else, so the total is a little more than one pass.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from chaos_checks import Watcher, asked_after_written, read_outcome
from chaos_range import BLOCK_ROWS, BLOCKS, REAL, SCRIPTED, Range
from chaos_world import World

_STAGE = "round-00/rationales"
_POLL_S = 0.02


def half(world: World, work: Path, seed: int, *, size: int, simulated: bool, deadline_s: float) -> dict[str, Any]:
    """A row of the table.

    Raises:
        SystemExit: If the stage is not finished in time.
    """
    experiment = SCRIPTED if simulated else REAL
    settings = [*experiment.settings, "rounds=0", f"pool.size={size}", "flow.map_actors=1"]
    place = Range(world, work, dataclasses.replace(experiment, settings=settings), seed)
    driver, watcher = place.fresh(), Watcher(place.run)
    watcher.start()
    driver.start()
    killed, on_disk = 0.0, 0
    clock = time.monotonic()
    while not (place.run / _STAGE / "manifest.json").exists():
        if driver.code not in (None, 0) or time.monotonic() - clock > deadline_s:
            driver.kill()
            raise SystemExit(f"the teacher's stage was not finished: {driver.last_words()}")
        time.sleep(_POLL_S)
        if not killed and (on_disk := _rows(place.run / _STAGE)) >= size / 2:
            killed = time.time()
            driver.kill()
            driver.start()
    driver.kill()
    again = asked_after_written(read_outcome(place.run, place.calls), watcher.end())
    outcome = read_outcome(place.run, place.calls)
    calls = [call for call in outcome.calls if outcome.asked_by.get(call.key, ("",))[0] == _STAGE]
    # Of a request that was lost the tokens are not known, but those of the same request to the same weights are.
    tokens = _tokens(place, {call.key for call in calls})
    once = sum(tokens.values())
    spent = sum(tokens[call.key] for call in calls)
    return {
        "engine": "simulated" if simulated else "vLLM",
        "rows": size,
        "on disk at the kill": on_disk,
        "rows in flight at most": BLOCK_ROWS * BLOCKS,
        "requests": len(calls),
        "repeated": len(calls) - len(tokens),
        "asked after written": len(again),
        "tokens of one pass": once,
        "tokens in total": spent,
        "passes": spent / once,
    }


def _rows(stage: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in stage.glob("part-*.parquet"))


def _tokens(place: Range, keys: set[str]) -> Counter[str]:
    """Tokens of each request; the simulated engine logs none, so a mean row's are taken for each."""
    found: Counter[str] = Counter()
    for path in place.calls.glob("*.tokens"):
        for line in path.read_text(encoding="utf-8").splitlines():
            key, number = line.split()
            if key in keys:
                found[key] = int(number)
    if not found:
        total = sum(
            sum(pq.read_table(path).column(f"{kind}_tokens").to_pylist())
            for path in (place.run / _STAGE).glob("part-*.parquet")
            for kind in ("prompt", "completion")
        )
        return Counter(dict.fromkeys(keys, round(total / len(keys))))
    return found
