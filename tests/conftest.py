"""What all tests share: one Ray for the whole session, and quick access to real data where it lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import object_store


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One small local Ray for all tests that need one."""
    import ray

    if not ray.is_initialized():
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def gsm8k() -> Path:
    """The folder with GSM8K's original files; skips where it is absent."""
    folder = Path(os.environ.get("FDD_RAY_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "gsm8k_train.jsonl").is_file():
        pytest.skip(f"NOT TESTED on real problems: no gsm8k_train.jsonl in {folder}; name its folder in FDD_RAY_DATA")
    return folder


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """The environment that leads to an S3-compatible server of this test session."""
    with object_store.s3_server() as values:
        yield values


@pytest.fixture
def s3_storage(s3_environment: dict[str, str]) -> Iterator[str]:
    """The URL of a new, empty S3 bucket; the environment is set for the length of the test.

    Processes that the test starts inherit it. Ray's workers inherit that of `ray_local`, which may have been
    started before: give them ``runtime_env={"env_vars": s3_environment}``.
    """
    with object_store.environment(s3_environment):
        yield object_store.new_bucket()
