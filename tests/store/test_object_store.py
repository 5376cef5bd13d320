"""A whole run on a real S3-compatible server: parts, resume, ledger, lease, status."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from fdd_ray.errors import StoreError
from fdd_ray.report.status import read_status
from fdd_ray.store import files
from fdd_ray.store.fetch import fetch_folder
from fdd_ray.store.lease import read_holder
from fdd_ray.store.ledger import Ledger, read_ledger
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult

TEACHER = {"teacher": {"model": "big"}}


def _write(folder: StageFolder, number: int) -> None:
    name = f"part-{number}.parquet"
    if name not in folder.parts():
        rows = {"id": [f"{number}"], "prompt_tokens": [3], "completion_tokens": [4]}
        folder.write(name, pa.table(rows))
        folder.note("part written", part=name, rows=1)


def test_a_run_is_killed_and_resumed(s3_storage: str) -> None:
    root = f"{s3_storage}/runs/tiny"

    def killed(folder: StageFolder) -> StageResult:
        _write(folder, 0)
        files.write_bytes(folder.file("part-1.parquet"), b"PAR1 torn")
        raise KeyboardInterrupt

    def work(folder: StageFolder) -> StageResult:
        before = folder.parts()
        for number in range(3):
            _write(folder, number)
        return StageResult(Counts(3, 3), tuple(folder.parts()), summary={"before": before})

    with pytest.raises(KeyboardInterrupt), Run(root, experiment="name: x\n") as run:
        run.once("rationales", 0, TEACHER, killed)
    status = read_status(root)
    place = {"stage": "rationales", "round": 0, "path": f"{root}/round-00/rationales"}
    assert status["stages"] == [{**place, "done": False, "rows_written": 1}]
    assert status["spent"]["tokens"] == {"big": {"prompt": 3, "completion": 4}}
    with pytest.raises(StoreError, match=r"teacher\.model: 'big' -> 'small'"), Run(root) as run:
        run.once("rationales", 0, {"teacher": {"model": "small"}}, work)
    with Run(root) as run:
        with pytest.raises(StoreError, match="is in use by process"):
            Run(root).once("score", None, {}, work)
        done = run.once("rationales", 0, TEACHER, work)
        assert read_status(root)["driver"]["alive"]
    assert done.summary["before"] == ["part-0.parquet"]
    assert files.exists(f"{root}/round-00/rationales/part-1.parquet.torn")
    table = files.read_tables(done.outputs, pa.schema([("id", pa.string())]))
    assert table.column("id").to_pylist() == ["0", "1", "2"]
    assert [event["event"] for event in read_ledger(root)] == [
        "run started", "stage started", "part written", "run ended",
        "run resumed", "run ended",
        "run resumed", "torn part set aside", "stage started", "part written", "part written", "stage finished",
        "run ended",
    ]  # fmt: skip
    holder = read_holder(root)
    assert holder is not None and holder.released and holder.number == 3
    files.write_bytes(f"{root}/round-00/rationales/part-2.parquet", b"x")
    with pytest.raises(StoreError, match=r"part-2\.parquet is not what round 0 rationales wrote"):
        Run(root).once("rationales", 0, TEACHER, work)


def test_only_one_of_two_creates_a_file(s3_storage: str) -> None:
    assert files.create_bytes(f"{s3_storage}/a", b"first")
    assert not files.create_bytes(f"{s3_storage}/a", b"second")
    assert files.read_bytes(f"{s3_storage}/a") == b"first"


def test_files_of_other_processes_are_seen_at_once(s3_storage: str) -> None:
    """s3fs caches listings unless it is told not to."""
    import fsspec

    assert files.list_names(f"{s3_storage}/x") == []
    files.write_bytes(f"{s3_storage}/x/a", b"1")
    assert files.list_names(f"{s3_storage}/x") == ["a"]
    other = fsspec.filesystem("s3", skip_instance_cache=True)  # as another process would
    other.pipe_file(f"{s3_storage}/x/b", b"2")
    assert files.list_names(f"{s3_storage}/x") == ["a", "b"]
    assert files.sizes(f"{s3_storage}/x") == {"a": 1, "b": 1}


def test_a_long_ledger_is_not_put_again_whole_for_ever(s3_storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdd_ray.store.ledger._LINES", 3)
    ledger = Ledger(s3_storage)
    for number in range(7):
        ledger.append("a", n=number)
    assert len(files.list_names(f"{s3_storage}/ledger")) == 3
    assert [event["n"] for event in read_ledger(s3_storage)] == list(range(7))
    copy = pickle.loads(pickle.dumps(ledger))
    copy.append("a", n=7)
    ledger.append("a", n=8)
    assert [event["n"] for event in read_ledger(s3_storage)] == list(range(9))


def test_a_marker_in_a_folders_name_is_no_file(s3_storage: str) -> None:
    """Some writers, pyarrow among them, put an empty object where a folder is meant."""
    import s3fs

    store = s3fs.S3FileSystem()
    bucket = s3_storage.removeprefix("s3://")
    for key in ("run/", "run/deep/", "run/deep/model/"):
        store.call_s3("put_object", Bucket=bucket.split("/")[0], Key=f"{key}", Body=b"")
    files.write_bytes(f"{s3_storage}/run/deep/model/weights", b"12345")
    assert files.sizes(f"{s3_storage}/run") == {"deep/model/weights": 5}
    assert files.list_names(f"{s3_storage}/run/deep/model") == ["weights"]
    fetched = Path(fetch_folder(f"{s3_storage}/run/deep/model"))
    assert [path.name for path in fetched.iterdir()] == ["weights"]
