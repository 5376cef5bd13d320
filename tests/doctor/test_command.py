"""``fdd-ray doctor``: groups of lines, JSON, exit codes, and no traceback whatever is broken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.cli import main
from fdd_ray.doctor import data, endpoint, examination, host, machine, models, pitfalls, storage
from fdd_ray.doctor.examination import Subject, examine
from fdd_ray.doctor.findings import Finding, ok
from fdd_ray.launch import TINY_EXPERIMENT


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster is joined, and no tokenizer loaded, whatever this machine has."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    fits = {"longest": 50, "end": True, "program": True, "example": 90}
    monkeypatch.setattr("fdd_ray.doctor.words.ask", lambda name, asked, *rest: dict.fromkeys(asked, fits))


def test_without_an_experiment_the_machine_is_examined(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and line[0] != " "][:-1] == ["ports", "installation", "machine", "sandbox"]
    assert (code == 0) == lines[-1].startswith("no problem")


def test_it_takes_seconds_and_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys; from fdd_ray.cli import main; main(['doctor', '--json']);"
        "heavy = {'ray', 'torch', 'vllm', 'transformers', 'datasets'} & sys.modules.keys(); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["experiment"] is None and {f["group"] for f in told["findings"]} >= {"machine", "sandbox"}


def test_an_experiment_that_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(TINY_EXPERIMENT), "--set", f"storage={tmp_path / 'runs'}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 0 and told["experiment"] == str(TINY_EXPERIMENT)
    groups = list(dict.fromkeys(f["group"] for f in told["findings"]))
    assert groups == [
        "experiment", "ports", "installation", "machine", "sandbox", "storage", "problems", "models", "room", "plan",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def codes(*overrides: str, file: object = TINY_EXPERIMENT) -> int:
    return main(["doctor", str(file), *(part for text in overrides for part in ("--set", text))])


def test_exit_codes_are_those_that_a_run_would_end_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "look_at_sandbox", lambda limits: [ok("not tried here, for speed")])
    store = f"storage={tmp_path}"
    assert codes(file=tmp_path / "none.yaml") == 2
    assert codes("finetune.epochz=4", store) == 2
    out = capsys.readouterr().out
    assert "finetune.epochz is not a setting" in out and "sandbox" in out, "the machine is examined all the same"
    assert codes("pool=[{format: jsonl, path: none.jsonl}]", store) == 3
    (tmp_path / "file").write_text("")
    assert codes(f"storage={tmp_path}/file") == 4
    assert codes("teacher.gpus_per_replica=1", store) in (0, 5)  # 0 on a machine with a GPU
    assert codes("teacher={model: m, endpoint: 'http://127.0.0.1:9/v1'}", "budget.money=1", store) == 5
    assert codes(f"student.model={tmp_path}", store) == 2
    with pytest.raises(SystemExit):
        main(["doctor", "--nonsense"])
    assert main(["doctor", "--set", "rounds=1"]) == 2


def test_no_traceback_whatever_breaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every function that looks at something is broken; each gives a finding, and all are told of."""

    def broken(*args: Any, **how: Any) -> Iterator[Finding]:
        raise ZeroDivisionError("broken on purpose")
        yield

    places: list[tuple[Any, str]] = [
        (machine, "look_at_machine"), (machine, "look_at_ports"), (machine, "cluster_address"),
        (examination, "look_at_sandbox"), (examination, "look_at_room"), (examination.installation, "look_at_packages"),
        (storage, "look_at_storage"), (storage, "look_at_space"), (storage, "look_at_driver"),
        (data, "look_at_source"), (pitfalls, "look_at_pool"), (pitfalls, "look_at_settings"),
        (pitfalls, "look_at_plan"), (models, "look_at_model"), (models, "folder_of"), (endpoint, "look_at_endpoint"),
    ]  # fmt: skip
    for module, name in places:
        monkeypatch.setattr(module, name, broken)
    assert codes(f"storage={tmp_path}") == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    assert captured.out.count("the check itself failed") >= len(places) - 1  # the teacher here has no endpoint


def test_what_crashes_in_the_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> Any:
        raise OSError("the file system is gone")

    monkeypatch.setattr(host, "facts", broken)
    found = examine(Subject())
    assert ["the file system is gone" in f.found for f in found if f.group == "machine"] == [True]
    assert any(f.group == "sandbox" for f in found)


def test_a_check_that_hangs_does_not_keep_the_command(tmp_path: Path) -> None:
    code = (
        "import sys, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from fdd_ray.doctor import examination, machine\n"
        "from fdd_ray.doctor.findings import Check\n"
        "def hang():\n"
        "    ThreadPoolExecutor(1).submit(threading.Event().wait).result()\n"
        "examination._Examination.checks = lambda self: [Check('g', 'the share', hang, 1.0)]\n"
        "from fdd_ray.cli import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert time.monotonic() - began < 90
    assert done.returncode == 5 and "the share: no answer within 1 s" in done.stdout
    assert done.stdout.rstrip().endswith("0 good")


def test_a_cluster_that_does_not_answer_is_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(examination, "ask", lambda *args: pytest.fail("it was joined"))
    found = examine(Subject(str(TINY_EXPERIMENT), (f"storage={tmp_path}",)))
    assert [f.exit_code for f in found if f.level == "problem"] == [5]
    assert "127.0.0.1:9" in next(f.found for f in found if f.level == "problem")


def test_no_ray_leaves_a_cluster_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "listens", lambda *args: "")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(examination, "ask", lambda *args: pytest.fail("it was joined"))
    found = examine(Subject(str(TINY_EXPERIMENT), (f"storage={tmp_path}",), use_ray=False))
    assert any("is not joined" in f.found for f in found if f.level == "note")
    assert not [f for f in found if f.group in ("cluster", "room")]
