"""``fdd-ray plan``: what it prints, its exit codes, and that it needs neither Ray nor a network."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fdd_ray.cli import main
from fdd_ray.experiment import load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.planning.ranges import Range, short

from .recorded import STAGES, lay_out

JOBS = Path(__file__).parents[2] / "jobs"


def test_the_table_has_the_stages_the_sums_and_the_assumptions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = f"storage={tmp_path}"
    lay_out(load_experiment(TINY_EXPERIMENT, [storage]), [stage for stage in STAGES if stage["round"] in (None, 0)])
    assert main(["plan", str(TINY_EXPERIMENT), "--set", storage]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].endswith("5 of 20 stages are done")
    assert sum("synthesise  to do" in line for line in lines) == 3
    assert any(line.split()[:3] == ["0", "rationales", "done"] for line in lines)
    assert "left to do:" in lines and "assumed:" in lines
    assert "tokens counted by the model's own tokenizer" in text
    assert "GPU hours  " not in text and "money" not in text  # a CPU, and no prices


def test_json_holds_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(JOBS / "gsm8k_flan_t5_base.yaml"), "--set", f"storage={tmp_path}", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [stage["state"] for stage in plan["stages"]] == ["to do"] * 20
    for key in ("prompt_tokens", "completion_tokens"):
        parts = [stage["teacher"][key] for stage in plan["stages"]]
        for bound in ("low", "likely", "high"):
            assert plan["remaining"]["teacher"][key][bound] == pytest.approx(
                sum(part[bound] for part in parts), rel=1e-6
            )
    for stage in plan["stages"]:
        for value in (stage["rows"], stage["seconds"], stage["gpu_hours"]):
            assert 0 <= value["low"] <= value["likely"] <= value["high"]
    assert plan["spent"] is None and plan["assumptions"]


def test_what_cannot_be_planned_ends_with_the_codes_of_other_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(tmp_path / "none.yaml")]) == 2
    assert main(["plan", str(TINY_EXPERIMENT), "--set", "pool=[{format: jsonl, path: none.jsonl}]"]) == 3
    assert "there is no file none.jsonl" in capsys.readouterr().err
    assert main(["plan", str(TINY_EXPERIMENT), "--size", "svamp=3"]) == 2
    assert "there are: pool, in_distribution, out_of_distribution" in capsys.readouterr().err
    for wrong in (["--size", "pool"], ["--teacher-tokens-per-second", "0"], ["--device", "abacus"]):
        with pytest.raises(SystemExit) as ended:
            main(["plan", str(TINY_EXPERIMENT), *wrong])
        assert ended.value.code == 2


def test_it_is_quick_and_starts_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from fdd_ray.cli import main; main(sys.argv[1:]);"
        "heavy = {'ray', 'torch', 'vllm', 'transformers', 'datasets'} & sys.modules.keys(); assert not heavy, heavy"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "plan",
        str(JOBS / "gsm8k_qwen2.5_0.5b.yaml"),
        "--set",
        f"storage={tmp_path}",
    ]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 10
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_short() -> None:
    assert [short(value) for value in (0, 0.002, 0.05, 7, 999, 1000, 7473, 999_900, 12_345_678, 2.5e9)] == [
        "0", "<0.01", "0.05", "7", "999", "1k", "7.47k", "1M", "12.3M", "2.5G",
    ]  # fmt: skip


def test_ranges_grow_apart_when_divided() -> None:
    assert Range(1, 2, 4) / Range(1, 2, 4) == Range(0.25, 1, 4)
    assert Range(1, 2, 4).capped(3) == Range(1, 2, 3)
