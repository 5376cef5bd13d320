"""A run directory: every stage is done once, and its manifest, written last, says that it is done.

    with Run("runs/tiny") as run:
        done = run.once("rationales", 0, depends_on, work)

    runs/tiny/
      experiment.yaml          the resolved experiment
      lease/                   who drives the run
      ledger/*.jsonl           what happened, in order
      base/score/              the untouched student on the benchmarks
      round-00/rationales/     part-*.parquet, manifest.json
      round-00/finetune/       manifest.json, student/ (Hugging Face format)
      round-01/...
      superseded/<time>/...    stages that were set aside to be done anew

A stage is a function of its settings, its inputs and the seed. These are kept in its manifest; when
they no longer match, the stage is refused and the settings that changed are named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fdd_ray import __version__
from fdd_ray.errors import StoreError
from fdd_ray.records import schema_of, to_tables
from fdd_ray.store import aside, content, files
from fdd_ray.store.fork import read_fork
from fdd_ray.store.lease import Lease
from fdd_ray.store.ledger import Ledger
from fdd_ray.store.manifest import (
    EXPERIMENT,
    MANIFEST,
    STARTED,
    Counts,
    FileRecord,
    Manifest,
    StageResult,
    Usage,
    count_outcomes,
    fingerprint,
    merge_counts,
    read_manifest,
    read_started,
    refuse_changes,
    round_name,
    stage_label,
    to_manifest,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "EXPERIMENT",
    "Counts",
    "FileRecord",
    "Manifest",
    "Run",
    "StageFolder",
    "StageResult",
    "Usage",
    "count_outcomes",
    "merge_counts",
    "read_manifest",
    "round_name",
    "stage_label",
]


@dataclasses.dataclass(frozen=True)
class StageFolder:
    """Where a stage that is being done puts its files, and where it reports what it wrote."""

    name: str
    round: int | None
    path: str
    ledger: Ledger

    @property
    def label(self) -> str:
        """How the stage is called in progress lines and messages."""
        return stage_label(self.name, self.round)

    def file(self, name: str) -> str:
        """The full path of a file in the folder."""
        return files.join(self.path, name)

    def parts(self) -> list[str]:
        """Names of the Parquet parts that are there; each of them is whole."""
        return [name for name in files.list_names(self.path, ".parquet") if content.is_part(name)]

    def write(self, name: str, table: pa.Table) -> str:
        """Write a table into the folder and return its full path."""
        files.write_table(self.file(name), table)
        return self.file(name)

    def write_rows(self, name: str, rows: Iterable[Any], row_type: type) -> int:
        """Write rows into a file of the folder as they come; how many there were."""
        return files.write_tables(self.file(name), to_tables(rows, row_type), schema_of(row_type))

    def note(self, event: str, **fields: Any) -> None:
        """Append an event of this stage to the ledger.

        Raises:
            StoreError: Also when another driver took the run, so that a stage that notes what it wrote ends.
        """
        self.ledger.append(event, stage=self.name, round=self.round, **fields)


class Run:
    """One run directory, opened to be worked on by one driver at a time; a context manager.

    Inside ``with``, the run's lease is held; outside of it, `once` takes it for the length of the call.

    Args:
        directory: A local path or fsspec URL; it is made if it does not exist.
        announce: Told of each stage that is reused (a `Manifest`), for progress lines.
        experiment: The resolved experiment as YAML. It is written down when the run is new and when a
            stage begins, so a command that is refused leaves what is written as it was.
        say: Told in words of what else people should know: waiting for a lease, copying stages.
        finished: Told of each stage once it is done, whether now or before.
    """

    def __init__(
        self,
        directory: str,
        announce: Callable[[Manifest], None] | None = None,
        experiment: str = "",
        say: Callable[[str], None] | None = None,
        finished: Callable[[Manifest], None] | None = None,
    ) -> None:
        self.directory = files.absolute(directory)
        self._say = say or (lambda text: None)
        self._lease = Lease(self.directory, self._say)
        self.ledger = Ledger(self.directory, self._lease.check_known)
        self._experiment = experiment.encode()
        self._announce = announce or (lambda manifest: None)
        self._finished = finished or (lambda manifest: None)
        self._told_of_fork = False
        self._fork = read_fork(self.directory)

    def __enter__(self) -> Run:
        before = self._lease.take()
        try:
            self._check_experiment()
            if self._experiment and not files.exists(files.join(self.directory, EXPERIMENT)):
                self._write_experiment()
            known = before is not None or bool(files.list_names(files.join(self.directory, "ledger")))
            self.ledger.append(
                "run resumed" if known else "run started",
                host=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
            )
        except BaseException:
            self._lease.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        reason = "finished" if kind is None else "failed" if issubclass(kind, Exception) else "interrupted"
        with contextlib.suppress(StoreError):  # must not hide what ended the run
            why = {"error": f"{kind.__name__}: {error}"[:500]} if kind is not None and reason == "failed" else {}
            self.ledger.append("run ended", reason=reason, **why)
        self._lease.release()

    def folder(self, round: int | None, stage: str) -> StageFolder:
        """The folder of a stage; ``round`` None means the base student."""
        return StageFolder(stage, round, files.join(self.directory, round_name(round), stage), self.ledger)

    def set_aside(self, argument: str) -> list[str]:
        """Set a stage and all that follow aside, so that they are done anew; see `fdd_ray.store.aside`.

        Returns:
            The stages that were set aside, such as ``rationales:0``.

        Raises:
            StoreError: If there is no such stage.
        """
        with self._leased():
            return aside.set_aside(self.directory, argument, self.ledger.append)

    def once(
        self,
        stage: str,
        round: int | None,
        depends_on: Mapping[str, Any],
        work: Callable[[StageFolder], StageResult],
    ) -> Manifest:
        """Do a stage unless it is done; either way, its manifest.

        Args:
            stage: Name of the stage.
            round: Its round; None for the base student.
            depends_on: Settings, seed and inputs (fingerprints of manifests, under ``inputs``) it is a
                function of.
            work: Does the stage. What it wrote is only believed once it returned.

        Raises:
            StoreError: If the stage was done with other settings, its files were changed since, it does not
                account for its rows, or another driver has the run.
        """
        with self._leased():
            folder = self.folder(round, stage)
            depends_on = json.loads(json.dumps(depends_on))
            done = self._done(folder, depends_on)
            if done is not None:
                self._announce(done)
            else:
                done = self._do(folder, depends_on, work)
            self._finished(done)
            return done

    def _done(self, folder: StageFolder, depends_on: Mapping[str, Any]) -> Manifest | None:
        """The manifest of a stage that is done here, or in the run that this one was forked from."""
        stage, round = folder.name, folder.round
        done = read_manifest(self.directory, round, stage)
        if done is not None:
            refuse_changes(done, depends_on, stage, round)
            content.verify(done)
            return done
        started = read_started(folder.path)
        if started is not None and folder.parts():  # without parts nothing was paid for: begin anew
            refuse_changes(started, depends_on, stage, round)
        if started is not None or self._fork is None:
            return None
        self._lease.check(folder.label)
        copied = self._fork.take(folder.path, stage, round, fingerprint(stage, round, depends_on))
        if copied is not None:
            folder.note("stage copied", source=self._fork.source)
        elif not self._told_of_fork:
            self._told_of_fork = True
            why = self._fork.differs(stage, round, depends_on)
            self._say(f"{folder.label}: the first stage that is not copied from {self._fork.source}: {why}")
        return copied

    def _do(
        self, folder: StageFolder, depends_on: Mapping[str, Any], work: Callable[[StageFolder], StageResult]
    ) -> Manifest:
        stage, round = folder.name, folder.round
        mark = fingerprint(stage, round, depends_on)
        if folder.parts() and not files.exists(folder.file(STARTED)):
            raise StoreError(
                f"{folder.path} has parts, but no {STARTED} that says what they were made with; restore it, or move"
                " the folder away and run the same command again"
            )
        self._lease.check(folder.label)
        self._check_experiment()
        self._write_experiment()
        content.set_torn_parts_aside(folder.path, folder.note)
        begun, clock = time.time(), time.monotonic()
        started = {"fingerprint": mark, "depends_on": depends_on, "begun": begun, "version": __version__}
        files.write_json(folder.file(STARTED), started)
        folder.note("stage started", fingerprint=mark)
        result = work(folder)
        result.counts.check(folder.label)
        records = content.record_files(folder.path)
        content.check_parts(folder.label, result.parts, records)
        manifest = {
            "stage": stage,
            "round": round,
            "fingerprint": mark,
            "depends_on": depends_on,
            "counts": dataclasses.asdict(result.counts),
            "parts": list(result.parts),
            "tokens": result.tokens,
            "usage": None if result.usage is None else dataclasses.asdict(result.usage),
            "summary": result.summary,
            "files": {name: dataclasses.asdict(record) for name, record in records.items()},
            "begun": begun,
            "seconds": round_seconds(time.monotonic() - clock),
            "version": __version__,
        }
        self._lease.check(folder.label)
        files.write_json(folder.file(MANIFEST), manifest)
        folder.note("stage finished", **{key: manifest[key] for key in ("counts", "tokens", "usage", "seconds")})
        return to_manifest(folder.path, manifest)

    @contextlib.contextmanager
    def _leased(self) -> Iterator[None]:
        if self._lease.held:
            self._lease.check_known(self.directory)
            yield
            return
        self._lease.take()
        try:
            yield
        finally:
            self._lease.release()

    def _check_experiment(self) -> None:
        """Refuse to work in a directory whose experiment was torn, rather than write over it."""
        import yaml

        path = files.join(self.directory, EXPERIMENT)
        data = files.read_bytes(path)
        if data is None:
            return
        try:
            whole = isinstance(yaml.safe_load(data), dict)
        except (yaml.YAMLError, UnicodeDecodeError):
            whole = False
        if not whole:
            raise StoreError(
                f"{path} is torn: it is no YAML of settings; restore it, or remove it and run the same command again,"
                " which writes it anew"
            )

    def _write_experiment(self) -> None:
        path = files.join(self.directory, EXPERIMENT)
        if self._experiment and files.read_bytes(path) != self._experiment:
            files.write_bytes(path, self._experiment)


def round_seconds(seconds: float) -> float:
    """Seconds with the precision that is worth keeping."""
    return round(seconds, 2)
