"""Weights & Biases (offline) and MLflow (a database) themselves; and what services share, with one made up."""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.errors import DependencyError, ExperimentError, StoreError
from fdd_ray.store.manifest import Manifest
from fdd_ray.tracking import Tracker, Tracking
from fdd_ray.tracking.facts import Facts, facts_of
from fdd_ray.tracking.remote import Remote
from tests.tracking.manifests import drive, results, set_aside, tracked

_ACCURACY = [(-1, 0.375), (1, 0.375), (2, 0.5)]


def _needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(
        absent, reason=f"NOT TESTED: {package} is not installed (pip install 'fdd-ray[{package}]')"
    )


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_DIR", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)


# -- Weights & Biases -----------------------------------------------------------------------------


def _entries(data: bytes) -> Iterator[bytes]:
    """The entries of a log as LevelDB writes it, after the service's own header of 7 bytes."""
    block, at, entry = 1 << 15, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:
            return
        entry += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield entry
            entry = b""


def _records(directory: Path) -> Iterator[tuple[str, Any]]:
    """What the files that `wandb sync` would send hold: (id of the run, record)."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(directory.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for data in _entries(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield path.stem.removeprefix("run-"), record


def _history(directory: Path, rows: int) -> list[tuple[str, int, dict[str, Any]]]:
    """What was logged, which should be ``rows``; the client ends its file a moment after it says that it has."""
    deadline = time.monotonic() + 30
    while len(found := _logged(directory)) < rows and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(found) == rows
    return found


def _logged(directory: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """(id of the run, step there, what was logged), in order."""
    found = []
    for run, record in _records(directory):
        if record.WhichOneof("record_type") == "history":
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item
            }
            found.append((run, record.history.step.num, items))
    return found


@_needs("wandb")
@pytest.mark.parametrize("stop_after", [None, 4])
def test_wandb_is_told_of_every_stage_once(tmp_path: Path, stop_after: int | None) -> None:
    directory = tmp_path / "x"
    if stop_after is not None:
        tracked(directory, 2, "wandb", stop_after=stop_after)
        _history(directory, stop_after)
    tracked(directory, 2, "wandb")
    history = _history(directory, 11)
    assert len({run for run, _, _ in history}) == 1
    steps = [step for _, step, _ in history]
    assert steps == sorted(set(steps)), "W&B drops what does not come later"
    assert [(row["round"], row["accuracy/test"]) for *_, row in history if "accuracy/test" in row] == _ACCURACY
    tracked(directory, 2, "wandb")
    assert _logged(directory) == history, "a driver that has nothing new says nothing"


@_needs("wandb")
def test_wandb_draws_over_the_round_and_learns_nothing_of_this_machine(tmp_path: Path) -> None:
    tracked(tmp_path / "x", 1, "wandb")
    _history(tmp_path / "x", 6)
    records = [record for _, record in _records(tmp_path / "x")]
    metrics = {
        record.metric.name or record.metric.glob_name: record.metric for record in records if record.HasField("metric")
    }
    assert metrics["*"].step_metric == "round"
    (run,) = (record.run for record in records if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.display_name, run.project) == ("x", "fdd_ray")
    assert config["seed"] == 3 and config["directory"] == str(tmp_path / "x")
    kinds = {record.WhichOneof("record_type") for record in records}
    assert not kinds & {"stats", "output", "output_raw", "environment"}, kinds
    assert not run.host and not run.git.remote_url


@_needs("wandb")
def test_wandb_begins_anew_when_a_stage_was_done_anew(tmp_path: Path) -> None:
    directory = tmp_path / "x"
    tracked(directory, 2, "wandb")
    (first,) = {run for run, _, _ in _history(directory, 11)}
    set_aside(directory, "finetune:2")
    tracked(directory, 2, "wandb")
    again = [(step, row) for run, step, row in _history(directory, 22) if run != first]
    assert [(row["round"], row["accuracy/test"]) for _, row in again if "accuracy/test" in row] == _ACCURACY
    assert len(again) == 11
    names = {record.run.display_name for _, record in _records(directory) if record.HasField("run")}
    assert names == {"x", "x (2)"}


# -- MLflow ---------------------------------------------------------------------------------------


def _mlflow_runs() -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("fdd_ray")
    assert experiment is not None
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.start_time)


def _points(run: Any, name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    return sorted((metric.step, metric.value) for metric in MlflowClient().get_metric_history(run.info.run_id, name))


@_needs("mlflow")
@pytest.mark.parametrize("stop_after", [None, 4])
def test_mlflow_is_told_of_every_stage_once(tmp_path: Path, stop_after: int | None) -> None:
    if stop_after is not None:
        tracked(tmp_path / "x", 2, "mlflow", stop_after=stop_after)
        (run,) = _mlflow_runs()
        assert run.info.status == "FAILED" and _points(run, "accuracy/test") == _ACCURACY[:1]
    for _ in range(2):
        tracked(tmp_path / "x", 2, "mlflow")
        (run,) = _mlflow_runs()
        assert _points(run, "accuracy/test") == _ACCURACY
        assert _points(run, "rows/curate/kept") == [(1, 5), (2, 5)]
        assert run.info.status == "FINISHED" and run.info.run_name == "x"
    assert run.data.params["seed"] == "3" and run.data.params["directory"] == str(tmp_path / "x")


@_needs("mlflow")
def test_mlflow_is_not_told_twice_though_the_note_was_lost_in_a_kill(tmp_path: Path) -> None:
    tracked(tmp_path / "x", 2, "mlflow")
    note = tmp_path / "x" / "tracking" / "mlflow.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "stages": {}}))
    tracked(tmp_path / "x", 2, "mlflow")
    (run,) = _mlflow_runs()
    assert _points(run, "accuracy/test") == _ACCURACY


@_needs("mlflow")
def test_mlflow_begins_anew_when_a_stage_was_done_anew(tmp_path: Path) -> None:
    tracked(tmp_path / "x", 2, "mlflow")
    set_aside(tmp_path / "x", "finetune:2")
    tracked(tmp_path / "x", 2, "mlflow")
    first, second = _mlflow_runs()
    assert (first.info.run_name, second.info.run_name) == ("x", "x (2)")
    for run in (first, second):
        assert _points(run, "accuracy/test") == _ACCURACY and len(_points(run, "finetune/loss_last")) == 2


# -- what services share --------------------------------------------------------------------------


class _Made(Remote):
    """A service that remembers in `told`; it may be out of reach, or know things only once it is closed."""

    service = "made"
    safe_at_once = False
    told: list[str]
    reachable = True

    def open(self, name: str) -> None:
        if not self.reachable:
            raise ConnectionError("nobody there")
        self.told.append(f"open {self.id} {name}")

    def send(self, facts: Facts) -> None:
        self.told.append(facts.key)

    def end(self, failed: bool) -> None:
        self.told.append(f"end {failed}")


def _remote(directory: Path, rounds: int, told: list[str], *, close: bool, reachable_after: int = 0) -> None:
    """A driver whose service is out of reach for its first stages."""
    remote = _Made(str(directory), "x", {})
    remote.told = told

    def finished(manifest: Manifest) -> None:
        remote.reachable = told.count("unreachable") >= reachable_after
        try:
            remote.finished(facts_of(manifest, []))
        except ConnectionError:
            told.append("unreachable")

    drive(directory, rounds, finished)
    if close:
        remote.close(failed=False)


def test_a_driver_that_was_killed_before_all_was_safe_is_followed_by_one_that_tells_again(tmp_path: Path) -> None:
    first: list[str] = []
    second: list[str] = []
    third: list[str] = []
    _remote(tmp_path, 1, first, close=False)
    _remote(tmp_path, 1, second, close=True)
    _remote(tmp_path, 1, third, close=True)
    assert second == [*first, "end False"], "under the same id"
    assert third == []


@pytest.mark.parametrize("reachable_after", [3, 99])
def test_what_could_not_be_sent_is_sent_later_and_in_order(tmp_path: Path, reachable_after: int) -> None:
    told: list[str] = []
    _remote(tmp_path, 1, told, close=True, reachable_after=reachable_after)
    missed = min(reachable_after, 6)
    assert told[:missed] == ["unreachable"] * missed
    after = told[missed:]
    told.clear()
    _remote(tmp_path, 2, told, close=True)
    stages = [key for key in (*after, *told) if key.startswith(("base", "round"))]
    order = [f"round-0{round}/{stage}" for round in (1, 2) for stage in results(round)]
    assert stages == ["base/score", *order]


def test_a_torn_note_is_named(tmp_path: Path) -> None:
    _remote(tmp_path, 1, [], close=True)
    (tmp_path / "tracking" / "made.json").write_text('{"id": "x"}')
    with pytest.raises(StoreError, match=r"made\.json is no note of what made knows"):
        _Made(str(tmp_path), "x", {})


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named_before_anything_starts(
    tmp_path: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=rf"pip install 'fdd-ray\[{tracker}\]'"):
        Tracking((tracker,), str(tmp_path), "x", config={}, say=print)


@pytest.mark.parametrize(("tracker", "variable"), [("wandb", "WANDB_API_KEY"), ("mlflow", "MLFLOW_TRACKING_URI")])
def test_what_the_environment_lacks_is_named_before_anything_starts(
    tmp_path: Path, tracker: Tracker, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ExperimentError, match=f"export {variable}"):
        Tracking((tracker,), str(tmp_path), "x", config={}, say=print)
    monkeypatch.setenv(variable, "something")
    Tracking((tracker,), str(tmp_path), "x", config={}, say=print)
