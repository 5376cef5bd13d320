"""``ray job submit``, as a user meets it: refused without the token, stopped, killed with its nodes, submitted again.

A head and a worker on this machine, storage on an S3-compatible server. The engines are simulated, so that every
request is on record; the rest is what always runs, with the student's fine-tuning by Ray Train and DeepSpeed.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.engines.simulated import call_key
from fdd_ray.errors import StoreError
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Taught, from_table, schema_of, stable_seed
from fdd_ray.report.status import read_status
from fdd_ray.store import files
from fdd_ray.store.ledger import read_ledger
from tests import object_store
from tests.cluster.nodes import Cluster, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

PROBLEMS, BLOCK_ROWS, BLOCKS = 96, 8, 2
KEY = "key-of-the-teacher-5b1c9e"
# The machine may be busy with other tests.
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def cluster(s3_environment: dict[str, str]) -> Iterator[Cluster]:
    """A head, where drivers run, and a worker, where all else does."""
    with object_store.environment(s3_environment), Cluster(s3_environment | {"TEACHER_API_KEY": KEY}) as made:
        made.start_head()
        made.start_worker()
        yield made


def words(storage: str, calls: Path, *more: str) -> list[str]:
    """The words after jobs/distill.py of a short run."""
    settings = [
        f"storage={storage}",
        "rounds=0",
        f"pool.size={PROBLEMS}",
        "benchmarks={test: {format: tiny, split: test, size: 16, seed: 2}}",
        "teacher.engine=simulated",
        f"teacher.engine_args={{seconds: 4.0, spread: 0.3, calls: {calls}}}",
        "student.engine=simulated",
        f"student.engine_args={{calls: {calls}-of-the-student}}",
        "teach.max_tokens=300",
        "finetune.epochs=1",
        f"flow.block_rows={BLOCK_ROWS}",
        f"flow.blocks_in_flight={BLOCKS}",
        *more,
    ]
    return ["--experiment", "jobs/tiny.yaml", *(part for text in settings for part in ("--set", text))]


class Books:
    """What a run has written, and what its teacher was asked."""

    def __init__(self, directory: str, calls: Path) -> None:
        self.directory = directory
        self._folder = f"{directory}/round-00/rationales"
        self._calls = calls

    def parts(self) -> list[str]:
        return [name for name in files.list_names(self._folder, ".parquet") if name.startswith("part-")]

    def rows(self) -> list[Taught]:
        paths = [f"{self._folder}/{name}" for name in self.parts()]
        return from_table(files.read_tables(paths, schema_of(Taught)), Taught)

    def written(self) -> set[str]:
        """The keys of the requests whose rows are written."""
        prompts = load_prompts("tiny")
        return {
            call_key(
                "tiny://teacher", prompts.solve("program", row.question)[-1]["content"], stable_seed(0, "teach", row.id)
            )
            for row in self.rows()
        }

    def asked(self) -> Counter[str]:
        logs = self._calls.glob("*.log") if self._calls.is_dir() else ()
        lines = (line.split() for log in logs for line in log.read_text().splitlines(keepends=True) if line[-1] == "\n")
        return Counter(key for _, key in lines)

    def last_words(self) -> tuple[str, str]:
        """How the ledger says that the last driver ended."""
        last = read_ledger(self.directory)[-1]
        return last["event"], last.get("reason", "")


def status_of(cluster: Cluster, job: str) -> str:
    found: dict[str, Any] = cluster.get(f"/api/jobs/{job}").json()
    return str(found["status"])


def test_without_the_token_nothing_is_taken(cluster: Cluster, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for mode, token in (("disabled", ""), ("token", "0" * 64)):
        done = cluster.ray("job", "submit", "--", f"touch {ran}", RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN=token)
        assert done.returncode != 0 and "AuthenticationError" in done.stderr, done.stderr
        joined = cluster.ray("status", "--address", cluster.address, RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN=token)
        assert joined.returncode != 0 and "AuthenticationError" in joined.stderr, joined.stderr
    assert cluster.get("/api/jobs/", token="").status_code == 401
    assert cluster.get("/api/jobs/", token="0" * 64).status_code == 403
    answer = cluster.get("/api/jobs/")
    assert answer.status_code == 200 and answer.json() == [] and not ran.exists()


def test_a_failing_job_exits_with_its_message_in_its_log(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "failing.log"
    assert cluster.submit(log, "--experiment", "jobs/tiny.yaml", "--set", "nmae=x").wait(PATIENCE_S) != 0
    assert status_of(cluster, "failing") == "FAILED"
    for text in (log.read_text(), cluster.ray("job", "logs", "failing").stdout):
        assert "distill: --set nmae=x: nmae is not a setting; did you mean name?" in text


def test_a_node_that_does_not_see_the_storage_is_named_before_anything_starts(cluster: Cluster, tmp_path: Path) -> None:
    storage, calls, log = object_store.new_bucket(), tmp_path / "calls", tmp_path / "blind.log"
    before = set(cluster.nodes())
    blind = cluster.start_worker(environment=cluster.bare)
    (name,) = set(cluster.nodes()) - before
    try:
        assert cluster.submit(log, *words(storage, calls)).wait(PATIENCE_S) != 0
    finally:
        blind.kill()
    text = log.read_text()
    assert f"fdd-ray: {storage}/tiny is not seen from 1 of the 2 other nodes of this cluster: node " in text
    assert f"({name[:8]}): from " in text and "cannot read s3://" in text and "credentials" in text
    assert f"failed with exit code {StoreError.exit_code}" in text
    assert not list(tmp_path.glob("calls*")), "no engine was started"
    filesystem, inner = files.filesystem_of(f"{storage}/tiny")
    assert not [path for path in filesystem.find(inner) if "visible" in path]


def test_a_job_that_is_stopped_and_then_loses_its_nodes_is_finished_by_submitting_it_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    storage, calls = object_store.new_bucket(), tmp_path / "calls"
    command = words(storage, calls)
    books = Books(f"{storage}/tiny", calls)

    def submit_until(name: str, parts: int) -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / f"{name}.log"
        job = cluster.submit(log, *command)
        wait_for(lambda: len(books.parts()) >= parts or job.poll() is not None, PATIENCE_S, log.read_text)
        assert job.poll() is None, log.read_text()
        assert "] Ray is up after " in log.read_text(), "lines come while the job runs"
        return job, log

    # Stopped politely: what was asked is written.
    job, log = submit_until("stopped", 1)
    assert cluster.stop("stopped").json() == {"stopped": True}
    assert job.wait(PATIENCE_S) is not None and status_of(cluster, "stopped") == "STOPPED"
    assert "the rows in flight are being finished" in log.read_text()
    assert books.last_words() == ("run ended", "interrupted")
    assert books.asked() == Counter(books.written()) and len(books.rows()) < PROBLEMS

    # Both nodes are gone, the driver with them: what is written stays.
    job, log = submit_until("killed", len(books.parts()) + 2)
    for node in cluster.running():
        node.kill()
    assert job.wait(PATIENCE_S) != 0
    assert books.last_words()[0] != "run ended"
    before, written = books.asked(), books.written()
    assert len(written) < PROBLEMS

    # New nodes, elsewhere as far as Ray is concerned; the same command.
    cluster.start_head()
    cluster.start_worker()
    log = tmp_path / "finished.log"
    assert cluster.submit(log, *command).wait(PATIENCE_S) == 0, log.read_text()
    text = log.read_text()
    assert status_of(cluster, "finished") == "SUCCEEDED" and f"finished: {storage}/tiny" in text
    assert re.search(r"\n\[ *\w+\] round 0 finetune: (starting|\d+/\d+ steps)", text) and "\r" not in text

    asked = books.asked()
    assert set(asked) == books.written() and len(asked) == PROBLEMS
    assert not written & set(asked - before), "what was written is not asked again"
    assert sum(asked.values()) <= PROBLEMS + BLOCK_ROWS * BLOCKS, "only what was in flight is asked again"
    assert books.last_words() == ("run ended", "finished")
    status = read_status(books.directory)
    assert [stage["stage"] for stage in status["stages"]] == ["score", "problems", "rationales", "finetune", "score"]
    for stage in status["stages"]:
        assert stage["done"]
        counts = stage["counts"]
        assert counts["rows"] == counts["kept"] + sum(counts["rejected"].values()) + counts["failed"], stage
    counts, rows = status["stages"][2]["counts"], books.rows()
    assert len({row.id for row in rows}) == len(rows) == counts["rows"] == PROBLEMS
    assert sum(row.outcome == "kept" for row in rows) == counts["kept"] and counts["failed"] == 0


def test_secrets_of_the_nodes_are_in_no_job_no_log_and_no_run(cluster: Cluster, tmp_path: Path) -> None:
    """Looks at all that the tests above left behind; makes a run only where there is none."""
    stored = everything_stored()
    if not any(path.endswith("experiment.yaml") for path in stored):
        short = words(object_store.new_bucket(), tmp_path / "calls", "budget.teacher_tokens=1")
        assert cluster.submit(tmp_path / "short.log", *short).wait(PATIENCE_S) != 0
        stored = everything_stored()
    logs = {str(path): path.read_bytes() for path in (cluster.folder / "ray").rglob("logs/**/*") if path.is_file()}
    jobs = cluster.get("/api/jobs/").content
    assert any(path.endswith("experiment.yaml") for path in stored) and any("job-driver" in path for path in logs)
    assert b"jobs/distill.py" in jobs
    secrets = (KEY.encode(), cluster.token.encode())
    for place, data in (stored | logs | {"jobs": jobs}).items():
        assert not [secret for secret in secrets if secret in data], place


def everything_stored() -> dict[str, bytes]:
    """All objects of all buckets."""
    filesystem, _ = files.filesystem_of("s3://any")
    paths = [path for bucket in filesystem.ls("", detail=False) for path in filesystem.find(bucket)]
    return {path: filesystem.cat_file(path) for path in paths}
