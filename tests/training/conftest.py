"""Fixtures for fine-tuning: examples of the tiny world, and one Ray for all tests that need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fdd_ray.records import Example, problem_id, to_table
from fdd_ray.tiny import make_problems


def tiny_examples(count: int) -> list[Example]:
    """Examples of the tiny world."""
    return [
        Example(problem_id(problem.question), problem.question, problem.program, "program", "seed", 0)
        for problem in make_problems("pool", count, 1)
    ]


def write_examples(folder: Path) -> list[str]:
    """Two Parquet files with 120 examples."""
    import pyarrow.parquet as pq

    examples = tiny_examples(120)
    files = [str(folder / "0.parquet"), str(folder / "1.parquet")]
    for file, part in zip(files, (examples[:50], examples[50:]), strict=True):
        pq.write_table(to_table(part, Example), file)
    return files


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads that spin beside other tests make small models many times slower."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def example_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two Parquet files with 120 examples."""
    return write_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="session")
def ray_session(ray_local: None) -> Any:
    """The module ``ray``, with a small cluster running."""
    import ray

    return ray
