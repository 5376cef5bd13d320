"""Curate: of the teacher's new problems, only those that are agreed on, new, and in no benchmark are accepted.

Each new problem is judged by itself (do its solutions agree, is it a benchmark problem), then all that
passed are held against the pool and each other (`fdd_ray.deduplication`), and the surplus is trimmed. What
is accepted depends on the ids of the rows alone. Nothing here needs a model, so a run that is stopped in the
middle begins this stage anew.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fdd_ray.agreement import AgreementSettings, judge
from fdd_ray.curation.contamination import BenchmarkGuard, ContaminationSettings
from fdd_ray.curation.duplicates import DuplicateSettings, Entry
from fdd_ray.deduplication import (
    FEW_ROWS,
    Item,
    OnRay,
    Place,
    Runner,
    cut,
    find_in_files,
    read_findings,
    refuse_flood,
    run_here,
)
from fdd_ray.errors import StageError
from fdd_ray.flow import FlowSettings
from fdd_ray.progress import StageProgress
from fdd_ray.records import Curated, Outcome, Problem, Variation, from_table, problem_id, schema_of, to_table
from fdd_ray.settings import setting
from fdd_ray.store import files
from fdd_ray.store.groups import read_group, write_groups
from fdd_ray.store.run import Counts, Manifest, StageFolder, StageResult, count_outcomes, merge_counts

if TYPE_CHECKING:
    import pyarrow as pa

# Benchmarks were guarded against, by all measures, before the teacher solved anything. This is the last look.
_LAST_LOOK = ContaminationSettings(ngram=None, containment=None)


@dataclasses.dataclass(frozen=True)
class CurateSettings(AgreementSettings):
    """What a new problem must pass to be accepted."""

    duplicates: DuplicateSettings = setting(factory=DuplicateSettings, help="What is too much like the pool.")
    trim: bool = setting(
        True, "Accept no more than feedback.new_problems in a round; the surplus is counted as over_quota."
    )


def curate(
    folder: StageFolder,
    variations: Sequence[str],
    *,
    pool: Sequence[str],
    accepted: Sequence[str],
    benchmarks: Mapping[str, str],
    settings: CurateSettings,
    quotas: Mapping[str, int],
    flow: FlowSettings,
    progress: StageProgress,
    distinct_rationales: bool = True,
    few_rows: int = FEW_ROWS,
) -> StageResult:
    """Accept or reject all variations of a round; Ray is running.

    Args:
        folder: Gets Parquet parts with a row for each variation, sorted by id within each, and the
            evidence on duplicates.
        variations: Parquet files of the synthesise stage.
        pool: Parquet files with the seed problems.
        accepted: Parquet files of earlier curate stages.
        benchmarks: The Parquet file of each benchmark, whose problems must never enter the pool.
        settings: What must be passed.
        quotas: Problems wanted by band (by origin where rows have no band); what one cannot fill goes to others.
        flow: How many map actors, and how long to wait.
        progress: Told of rows as they are compared.
        distinct_rationales: Reject a further rationale for a problem if another one of this round is the same.
        few_rows: Pool and variations up to which all is done by one actor in one go; also the rows of a part.

    Raises:
        StageError: If more were dropped as duplicates than ``duplicates.max_drop_share`` allows.
    """
    for name in folder.parts():  # of a run that was stopped: it may have been curated otherwise
        files.remove(folder.file(name))
    new = cut(variations, known=False)
    known = cut([*pool, *accepted], known=True)
    rows = sum(place.stop - place.start for place in new)
    total = rows + sum(place.stop - place.start for place in known)
    parts = max(1, -(-rows // few_rows))
    reader = _Reader(folder, frozenset(accepted), dict(benchmarks), settings, parts)
    curation = _Curation(
        folder, reader, tuple(new + known), settings, dict(quotas), parts, max(1, -(-total // few_rows)),
        distinct_rationales,
    )  # fmt: skip
    on_ray = OnRay(flow, folder.label)
    progress.start(total)
    if total <= few_rows:
        (told,) = on_ray(curation, [{}])
    else:
        told = curation.run(on_ray, progress)
    progress.update(total)
    return StageResult(
        merge_counts([Counts(**counts) for counts in told["counts"].values()]),
        tuple(folder.parts()),
        summary={
            "kept": {origin: counts["kept"] for origin, counts in told["counts"].items()},
            "duplicates": told["duplicates"],
        },
    )


def require_all(manifest: Manifest, new_problems: int) -> None:
    """Stop the run if fewer were accepted than wanted.

    Raises:
        StageError: With the reasons why the others were rejected.
    """
    counts = manifest.counts
    if counts.kept >= new_problems:
        return
    raise StageError(
        f"{manifest.label}: {counts.kept} of the {new_problems} that feedback.exact insists on were accepted, of"
        f" {counts.rows} asked for (rejected: {counts.reasons}; failed: {counts.failed}). Raise feedback.ask_share,"
        " lower feedback.new_problems, or set feedback.exact: false; all rows are in " + manifest.path
    )


@dataclasses.dataclass
class _Curation:
    """The whole stage, to be run in one map actor or step by step from the driver."""

    folder: StageFolder
    reader: _Reader
    places: tuple[Place, ...]
    settings: CurateSettings
    quotas: dict[str, int]
    parts: int
    shares: int
    distinct: bool

    def __call__(self, item: Item) -> Item:
        return self.run(run_here, None)

    def run(self, runner: Runner, progress: StageProgress | None) -> Item:
        def report(step: str, rows: int) -> None:
            if progress is not None:
                progress.update(progress.done + (rows if step == "reading" else 0), step)

        exchange, judged = self.folder.file("duplicates"), self.folder.file("judged")
        files.remove(judged)
        duplicates = self.settings.duplicates
        found = find_in_files(
            self.reader, self.places, exchange, duplicates, runner, shares=self.shares, report=report
        )  # fmt: skip
        refuse_flood(found, duplicates, self.folder.label)
        quotas = self.quotas if self.settings.trim else None
        (cuts,) = runner(_Trim(self.folder, quotas, self.distinct), [{}])
        finish = _Finish(self.folder, cuts["last"], frozenset(cuts["repeats"]))
        tallies = list(runner(finish, [{"part": part} for part in range(self.parts)]))
        files.remove(judged)
        counts = {
            origin: merge_counts([count_outcomes(_tally(tally["counts"], origin)) for tally in tallies])
            for origin in sorted({"complex", "similar"} | {key[0] for tally in tallies for key in tally["counts"]})
        }
        return {
            "counts": {origin: dataclasses.asdict(count) for origin, count in counts.items()},
            "duplicates": dict(sorted(found.items())),
        }


@dataclasses.dataclass
class _Reader:
    """Reads pool problems as they are; judges variations, and lets through what may be accepted."""

    folder: StageFolder
    accepted: frozenset[str]
    benchmarks: dict[str, str]
    settings: CurateSettings
    parts: int

    def open(self) -> None:
        self._guard = BenchmarkGuard(
            {name: from_table(files.read_tables([path], schema_of(Problem)), Problem) for name, path in
             self.benchmarks.items()},
            _LAST_LOOK,
        )  # fmt: skip

    def read(self, place: Place, number: int) -> list[Entry]:
        if place.known:
            return self._known(place)
        rows = from_table(files.read_rows(place.path, place.start, place.stop, schema_of(Variation)), Variation)
        by_part: dict[int, list[Curated]] = {}
        entries = []
        for row in rows:
            part = zlib.crc32(row.id.encode()) % self.parts
            judged = self._judge(row)
            by_part.setdefault(part, []).append(judged)
            # A further rationale for a problem of the pool is meant to be about the same problem.
            if judged.outcome == "kept" and row.origin != "seed":
                entries.append(Entry.of(row.question, judged.answer, order=row.id, part=part))
        tables = {part: to_table(found, Curated) for part, found in by_part.items()}
        write_groups(self.folder.file(f"judged/judged-{number:06d}.parquet"), tables, schema_of(Curated))
        return entries

    def _known(self, place: Place) -> list[Entry]:
        import pyarrow.compute as pc

        if place.path in self.accepted:
            table = files.read_rows(
                place.path, place.start, place.stop, _columns(Curated, "question", "answer", "outcome")
            )
            table = table.filter(pc.field("outcome") == "kept")
        else:
            table = files.read_rows(place.path, place.start, place.stop, _columns(Problem, "question", "answer"))
        pairs = zip(table.column("question").to_pylist(), table.column("answer").to_pylist(), strict=True)
        return [Entry.of(question, answer, known=True) for question, answer in pairs]

    def _judge(self, row: Variation) -> Curated:
        verdict = judge(row, self.settings)
        reason, evidence, similarity, span = verdict.reason, row.evidence, row.similarity, row.span
        new = row.outcome == "kept" and row.origin != "seed"
        if new and not reason and (leak := self._guard.same(row.question)):
            reason, evidence = f"in_benchmark: {leak.reason}", f"{leak.benchmark}:{leak.problem_id}"
            similarity, span = leak.measure, leak.span
        outcome: Outcome = "failed" if row.outcome == "failed" else "rejected" if reason else "kept"
        return Curated(
            id=row.id,
            parent_id=row.parent_id,
            origin=row.origin,
            round=row.round,
            outcome=outcome,
            reason=reason,
            problem_id=problem_id(row.question),
            question=row.question,
            answer=verdict.answer,
            kind=row.kind,
            rationales=verdict.rationales,
            votes=verdict.votes,
            agreement=verdict.agreement,
            distinct=verdict.distinct,
            evidence=evidence,
            similarity=similarity,
            span=span,
            second=verdict.second,
            band=row.band,
        )


@dataclasses.dataclass
class _Trim:
    """Finds the last row of each band that is wanted: its quota, then whatever is left of the others.

    And before that the further rationales of seed problems that are the same as another one of the round.
    """

    folder: StageFolder
    quotas: dict[str, int] | None
    distinct: bool

    def __call__(self, item: Item) -> Item:
        table = _judged(self.folder, None, _columns(Curated, "id", "origin", "outcome", "band"))
        dropped = read_findings(self.folder.file("duplicates"))
        columns = (table.column(name).to_pylist() for name in table.column_names)
        rows = sorted(
            (id, band or origin, origin)
            for id, origin, outcome, band in zip(*columns, strict=True)
            if outcome == "kept" and id not in dropped
        )
        repeats = self._repeats() if self.distinct and any(origin == "seed" for _, _, origin in rows) else set()
        last = self._last([(id, band) for id, band, _ in rows if id not in repeats])
        return {"last": last, "repeats": sorted(repeats)}

    def _last(self, rows: Sequence[tuple[str, str]]) -> dict[str, str] | None:
        if self.quotas is None:
            return None
        kept = Counter(band for _, band in rows)
        places = dict(self.quotas)
        spare = sum(places.values()) - sum(min(places[band], kept[band]) for band in places)
        last: dict[str, str] = {}
        for id, band in rows:
            if places.get(band, 0) > 0:
                places[band] -= 1
            elif spare > 0:
                spare -= 1
            else:
                continue
            last[band] = id
        return last

    def _repeats(self) -> set[str]:
        table = _judged(
            self.folder, None, _columns(Curated, "id", "problem_id", "origin", "outcome", "rationales")
        ).sort_by("id")
        seen: dict[str, list[str]] = {}
        repeats = set()
        for row in table.to_pylist():
            if row["origin"] == "seed" and row["outcome"] == "kept":
                texts = seen.setdefault(row["problem_id"], [])
                if set(row["rationales"]) <= set(texts):
                    repeats.add(row["id"])
                texts += row["rationales"]
        return repeats


@dataclasses.dataclass
class _Finish:
    """Writes one part: the judged rows with what was found about them."""

    folder: StageFolder
    last: dict[str, str] | None
    repeats: frozenset[str]

    def __call__(self, item: Item) -> Item:
        part = item["part"]
        findings = read_findings(self.folder.file("duplicates"), part)
        rows = []
        for row in from_table(_judged(self.folder, part, schema_of(Curated)).sort_by("id"), Curated):
            if finding := findings.get(row.id):
                reason, evidence, similarity = finding
                row = dataclasses.replace(
                    row, outcome="rejected", reason=reason, evidence=evidence, similarity=similarity
                )
            elif row.id in self.repeats:
                row = dataclasses.replace(row, outcome="rejected", reason="repeats_rationale")
            elif row.outcome == "kept" and self.last is not None and row.id > self.last.get(row.band or row.origin, ""):
                row = dataclasses.replace(row, outcome="rejected", reason="over_quota")
            rows.append(row)
        self.folder.write(f"part-{part}.parquet", to_table(rows, Curated))
        tally = Counter((row.origin, row.outcome, row.reason) for row in rows)
        return {"counts": [[*key, count] for key, count in tally.items()]}


def _judged(folder: StageFolder, part: int | None, schema: pa.Schema) -> pa.Table:
    names = files.list_names(folder.file("judged"), ".parquet")
    return read_group([folder.file(f"judged/{name}") for name in names], part, schema)


def _columns(row_type: type, *names: str) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([schema_of(row_type).field(name) for name in names])


def _tally(counts: Sequence[Sequence[Any]], wanted: str) -> Counter[tuple[str, str]]:
    return Counter({(outcome, reason): count for origin, outcome, reason, count in counts if origin == wanted})
