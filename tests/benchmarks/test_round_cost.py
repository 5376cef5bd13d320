"""The account of a run's time: every second is in one piece, and in the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark; it is a script, not part of a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import round_cost

    return round_cost


def _event(time: float, event: str, stage: str = "", round: int | None = 0, **fields: Any) -> dict[str, Any]:
    return {"time": time, "event": event, **({"stage": stage, "round": round} if stage else {}), **fields}


def _seconds(pieces: list[Any], stage: str) -> dict[str, float]:
    return {piece.kind: round(piece.seconds, 6) for piece in pieces if piece.stage == stage}


ROWS = [
    _event(12, "stage started", "rationales"),
    _event(15, "waited", "rationales", what="Ray", seconds=3),
    _event(15, "waited", "rationales", what="teacher place", seconds=0.5),
    _event(16, "waited", "rationales", what="teacher weights", seconds=0.25),
    _event(20, "waited", "rationales", what="teacher engines", seconds=4, ahead=1.5),
    _event(20.25, "rows counted", "rationales", rows=96, done=0),
    _event(28, "part written", "rationales", part="a", rows=32, seconds=4),
    _event(30, "part written", "rationales", part="b", rows=32, seconds=5),
    _event(35, "part written", "rationales", part="c", rows=32, seconds=3),
    _event(36, "stage finished", "rationales"),
]
TRAINED = {
    "total_seconds": 40, "seconds": 10, "start_seconds": 12, "prepare_seconds": 8, "export_seconds": 4, "loss": 1,
}  # fmt: skip
TRAINING = [
    _event(38, "stage started", "finetune"),
    _event(41, "waited", "finetune", what="training place", seconds=1),
    _event(82, "stage finished", "finetune"),
]
RUN = [_event(10, "run started"), *ROWS, *TRAINING, _event(85, "run ended", reason="finished")]


def test_a_stage_that_asks_for_rows_is_divided_by_what_it_waited_for_and_its_blocks(cost: Any) -> None:
    assert _seconds(cost.account(RUN, {0: TRAINED}), "rationales") == {
        "Ray start": 3, "waiting": 0.5, "weight reload": 0.25, "engine start": 4, "input": 0.5,
        "map actors": 3.75, "tokens": 9, "gaps": 2, "manifest": 1,
    }  # fmt: skip


def test_a_fine_tuning_is_divided_by_its_own_seconds(cost: Any) -> None:
    assert _seconds(cost.account(RUN, {0: TRAINED}), "finetune") == {
        "between": 2, "waiting": 1, "steps": 10, "training start": 12, "training preparation": 8, "export": 4,
        "training end": 6, "input": 3,
    }  # fmt: skip


def test_the_pieces_add_up_to_the_time_of_the_driver(cost: Any) -> None:
    pieces = cost.account(RUN, {0: TRAINED})
    assert sum(piece.seconds for piece in pieces) == pytest.approx(75)
    assert sum(piece.seconds for piece in pieces if not piece.stage) == 2 + 3


def test_a_stage_that_asks_nobody_is_work_of_its_own(cost: Any) -> None:
    events = [
        _event(0, "run started"),
        _event(1, "stage started", "split", 1),
        _event(4, "stage finished", "split", 1),
    ]
    assert cost.account(events, {}) == [
        cost.Piece(None, "", "driver", 1), cost.Piece(1, "split", "own work", 3), cost.Piece(None, "", "driver", 0),
    ]  # fmt: skip


def test_time_between_drivers_is_nobodys_and_a_killed_try_is_counted_as_such(cost: Any) -> None:
    killed = [_event(0, "run started"), *({**event, "time": event["time"] - 11} for event in ROWS[:-1])]
    resumed = [{**event, "time": event["time"] + 1000} for event in RUN]
    pieces = cost.account([*killed, *resumed], {0: TRAINED})
    assert [piece.seconds for piece in pieces if piece.kind == "former tries"] == [23]
    assert sum(piece.seconds for piece in pieces) == pytest.approx(24 + 75)


def test_runs_of_old_are_read_with_less_detail(cost: Any) -> None:
    old = [
        {key: value for key, value in event.items() if key != "seconds"}
        for event in ROWS
        if event["event"] not in ("waited", "rows counted")
    ]
    assert _seconds(cost.account([_event(10, "run started"), *old], {}), "rationales") == {
        "input": 16, "tokens": 7, "manifest": 1,
    }  # fmt: skip
    before = {"total_seconds": 40, "seconds": 10}
    found = _seconds(cost.account(RUN, {0: before}), "finetune")
    assert (found["training start"], found["steps"], found["input"]) == (30, 10, 3)


def test_the_table_of_rounds_adds_up(cost: Any) -> None:
    rows = cost.by_round(cost.account(RUN, {0: TRAINED}))
    assert [row["round"] for row in rows] == ["driver", "0 and base", "all"]
    assert (rows[-1]["s"], rows[-1]["tokens"], rows[-1]["steps"], rows[-1]["fixed"]) == ("75.0", "9.0", "10.0", "56.0")
    assert rows[-1]["fixed share"] == "74.7 %"


def test_engines_that_were_asked_for_beforehand_are_told(cost: Any) -> None:
    assert cost.overlapped(RUN) == [
        {"round": "0", "stage": "rationales", "what": "teacher engines", "asked for before s": 1.5, "waited s": 4}
    ]


def test_the_share_of_fixed_cost_is_of_the_feedback_rounds(cost: Any) -> None:
    pieces = [
        cost.Piece(None, "", "driver", 9), cost.Piece(0, "finetune", "export", 9),
        cost.Piece(1, "score", "tokens", 3), cost.Piece(1, "score", "gaps", 1),
        cost.Piece(2, "finetune", "steps", 1), cost.Piece(2, "finetune", "export", 1),
    ]  # fmt: skip
    (found,) = cost.ratios(pieces)
    assert (found.median, found.low, found.high, found.at_most, found.goal) == (0.375, 0.25, 0.5, True, None)
    assert cost.ratios(pieces[:2]) == []
