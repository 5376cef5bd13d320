"""Watching a run from outside: what is read of it, and ``fdd-ray status --watch`` on a terminal and without one."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from fdd_ray.cli import main
from fdd_ray.errors import StoreError
from fdd_ray.live.view import StageView, View
from fdd_ray.report import watch as watching
from fdd_ray.report.watch import look, watch
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult
from tests.live.terminal import terminal

TEACHER = {"teacher": {"model": "big"}}


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("fdd_ray.store.lease.SETTLE_S", 0.01)
    return _new(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run")


def _new(root: str) -> str:
    files.write_bytes(f"{root}/experiment.yaml", b"name: seen\nrounds: 2\npool: []\n")
    return root


def _stage(view: View, round: int | None, name: str) -> StageView:
    (found,) = (stage for stage in view.stages if (stage.round, stage.stage) == (round, name))
    return found


def _score(folder: StageFolder) -> StageResult:
    half = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 8}
    return StageResult(Counts(8, 8), summary={"accuracy": {"gsm8k": half, "pool": half}})


def _part(folder: StageFolder, number: int, rows: int = 10) -> None:
    columns = {"id": [f"{number}-{row}" for row in range(rows)]}
    columns |= {"prompt_tokens": [10] * rows, "completion_tokens": [20] * rows}
    folder.write(f"part-{number}.parquet", pa.table(columns))
    folder.note("part written", part=f"part-{number}.parquet", rows=rows, kept=6)


def test_a_run_at_work_after_a_resume(root: str) -> None:
    """The rate and what is left are of the driver of now; what was written before is done."""

    def killed(folder: StageFolder) -> StageResult:
        folder.note("rows counted", rows=100, done=0)
        _part(folder, 0, 40)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Run(root) as run:
        run.once("score", None, {}, _score)
        run.once("rationales", 0, TEACHER, killed)
    seen = look(root)
    assert not seen.at_work and seen.view.state == "interrupted" and "was interrupted" in seen.driver
    stopped = _stage(seen.view, 0, "rationales")
    assert stopped.state == "stopped" and stopped.standing is not None and stopped.standing.done == 40

    def resumed(folder: StageFolder) -> StageResult:
        folder.note("rows counted", rows=100, done=40)
        begun = time.time()
        time.sleep(0.5)
        _part(folder, 1)
        _part(folder, 2)
        written = time.time()
        seen = look(root, begun + 10.0)
        assert seen.at_work and seen.view.state == "at work" and "drives the run" in seen.driver
        stage = _stage(seen.view, 0, "rationales")
        assert stage.state == "working" and stage.standing is not None
        now = stage.standing
        assert (now.done, now.resumed, now.total, now.kept) == (60, 40, 100, 12)
        assert now.rate == pytest.approx(2.0, rel=0.05) and now.left_s == pytest.approx(20.0, rel=0.05)
        assert seen.view.tokens == {"teacher": (600, 1200)}
        assert seen.view.quiet_s == pytest.approx(begun + 10.0 - written, abs=0.3) and not seen.view.unusual
        assert seen.view.longest_s == pytest.approx(0.5, abs=0.3)
        assert look(root, begun + 60.0).view.unusual
        assert _stage(seen.view, None, "score").scores == {"gsm8k": 0.5}
        assert _stage(seen.view, 2, "curate").state == "to come"
        return StageResult(Counts(60, 60), tuple(folder.parts()), {"teacher": {"prompt": 600, "completion": 1200}})

    with Run(root) as run:
        run.once("rationales", 0, TEACHER, resumed)
    seen = look(root)
    assert seen.view.state == "finished" and not seen.at_work and seen.view.quiet_s is None
    assert _stage(seen.view, 0, "rationales").note == "60 of 60 kept"
    assert seen.view.tokens == {"teacher": (600, 1200)}


def test_a_driver_that_was_killed(tmp_path: Path) -> None:
    root = _new(str(tmp_path))
    code = (
        "import os, sys\nfrom fdd_ray.store.run import Run\n"
        "Run(sys.argv[1]).__enter__().once('problems', 0, {}, lambda folder: os._exit(9))"
    )
    subprocess.run([sys.executable, "-c", code, root], check=False)
    seen = look(root)
    assert seen.view.state == "killed" and not seen.at_work and "it was killed" in seen.driver
    assert _stage(seen.view, 0, "problems").state == "stopped"


@pytest.mark.parametrize("text", [b"- 1\n", b"rounds: [\n", b"\xff", b"name: \"\\e[2J\"\nrounds: -7\npool: 1\n",
                                  b"name: x\nrounds: 99999999999\npool: 1\n"])  # fmt: skip
def test_an_experiment_that_is_none_plans_little_and_breaks_nothing(tmp_path: Path, text: bytes) -> None:
    files.write_bytes(str(tmp_path / "experiment.yaml"), text)
    assert len(look(str(tmp_path)).view.stages) <= 5


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run at"):
        watch(str(tmp_path), io.StringIO())  # type: ignore[arg-type]
    assert main(["status", str(tmp_path), "--watch"]) == 4
    with pytest.raises(SystemExit):
        main(["status", str(tmp_path), "--watch", "--json"])


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[tuple[str, threading.Event]]:
    """A run that this process drives, in the middle of a stage; it goes on and ends once the event is set."""
    root, go_on, at_it = _new(str(tmp_path)), threading.Event(), threading.Event()

    def work(folder: StageFolder) -> StageResult:
        folder.note("rows counted", rows=40, done=0)
        _part(folder, 0)
        at_it.set()
        assert go_on.wait(120.0)
        return StageResult(Counts(10, 10), tuple(folder.parts()), {"teacher": {"prompt": 100, "completion": 200}})

    def drive() -> None:
        with Run(root) as run:
            run.once("score", None, {}, _score)
            run.once("rationales", 0, TEACHER, work)

    thread = threading.Thread(target=drive)
    thread.start()
    assert at_it.wait(30.0)
    yield root, go_on
    go_on.set()
    thread.join()


def test_on_a_terminal_it_is_a_live_view_that_ends_with_the_run(at_work: tuple[str, threading.Event]) -> None:
    root, go_on = at_work
    with terminal("-m", "fdd_ray.cli", "status", root, "--watch", columns=60) as found:
        lines = found.wait_for("▶ rationales")
        assert lines[0].startswith("seen  at work for ") and "10/40 rows" in "\n".join(lines)
        go_on.set()
        assert found.end(30.0) == 0
        lines = [line for line in found.all_lines() if line]
        assert [line for line in lines if line.startswith("seen  ")] == [lines[0]]
        assert lines[0].startswith("seen  finished after ")
        assert any(re.fullmatch(r"gsm8k +50.0", line) for line in lines) and any(
            "✓ rationales" in line for line in lines
        )
        assert "the run is finished, since " in "".join(lines)
        assert found.cursor_is_visible


def test_ctrl_c_ends_the_watching_and_not_the_run(at_work: tuple[str, threading.Event]) -> None:
    root, _ = at_work
    with terminal("-m", "fdd_ray.cli", "status", root, "--watch") as found:
        found.wait_for("▶ rationales")
        found.type(b"\x03")
        assert found.end(30.0) == 0
        assert "no longer watching; the run goes on without it" in found.all_lines()
        assert found.cursor_is_visible
    assert look(root).at_work


def test_without_a_terminal_it_is_plain_lines_and_then_the_tables(
    at_work: tuple[str, threading.Event], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, go_on = at_work
    monkeypatch.setattr(watching, "EVERY_S", 0.1)
    monkeypatch.setattr(watching, "_LINE_EVERY_S", 0.3)
    threading.Timer(1.0, go_on.set).start()
    assert main(["status", root, "--watch"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert 2 <= sum("] round 0 rationales: 10/40 rows, " in line for line in lines) <= 5
    assert any(line.startswith("base") or line.lstrip().startswith("base") for line in lines)
    assert lines[-1].startswith("the run is finished, since ")
