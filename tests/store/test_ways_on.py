"""Doing stages anew and forking a run, on disk and in an object store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fdd_ray.errors import StoreError
from fdd_ray.store import files
from fdd_ray.store.fork import read_fork, write_fork
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.manifest import find_stages
from fdd_ray.store.run import Counts, Manifest, Run, StageFolder, StageResult, read_manifest
from fdd_ray.store.spent import spent


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage on disk, one in memory, and one in an S3 bucket."""
    monkeypatch.setattr("fdd_ray.store.lease.SETTLE_S", 0.05)
    if request.param == "s3":
        return str(request.getfixturevalue("s3_storage"))
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def _work(text: str, done: list[str]) -> Callable[[StageFolder], StageResult]:
    def work(folder: StageFolder) -> StageResult:
        done.append(f"{folder.name}:{'base' if folder.round is None else folder.round}")
        folder.write("part-0.parquet", pa.table({"id": [text], "prompt_tokens": [7], "completion_tokens": [3]}))
        files.write_bytes(folder.file("student/config.json"), text.encode())
        return StageResult(Counts(1, 1), ("part-0.parquet",), {"teacher": {"prompt": 7, "completion": 3}})

    return work


def _drive(root: str, text: str, settings: Mapping[str, Any], from_stage: str = "", **more: Any) -> list[str]:
    """A small loop of five stages; gives those that were done rather than taken as they are."""
    done: list[str] = []
    with Run(root, experiment=f"name: x\nseed: {settings}\n", **more) as run:
        if from_stage:
            run.set_aside(from_stage)
        problems = run.once("problems", 0, {"pool": settings.get("pool", 1)}, _work(text, done))

        def once(stage: str, round: int | None, *inputs: Manifest) -> Manifest:
            depends_on = {stage: settings.get(stage, 1), "inputs": [item.fingerprint for item in inputs]}
            return run.once(stage, round, depends_on | {"teacher": {"model": "T"}}, _work(text, done))

        once("score", None, problems)
        taught = once("rationales", 0, problems)
        student = once("finetune", 0, taught)
        once("score", 0, student)
    return done


ALL = ["problems:0", "score:base", "rationales:0", "finetune:0", "score:0"]


def _read(path: str) -> bytes:
    data = files.read_bytes(path)
    assert data is not None
    return data


def test_a_stage_and_all_that_follow_are_set_aside(root: str) -> None:
    run = f"{root}/run"
    assert _drive(run, "old", {}) == ALL
    assert _drive(run, "new", {}) == []
    assert _drive(run, "new", {"rationales": 2}, from_stage="rationales:0") == ALL[2:]
    (time,) = files.list_names(f"{run}/superseded")
    for stage in ("rationales", "finetune", "score"):
        assert _read(f"{run}/superseded/{time}/round-00/{stage}/student/config.json") == b"old"
        assert files.exists(f"{run}/superseded/{time}/round-00/{stage}/part-0.parquet")
        assert _read(f"{run}/round-00/{stage}/student/config.json") == b"new"
    assert _read(f"{run}/base/score/student/config.json") == b"old"
    moved = [event["stage"] for event in read_ledger(run) if event["event"] == "stage set aside"]
    assert moved == ["score", "finetune", "rationales"]
    cost = spent(run)
    assert cost.tokens == {
        "T": {"prompt": 7 * 7, "completion": 7 * 3},
        "teacher": {"prompt": 7, "completion": 3},  # the stage of problems names no model
    }
    assert cost.lost.superseded_tokens == 3 * 10


def test_what_was_begun_later_follows_even_if_it_was_not_made_from_it(tmp_path: Path) -> None:
    _drive(str(tmp_path), "old", {})
    assert _drive(str(tmp_path), "new", {}, from_stage="score:base") == ALL[1:]


def test_what_was_made_from_it_follows_even_if_clocks_were_wrong(tmp_path: Path) -> None:
    _drive(str(tmp_path), "old", {})
    for name, begun in (("rationales", 9.0), ("finetune", 8.0), ("score", 7.0)):
        for paper in ("manifest.json", "started.json"):
            path = f"{tmp_path}/round-00/{name}/{paper}"
            files.write_json(path, {**json.loads(_read(path)), "begun": begun})
    _drive(str(tmp_path), "new", {}, from_stage="rationales:0")
    assert _read(f"{tmp_path}/round-00/score/student/config.json") == b"new"
    moved = [event["stage"] for event in read_ledger(str(tmp_path)) if event["event"] == "stage set aside"]
    assert [stage for stage in moved if stage in ("finetune", "rationales")] == ["finetune", "rationales"]


def test_the_same_stage_twice(root: str) -> None:
    run = f"{root}/run"
    _drive(run, "one", {})
    assert _drive(run, "two", {}, from_stage="score") == ["score:0"]
    assert _drive(run, "three", {}, from_stage="score:0") == ["score:0"]
    assert len(files.list_names(f"{run}/superseded")) == 2


