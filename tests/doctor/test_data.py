"""Pools and benchmarks: first rows that parse, that do not, and data sets of the hub that are not here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from fdd_ray.doctor import data
from fdd_ray.doctor.data import POOL, Samples, look_at_source
from fdd_ray.doctor.findings import Finding
from fdd_ray.errors import EngineError
from fdd_ray.problems import SourceSettings


def rows(path: Path, count: int, **changes: Any) -> str:
    """A JSONL file of problems."""
    lines = [
        {"question": f"Ann has {n} apples and buys {n + 1}. How many has she?", "answer": str(2 * n + 1)} | changes
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def look(source: SourceSettings, samples: Samples | None = None) -> Finding:
    (finding,) = look_at_source(POOL, source, samples or Samples())
    return finding


def test_files_that_are_good(tmp_path: Path) -> None:
    samples = Samples()
    finding = look(SourceSettings("jsonl", rows(tmp_path / "a.jsonl", 500, solution="so 3")), samples)
    assert finding.level == "ok" and "500 problems (read)" in finding.found and "first 200 rows 200" in finding.found
    look(SourceSettings("tiny", split="pool", size=30), samples)
    size = samples.size(POOL)
    assert size is not None and size.likely == 530
    assert len(samples.questions[POOL]) == 230 and samples.solved[POOL] >= 200
    assert samples.size("other") is None


def test_a_limit_counts(tmp_path: Path) -> None:
    samples = Samples()
    look(SourceSettings("jsonl", rows(tmp_path / "a.jsonl", 500), limit=40), samples)
    size = samples.size(POOL)
    assert size is not None and size.high == 40


def test_files_that_are_not_there_or_no_problems(tmp_path: Path) -> None:
    finding = look(SourceSettings("jsonl", str(tmp_path / "none.jsonl")))
    assert (finding.level, finding.exit_code) == ("problem", 3) and finding.found.startswith("pool: there is no file")
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "final": "3"}\n')
    finding = look(SourceSettings("jsonl", str(tmp_path / "a.jsonl")))
    assert (finding.level, finding.exit_code) == ("problem", 3)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 torn")
    finding = look(SourceSettings("parquet", str(tmp_path / "b.parquet")))
    assert (finding.level, finding.exit_code) == ("problem", 3)


def test_rows_without_a_usable_problem(tmp_path: Path) -> None:
    finding = look(SourceSettings("jsonl", rows(tmp_path / "a.jsonl", 30, answer="")))
    assert (finding.level, finding.exit_code) == ("problem", 3)
    assert "no usable problem in its first 30 rows" in finding.found and "a.jsonl:1" in finding.found


def test_many_rejected_rows_are_a_note(tmp_path: Path) -> None:
    good, wrong = rows(tmp_path / "a.jsonl", 30), rows(tmp_path / "b.jsonl", 20, answer="")
    (tmp_path / "c.jsonl").write_text(Path(good).read_text() + Path(wrong).read_text())
    finding = look(SourceSettings("jsonl", str(tmp_path / "c.jsonl")))
    assert finding.level == "note" and "30 are usable" in finding.found and "20 " in finding.found


def hub(**settings: Any) -> SourceSettings:
    return SourceSettings(**{"format": "hub", "path": "nobody/none", "split": "train", **settings})


def test_a_data_set_that_is_not_in_the_cache_is_downloaded_later() -> None:
    samples = Samples()
    finding = look(hub(path="openai/gsm8k", subset="main", like="gsm8k"), samples)
    assert finding.level == "note" and "7,473 problems" in finding.found and "was not asked" in finding.found
    size = samples.size(POOL)
    assert size is not None and size.likely == 7473 and samples.questions == {}


def test_offline_it_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    finding = look(hub())
    assert (finding.level, finding.exit_code) == ("problem", 3) and "HF_HUB_OFFLINE" in finding.found


@pytest.mark.slow
def test_a_data_set_in_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows(tmp_path / "set" / "train.jsonl", 12)
    finding = look(hub(path=str(tmp_path / "set")))
    assert finding.level == "ok" and "12 problems (read); of the first 12 rows 12 are usable" in finding.found
    finding = look(hub(path=str(tmp_path / "set"), columns={"question": "prompt"}))
    assert (finding.level, finding.exit_code) == ("problem", 3) and "prompt" in finding.found
    finding = look(hub(path=str(tmp_path / "set"), split="test"))
    assert (finding.level, finding.exit_code) == ("problem", 3)


def test_a_data_set_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*args: Any) -> Any:
        raise EngineError("no answer within 1 s; try again")

    monkeypatch.setattr(data, "ask", late)
    finding = look(hub())
    assert finding.level == "problem" and finding.found == "pool: no answer within 1 s"
