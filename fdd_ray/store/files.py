"""Durable files on local disk or an object store, through one set of functions.

A path is a local path or any fsspec URL (``s3://bucket/run``). Nothing is ever seen half-written: a
local file is written under a temporary name, flushed to disk and renamed; an object store makes an
object visible only once its upload is whole. A file is therefore never changed in place, and a hard
link to it keeps its content for good.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fdd_ray.errors import StoreError
from fdd_ray.store.access import explained, filesystem_of, is_local

if TYPE_CHECKING:
    import pyarrow as pa

# Rows of a Parquet row group: what `read_rows` has to read at the least.
_ROW_GROUP = 2048
_CHUNK = 1 << 24


def join(path: str, *parts: str) -> str:
    """``path`` with ``parts`` appended; works for URLs too."""
    return posixpath.join(path, *parts)


def absolute(path: str) -> str:
    """A local path made absolute; a URL as it is (workers have another working directory)."""
    return os.path.abspath(os.path.expanduser(path)) if is_local(path) else path.rstrip("/")


def write_bytes(path: str, data: bytes) -> None:
    """Write a whole file durably, replacing an older one in one step."""
    with explained("write", path):
        if not is_local(path):
            filesystem, inner = filesystem_of(path)
            filesystem.pipe_file(inner, data)
            return
        with _temporary(path, data) as temporary:
            temporary.replace(path)


def create_bytes(path: str, data: bytes) -> bool:
    """Write a whole file only if there is none at ``path``; whether it was written.

    Of several callers at most one is told that it was: local disks and stores with conditional puts
    (S3) see to that. Elsewhere two that come within the same moment may both be told so; read the
    file again after a while to see whose it is.
    """
    with explained("write", path):
        if not is_local(path):
            filesystem, inner = filesystem_of(path)
            try:
                filesystem.pipe_file(inner, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                # S3 answers a lost race with 409 or 412, which s3fs does not map to FileExistsError.
                if exists(path):
                    return False
                raise error
            return True
        with _temporary(path, data) as temporary:
            try:
                os.link(temporary, path)  # unlike a rename, a link never replaces what is there
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links
                try:
                    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                except FileExistsError:
                    return False
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        return True


@contextlib.contextmanager
def _temporary(path: str, data: bytes) -> Iterator[Path]:
    """A flushed file with ``data`` beside a local ``path``; gone again at the end."""
    with _temporary_file(Path(path)) as (temporary, file):
        file.write(data)
        _flush(file)
        yield temporary


@contextlib.contextmanager
def _temporary_file(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """An open file beside a local path; gone again at the end, if it was not moved."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def write_json(path: str, value: Any) -> None:
    """Write ``value`` as indented JSON, durably."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_table(path: str, table: pa.Table) -> None:
    """Write an Arrow table as one Parquet file, durably."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=_ROW_GROUP, write_page_checksum=True)
    write_bytes(path, sink.getvalue().to_pybytes())


