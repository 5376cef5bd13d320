"""What a run cost and how it stands, after a kill, a resume and a change of mind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from fdd_ray.report.status import driver_line, read_status
from fdd_ray.store import files
from fdd_ray.store.ledger import Ledger, read_ledger
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult, Usage
from fdd_ray.store.spent import Lost, spent

TEACHER = {"teacher": {"model": "big"}}


def _part(folder: StageFolder, number: int, rows: int = 5) -> None:
    table = pa.table({"id": [f"{number}-{row}" for row in range(rows)]})
    for kind, tokens in (("prompt", 10), ("completion", 20)):
        table = table.append_column(f"{kind}_tokens", pa.array([tokens] * rows, pa.int64()))
    folder.write(f"part-{number}.parquet", table)


def _work(folder: StageFolder) -> StageResult:
    for number in range(3):
        if f"part-{number}.parquet" not in folder.parts():
            _part(folder, number)
    return StageResult(Counts(15, 15), tuple(folder.parts()), {"teacher": {"prompt": 150, "completion": 300}})


def _killed(folder: StageFolder) -> StageResult:
    _part(folder, 0)
    _part(folder, 1)
    files.write_bytes(folder.file("part-2.parquet"), b"PAR1 torn")
    raise KeyboardInterrupt


def _begin(root: str) -> None:
    with pytest.raises(KeyboardInterrupt), Run(root, experiment="name: x\n") as run:
        run.once("rationales", 0, TEACHER, _killed)


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("fdd_ray.store.lease.SETTLE_S", 0.01)
    return str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run"


def test_an_unfinished_stage_costs_what_its_parts_hold(root: str) -> None:
    _begin(root)
    assert spent(root).tokens == {"big": {"prompt": 100, "completion": 200}}
    assert spent(root).by_role == {"teacher": {"prompt": 100, "completion": 200}}
    (stage,) = read_status(root)["stages"]
    place = {"stage": "rationales", "round": 0, "path": f"{root}/round-00/rationales"}
    assert stage == {**place, "done": False, "rows_written": 10}


def test_a_resume_counts_each_row_once_and_hides_no_loss(root: str) -> None:
    _begin(root)
    with Run(root) as run:
        run.once("rationales", 0, TEACHER, _work)
    cost = spent(root)
    assert cost.tokens == {"big": {"prompt": 150, "completion": 300}}
    assert cost.lost == Lost(torn_parts=1)
    Ledger(root).append("failed rows are asked again", stage="rationales", round=0, part="part-0.parquet", rows=4)
    with Run(root) as run:
        run.set_aside("rationales")
        run.once("rationales", 0, TEACHER, _work)
    cost = spent(root)
    assert cost.tokens == {"big": {"prompt": 300, "completion": 600}}
    assert cost.by_role == {"teacher": {"prompt": 300, "completion": 600}}
    assert cost.lost == Lost(superseded_tokens=450, failed_rows=4, torn_parts=1)


def test_seconds_and_money_add_up_and_survive_the_manifest(root: str) -> None:
    usage = Usage({"big-2": {"prompt": 5, "completion": 1}}, engine_seconds=2, cpu_seconds=3, gpu_seconds=4, money=0.5)

    def work(folder: StageFolder) -> StageResult:
        return StageResult(Counts(), (), {"teacher": {"prompt": 5, "completion": 1}}, usage=usage)

    with Run(root) as run:
        for round in (0, 1):
            run.once("synthesise", round, TEACHER, work)
        assert run.once("synthesise", 1, TEACHER, work).usage == usage
    cost = spent(root)
    assert cost.tokens == {"big-2": {"prompt": 10, "completion": 2}}
    assert cost.by_role == {"teacher": {"prompt": 10, "completion": 2}}
    assert (cost.seconds["engine"], cost.seconds["cpu"], cost.seconds["gpu"], cost.money) == (4, 6, 8, 1.0)
    finished = [event for event in read_ledger(root) if event["event"] == "stage finished"]
    assert [event["usage"]["money"] for event in finished] == [0.5, 0.5]


def test_the_ledger_tells_how_each_driver_ended(root: str) -> None:
    _begin(root)
    with pytest.raises(RuntimeError), Run(root):
        raise RuntimeError("engines are gone")
    with Run(root):
        pass
    ends = [(e["reason"], e.get("error")) for e in read_ledger(root) if e["event"] == "run ended"]
    assert ends == [("interrupted", None), ("failed", "RuntimeError: engines are gone"), ("finished", None)]


def test_status_of_a_run_that_is_live_then_killed_then_finished(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    files.write_bytes(f"{root}/experiment.yaml", b"name: x\n")
    nobody = read_status(root)
    assert nobody["driver"]["pid"] is None and driver_line(nobody) == "no driver has the run"
    command = [sys.executable, "-m", "tests.store.driving", root, "60", "15", "60"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert driver.stdout is not None and driver.stdout.readline().strip() == "taken"
        deadline = time.monotonic() + 30
        while len(files.list_names(f"{root}/round-00/rationales", ".parquet")) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        live = read_status(root)
        assert live["driver"]["alive"] and live["driver"]["pid"] == driver.pid
        assert abs(live["driver"]["last_sign"] - time.time()) < 10
        line = driver_line(live)
        assert line.startswith(f"process {driver.pid} on ") and "drives the run, and gave its last sign" in line
        assert spent(root).lost.killed_drivers == 0
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(20)
    killed = read_status(root)
    parts = files.list_names(f"{root}/round-00/rationales", ".parquet")
    assert not killed["driver"]["alive"] and f"no driver has the run; process {driver.pid} on" in driver_line(killed)
    assert killed["stages"][0]["rows_written"] == len(parts) >= 3
    assert killed["spent"]["lost"]["killed_drivers"] == 1
    with Run(root) as run:
        run.once("rationales", 0, {}, lambda folder: StageResult(Counts(len(parts), len(parts)), tuple(folder.parts())))
    done = read_status(root)
    assert not done["driver"]["alive"] and done["stages"][0]["done"]
    assert done["spent"]["lost"]["killed_drivers"] == 1


def test_rows_are_counted_from_footers_not_from_events(tmp_path: Path) -> None:
    """A kill between a part and its event must not hide the part."""
    _begin(str(tmp_path))
    assert not [event for event in read_ledger(str(tmp_path)) if event["event"] == "part written"]
    assert read_status(str(tmp_path))["stages"][0]["rows_written"] == 10
