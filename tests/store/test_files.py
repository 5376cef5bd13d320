from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from fdd_ray.errors import StoreError
from fdd_ray.store import files


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk, and one in an object store that lives in memory."""
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def test_bytes_json_and_tables_round_trip(root: str) -> None:
    table = pa.table({"a": [1, 2]}, schema=pa.schema([pa.field("a", pa.int64())]))
    files.write_bytes(f"{root}/x/a.bin", b"123")
    files.write_json(f"{root}/x/b.json", {"ü": [1]})
    files.write_table(f"{root}/x/c.parquet", table)
    assert files.read_bytes(f"{root}/x/a.bin") == b"123"
    assert files.read_json(f"{root}/x/b.json") == {"ü": [1]}
    assert files.read_tables([f"{root}/x/c.parquet"] * 2, table.schema).to_pydict() == {"a": [1, 2, 1, 2]}
    assert files.list_names(f"{root}/x") == ["a.bin", "b.json", "c.parquet"]
    assert files.list_names(f"{root}/x", ".json") == ["b.json"]
    files.remove(f"{root}/x")
    assert not files.exists(f"{root}/x")


def test_what_is_not_there_is_none_or_empty(root: str) -> None:
    assert files.read_bytes(f"{root}/none") is None
    assert files.read_json(f"{root}/none") is None
    assert files.list_names(f"{root}/none") == []
    files.remove(f"{root}/none")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    files.write_bytes(str(path), b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*a\.txt: No space left"):
        files.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a.bin")
    files.write_bytes(path, b"0" * 100_000)
    seen: set[int] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(len(files.read_bytes(path) or b""))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        files.write_bytes(path, b"1" * 100_000)
    stop.set()
    reader.join()
    assert seen == {100_000}


def test_torn_files_are_named(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int64())])
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.parquet").write_bytes(b"PAR1torn")
    with pytest.raises(StoreError, match=r"a\.json is torn"):
        files.read_json(str(tmp_path / "a.json"))
    with pytest.raises(StoreError, match=r"a\.parquet is not the Parquet file"):
        files.read_tables([str(tmp_path / "a.parquet")], schema)


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    files.write_table(path, pa.table({"b": [1]}))
    with pytest.raises(StoreError, match="is not the Parquet file"):
        files.read_tables([path], pa.schema([("a", pa.int64())]))


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2047, 2050), (2048, 2049), (4090, 5000), (0, 5000), (4999, 9999)])
def test_a_slice_of_a_file_is_read_across_row_groups(root: str, start: int, stop: int) -> None:
    table = pa.table({"a": list(range(5000))})
    files.write_table(f"{root}/a.parquet", table)
    assert files.count_rows(f"{root}/a.parquet") == 5000
    found = files.read_rows(f"{root}/a.parquet", start, stop, table.schema)
    assert found.column("a").to_pylist() == list(range(start, min(stop, 5000)))


def test_of_many_that_create_a_file_at_once_one_does(root: str) -> None:
    for number in range(30):
        start, made = threading.Barrier(8), []

        def create(name: str, start: threading.Barrier = start, made: list[str] = made, number: int = number) -> None:
            start.wait()
            if files.create_bytes(f"{root}/{number}/lease.json", name.encode()):
                made.append(name)

        contenders = [threading.Thread(target=create, args=(str(n),)) for n in range(8)]
        for contender in contenders:
            contender.start()
        for contender in contenders:
            contender.join()
        assert len(made) == 1
        assert files.read_bytes(f"{root}/{number}/lease.json") == made[0].encode()
        assert files.list_names(f"{root}/{number}") == ["lease.json"]


def test_a_disk_without_hard_links_creates_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", refuse)
    assert files.create_bytes(str(tmp_path / "a"), b"1")
    assert not files.create_bytes(str(tmp_path / "a"), b"2")
    files.copy(str(tmp_path / "a"), str(tmp_path / "b" / "c"))
    assert (tmp_path / "b" / "c").read_bytes() == b"1"


def test_tables_are_written_as_they_come(root: str) -> None:
    """As one file with whole row groups, whatever the sizes; it is read back in the same order."""
    schema = pa.schema([("n", pa.int64())])
    sizes = [0, 1, 3000, 2047, 5, 4096]
    numbers = iter(range(sum(sizes)))
    tables = (pa.table({"n": [next(numbers) for _ in range(size)]}, schema=schema) for size in sizes)
    path = files.join(root, "folder", "many.parquet")
    assert files.write_tables(path, tables, schema) == sum(sizes)
    groups = [table.column("n").to_pylist() for table in files.iter_tables([path], schema)]
    assert [len(group) for group in groups] == [2048] * 4 + [sum(sizes) - 4 * 2048]
    assert [n for group in groups for n in group] == list(range(sum(sizes)))
    assert files.whole_table(path)
    assert files.write_tables(path, [], schema) == 0 == files.count_rows(path)
    assert list(files.iter_tables([path], schema)) == []


def test_a_stream_that_breaks_off_leaves_the_old_file(root: str) -> None:
    schema = pa.schema([("n", pa.int64())])
    path = files.join(root, "old.parquet")
    files.write_tables(path, [pa.table({"n": [7]}, schema=schema)], schema)

    def broken() -> Iterator[pa.Table]:
        yield pa.table({"n": list(range(5000))}, schema=schema)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_tables(path, broken(), schema)
    assert files.read_tables([path], schema).column("n").to_pylist() == [7]
    assert files.list_names(root) == ["old.parquet"]
