"""The pool, read from its files."""

from __future__ import annotations

from pathlib import Path

from fdd_ray.pool import pool_problems
from fdd_ray.records import Curated, Origin, Outcome, Problem, to_table
from fdd_ray.store.run import Run


def test_seeds_come_first_then_what_each_round_accepted(tmp_path: Path) -> None:
    folder = Run(str(tmp_path)).folder(0, "problems")
    seeds = [Problem.new(f"Q{n}?", str(n), source=f"f:{n}", solution="s") for n in range(3)]

    def curated(id: str, round: int, origin: Origin = "similar", outcome: Outcome = "kept") -> Curated:
        return Curated(
            f"r-{id}", "p-0", origin, round, outcome, "", f"p-{id}", f"{id}?", "9", "program", ("answer = 9",), 3, 1.0,
            1, "",
        )  # fmt: skip

    first = folder.write("a.parquet", to_table([curated("a", 1), curated("b", 1, outcome="rejected")], Curated))
    # A further rationale for a seed problem is no problem.
    second = folder.write("b.parquet", to_table([curated("c", 2, "complex"), curated("d", 2, "seed")], Curated))
    path = folder.write("pool.parquet", to_table(seeds, Problem))
    found = list(pool_problems(path, [first, second]))
    assert found[:3] == seeds
    assert [(p.id, p.origin, p.source, p.parent_id, p.round, p.answer) for p in found[3:]] == [
        ("p-a", "similar", "round 1", "p-0", 1, "9"),
        ("p-c", "complex", "round 2", "p-0", 2, "9"),
    ]
