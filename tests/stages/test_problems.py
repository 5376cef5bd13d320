"""Loading the problems: a large pool says how far it is."""

from __future__ import annotations

import json
from pathlib import Path

from fdd_ray.curation.contamination import ContaminationSettings
from fdd_ray.problems import SourceSettings
from fdd_ray.stages.problems import load
from fdd_ray.store.run import Run, StageFolder, StageResult


def test_how_much_of_the_pool_was_read_is_said_also_of_rows_that_are_rejected(tmp_path: Path) -> None:
    rows = [{"question": f"Tom has {n} apples. How many has he?", "answer": str(n)} for n in range(2100)]
    rows += [{"question": "", "answer": "1"}] * 1000
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said: list[str] = []

    def work(folder: StageFolder) -> StageResult:
        pool = [SourceSettings(format="jsonl", path=str(path))]
        return load(
            folder, pool=pool, benchmarks={}, contamination=ContaminationSettings(), seed=0, least=1, say=said.append
        )

    with Run(str(tmp_path / "run")) as run:
        manifest = run.once("problems", 0, {}, work)
    assert said == [f"{number},000 rows of the pool read" for number in (1, 2, 3)]
    assert (manifest.counts.rows, manifest.counts.kept) == (3100, 2100)
