"""Tables cut into numbered groups, so that many writers can hand each reader its share through files.

Each writer puts one file with all groups, each reader takes one group out of all files:

    >>> write_groups("exchange/from-7.parquet", {0: first, 3: second})
    >>> read_group(["exchange/from-6.parquet", "exchange/from-7.parquet"], 3, schema)

A group is one row group of its file: nothing else of the file is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fdd_ray.store import files

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = b"fdd_ray.groups"
_MOST_ROWS = 1 << 30


def write_groups(path: str, groups: Mapping[int, pa.Table], schema: pa.Schema) -> None:
    """Write one Parquet file durably.

    Args:
        path: The file.
        groups: The rows of each group by its number; empty ones may be left out.
        schema: What all of them hold.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    numbers = [number for number in sorted(groups) if groups[number].num_rows]
    described = schema.with_metadata({_KEY: json.dumps(numbers).encode()})
    with pq.ParquetWriter(sink, described, compression="zstd") as writer:
        for number in numbers:
            writer.write_table(groups[number].cast(schema).replace_schema_metadata(described.metadata), _MOST_ROWS)
    files.write_bytes(path, sink.getvalue().to_pybytes())


def read_group(paths: Sequence[str], number: int | None, schema: pa.Schema) -> pa.Table:
    """The rows of one group (None: of all) from all files in the order given; only the columns of ``schema``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [schema.empty_table()]
    for path in paths:
        with files.open_parquet(path) as file:
            parquet = pq.ParquetFile(file)
            numbers = json.loads(parquet.schema_arrow.metadata[_KEY])
            wanted = [index for index, found in enumerate(numbers) if number is None or found == number]
            if wanted:
                tables.append(parquet.read_row_groups(wanted, columns=schema.names).cast(schema))
    return pa.concat_tables(tables)
