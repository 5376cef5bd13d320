"""What the README shows is run as it is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fdd_ray.report.status import read_status

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.cluster
def test_the_run_from_python(tmp_path: Path) -> None:
    (block,) = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    (tmp_path / "small.py").write_text(block.split("```")[0], encoding="utf-8")
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    done = subprocess.run([sys.executable, "small.py"], cwd=tmp_path, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    table, (first, second, problems) = done.stdout.splitlines()[:-3], done.stdout.splitlines()[-3:]
    assert any("base" in line for line in table), "the run prints its table before"
    status = read_status(str(tmp_path / "runs" / "small"))
    rounds = [(one["round"], one["kept"]) for one in status["rounds"]]
    assert [line.split(" {")[0] for line in (first, second)] == [f"{number} {kept}" for number, kept in rounds]
    assert rounds[1] == (1, 60) and "'in_distribution': " in second
    assert problems.startswith("[(") and problems.count("), (") == 2