def write_tables(path: str, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write tables, as they come, as one Parquet file, durably; no more than a few row groups are held in memory.

    Args:
        path: The file.
        tables: What goes into it, in order.
        schema: What each of them holds.

    Returns:
        How many rows there were.
    """
    import pyarrow.parquet as pq

    rows = 0
    local = is_local(path)
    with contextlib.ExitStack() as stack:
        place = Path(path) if local else Path(stack.enter_context(tempfile.TemporaryDirectory())) / "table.parquet"
        with explained("write", path):
            temporary, file = stack.enter_context(_temporary_file(place))
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
            for table in _regrouped(tables, schema):
                rows += table.num_rows
                with explained("write", path):
                    writer.write_table(table, row_group_size=_ROW_GROUP)
        with explained("write", path):
            _flush(file)
            if local:
                temporary.replace(path)
            else:
                filesystem, inner = filesystem_of(path)
                filesystem.put_file(str(temporary), inner)
    return rows


def _regrouped(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of whole row groups, but for the last."""
    import pyarrow as pa

    waiting = schema.empty_table()
    for table in tables:
        waiting = pa.concat_tables([waiting, table.cast(schema)])
        whole = waiting.num_rows // _ROW_GROUP * _ROW_GROUP
        if whole:
            yield waiting.slice(0, whole)
            waiting = waiting.slice(whole)
    if waiting.num_rows:
        yield waiting


def append_line(path: str, line: str) -> None:
    """Append one line to a local file and flush it to disk; what a failed append wrote is taken back."""
    with explained("append to", path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            size = file.tell()
            data = line.encode() + b"\n"
            try:
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise


def read_bytes(path: str) -> bytes | None:
    """The content of a file, or None if there is none."""
    try:
        with explained("read", path):
            filesystem, inner = filesystem_of(path)
            return bytes(filesystem.cat_file(inner))
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def read_json(path: str) -> Any | None:
    """The parsed content of a JSON file, or None if there is no such file."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise StoreError(
            f"{path} is torn or not JSON ({error}); restore it from a copy, or remove it and run again"
        ) from error


def read_tables(paths: Sequence[str], schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Several Parquet files as one table, in the order given.

    Args:
        paths: The files; none gives an empty table.
        schema: What each of them must hold.
        columns: Only these columns, if given.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    tables = [schema.empty_table()]
    for path in paths:
        with open_parquet(path) as file:
            tables.append(pq.read_table(file, columns=schema.names, page_checksum_verification=True).cast(schema))
    return pa.concat_tables(tables)


def iter_tables(paths: Sequence[str], schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """What `read_tables` reads, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    for path in paths:
        with open_parquet(path) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.metadata.num_row_groups):
                yield parquet.read_row_group(group, columns=schema.names).cast(schema)


def read_rows(path: str, start: int, stop: int, schema: pa.Schema) -> pa.Table:
    """Rows ``start`` to ``stop`` (exclusive) of a Parquet file, reading only the row groups they are in."""
    import pyarrow.parquet as pq

    with open_parquet(path) as file:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        groups, first, skipped = [], 0, 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if first + rows <= start:
                skipped = first + rows
            elif first < stop:
                groups.append(group)
            first += rows
        table = parquet.read_row_groups(groups, columns=schema.names).cast(schema)
        return table.slice(start - skipped, stop - start)


def count_rows(path: str) -> int:
    """How many rows a Parquet file has, from its footer."""
    import pyarrow.parquet as pq

    with open_parquet(path) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """An open Parquet file; what turns out to be wrong with it while it is read is named."""
    import pyarrow as pa

    try:
        with explained("read", path):
            filesystem, inner = filesystem_of(path)
            with filesystem.open(inner, "rb") as file:
                yield file
    except (pa.ArrowInvalid, pa.ArrowKeyError, ValueError) as error:
        raise StoreError(f"{path} {_NO_PARQUET} ({error}); {_RESTORE}") from error
    except StoreError as error:
        # Arrow reports a page that is torn in its middle as an OSError without a number.
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is None and is_local(path):
            raise StoreError(f"{path} {_NO_PARQUET} ({cause}); {_RESTORE}") from cause
        raise


_NO_PARQUET = "is not the Parquet file it should be"
_RESTORE = "it was torn or changed by hand: restore it, or do its stage again with fdd-ray run ... --from-stage STAGE"


def whole_table(path: str) -> bool:
    """Whether a Parquet file can be read to its end, every page with the checksum it was written with.

    Raises:
        StoreError: If it cannot be reached at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path)
    if data is None:
        return False
    try:
        pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def exists(path: str) -> bool:
    """Whether there is a file or folder at ``path``."""
    with explained("look at", path):
        filesystem, inner = filesystem_of(path)
        return bool(filesystem.exists(inner))


def list_names(path: str, suffix: str = "") -> list[str]:
    """The sorted names of the files in a folder that end in ``suffix``; none if there is no folder."""
    return sorted(name for name in _entries(path) if name.endswith(suffix))


def sizes(path: str, skip: Sequence[str] = ()) -> dict[str, int]:
    """The size in bytes of every file in a folder and below it, by path relative to the folder.

    Args:
        path: The folder; none gives no files.
        skip: Names of files and folders directly in it that are left out. Hidden ones always are.
    """
    found: dict[str, int] = {}
    for name, entry in _entries(path).items():
        if name in skip:
            continue
        if entry["type"] == "directory":
            found |= {f"{name}/{below}": size for below, size in sizes(join(path, name)).items()}
        else:
            found[name] = int(entry["size"])
    return found


def _entries(path: str) -> dict[str, Any]:
    with explained("list", path), contextlib.suppress(FileNotFoundError):
        filesystem, inner = filesystem_of(path)
        # Object stores may hold an empty object in a folder's own name, which is no file in it.
        inside = [e for e in filesystem.ls(inner, detail=True) if e["name"].rstrip("/") != inner.rstrip("/")]
        named = ((entry["name"].rstrip("/").rsplit("/", 1)[-1], entry) for entry in inside)
        return {name: entry for name, entry in named if name and not name.startswith(".")}
    return {}


def digest(path: str) -> str:
    """A hash of a file's content (blake2b, 16 bytes, in hex)."""
    result = hashlib.blake2b(digest_size=16)
    with explained("read", path):
        filesystem, inner = filesystem_of(path)
        with filesystem.open(inner, "rb") as file:
            while chunk := file.read(_CHUNK):
                result.update(chunk)
    return result.hexdigest()


def copy(source: str, target: str) -> None:
    """Copy a file; on one local disk by a hard link, for a file is never changed in place."""
    with explained("copy to", target):
        if is_local(source) and is_local(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            Path(target).unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or one without hard links
                shutil.copy2(source, target)
            return
        filesystem, inner = filesystem_of(source)
        other, place = filesystem_of(target)
        if filesystem is other:
            filesystem.copy(inner, place)
            return
        if is_local(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
        with filesystem.open(inner, "rb") as source_file, other.open(place, "wb") as target_file:
            shutil.copyfileobj(source_file, target_file, _CHUNK)


def rename(source: str, target: str) -> None:
    """Move a file or a folder to a place where nothing is; in one step on local disks, file by file elsewhere."""
    with explained("move to", target):
        if is_local(source):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(source, target)
            return
        filesystem, inner = filesystem_of(source)
        filesystem.mv(inner, filesystem_of(target)[1], recursive=bool(filesystem.isdir(inner)))


def remove(path: str) -> None:
    """Remove a file, or a folder with all in it; nothing happens if there is none."""
    with explained("remove", path):
        filesystem, inner = filesystem_of(path)
        if filesystem.exists(inner):
            filesystem.rm(inner, recursive=True)


def remove_litter(path: str) -> None:
    """Remove the temporary files that a kill left in a local folder."""
    if is_local(path):
        with explained("tidy", path):
            for litter in Path(path).glob(".*.tmp"):
                litter.unlink(missing_ok=True)


def concat_lines(paths: Iterable[str]) -> Iterator[str]:
    """The lines of several text files; a file that vanished meanwhile is passed over."""
    for path in paths:
        data = read_bytes(path)
        if data is not None:
            yield from data.decode("utf-8", "replace").splitlines()
