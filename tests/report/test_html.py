from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fdd_ray.cli import main
from fdd_ray.errors import StoreError
from fdd_ray.records import Problem, to_table
from fdd_ray.report.html import reading
from fdd_ray.report.html.markup import Markup, table, tag, text
from fdd_ray.report.html.page import render, write_page
from fdd_ray.report.html.plots import Span, histogram, timeline
from fdd_ray.report.html.samples import VARIATIONS, draw
from fdd_ray.report.html.work import finished, pool
from fdd_ray.store import files
from fdd_ray.store.manifest import find_stages, read_manifest
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult
from tests.report.hostile_run import HOSTILE, hostile_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return hostile_run(tmp_path_factory.mktemp("hostile") / "run")


@pytest.fixture(scope="module")
def page(run: str) -> str:
    return render(run, now=2e9)


class _Reader(HTMLParser):
    """What a page is made of: elements with their attributes, and the words between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_text_is_escaped_made_visible_and_cut() -> None:
    assert text("""<a href="x" id='y'>&""") == "&lt;a href=&quot;x&quot; id=&#x27;y&#x27;&gt;&amp;"
    assert text("a\u202eb\x00c\ud800d\u200be\u00a0f\r\ng\th") == "a⟨U+202E⟩b⟨U+0000⟩c⟨U+D800⟩d⟨U+200B⟩e f\ng\th"
    assert text("a\u200db") == "a\u200db"
    assert text("abcdef", 4) == "abcd … (2 more characters)"
    assert text("<" * 5, 2) == "&lt;&lt; … (3 more characters)"
    assert (text(None), text(7), text(Markup("<b>"))) == ("", "7", "<b>")


def test_what_is_no_markup_is_escaped_as_child_and_as_attribute() -> None:
    assert tag("p", "<b>", tag("i", "&"), class_='"><x', hidden="", id=None) == (
        '<p class="&quot;&gt;&lt;x" hidden>&lt;b&gt;<i>&amp;</i></p>'
    )
    assert "<b>" not in table([["<b>"], ["<b>"]], "<b>")


def test_nothing_hostile_becomes_an_element_or_an_attribute(page: str) -> None:
    page.encode()  # no surrogate is left
    read = _Reader(page)
    names = [name for name, _ in read.elements]
    assert not set(names) & {"img", "iframe", "base", "form", "input", "b", "x", "plaintext", "link", "object"}
    assert (names.count("script"), names.count("style"), names.count("title")) == (1, 1, 1)
    for name, attributes in read.elements:
        assert not [key for key in attributes if key.startswith("on") or key in ("style", "src")], (name, attributes)
        assert str(attributes.get("href", "#")).startswith("#")
    assert not [letter for letter in set(page) if not letter.isprintable() and letter not in "\n\u200d"]
    assert len(page) < 2_000_000, "long texts are not cut"
    said = "".join(read.words)
    assert all(told in said for told in HOSTILE[:5])


def test_the_policy_names_the_only_script_and_style(page: str) -> None:
    policy = next(a["content"] for name, a in _Reader(page).elements if name == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<script>")


def test_an_unfinished_run_has_a_page_with_all_sections(page: str) -> None:
    assert "Not finished." in page
    assert page.count("<section") == 9
    assert "25.0 [20.0, 30.0]" in page
    assert "round 2 curate" in page and "unfinished" in page
    assert "Pass rates at the pool after round 0" in page
    assert "majority@4" in page and "7 in_benchmark: &lt;script&gt;" in page


def test_a_run_that_was_only_begun_has_a_page(tmp_path: Path) -> None:
    files.write_bytes(str(tmp_path / "experiment.yaml"), b"not: [a mapping")
    page = render(str(tmp_path))
    assert page.count("<section") == 9
    assert "No student has been scored yet." in page and "not: [a mapping" in page


def test_the_page_is_the_same_each_time(run: str, page: str) -> None:
    assert render(run, now=2e9) == page


def test_examples_are_sampled_from_kept_and_rejected(run: str) -> None:
    samples = draw(find_stages(run), seed=3)
    outcomes = [made.curated.outcome for made in samples.variations]
    assert len(outcomes) <= VARIATIONS and {"kept", "rejected"} == set(outcomes)
    assert samples.looked == (13, 13)
    assert all(made.request and made.variation for made in samples.variations)
    first = samples.variations[0]
    assert first.request is not None and first.request.id == first.curated.id
    problem = samples.problems[0]
    assert sorted(samples.attempts[problem.id], key=lambda n: -1 if n is None else n) == [None, 0, 1]
    assert samples.attempts[problem.id][1] == problem
    assert all(row.evidence for row in samples.evidence) and samples.evidence


def _large(tmp_path: Path, parts: int, rows: int) -> str:
    def write(folder: StageFolder) -> StageResult:
        for part in range(parts):
            made = [Problem.new(f"question {part} {n}", str(n)) for n in range(rows)]
            folder.write(f"part-{part}.parquet", to_table(made, Problem))
        names = tuple(f"part-{part}.parquet" for part in range(parts))
        return StageResult(Counts(parts * rows, parts * rows), names)

    files.write_bytes(str(tmp_path / "experiment.yaml"), b"name: large\n")
    Run(str(tmp_path)).once("rationales", 0, {}, write)
    return str(tmp_path)


def test_of_a_large_stage_only_some_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = read_manifest(_large(tmp_path, 6, 50), 0, "rationales")
    assert stage is not None
    monkeypatch.setattr(reading, "WINDOW", 20)
    monkeypatch.setattr(reading, "WINDOWS", 5)
    read: list[tuple[str, int, int]] = []
    original = files.read_rows
    monkeypatch.setattr(files, "read_rows", lambda *given: (read.append(given[:3]), original(*given))[1])
    found = reading.some_rows(stage, Problem, seed=1)
    assert len(read) == 5 and len({row.id for row in found}) == len(found) <= 100
    assert reading.some_rows(stage, Problem, seed=1) == found != reading.some_rows(stage, Problem, seed=2)


def test_rows_are_found_by_id_in_a_bounded_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = read_manifest(_large(tmp_path, 4, 30), 0, "rationales")
    assert stage is not None
    near, far = Problem.new("question 1 7", "7"), Problem.new("question 3 9", "9")
    found = reading.find_rows(stage.outputs, Problem, {near.id, far.id, "p-none"})
    assert found == {near.id: near, far.id: far}
    monkeypatch.setattr(reading, "FILES", 2)
    assert set(reading.find_rows(stage.outputs, Problem, {near.id, far.id})) == {near.id}


def test_a_pass_rate_is_counted_where_it_belongs(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)  # pass rates n / 12 of 13 problems
    drawn = "".join(pool(finished(find_stages(run))))
    cells = _Reader(drawn[drawn.index("Pass rates") :]).words
    at = cells.index("right attempts")
    counted = dict(zip(cells[at + 2 :: 2], cells[at + 3 :: 2], strict=False))
    assert counted["0"] == counted["100"] == "1"
    assert sum(int(counted[name]) for name in counted if name in ("0", "100") or name[0] in "≤<") == 13
    assert counted["≤50"] == "2"  # 5/12 and 6/12


def test_long_pauses_are_cut_from_the_clock() -> None:
    spans = [Span("a", 0.0, 100.0, 0), Span("b", 100.0, 100.0, 1), Span("c", 1e6, 100.0, 2)]
    boxes = [a for name, a in _Reader(timeline(spans, "x")).elements if name == "rect"]
    widths = [float(str(box["width"])) for box in boxes]
    assert max(widths) - min(widths) < 0.2 and sum(widths) > 180
    ends = [float(str(box["x"])) + float(str(box["width"])) for box in boxes]
    assert max(ends) <= 360


def test_plots_of_nothing_are_drawn() -> None:
    assert "<svg" in histogram({}, "none") and "<svg" in timeline([], "none")


def test_the_command_writes_the_page_and_leaves_other_files_alone(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    assert main(["report", run, "--html", str(page)]) == 0
    assert "wrote" in capsys.readouterr().out
    first = page.read_text()
    assert main(["report", run, "--html", str(page)]) == 0, "a former report is replaced"
    other.write_text("<!doctype html>\n<html>mine</html>")
    with pytest.raises(StoreError, match="left alone"):
        write_page(run, str(other))
    assert other.read_text().endswith("mine</html>")
    assert first.startswith("<!doctype html>")


def test_without_a_file_the_command_prints_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", _large(tmp_path, 1, 3)]) == 0
    assert "distillation set" in capsys.readouterr().out


def test_a_folder_without_a_run_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run"):
        write_page(str(tmp_path), str(tmp_path / "page.html"))
    assert not (tmp_path / "page.html").exists()


def test_money_is_shown_where_there_is_any(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    assert "; money " not in render(run)
    path = tmp_path / "round-01" / "synthesise" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["usage"] = {"tokens": {}, "engine_seconds": 0, "cpu_seconds": 0, "gpu_seconds": 7200.0, "money": 12.5}
    path.write_text(json.dumps(manifest))
    page = render(run)
    assert "money 12.50" in page and "GPU 2h00m" in page


@pytest.mark.slow
def test_a_run_in_an_object_store_has_the_same_page(run: str, s3_storage: str) -> None:
    for name in sorted(path.relative_to(run).as_posix() for path in Path(run).rglob("*") if path.is_file()):
        files.copy(files.join(run, name), files.join(s3_storage, "run", name))
    write_page(files.join(s3_storage, "run"), files.join(s3_storage, "page.html"))
    written = files.read_bytes(files.join(s3_storage, "page.html"))
    assert written is not None
    here = render(run).split("<main", 1)[1].replace(run, "RUN")
    assert written.decode().split("<main", 1)[1].replace(files.join(s3_storage, "run"), "RUN") == here
