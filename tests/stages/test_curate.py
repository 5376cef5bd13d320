"""Curation on real Ray: few rows in one go, many step by step, with the same result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.curation.duplicates import DuplicateSettings
from fdd_ray.errors import StageError
from fdd_ray.flow import FlowSettings
from fdd_ray.progress import StageProgress
from fdd_ray.records import Completion, Curated, Origin, Problem, Variation, from_table, schema_of, to_table
from fdd_ray.stages.curate import CurateSettings, curate, require_all
from fdd_ray.store import files
from fdd_ray.store.run import Manifest, Run, StageFolder, StageResult

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("ray_local")]
FLOW = FlowSettings(map_actors=(1, 1), cpus_per_map_actor=0.1, stall_deadline_s=120)


def _variation(
    number: int, question: str = "", answers: tuple[str | None, ...] = ("7", "7", "7"), origin: Origin = "complex"
) -> Variation:
    solutions = tuple(
        Completion(f"text {i}", answer, "answered" if answer else "no_answer", "stop", 1)
        for i, answer in enumerate(answers)
    )
    rationales = tuple(f"answer = {answer}  # {i}" if answer else "" for i, answer in enumerate(answers))
    return Variation(
        f"r-{number:03d}", "p-parent", origin, 1, "kept", "", question or f"Totally different story number {number}?",
        "program", solutions, rationales, 1, 1,
    )  # fmt: skip


def _folder(path: Path) -> StageFolder:
    return Run(str(path)).folder(1, "curate")


def _rows(folder: StageFolder) -> list[Curated]:
    return from_table(files.read_tables([folder.file(name) for name in folder.parts()], schema_of(Curated)), Curated)


def _curate(
    tmp_path: Path,
    variations: list[Variation],
    pool: list[Problem] | None = None,
    benchmarks: Mapping[str, list[Problem]] | None = None,
    quotas: Mapping[Origin, int] | None = None,
    accepted: list[Curated] | None = None,
    settings: CurateSettings | None = None,
    **more: Any,
) -> tuple[StageResult, dict[str, Curated]]:
    folder = _folder(tmp_path)

    def write(name: str, rows: list[Any], row_type: type) -> str:
        return folder.write(f"in-{name}.parquet", to_table(rows, row_type))

    result = curate(
        folder,
        [write("variations", variations, Variation)],
        pool=[write("pool", pool or [], Problem)],
        accepted=[write("accepted", accepted or [], Curated)],
        benchmarks={name: write(name, held, Problem) for name, held in (benchmarks or {}).items()},
        settings=settings or CurateSettings(),
        quotas=quotas or {"complex": 100, "similar": 100},
        flow=FLOW,
        progress=StageProgress("x"),
        **more,
    )
    result.counts.check("here")
    rows = _rows(folder)
    assert result.counts.rows == len(variations) == len(rows)
    return result, {row.id: row for row in rows}


def test_duplicates_and_benchmark_problems_are_rejected_with_evidence(tmp_path: Path) -> None:
    pool = [Problem.new("Ann has 3 apples and buys 4. How many?", "7")]
    held = [Problem.new("Ben has 5 pears and eats 2. How many?", "3")]
    variations = [
        _variation(1, "Ann has 3 apples and buys 4. How many?"),
        _variation(2, "Ann has 3 apples, and buys 4! How many?"),
        _variation(3, "Ben has 5 pears and eats 2. How many?"),
        _variation(4, "Ann has 30 apples and buys 40. How many?"),
        _variation(5, "Ann has 30 apples and buys 40. How many?"),
        _variation(6, "Ann has thirty apples and buys 40. How many?"),
    ]
    result, rows = _curate(tmp_path, variations, pool, {"bench": held})
    assert {row.id: row.reason for row in rows.values()} == {
        "r-001": "exact_duplicate",
        "r-002": "duplicate",
        "r-003": "in_benchmark: same_problem",
        "r-004": "",
        "r-005": "exact_duplicate",
        "r-006": "near_duplicate",
    }
    assert rows["r-002"].evidence == pool[0].id
    assert rows["r-003"].evidence == f"bench:{held[0].id}"
    assert rows["r-006"].evidence == rows["r-004"].problem_id and rows["r-006"].similarity == 1.0
    assert result.counts.rows == 6 and result.counts.kept == 1
    assert sum(result.counts.rejected.values()) == 5
    found = {"candidates": 5, "duplicate": 1, "exact_duplicate": 2, "near_duplicate": 1}
    assert result.summary == {"kept": {"complex": 1, "similar": 0}, "duplicates": found}


def test_the_order_of_the_parts_does_not_matter(tmp_path: Path) -> None:
    variations = [_variation(i) for i in range(6)]
    _, forwards = _curate(tmp_path / "a", variations, quotas={"complex": 3, "similar": 0})
    _, backwards = _curate(tmp_path / "b", variations[::-1], quotas={"complex": 3, "similar": 0})
    assert forwards == backwards


def test_surplus_is_counted_and_one_origin_fills_for_the_other(tmp_path: Path) -> None:
    variations = [_variation(i) for i in range(6)] + [_variation(9, origin="similar")]
    result, rows = _curate(tmp_path, variations, quotas={"complex": 2, "similar": 2})
    kept = [row.origin for row in rows.values() if row.outcome == "kept"]
    assert sorted(kept) == ["complex", "complex", "complex", "similar"]
    assert result.counts.rejected == {"over_quota": 3}
    assert result.summary["kept"] == {"complex": 3, "similar": 1}


def test_bridges_have_a_quota_and_a_count_of_their_own(tmp_path: Path) -> None:
    origins: list[Origin] = ["bridge", "bridge", "similar", "complex"]
    variations = [_variation(i, origin=origin) for i, origin in enumerate(origins)]
    result, rows = _curate(tmp_path, variations, quotas={"complex": 1, "similar": 1, "bridge": 1})
    assert result.summary["kept"] == {"bridge": 1, "complex": 1, "similar": 1}
    assert rows["r-001"].reason == "over_quota" and rows["r-000"].origin == "bridge"


def test_what_failed_or_was_rejected_before_keeps_its_reason(tmp_path: Path) -> None:
    failed = dataclasses.replace(_variation(1), outcome="failed", reason="engine: gone", solutions=(), rationales=())
    empty = dataclasses.replace(_variation(2), outcome="rejected", reason="no_problem", solutions=(), rationales=())
    result, rows = _curate(tmp_path, [failed, empty, _variation(3)])
    assert result.counts.failed == 1 and result.counts.rejected == {"no_problem": 1} and result.counts.kept == 1
    assert rows["r-001"].reason == "engine: gone"


def test_what_earlier_rounds_accepted_is_in_the_pool_and_what_they_rejected_is_not(tmp_path: Path) -> None:
    first, second = "Ann has 3 apples and buys 4. How many?", "Eve has 5 pears and eats 2. How many?"
    _, before = _curate(tmp_path / "a", [_variation(1, first), _variation(2, second, answers=(None, None, None))])
    assert [row.outcome for row in before.values()] == ["kept", "rejected"]
    _, rows = _curate(tmp_path / "b", [_variation(3, first), _variation(4, second)], accepted=list(before.values()))
    assert (rows["r-003"].reason, rows["r-003"].evidence) == ("exact_duplicate", before["r-001"].problem_id)
    assert rows["r-004"].outcome == "kept"


def test_step_by_step_and_in_one_go_are_the_same(tmp_path: Path) -> None:
    words = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")
    variations = [
        _variation(
            i,
            f"A {words[i % 8]} finds {i % 9 + 2} nuts and then eats {i % 5 + 2} of its nuts. How many nuts are left?",
            origin="similar" if i % 3 else "complex",
            answers=("7", "7", "7" if i % 4 else None),
        )
        for i in range(120)
    ]
    variations[5] = dataclasses.replace(
        variations[5], outcome="failed", reason="engine: gone", solutions=(), rationales=()
    )
    pool = [Problem.new(row.question, "7") for row in variations[:20]]
    lenient = CurateSettings(duplicates=DuplicateSettings(per_template=9, max_drop_share=1))
    more: dict[str, Any] = {"pool": pool, "quotas": {"complex": 5, "similar": 12}, "settings": lenient}
    at_once, expected = _curate(tmp_path / "a", variations, **more)
    assert set(at_once.counts.rejected) >= {"exact_duplicate", "template_cap", "over_quota"}
    assert at_once.counts.kept == 17 and at_once.counts.failed == 1
    assert len(at_once.parts) == 1
    assert [row.id for row in _rows(_folder(tmp_path / "a"))] == sorted(row.id for row in variations)
    by_steps, rows = _curate(tmp_path / "b", variations[::-1], few_rows=50, **more)
    assert rows == expected
    assert (by_steps.counts, by_steps.summary) == (at_once.counts, at_once.summary)
    assert len(by_steps.parts) == 3


def test_a_flood_of_duplicates_stops_the_run_until_it_is_allowed(tmp_path: Path) -> None:
    variations = [_variation(i, f"Ann has {i + 2} apples and buys 4. How many?") for i in range(60)]
    with pytest.raises(StageError, match=r"round 1 curate: 52 of 60 good new problems \(87%\).*template_cap 52"):
        _curate(tmp_path, variations)
    assert _folder(tmp_path).parts() == [], "settings may be changed while nothing was curated"
    allowed = CurateSettings(duplicates=DuplicateSettings(max_drop_share=0.9))
    result, _ = _curate(tmp_path, variations, settings=allowed)
    assert result.counts.rejected == {"template_cap": 52} and result.counts.kept == 8


def test_a_stage_that_was_stopped_begins_anew(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.write("part-7.parquet", to_table([], Curated))
    folder.write("judged/judged-000009.parquet", to_table([], Curated))
    folder.write("duplicates/findings-texts-000009.parquet", to_table([], Curated))
    result, _ = _curate(tmp_path, [_variation(1)])
    assert result.parts == ("part-0.parquet",) and result.counts.kept == 1


def test_more_rationales_are_no_duplicates_of_their_own_problem(tmp_path: Path) -> None:
    pool = [Problem.new("Ann has 3 apples and buys 4. How many?", "7")]

    def more(number: int, *texts: str) -> Variation:
        solutions = tuple(Completion(text, "7", "right", "stop", 1) for text in texts)
        row = _variation(number, pool[0].question, origin="seed")
        return dataclasses.replace(row, solutions=solutions, rationales=texts, band="seeds")

    rows = [more(1, "answer = 7"), more(2, "answer = 7"), more(3, "answer = 3 + 4"), more(4, "answer = 4 + 3")]
    result, found = _curate(tmp_path / "a", rows, pool, {"bench": pool}, {"seeds": 2})
    assert {id: row.reason for id, row in found.items()} == {
        "r-001": "",
        "r-002": "repeats_rationale",
        "r-003": "",
        "r-004": "over_quota",
    }
    assert found["r-001"].problem_id == pool[0].id
    _, found = _curate(tmp_path / "b", rows, pool, quotas={"seeds": 3}, distinct_rationales=False)
    assert [row.reason for row in found.values()] == ["", "", "", "over_quota"]
    with pytest.raises(StageError, match=r"2 of the 3 that feedback\.exact"):
        require_all(Manifest("curate", 1, "", "x", {}, result.counts, (), {}, {}, 0.0), 3)
