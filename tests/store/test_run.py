from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.ledger import Ledger, read_ledger
from fdd_ray.store.run import Counts, Manifest, Run, StageFolder, StageResult, read_manifest

COUNTS = Counts(3, 1, {"wrong": 1}, 1)


def _work(calls: list[str]) -> object:
    def work(folder: StageFolder) -> StageResult:
        calls.append(folder.path)
        folder.write("part-0.parquet", pa.table({"id": ["x"]}))
        return StageResult(COUNTS, ("part-0.parquet",), {"teacher": {"prompt": 5}}, {"x": 1})

    return work


def test_a_stage_is_done_once(tmp_path: Path) -> None:
    calls: list[str] = []
    told: list[Manifest] = []
    run = Run(str(tmp_path), told.append)
    first = run.once("teach", 0, {"seed": 1}, _work(calls))  # type: ignore[arg-type]
    again = Run(str(tmp_path), told.append).once("teach", 0, {"seed": 1}, _work(calls))  # type: ignore[arg-type]
    assert len(calls) == 1
    assert (first.reused, again.reused, told) == (False, True, [again])
    assert again.outputs == [str(tmp_path / "round-00" / "teach" / "part-0.parquet")]
    assert again.counts == COUNTS and again.summary == {"x": 1} and again.fingerprint == first.fingerprint


def test_the_base_student_has_a_folder_of_its_own(tmp_path: Path) -> None:
    Run(str(tmp_path)).once("score", None, {}, _work([]))  # type: ignore[arg-type]
    assert read_manifest(str(tmp_path), None, "score") is not None
    assert (tmp_path / "base" / "score" / "manifest.json").is_file()


def test_changed_settings_are_refused_by_name(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.once("teach", 0, {"teach": {"samples": 1}}, _work([]))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"teach\.samples: 1 -> 2"):
        run.once("teach", 0, {"teach": {"samples": 2}}, _work([]))  # type: ignore[arg-type]


def test_a_half_done_stage_is_held_to_its_settings_too(tmp_path: Path) -> None:
    run = Run(str(tmp_path))

    def broken(folder: StageFolder) -> StageResult:
        folder.write("part-b-1.parquet", pa.table({"id": ["x"]}))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        run.once("teach", 0, {"seed": 1}, broken)
    assert read_manifest(str(tmp_path), 0, "teach") is None
    with pytest.raises(StoreError, match="seed: 1 -> 2"):
        run.once("teach", 0, {"seed": 2}, _work([]))  # type: ignore[arg-type]
    run.once("teach", 0, {"seed": 1}, _work([]))  # type: ignore[arg-type]


def test_a_stage_that_wrote_nothing_may_begin_anew_with_other_settings(tmp_path: Path) -> None:
    run = Run(str(tmp_path))

    def broken(folder: StageFolder) -> StageResult:
        raise RuntimeError("no such file")

    with pytest.raises(RuntimeError):
        run.once("problems", 0, {"pool": [{"path": "onw.jsonl"}]}, broken)
    run.once("problems", 0, {"pool": [{"path": "own.jsonl"}]}, _work([]))  # type: ignore[arg-type]
    with pytest.raises(
        StoreError,
        match=r"pool\[0\]\.path: 'own\.jsonl' -> 'other\.jsonl'\. Put.*--from-stage problems:0.*--fork NEW_RUN",
    ):
        run.once("problems", 0, {"pool": [{"path": "other.jsonl"}]}, _work([]))  # type: ignore[arg-type]


def test_lost_rows_are_not_accepted(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    with pytest.raises(StoreError, match="4 rows went in, but 1 kept"):
        run.once("teach", 0, {}, lambda folder: StageResult(Counts(4, 1, {"wrong": 1}, 1)))
    assert read_manifest(str(tmp_path), 0, "teach") is None


def test_a_torn_manifest_is_named(tmp_path: Path) -> None:
    files.write_bytes(str(tmp_path / "round-00" / "teach" / "manifest.json"), b'{"stage": "te')
    with pytest.raises(StoreError, match=r"manifest\.json is torn"):
        Run(str(tmp_path)).once("teach", 0, {}, _work([]))  # type: ignore[arg-type]


def test_the_ledger_keeps_order_and_survives_a_torn_line(tmp_path: Path) -> None:
    first, second = Ledger(str(tmp_path)), Ledger(str(tmp_path))
    first.append("a", n=1)
    second.append("b", n=2)
    first.append("c", n=3)
    (torn,) = (path for path in (tmp_path / "ledger").iterdir() if '"a"' in path.read_text())
    with torn.open("a") as file:
        file.write('{"time": 9, "eve')
    assert [(event["event"], event["n"]) for event in read_ledger(str(tmp_path))] == [("a", 1), ("b", 2), ("c", 3)]


def test_the_ledger_works_on_an_object_store() -> None:
    ledger = Ledger("memory://ledger-test/run")
    ledger.append("a")
    ledger.append("b")
    assert [event["event"] for event in read_ledger("memory://ledger-test/run")] == ["a", "b"]


def test_parts_in_quick_succession_share_puts_on_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    write, clock = files.write_bytes, [100.0]
    monkeypatch.setattr(files, "write_bytes", lambda path, data: (puts.append(path), write(path, data)))
    monkeypatch.setattr("fdd_ray.store.ledger.time.monotonic", lambda: clock[0])
    root = "memory://ledger-test/busy"
    ledger = Ledger(root)

    def written(count: int) -> int:
        before = len(puts)
        for _ in range(count):
            ledger.append("part written", rows=1)
        return len(puts) - before

    assert written(5) == 5 and len(read_ledger(root)) == 5, "a few are seen at once"
    assert written(50) == 0, "a crowd waits"
    clock[0] += 5.0
    assert written(1) == 1 and len(read_ledger(root)) == 56
    assert written(4) == 4 and written(200) == 1, "a full file is put"
    ledger.append("stage finished")
    assert len(read_ledger(root)) == 261, "any other event takes along what waits"


def test_parts_that_wait_are_put_though_nothing_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdd_ray.store.ledger._WITHIN_S", 0.5)
    ledger, root = Ledger("memory://ledger-test/pause"), "memory://ledger-test/pause"
    for _ in range(50):
        ledger.append("part written", rows=1)
    assert len(read_ledger(root)) < 50
    deadline = time.monotonic() + 30.0
    while len(read_ledger(root)) < 50:
        assert time.monotonic() < deadline, f"{len(read_ledger(root))} of 50 events are there"
        time.sleep(0.05)


def test_a_refused_command_leaves_the_written_experiment_as_it_was(tmp_path: Path) -> None:
    Run(str(tmp_path), experiment="epochs: 3\n").once("teach", 0, {"epochs": 3}, _work([]))  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        Run(str(tmp_path), experiment="epochs: 4\n").once("teach", 0, {"epochs": 4}, _work([]))  # type: ignore[arg-type]
    assert (tmp_path / "experiment.yaml").read_text() == "epochs: 3\n"
    run = Run(str(tmp_path), experiment="epochs: 3\nrounds: 9\n")
    run.once("teach", 0, {"epochs": 3}, _work([]))  # type: ignore[arg-type]
    run.once("score", 0, {}, _work([]))  # type: ignore[arg-type]
    assert (tmp_path / "experiment.yaml").read_text() == "epochs: 3\nrounds: 9\n"
