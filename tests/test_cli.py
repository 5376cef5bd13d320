from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fdd_ray.cli import main

HEAVY = ("ray", "torch", "vllm", "transformers", "deepspeed", "pyarrow", "pandas", "datasets")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from fdd_ray.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "run an experiment" in done.stdout


def test_reading_an_experiment_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from fdd_ray.experiment import load_experiment\n"
        "from fdd_ray.launch import TINY_EXPERIMENT\n"
        "load_experiment(TINY_EXPERIMENT)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_wrong_experiment_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text("nmae: x\n")
    assert main(["run", str(tmp_path / "x.yaml")]) == 2
    assert "nmae is not a setting; did you mean name?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["rum"])
    assert caught.value.code == 2


def test_what_the_output_cannot_show_is_written_as_an_escape(tmp_path: Path) -> None:
    job = Path(__file__).parents[1] / "jobs" / "tiny.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "fdd_ray.cli", "plan", str(job), "--set", f"storage={tmp_path}/s\u00fc"],
        capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert r"/s\xfc/tiny" in done.stdout


def test_no_run_exits_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 4
    assert "there is no run at" in capsys.readouterr().err


def test_unreadable_problems_exit_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Path(__file__).parents[1] / "jobs" / "gsm8k_tiny.yaml"
    code = main(["run", str(job), "--set", f"storage={tmp_path}", "--set", f"pool.path={tmp_path}/none.jsonl",
                 "--set", "benchmarks={}"])  # fmt: skip
    assert code == 3
    assert "none.jsonl" in capsys.readouterr().err


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fdd_ray.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("fdd-ray 0.")


def test_status_of_a_run_that_has_just_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment.yaml").write_text("name: x\n")
    assert main(["status", str(tmp_path), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["rounds"], status["base"]["accuracy"], status["stages"]) == ([], {}, [])
    assert not status["driver"]["alive"] and status["spent"]["tokens"] == {}
    assert main(["report", str(tmp_path)]) == 0


def test_settings_lists_every_key_with_default_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    text = capsys.readouterr().out
    for line in (
        "rounds = 3\n    Feedback rounds after the initialisation. (at least 0)",
        "pool[].format = required",
        "benchmarks.NAME[].path = ''",
        "teacher.replicas = [1, 1]",
        "finetune.zero_stage = 1",
        "check.programs.seconds = ",
        "One of: program, chain.",
    ):
        assert line in text
    assert main(["settings", "finetune.epochs"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "finetune.epochs = 3"
    assert main(["settings", "nothing"]) == 2


def test_a_pool_that_is_a_benchmark_stops_before_ray_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Path(__file__).parents[1] / "jobs" / "tiny.yaml"
    sets = [f"storage={tmp_path}", "benchmarks={same: {format: tiny, split: pool, size: 300, seed: 1}}"]
    assert main(["run", str(job), *(part for text in sets for part in ("--set", text))]) == 3
    text = capsys.readouterr().err
    assert "the pool has 0 usable problems" in text and "300 are too close to a benchmark" in text
