"""The pool of a run, read from the files it lies in: seed problems, and what each round accepted.

for problem in pool_problems("round-00/problems/pool.parquet", curated=["round-01/curate/part-0.parquet"]):
    ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fdd_ray.records import Curated, Problem, from_table, schema_of
from fdd_ray.store import files


def pool_problems(seeds: str, curated: Sequence[str]) -> Iterator[Problem]:
    """All problems of the pool, seeds first; a few thousand at a time are in memory.

    Args:
        seeds: The Parquet file with the seed problems.
        curated: Parquet files of curate stages, the earliest round first. More rationales for seed problems,
            which these may hold too, are no problems.
    """
    for table in files.iter_tables([seeds], schema_of(Problem)):
        yield from from_table(table, Problem)
    columns = ["problem_id", "question", "answer", "origin", "round", "parent_id", "outcome"]
    for table in files.iter_tables(curated, schema_of(Curated), columns):
        for row in table.to_pylist():
            if row["outcome"] == "kept" and row["origin"] != "seed":
                yield Problem(
                    row["problem_id"], row["question"], row["answer"], row["origin"], f"round {row['round']}",
                    row["parent_id"], row["round"],
                )  # fmt: skip
