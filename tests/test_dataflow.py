"""Rows through real Ray Data, with row functions that need no model."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest

from fdd_ray.budget import BudgetSettings, Meter
from fdd_ray.dataflow import FlowSettings, RowFunction, run_rows
from fdd_ray.engines.base import PromptTooLong
from fdd_ray.errors import BudgetError, EngineError, StageError, StoreError
from fdd_ray.overseer import Overseer
from fdd_ray.progress import StageProgress
from fdd_ray.records import Outcome, content_id, from_table, schema_of, to_table
from fdd_ray.store import files
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.run import Counts, Run, StageFolder

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("ray_local")]
FLOW = FlowSettings(block_rows=8, blocks_in_flight=3, map_actors=(1, 1), cpus_per_map_actor=0.1)


@dataclasses.dataclass(frozen=True)
class Ask:
    id: str
    number: int


@dataclasses.dataclass(frozen=True)
class Told:
    id: str
    number: int
    outcome: Outcome
    reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclasses.dataclass
class Square(RowFunction[Ask, Told]):
    """Squares numbers; multiples of 10 break in a different way each; leaves a mark for each call."""

    marks: str
    die_at: int | None = None
    always: bool = False
    sleep_s: float = 0.0
    reads: ClassVar[type] = Ask
    writes: ClassVar[type] = Told
    role: ClassVar[str] = "teacher"

    async def __call__(self, row: Ask) -> Told:
        Path(self.marks, f"{row.number}-{uuid.uuid4().hex}").touch()
        await asyncio.sleep(self.sleep_s)
        died = Path(self.marks, "died")
        if row.number == self.die_at and (self.always or not died.exists()):
            died.touch()
            os._exit(1)
        match row.number:
            case 10:
                raise EngineError("no engine answered")
            case 20:
                raise PromptTooLong("9 tokens")
            case 30:
                raise KeyError("a bug of ours")
        outcome: Outcome = "kept" if row.number % 2 else "rejected"
        return Told(row.id, row.number**2, outcome, "" if row.number % 2 else "even", 2, 3)

    def failure(self, row: Ask, reason: str, outcome: Outcome = "failed") -> Told:
        return Told(row.id, 0, outcome, reason, 0, 0)


def _input(folder: StageFolder, numbers: list[int]) -> str:
    return folder.write("input.parquet", to_table([Ask(content_id("a", str(n)), n) for n in numbers], Ask))


def _rows(folder: StageFolder) -> list[Told]:
    return from_table(files.read_tables([folder.file(name) for name in folder.parts()], schema_of(Told)), Told)


def _calls(marks: Path) -> Counter[int]:
    return Counter(int(path.name.split("-")[0]) for path in marks.iterdir() if path.name != "died")


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return Run(str(tmp_path / "run")).folder(0, "rationales")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def test_every_row_is_accounted_for(folder: StageFolder, marks: Path) -> None:
    progress = StageProgress("x")
    flow = dataclasses.replace(FLOW, max_failed_share=0.1)
    result = run_rows(Square(str(marks)), [_input(folder, list(range(40)))], folder, flow, progress)
    result.counts.check("here")
    assert result.counts == Counts(40, 20, {"even": 17, "prompt_too_long": 1}, 2)
    assert result.tokens == {"teacher": {"prompt": 74, "completion": 111}}
    assert set(result.summary["failures"]) == {"engine: no engine answered", "error: KeyError: 'a bug of ours'"}
    assert sorted(row.number for row in _rows(folder) if row.outcome == "kept") == [n * n for n in range(1, 40, 2)]
    assert (progress.done, progress.total) == (40, 40)
    assert _calls(marks) == Counter(range(40))


def test_rows_that_were_written_are_not_asked_again(folder: StageFolder, marks: Path) -> None:
    done = [Told(content_id("a", str(n)), -1, "kept", "", 1, 1) for n in range(0, 9)]
    folder.write("part-b-before.parquet", to_table(done, Told))
    result = run_rows(
        Square(str(marks)), [_input(folder, [0, *range(1, 10), *range(11, 20)])], folder, FLOW, StageProgress("x")
    )
    assert set(_calls(marks)) == {9, *range(11, 20)}
    assert result.counts.rows == 19 and sum(row.number == -1 for row in _rows(folder)) == 9
    again = run_rows(Square(str(marks)), [folder.file("input.parquet")], folder, FLOW, StageProgress("x"))
    assert again.counts == result.counts and sum(_calls(marks).values()) == 10


def test_the_ledger_and_the_progress_tell_how_far_it_is_and_what_was_kept(folder: StageFolder, marks: Path) -> None:
    folder.write("part-b-before.parquet", to_table([Told(content_id("a", "1"), 1, "kept", "", 1, 1)], Told))
    progress = StageProgress("x")
    run_rows(Square(str(marks)), [_input(folder, list(range(1, 10)))], folder, FLOW, progress)
    events = read_ledger(str(Path(folder.path).parents[1]))
    (counted,) = (event for event in events if event["event"] == "rows counted")
    assert (counted["rows"], counted["done"], counted["stage"], counted["round"]) == (9, 1, "rationales", 0)
    parts = [event for event in events if event["event"] == "part written"]
    assert (sum(part["rows"] for part in parts), sum(part["kept"] for part in parts)) == (8, 4)
    assert all(0 <= part["seconds"] <= part["time"] - counted["time"] for part in parts)
    now = progress.standing()
    assert (now.done, now.resumed, now.kept, now.total) == (9, 1, 4, 9)
    assert now.longest_s is not None and now.seconds is not None and 0 < now.longest_s <= now.seconds


def test_a_map_actor_that_dies_loses_and_doubles_nothing(folder: StageFolder, marks: Path) -> None:
    numbers = [n for n in range(100) if n % 10]
    progress = StageProgress("x")
    result = run_rows(Square(str(marks), die_at=45), [_input(folder, numbers)], folder, FLOW, progress)
    assert (marks / "died").exists() and progress.done == 90
    assert result.counts == Counts(90, 50, {"even": 40}, 0)
    assert Counter(row.id for row in _rows(folder)) == Counter(content_id("a", str(n)) for n in numbers)
    assert max(_calls(marks).values()) <= 2


def test_too_many_failures_stop_the_run_and_keep_the_rows(folder: StageFolder, marks: Path) -> None:
    with pytest.raises(StageError, match=r"1 of 3 rows failed.*no engine answered"):
        run_rows(Square(str(marks)), [_input(folder, [9, 10, 11])], folder, FLOW, StageProgress("x"))
    assert len(_rows(folder)) == 3
    lenient = dataclasses.replace(FLOW, max_failed_share=0.5)
    again = run_rows(Square(str(marks)), [folder.file("input.parquet")], folder, lenient, StageProgress("x"))
    assert _calls(marks) == {9: 1, 10: 2, 11: 1}, "only the row that failed is asked again"
    assert again.counts == Counts(3, 2, {}, 1)


def test_a_part_of_nothing_but_failures_is_asked_again(folder: StageFolder, marks: Path) -> None:
    source = _input(folder, [10])
    for asked in (1, 2):
        with pytest.raises(StageError, match="1 of 1 rows failed"):
            run_rows(Square(str(marks)), [source], folder, FLOW, StageProgress("x"))
        assert _calls(marks) == {10: asked}


def test_nothing_finishing_is_noticed(folder: StageFolder, marks: Path) -> None:
    flow = dataclasses.replace(FLOW, stall_deadline_s=4.0)
    with pytest.raises(StageError, match="no block was finished for"):
        run_rows(Square(str(marks), sleep_s=30), [_input(folder, [1])], folder, flow, StageProgress("x"))


def test_doubled_parts_are_refused(folder: StageFolder, marks: Path) -> None:
    rows = [Told(content_id("a", "1"), 1, "kept", "", 1, 1)]
    folder.write("part-b-one.parquet", to_table(rows, Told))
    folder.write("part-b-two.parquet", to_table(rows, Told))
    with pytest.raises(StoreError, match="written twice"):
        run_rows(Square(str(marks)), [_input(folder, [1])], folder, FLOW, StageProgress("x"))


def test_a_stage_needs_no_more_cpus_than_its_map_actors(folder: StageFolder, marks: Path) -> None:
    """Engines may hold nearly all of a small machine; a stage must not wait for CPUs that never come free."""
    import ray

    free = ray.available_resources()["CPU"]

    @ray.remote(num_cpus=free - 0.2)
    class Hog:
        def here(self) -> bool:
            return True

    hog = Hog.remote()
    assert ray.get(hog.here.remote())
    flow = dataclasses.replace(FLOW, stall_deadline_s=60)
    result = run_rows(Square(str(marks)), [_input(folder, [1, 3, 5])], folder, flow, StageProgress("x"))
    ray.kill(hog)
    assert result.counts.kept == 3


def test_a_row_that_kills_its_worker_each_time_is_set_aside(folder: StageFolder, marks: Path) -> None:
    numbers = [n for n in range(50) if n % 10]
    flow = dataclasses.replace(FLOW, max_failed_share=0.1)
    function = Square(str(marks), die_at=25, always=True, sleep_s=0.05)
    result = run_rows(function, [_input(folder, numbers)], folder, flow, StageProgress("x"))
    assert result.counts == Counts(45, 25 - 1, {"even": 20}, 1)
    (poison,) = [row for row in _rows(folder) if row.outcome == "failed"]
    assert poison.id == content_id("a", "25") and poison.reason == "poison: its worker died 3 times"
    assert Counter(row.id for row in _rows(folder)) == Counter(content_id("a", str(n)) for n in numbers)
    assert 4 <= _calls(marks)[25] <= 6


def test_a_budget_ends_a_stage_after_the_rows_in_flight(folder: StageFolder, marks: Path) -> None:
    source = _input(folder, list(range(1, 200, 2)))
    said: list[str] = []
    spent = Overseer(Meter(BudgetSettings(teacher_tokens=60)), say=said.append)
    with pytest.raises(BudgetError, match=r"rationales.*budget\.teacher_tokens = 60 is used up.*same command again"):
        run_rows(Square(str(marks), sleep_s=0.2), [source], folder, FLOW, StageProgress("x"), spent)
    written = len(_rows(folder))
    assert 12 <= written < 100 and written == sum(_calls(marks).values()), "what was asked was written"
    assert len(said) == 1 and "rows in flight" in said[0]
    raised = Overseer(Meter(BudgetSettings(teacher_tokens=600), teacher_tokens=5 * written))
    result = run_rows(Square(str(marks)), [source], folder, FLOW, StageProgress("x"), raised)
    assert result.counts == Counts(100, 100, {}, 0)
    assert set(_calls(marks).values()) == {1}, "nothing was asked twice"


def test_sigterm_ends_a_stage_after_the_rows_in_flight(folder: StageFolder, marks: Path) -> None:
    source = _input(folder, list(range(1, 200, 2)))
    overseer = Overseer(grace_s=20)
    before = signal.getsignal(signal.SIGTERM)
    overseer.watch_for_sigterm()

    def notice() -> None:
        while not any(marks.iterdir()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=notice).start()
    try:
        with pytest.raises(KeyboardInterrupt, match="told to end"):
            run_rows(Square(str(marks), sleep_s=1.5), [source], folder, FLOW, StageProgress("x"), overseer)
    finally:
        signal.signal(signal.SIGTERM, before)
    written = len(_rows(folder))
    assert 8 <= written < 100 and written == sum(_calls(marks).values()), "what was asked was written"
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)], "no second signal"


def test_rows_that_take_longer_than_the_grace_are_left(folder: StageFolder, marks: Path) -> None:
    source = _input(folder, [1, 3])
    overseer = Overseer(grace_s=0.5)
    before = signal.getsignal(signal.SIGTERM)
    overseer.watch_for_sigterm()
    begun = time.monotonic()
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_rows(Square(str(marks), sleep_s=60), [source], folder, FLOW, StageProgress("x"), overseer)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - begun < 30 and _rows(folder) == []
