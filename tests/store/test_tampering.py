"""Files of a run that were torn, swapped, cut or removed after they were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from fdd_ray.errors import StoreError
from fdd_ray.store import content, files
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult

ROWS = 1000


def _table(start: int) -> pa.Table:
    return pa.table({"id": [f"row {number}" for number in range(start, start + ROWS)]})


def _work(folder: StageFolder) -> StageResult:
    """Two parts; one that is there already is not written again."""
    for number in range(2):
        if f"part-{number}.parquet" not in folder.parts():
            folder.write(f"part-{number}.parquet", _table(number * ROWS))
    files.write_bytes(folder.file("student/model.safetensors"), b"weights")
    files.write_bytes(folder.file("checkpoints/1/state"), b"x")
    return StageResult(Counts(2 * ROWS, 2 * ROWS), tuple(folder.parts()))


def _never(folder: StageFolder) -> StageResult:
    raise AssertionError("a finished stage was done again")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)


def _swap(path: Path) -> None:
    path.write_bytes((path.parent / "part-1.parquet").read_bytes())


@pytest.mark.parametrize(
    ("name", "harm", "found"),
    [
        ("part-0.parquet", _cut, r"found \d+ bytes"),
        ("part-0.parquet", _flip, "hash [0-9a-f]{32}; found hash [0-9a-f]{32}"),
        ("part-0.parquet", _swap, "found (hash|[0-9]+ bytes)"),
        ("part-0.parquet", Path.unlink, "found no file"),
        ("student/model.safetensors", _cut, "found 0 bytes"),
    ],
)
def test_a_finished_stage_that_was_harmed_is_not_used(
    tmp_path: Path, name: str, harm: Callable[[Path], None], found: str
) -> None:
    Run(str(tmp_path)).once("rationales", 0, {}, _work)
    path = tmp_path / "round-00" / "rationales" / name
    harm(path)
    left = path.read_bytes() if path.exists() else None
    with pytest.raises(StoreError, match=found) as caught:
        Run(str(tmp_path)).once("rationales", 0, {}, _never)
    assert str(path) in str(caught.value) and "--from-stage rationales:0" in str(caught.value)
    assert (path.read_bytes() if path.exists() else None) == left


def test_what_the_manifest_records(tmp_path: Path) -> None:
    done = Run(str(tmp_path)).once("rationales", 0, {}, _work)
    assert set(done.files) == {"part-0.parquet", "part-1.parquet", "student/model.safetensors"}
    path = tmp_path / "round-00" / "rationales" / "part-0.parquet"
    record = done.files["part-0.parquet"]
    assert (record.rows, record.bytes, record.hash) == (ROWS, path.stat().st_size, files.digest(str(path)))
    assert done.files["student/model.safetensors"].rows is None


def test_of_a_large_stage_the_sizes_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "HASHED_BYTES", 10)
    monkeypatch.setattr(files, "digest", lambda path: pytest.fail("it was read"))
    done = Run(str(tmp_path)).once("rationales", 0, {}, _work)
    assert done.files["part-0.parquet"].hash == ""
    Run(str(tmp_path)).once("rationales", 0, {}, _never)
    _cut(tmp_path / "round-00" / "rationales" / "part-0.parquet")
    with pytest.raises(StoreError, match=r"part-0\.parquet is not what round 0 rationales wrote"):
        Run(str(tmp_path)).once("rationales", 0, {}, _never)


def test_a_page_that_was_changed_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    files.write_table(path, _table(0))
    _flip(tmp_path / "a.parquet")
    with pytest.raises(StoreError, match=r"a\.parquet is not the Parquet file it should be"):
        files.read_tables([path], _table(0).schema)


@pytest.mark.parametrize("harm", [_cut, _flip, lambda path: path.write_bytes(b"")], ids=["cut", "changed", "empty"])
def test_a_torn_part_of_an_unfinished_stage_is_set_aside(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    def killed(folder: StageFolder) -> StageResult:
        _work(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(str(tmp_path)).once("rationales", 0, {}, killed)
    folder = tmp_path / "round-00" / "rationales"
    harm(folder / "part-0.parquet")
    torn = (folder / "part-0.parquet").read_bytes()
    (folder / ".0123456789abcdef.tmp").write_bytes(b"half a part")
    seen: list[list[str]] = []

    def work(folder: StageFolder) -> StageResult:
        seen.append(folder.parts())
        return _work(folder)

    done = Run(str(tmp_path)).once("rationales", 0, {}, work)
    assert seen == [["part-1.parquet"]]
    assert (folder / "part-0.parquet.torn").read_bytes() == torn
    assert not list(folder.glob(".*.tmp"))
    (event,) = (event for event in read_ledger(str(tmp_path)) if event["event"] == "torn part set aside")
    assert (event["part"], event["stage"]) == ("part-0.parquet", "rationales")
    assert set(done.files) == {"part-0.parquet", "part-1.parquet", "student/model.safetensors"}
    Run(str(tmp_path)).once("rationales", 0, {}, _never)


def test_a_second_torn_part_does_not_replace_the_first(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        (tmp_path / "part-0.parquet").write_bytes(text)
        content.set_torn_parts_aside(str(tmp_path), lambda event, **fields: None)
    assert (tmp_path / "part-0.parquet.torn").read_bytes() == b"one"
    assert (tmp_path / "part-0.parquet.1.torn").read_bytes() == b"two"


def test_a_part_that_is_named_but_was_not_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"its output part-0\.parquet was not written"):
        Run(str(tmp_path)).once("split", 1, {}, lambda folder: StageResult(Counts(), ("part-0.parquet",)))


def test_parts_without_a_word_on_what_made_them_are_not_used(tmp_path: Path) -> None:
    files.write_table(f"{tmp_path}/round-00/rationales/part-0.parquet", _table(0))
    with pytest.raises(StoreError, match=r"has parts, but no started\.json"):
        Run(str(tmp_path)).once("rationales", 0, {}, _work)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("round-00/rationales/started.json", r"started\.json is torn or not JSON"),
        ("round-00/rationales/manifest.json", r"manifest\.json is torn or not JSON"),
        ("experiment.yaml", r"experiment\.yaml is torn: it is no YAML of settings; restore it, or remove it"),
        ("fork.json", r"fork\.json is torn or not JSON"),
    ],
)
@pytest.mark.parametrize("left", [b"", b'{"half'])
def test_torn_papers_are_named_and_left_as_they_are(tmp_path: Path, name: str, message: str, left: bytes) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(left)
    with pytest.raises(StoreError, match=message), Run(str(tmp_path), experiment="name: x\n") as run:
        run.once("rationales", 0, {}, _work)
    assert path.read_bytes() == left


@pytest.mark.parametrize("text", ["[]", "{}", '{"depends_on": 3}'])
def test_a_started_file_that_says_nothing_is_named(tmp_path: Path, text: str) -> None:
    files.write_bytes(f"{tmp_path}/round-00/rationales/started.json", text.encode())
    with pytest.raises(StoreError, match=r"started\.json does not say what the stage was begun with"):
        Run(str(tmp_path)).once("rationales", 0, {}, _work)
