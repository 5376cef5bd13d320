"""Duplicates through files: the same as in memory, in however many shares, here and on Ray."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from fdd_ray.curation.duplicates import DuplicateSettings, Entry, Finding, find_duplicates
from fdd_ray.deduplication import OnRay, Place, Runner, cut, find_in_files, read_findings, refuse_flood, run_here
from fdd_ray.errors import StageError, StoreError
from fdd_ray.flow import FlowSettings
from fdd_ray.records import Problem, from_table, schema_of, to_table
from fdd_ray.store import files
from tests.curation.test_duplicates import random_entries

FLOW = FlowSettings(map_actors=(1, 2), cpus_per_map_actor=0.1, stall_deadline_s=120)
SETTINGS = DuplicateSettings(per_template=2, similarity=0.7)


@dataclasses.dataclass
class EntryReader:
    """Entries that were written down as they are."""

    def open(self) -> None:
        self.opened = True

    def read(self, place: Place, number: int) -> list[Entry]:
        assert self.opened
        return from_table(files.read_rows(place.path, place.start, place.stop, schema_of(Entry)), Entry)


@dataclasses.dataclass
class BrokenReader(EntryReader):
    """Cannot read, for one cause or another."""

    cause: Exception = dataclasses.field(default_factory=Exception)
    at_open: bool = False

    def open(self) -> None:
        if self.at_open:
            raise self.cause

    def read(self, place: Place, number: int) -> list[Entry]:
        raise self.cause


def _write(folder: Path, entries: Sequence[Entry], name: str = "in.parquet") -> str:
    path = str(folder / name)
    files.write_table(path, to_table(entries, Entry))
    return path


def _find(
    folder: Path, entries: Sequence[Entry], shares: int, rows: int, runner: Runner = run_here
) -> tuple[Counter[str], dict[str, Finding]]:
    places = cut([_write(folder, entries)], known=False, rows=rows)
    where = str(folder / "work")
    counts = find_in_files(EntryReader(), places, where, SETTINGS, runner, shares=shares)
    assert not [name for name in files.list_names(where, ".parquet") if not name.startswith("findings-")]
    return counts, read_findings(where)


@pytest.mark.parametrize("seed", range(12))
def test_shares_blocks_and_the_order_of_rows_change_nothing(tmp_path: Path, seed: int) -> None:
    entries = random_entries(seed, 150)
    expected = find_duplicates(entries, SETTINGS)
    assert expected
    for shares, rows in [(1, 1000), (3, 40), (7, 11)]:
        random.Random(seed + shares).shuffle(entries)
        counts, found = _find(tmp_path, entries, shares, rows)
        assert found == expected
        dropped = Counter(finding.reason for finding in expected.values())
        assert counts == dropped + Counter(candidates=sum(not entry.known for entry in entries))


def test_a_part_gets_its_own_findings(tmp_path: Path) -> None:
    entries = random_entries(3, 150, parts=4)
    _, found = _find(tmp_path, entries, 3, 40)
    parts = {entry.order: entry.part for entry in entries if not entry.known}
    for part in range(4):
        expected = {order: finding for order, finding in found.items() if parts[order] == part}
        assert expected and read_findings(str(tmp_path / "work"), part) == expected


def test_nothing_of_an_earlier_run_is_left(tmp_path: Path) -> None:
    _find(tmp_path, random_entries(1), 2, 50)
    counts, found = _find(tmp_path, random_entries(2)[:1], 1, 50)
    assert found == {} and sum(counts.values()) <= 1


def test_similar_texts_may_be_left_alone(tmp_path: Path) -> None:
    entries = random_entries(5)
    settings = dataclasses.replace(SETTINGS, similarity=None)
    places = cut([_write(tmp_path, entries)], known=False)
    counts = find_in_files(EntryReader(), places, str(tmp_path / "work"), settings, run_here, shares=2)
    assert read_findings(str(tmp_path / "work")) == find_duplicates(entries, settings)
    assert counts["near_duplicate"] == 0 < counts["duplicate"]


def test_cutting_covers_every_row_once(tmp_path: Path) -> None:
    problems = [Problem.new(f"question {i}", "1") for i in range(7)]
    paths = []
    for name, part in [("a", problems[:5]), ("b", []), ("c", problems[5:])]:
        paths.append(str(tmp_path / name))
        files.write_table(paths[-1], to_table(part, Problem))
    places = cut(paths, known=True, rows=3)
    read = [files.read_rows(p.path, p.start, p.stop, schema_of(Problem)) for p in places]
    assert [row.id for table in read for row in from_table(table, Problem)] == [p.id for p in problems]
    assert all(place.known for place in places)
    assert sum(place.stop - place.start for place in places) == 7


def test_a_flood_of_duplicates_is_refused_with_advice() -> None:
    counts = Counter(candidates=100, template_cap=40, near_duplicate=11)
    advice = (
        r"51 of 100 .*51%.*max_drop_share = 0.5.*template_cap 40 \(40%\), near_duplicate 11 \(11%\)"
        r".*synthesise.temperature.*seed problems.*per_template \(now 8\), similarity \(now 0.8\)"
    )
    with pytest.raises(StageError, match=advice):
        refuse_flood(counts, DuplicateSettings(), "round 1 curate")
    refuse_flood(counts, DuplicateSettings(max_drop_share=0.51), "x")
    refuse_flood(counts, DuplicateSettings(min_candidates=101), "x")
    refuse_flood(Counter(candidates=100, template_cap=50), DuplicateSettings(), "x")
    refuse_flood(Counter(), DuplicateSettings(max_drop_share=0, min_candidates=1), "x")


@pytest.mark.cluster
@pytest.mark.slow
def test_on_ray_it_is_the_same_and_errors_come_back(ray_local: None, tmp_path: Path) -> None:
    entries = random_entries(9, 300)
    counts, found = _find(tmp_path, entries, 3, 60, OnRay(FLOW, "curate"))
    assert found == find_duplicates(entries, SETTINGS)
    assert counts["candidates"] == sum(not entry.known for entry in entries)
    places = cut([str(tmp_path / "in.parquet")], known=False)
    for cause, at_open, seen, match in [
        (StoreError("the file is torn"), False, StoreError, "^the file is torn$"),
        (StoreError("the file is torn"), True, StoreError, "^the file is torn$"),
        (KeyError("column"), False, StageError, "_Read failed on .*in.parquet.*KeyError: 'column'"),
    ]:
        with pytest.raises(seen, match=match):
            find_in_files(BrokenReader(cause, at_open), places, str(tmp_path / "work"), SETTINGS, OnRay(FLOW, "curate"))
