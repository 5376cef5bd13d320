"""Event files as TensorBoard's own reader sees them, over kills, resumed runs and stages done anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdd_ray.tracking import Tracking
from fdd_ray.tracking.tensorboard import FOLDER
from tests.tracking.manifests import drive, set_aside, tracked


def _read(directory: Path | str) -> dict[str, list[tuple[int, float]]]:
    """All points by name, in the order in which TensorBoard reads them."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="NOT TESTED with TensorBoard's reader: install tensorboard (pip install 'fdd-ray[tracking]')",
    )
    events = reader.EventAccumulator(f"{directory}/{FOLDER}", size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    assert events.FirstEventTimestamp() > 1.6e9
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / FOLDER).iterdir()}


def test_tensorboard_reads_every_point_at_its_round(tmp_path: Path) -> None:
    manifests = tracked(tmp_path, 2, "tensorboard")
    found = _read(tmp_path)
    assert found["accuracy/test"] == [(-1, 0.375), (1, 0.375), (2, 0.5)]
    assert found["finetune/loss_last"] == [(1, 0.5), (2, 0.25)]
    assert found["pool/easy_share"] == [(1, 0.75), (2, 0.75)]
    assert found["tokens/teacher/prompt"] == [(1, 101), (2, 102)]
    assert found["money/total"] == [(-1, 0), (1, 1.75), (2, 3.5)]
    assert len(_files(tmp_path)) == len(manifests) == 11


@pytest.mark.parametrize("killed_after", [0, 1, 4, 10])
def test_a_run_that_was_killed_and_goes_on_shows_each_point_once(tmp_path: Path, killed_after: int) -> None:
    tracked(tmp_path, 2, "tensorboard", stop_after=killed_after)
    assert len(_files(tmp_path)) == killed_after if killed_after else not (tmp_path / FOLDER).exists()
    tracked(tmp_path, 2, "tensorboard")
    first = _files(tmp_path)
    for points in _read(tmp_path).values():
        assert len({step for step, _ in points}) == len(points)
    assert _read(tmp_path)["accuracy/test"] == [(-1, 0.375), (1, 0.375), (2, 0.5)]
    tracked(tmp_path, 2, "tensorboard")
    assert _files(tmp_path) == first, "and a third driver changes nothing"
    for name in first:
        (tmp_path / FOLDER / name).unlink()
    tracked(tmp_path, 2, "tensorboard")
    assert _files(tmp_path) == first, "nor does it matter whether they were there"


def test_a_stage_done_anew_takes_the_place_of_the_old(tmp_path: Path) -> None:
    tracked(tmp_path, 2, "tensorboard")
    before = _files(tmp_path)
    set_aside(tmp_path, "finetune:2")
    tracked(tmp_path, 2, "tensorboard")
    after = _files(tmp_path)
    assert len(after) == len(before) and len(after.keys() & before.keys()) == 9
    assert _read(tmp_path)["finetune/loss_last"] == [(1, 0.5), (2, 0.25)]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    tracked(tmp_path, 1, "tensorboard")
    note = tmp_path / FOLDER / "notes.txt"
    note.write_text("mine")
    tracked(tmp_path, 1, "tensorboard")
    assert note.read_text() == "mine"


def test_an_object_store_gets_the_same_files(tmp_path: Path, s3_storage: str) -> None:
    from fdd_ray.store import files

    tracked(tmp_path, 1, "tensorboard")
    url = f"{s3_storage}/runs/x"
    for name, content in _files(tmp_path).items():
        files.write_bytes(f"{url}/{FOLDER}/{name}", content)
    stale = f"{url}/{FOLDER}/events.out.tfevents.0000000001.dead"
    files.write_bytes(stale, b"of a stage that is no more")
    with Tracking(("tensorboard",), url, "x", config={}, say=pytest.fail) as tracking:
        drive(url, 1, tracking.finished)  # type: ignore[arg-type]
    names = files.list_names(f"{url}/{FOLDER}")
    assert len(names) == 6 and not files.exists(stale)
    for name in names:
        (tmp_path / "copy" / FOLDER).mkdir(parents=True, exist_ok=True)
        content = files.read_bytes(f"{url}/{FOLDER}/{name}")
        assert content is not None
        (tmp_path / "copy" / FOLDER / name).write_bytes(content)
    assert _read(tmp_path / "copy")["accuracy/test"] == [(-1, 0.375), (1, 0.375)]


def test_a_tracker_that_fails_is_named_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    said: list[str] = []
    with Tracking(("tensorboard",), str(tmp_path), "x", config={}, say=said.append) as tracking:
        manifests = drive(tmp_path, 2, tracking.finished)
    assert len(manifests) == 11
    assert len(said) == 3 and all("tensorboard was not told of a stage" in text for text in said)
    assert "left out until the run is started again" in said[-1]
    (tmp_path / FOLDER).unlink()
    tracked(tmp_path, 2, "tensorboard")
    assert _read(tmp_path)["accuracy/test"] == [(-1, 0.375), (1, 0.375), (2, 0.5)]