def test_a_stage_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    _drive(run, "old", {})
    for wrong in ("rationals:0", "rationales:1", "finetune:base", "curate"):
        with pytest.raises(StoreError, match=r"problems:0, score:base, rationales:0, finetune:0, score:0$"):
            _drive(run, "new", {}, from_stage=wrong)
    with pytest.raises(StoreError, match=r"did you mean rationales:0\?"):
        _drive(run, "new", {}, from_stage="rationals:0")
    assert len(find_stages(run)) == 5 and not files.exists(f"{run}/superseded")
    with pytest.raises(StoreError, match="none was begun; leave --from-stage out"):
        _drive(str(tmp_path / "new"), "new", {}, from_stage="score")


def test_a_kill_while_stages_are_set_aside(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left that was made from something that is gone, and the same call goes on."""
    run = f"{root}/run"
    _drive(run, "old", {})
    rename, moved = files.rename, []

    def killed(source: str, target: str) -> None:
        if len(moved) == 1:
            raise KeyboardInterrupt
        moved.append(source)
        rename(source, target)

    monkeypatch.setattr(files, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        _drive(run, "new", {}, from_stage="rationales:0")
    monkeypatch.setattr(files, "rename", rename)
    left = [item.argument for item in find_stages(run) if item.manifest is not None]
    assert left == ALL[: len(left)] and len(left) == 4
    assert _drive(run, "new", {}, from_stage="rationales:0") == ALL[2:]
    assert _read(f"{run}/round-00/rationales/student/config.json") == b"new"


def test_a_fork_begins_with_what_is_the_same(root: str) -> None:
    old, new = f"{root}/run", f"{root}/fork"
    _drive(old, "old", {})
    before = _all(old)
    write_fork(new, old)
    said: list[str] = []
    told: list[Manifest] = []
    assert _drive(new, "new", {"finetune": 2}, say=said.append, announce=told.append) == ["finetune:0", "score:0"]
    assert [item.label for item in told] == ["round 0 problems", "score of the base", "round 0 rationales"]
    assert said == [
        f"round 0 finetune: the first stage that is not copied from {files.absolute(old)}: finetune: 1 -> 2"
    ]
    assert _all(old) == before
    assert _read(f"{new}/round-00/rationales/student/config.json") == b"old"
    copied = read_manifest(new, 0, "rationales")
    assert copied is not None and copied.forked_from == files.absolute(old)
    assert spent(new).tokens == {"T": {"prompt": 14, "completion": 6}}, "what was copied was paid for elsewhere"
    write_fork(new, old)
    assert _drive(new, "new", {"finetune": 2}) == []


def test_a_base_that_differs_does_not_stop_the_rest_from_being_copied(root: str) -> None:
    _drive(f"{root}/run", "old", {})
    write_fork(f"{root}/fork", f"{root}/run")
    assert _drive(f"{root}/fork", "new", {"score": 2}) == ["score:base", "score:0"]


def test_what_the_old_run_does_later_is_not_mixed_in(tmp_path: Path) -> None:
    old, new = str(tmp_path / "run"), str(tmp_path / "fork")
    _drive(old, "old", {})
    write_fork(new, old)
    _drive(old, "later", {}, from_stage="rationales:0")
    said: list[str] = []
    assert _drive(new, "new", {}, say=said.append) == ALL[2:]
    assert "it was done anew there since the fork" in said[0]
    assert _read(f"{new}/round-00/score/student/config.json") == b"new"


def test_copies_on_one_disk_are_links_that_neither_run_can_harm(tmp_path: Path) -> None:
    old, new = str(tmp_path / "run"), str(tmp_path / "fork")
    _drive(old, "old", {})
    write_fork(new, old)
    _drive(new, "new", {})
    first = tmp_path / "run" / "round-00" / "rationales" / "part-0.parquet"
    second = tmp_path / "fork" / "round-00" / "rationales" / "part-0.parquet"
    assert first.stat().st_ino == second.stat().st_ino
    content = first.read_bytes()
    files.write_bytes(str(second), b"replaced")
    assert first.read_bytes() == content
    # The new run's own papers are its own.
    for name in ("experiment.yaml", "round-00/rationales/manifest.json"):
        assert (tmp_path / "run" / name).stat().st_ino != (tmp_path / "fork" / name).stat().st_ino


def test_a_harmed_stage_is_not_copied(tmp_path: Path) -> None:
    old, new = str(tmp_path / "run"), str(tmp_path / "fork")
    _drive(old, "old", {})
    files.write_bytes(f"{old}/round-00/rationales/part-0.parquet", b"harmed")
    write_fork(new, old)
    with pytest.raises(StoreError, match=r"run/round-00/rationales/part-0\.parquet is not what"):
        _drive(new, "new", {})
    assert read_manifest(new, 0, "rationales") is None


def test_forks_that_make_no_sense(tmp_path: Path) -> None:
    old, other = str(tmp_path / "run"), str(tmp_path / "other")
    with pytest.raises(StoreError, match=r"there is no run at .*run to fork"):
        write_fork(other, old)
    _drive(old, "old", {})
    _drive(other, "old", {})
    with pytest.raises(StoreError, match="cannot be forked into itself"):
        write_fork(old, old)
    with pytest.raises(StoreError, match=r"there is a run at .*other already"):
        write_fork(other, old)
    assert read_fork(other) is None


def _all(directory: str) -> dict[str, bytes]:
    return {name: _read(f"{directory}/{name}") for name in files.sizes(directory)}
