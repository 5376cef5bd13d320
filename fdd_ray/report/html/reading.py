"""Some rows of a stage, of many or few, without reading all of them.

    rows = some_rows(curated, Curated, seed=1)                          # windows drawn by chance
    found = find_rows(scored.outputs, Attempt, {"t-00438976ba7a69ba0c83"})   # by id

A stage may have millions of rows: what is read is bounded by files and row groups, whatever the stage holds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

from fdd_ray.records import from_table, schema_of
from fdd_ray.store import files
from fdd_ray.store.manifest import Manifest

R = TypeVar("R")
WINDOW = 256  # rows read in one place
WINDOWS = 48  # places of a stage that are looked at
FILES = 512  # files of a stage in which rows are looked for


def some_rows(stage: Manifest, row_type: type[R], seed: int) -> list[R]:
    """Rows from up to `WINDOWS` places of a stage's parts, drawn by ``seed``; all of a small stage, in its order."""
    places = list(_places(stage))
    chosen = places if len(places) <= WINDOWS else sorted(random.Random(seed).sample(places, WINDOWS))
    schema = schema_of(row_type)
    return [row for place in chosen for row in from_table(files.read_rows(*place, schema), row_type)]


def first_rows(path: str, row_type: type[R], most: int) -> list[R]:
    """The first rows of a file; none if there is no such file."""
    return from_table(files.read_rows(path, 0, most, schema_of(row_type)), row_type) if files.exists(path) else []


def find_rows(paths: Sequence[str], row_type: type[R], ids: Collection[str]) -> dict[str, R]:
    """The rows with these ids, as far as they are in the first `FILES` files; only row groups with one are read."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    missing = set(ids)
    schema = schema_of(row_type)
    found: dict[str, R] = {}
    for path in paths[:FILES]:
        if not missing:
            break
        with files.open_parquet(path) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.metadata.num_row_groups):
                here = pc.is_in(
                    parquet.read_row_group(group, columns=["id"]).column("id"),
                    value_set=pa.array(sorted(missing), pa.string()),
                )
                if pc.any(here).as_py():
                    table = parquet.read_row_group(group, columns=schema.names).filter(here).cast(schema)
                    rows = from_table(table, row_type)
                    found |= {row.id: row for row in rows}  # type: ignore[attr-defined]  # all rows that are asked for
                    missing -= found.keys()
    return found


def count_values(paths: Sequence[str], column: str) -> Counter[Any]:
    """How often each value of a column is there; the column is read in batches."""
    import pyarrow.parquet as pq

    counts: Counter[Any] = Counter()
    for path in paths:
        with files.open_parquet(path) as file:
            for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(columns=[column]):
                counts.update(batch.column(0).to_pylist())
    return counts


def _places(stage: Manifest) -> Iterator[tuple[str, int, int]]:
    for name, path in zip(stage.parts, stage.outputs, strict=True):
        record = stage.files.get(name)
        rows = record.rows if record and record.rows is not None else files.count_rows(path)
        for start in range(0, rows, WINDOW):
            yield path, start, min(rows, start + WINDOW)
