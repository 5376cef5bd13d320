"""The same experiment with the same teacher, in engines of our own and over HTTP, gives the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_both_ways_of_asking_teach_the_same(tmp_path: Path) -> None:
    """Up to the first student. Its rationales are drawn greedily, so nearly all are the very same text."""
    command = [sys.executable, "benchmarks/http_teacher.py", "--size", "60", "--rounds", "0"]
    command += ["--set", "finetune.epochs=1", "--work", str(tmp_path / "runs"), "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    written = json.loads((tmp_path / "http_teacher.json").read_text())
    texts, rows = written["settings"]["texts"], {(row["where"], row["what"]): row for row in written["rows"]}
    assert texts["rationales"] == 60 and texts["only on one side"] == 0
    assert texts["same text"] >= 57 and texts["same verdict"] >= 57
    kept, failed = rows["round 0 rationales", "kept"], rows["round 0 rationales", "failed"]
    assert kept["same"] == "yes" and int(kept["vllm"].split()[0]) >= 32
    assert failed["vllm"] == failed["http"] == "0 of 60"
