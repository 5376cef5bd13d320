from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fdd_ray.records import Completion, Curated, Origin, Problem, Variation, from_table, schema_of, to_table
from fdd_ray.stages.curate import CurateSettings, curate
from fdd_ray.store import files
from fdd_ray.store.run import Run, StageResult


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


def _curate(
    tmp_path: Path,
    variations: list[Variation],
    pool: list[Problem] | None = None,
    benchmarks: Mapping[str, list[Problem]] | None = None,
    quotas: Mapping[Origin, int] | None = None,
) -> tuple[StageResult, dict[str, Curated]]:
    folder = Run(str(tmp_path)).folder(1, "curate")
    path = folder.write("variations.parquet", to_table(variations, Variation))
    result = curate(
        folder, [path], pool=pool or [], benchmarks=benchmarks or {}, settings=CurateSettings(),
        quotas=quotas or {"complex": 100, "similar": 100},
    )  # fmt: skip
    rows = from_table(files.read_tables([folder.file("part-0.parquet")], schema_of(Curated)), Curated)
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
    ]
    result, rows = _curate(tmp_path, variations, pool, {"bench": held})
    assert {row.id: row.reason for row in rows.values()} == {
        "r-001": "exact_duplicate",
        "r-002": "duplicate",
        "r-003": "in_benchmark",
        "r-004": "",
        "r-005": "exact_duplicate",
    }
    assert rows["r-002"].evidence == pool[0].id
    assert rows["r-003"].evidence == f"bench:{held[0].id}"
    assert result.counts.rows == 5 and result.counts.kept == 1
    assert sum(result.counts.rejected.values()) == 4


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


def test_what_failed_or_was_rejected_before_keeps_its_reason(tmp_path: Path) -> None:
    import dataclasses

    failed = dataclasses.replace(_variation(1), outcome="failed", reason="engine: gone", solutions=(), rationales=())
    empty = dataclasses.replace(_variation(2), outcome="rejected", reason="no_problem", solutions=(), rationales=())
    result, rows = _curate(tmp_path, [failed, empty, _variation(3)])
    assert result.counts.failed == 1 and result.counts.rejected == {"no_problem": 1} and result.counts.kept == 1
    assert rows["r-001"].reason == "engine: gone"
