"""The pure parts of the benchmark of generating through an endpoint: reading the server, and summing up turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.endpoint import MODEL, ScriptedEndpoint, completion

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 40.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 1.0
vllm:request_success_created{engine="0",finished_reason="stop",model_name="m"} 1.7e+09
"""


@pytest.fixture
def generation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark; it is a script, not part of a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import generation

    return generation


def test_the_servers_counts_are_read(generation: Any) -> None:
    assert generation.read_metrics(METRICS, 7.0) == generation.Look(7.0, done=41, at_work=5)


def test_a_server_without_these_counts_tells_nothing(generation: Any) -> None:
    assert generation.read_metrics("", 7.0) is None
    assert generation.read_metrics(METRICS.replace("request_success_total", "other"), 7.0) is None


def test_work_begins_with_the_first_request_that_is_no_check(generation: Any) -> None:
    looks = [
        generation.Look(1.0, 100, 0),
        generation.Look(2.0, 100, 1),
        generation.Look(3.0, 102, 0),
        generation.Look(4.0, 103, 16),
        generation.Look(5.0, 142, 0),
    ]
    assert generation.work_begun(looks, before=100, more=2) == 4.0
    assert generation.work_begun(looks, before=100, more=0) == 2.0
    assert generation.work_begun(looks[:1], before=100, more=0) is None


def _turn(generation: Any, seconds: float, rows: int = 100, **changes: Any) -> Any:
    given = {"same": rows, "more": 0, "in_flight": 16, "version": "1.0"} | changes
    return generation.Turn(wall_s=2 * seconds, work_s=seconds, rows=rows, **given)


def test_sides_are_held_against_ours_and_the_ceiling_and_lost_rows_count_as_lost(generation: Any) -> None:
    turns = {
        "fdd_ray": [_turn(generation, seconds, more=2) for seconds in (9.0, 10.0, 30.0)],
        "curator": [_turn(generation, 20.0), _turn(generation, 20.0, rows=80, same=79), _turn(generation, 20.0)],
        "client": [_turn(generation, 8.0, more=None, in_flight=None) for _ in range(3)],
        "http": [_turn(generation, 5.0) for _ in range(3)],
    }
    ours, curator, client, http = generation.summarise(turns, 100)
    assert (ours["rows/s"], ours["ours / this"], ours["of ceiling"], ours["more requests"]) == (10.0, 1.0, 0.5, 6)
    assert ours["work s"] == "10.0 [9.0, 30.0]" and ours["wall rows/s"] == 5.0
    assert (curator["rows in"], curator["rows out"], curator["lost"]) == (300, 280, 20)
    assert (curator["ours / this"], curator["same text"]) == (2.0, "279 of 280")
    assert http["of ceiling"] == 1.0
    assert (client["of ceiling"], client["more requests"], client["most in flight"]) == (0.625, "", "")


def test_ratios_are_ours_to_each_other_side(generation: Any) -> None:
    ours = [_turn(generation, seconds) for seconds in (9.0, 10.0, 30.0)]
    turns = {"fdd_ray": ours, "curator": [_turn(generation, 20.0, rows=80)], "http": [_turn(generation, 5.0)]}
    found = generation.ratios(turns)
    assert [one.what for one in found] == [
        "rows/s, to curator", "rows/s with start-up, to curator", "rows/s, to http", "rows/s with start-up, to http",
    ]  # fmt: skip
    assert [one.median for one in found] == pytest.approx([2.5, 2.5, 0.5, 0.5])
    assert [one.goal for one in found] == [2.0, None, None, None]
    assert (found[0].low, found[0].high) == pytest.approx((100 / 30 / 4, 100 / 9 / 4))
    assert generation.ratios({"http": turns["http"]}) == []


def test_a_row_that_is_not_answered_earns_no_speed(generation: Any) -> None:
    (row,) = generation.summarise({"curator": [_turn(generation, 10.0, rows=50)]}, 100)
    assert row["rows/s"] == 5.0 and row["ours / this"] == "" and row["of ceiling"] == ""


def test_every_side_begins_once(generation: Any) -> None:
    sides = ["a", "b", "c"]
    orders = [generation._order(sides, repeat) for repeat in range(3)]
    assert [order[0] for order in orders] == sides and all(sorted(order) == sides for order in orders)


@pytest.mark.parametrize("side", ["client", "http"])
def test_bare_clients_ask_each_prompt_once_with_the_same_body(generation: Any, tmp_path: Path, side: str) -> None:
    prompts, pool = generation.write_prompts(tmp_path, 6, "tiny")
    script = ScriptedEndpoint(lambda asked, number: completion(f"answer to {asked.json['messages'][0]['content']}"))
    with script as server:
        job = generation.Job(server.url, MODEL, str(prompts), str(pool), str(tmp_path), "tiny", 2, 100)
        told = generation.SIDES[side](job)
    rows = job.rows()
    assert told.answers == {row["id"]: f"answer to {row['prompt']}" for row in rows}
    assert sorted(asked.json["messages"][0]["content"] for asked in server.chats) == sorted(r["prompt"] for r in rows)
    for asked in server.chats:
        body = {key: value for key, value in asked.json.items() if key != "messages"}
        assert body == {"model": MODEL, "temperature": 0.0, "max_tokens": 100}
    assert told.begun <= told.ended


def test_prompts_are_those_of_the_pool(generation: Any, tmp_path: Path) -> None:
    from fdd_ray.prompts import load_prompts
    from fdd_ray.records import Problem, from_table, schema_of
    from fdd_ray.store import files

    prompts, pool = generation.write_prompts(tmp_path, 5, "tiny")
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    problems = from_table(files.read_tables([str(pool)], schema_of(Problem)), Problem)
    solve = load_prompts("tiny").solve
    assert [(row["id"], row["prompt"]) for row in rows] == [
        (problem.id, solve("program", problem.question)[0]["content"]) for problem in problems
    ]
    assert len(rows) == 5
