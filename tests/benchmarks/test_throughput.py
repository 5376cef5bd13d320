"""What a cluster gives, read from a run's books."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.store import files
from fdd_ray.store.manifest import Usage
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark; it is a script, not part of a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import throughput

    return throughput


STAGE = {"kept": 0, "replicas": {"teacher": 4, "student": 1}, "summary": {}, "engine_seconds": 0.0, "gpu_seconds": 0.0}


def test_rows_and_tokens_are_of_the_seconds_in_which_a_block_was_in_flight(throughput: Any) -> None:
    tokens = {"teacher": {"prompt": 4000, "completion": 2000}}
    stage = STAGE | {"round": 1, "stage": "synthesise", "rows": 100, "tokens": tokens, "money": 0.0}
    pieces = [
        throughput.Piece(1, "synthesise", "engine start", 90.0),
        throughput.Piece(1, "synthesise", "tokens", 6.0),
        throughput.Piece(1, "synthesise", "tokens", 4.0),
        throughput.Piece(0, "synthesise", "tokens", 50.0),
    ]
    (row,) = throughput.asked(pieces, [stage])
    assert (row["rows/s"], row["prompt tokens/s"], row["completion tokens/s"]) == (10.0, 400.0, 200.0)
    assert row["of one engine"] == 50.0 and row["s at work"] == 10.0
    assert throughput.asked([], [stage]) == [], "nothing is divided by nothing"


def test_steps_tell_tokens_and_the_share_of_the_peak(throughput: Any) -> None:
    summary = {
        "tokens_per_second": 1000.0, "workers": 2, "parameters": 500_000_000, "steps": 7, "tokens": 9000,
        "seconds": 9.0,
    }  # fmt: skip
    stage = STAGE | {"round": 0, "stage": "finetune", "rows": 1, "tokens": {}, "summary": summary, "money": 0.0}
    (row,) = throughput.trained([stage], peak_tflops=10.0)
    assert row["of one worker"] == 500.0 and row["MFU %"] == pytest.approx(15.0)
    assert throughput.trained([stage], None)[0]["MFU %"] == ""


def test_money_is_that_of_a_thousand_accepted_problems(throughput: Any) -> None:
    teacher = {"teacher": {"prompt": 300, "completion": 100}}
    stages = [
        STAGE | {"round": 1, "stage": "synthesise", "rows": 300, "kept": 280, "tokens": teacher, "money": 6.0},
        STAGE | {"round": 1, "stage": "curate", "rows": 300, "kept": 200, "tokens": {}, "money": 1.0},
    ]
    pieces = [throughput.Piece(None, "score", "Ray start", 3.0), throughput.Piece(1, "finetune", "training start", 4.0)]
    (row,) = throughput.whole(pieces, stages)
    assert (row["accepted problems"], row["money / 1,000 accepted"], row["s of start-up"]) == (200, 35.0, 7.0)
    assert row["teacher tokens / 1,000 accepted"] == 2000.0
    (none,) = throughput.whole(pieces, [stage | {"money": 0.0} for stage in stages[:1]])
    assert (none["money"], none["money / 1,000 accepted"], none["teacher tokens / 1,000 accepted"]) == ("", "", "")


def test_a_run_directory_is_read(throughput: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(folder: StageFolder) -> StageResult:
        folder.note("rows counted", rows=50, done=0)
        folder.note("part written", part="part-a.parquet", rows=50, kept=40, seconds=0.5)
        tokens = {"teacher": {"prompt": 500, "completion": 250}}
        return StageResult(Counts(50, 40, {"wrong": 10}), (), tokens, usage=Usage(engine_seconds=7200.0, money=1.5))

    files.write_bytes(str(tmp_path / "experiment.yaml"), TINY_EXPERIMENT.read_bytes())
    with Run(str(tmp_path)) as run:
        run.once("rationales", 0, {}, work)
    throughput.main([str(tmp_path), "--output", str(tmp_path / "out")])
    told = json.loads((tmp_path / "out" / "throughput.json").read_text())
    (row,), (whole,) = told["settings"]["asked"], told["rows"]
    assert (row["round"], row["stage"], row["role"], row["rows"]) == ("0", "rationales", "teacher", 50)
    assert row["of one engine"] == row["completion tokens/s"] / 2, "replicas: [1, 2]"
    assert (whole["engine hours"], whole["money"], whole["accepted problems"]) == (2.0, 1.5, 0)
    assert "completion tokens/s" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="there is no run at"):
        throughput._experiment(str(tmp_path / "nothing"))
