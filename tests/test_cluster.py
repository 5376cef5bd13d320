"""Ray for the length of a run."""

from __future__ import annotations

import sys
import time

import pytest

from fdd_ray.cluster import ray_session
from fdd_ray.progress import Reporter

pytestmark = pytest.mark.cluster


def test_what_ray_prints_does_not_mix_with_results(ray_local: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings of its nodes, which it prints in every driver, whatever ``log_to_driver`` says."""
    import ray
    from ray._private.utils import publish_error_to_driver

    said, gcs = "", ray._private.worker.global_worker.gcs_client
    with ray_session(Reporter()):
        end = time.monotonic() + 60
        while "too many workers" not in said and time.monotonic() < end:
            publish_error_to_driver("worker_pool_large", "too many workers", gcs)
            time.sleep(0.2)
            found = capsys.readouterr()
            said += found.err
            assert found.out == ""
        print("results, said while Ray is up")
        assert sys.stdout is not sys.stderr and capsys.readouterr().out == "results, said while Ray is up\n"
    assert "(raylet)" in said and "too many workers" in said
    print("results")
    assert sys.stdout is not sys.stderr and capsys.readouterr().out == "results\n"
