"""What every JSON reader has to stand: packed, broken and hostile files."""

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.errors import DependencyError, ProblemsError
from fdd_ray.problems import SourceSettings, files, load_problems

from .conftest import Load, check_books


def row(number: int) -> str:
    return json.dumps({"question": f"What is {number}?", "answer": str(number)})


def loaded_from(path: str, **more: Any) -> list[str]:
    loaded = check_books(load_problems([SourceSettings("jsonl", path, **more)], seed=0, name="pool"))
    return [problem.source for problem in loaded.problems]


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_packed_files_are_unpacked(load: Load, suffix: str, pack: type[bytes]) -> None:
    text = "\r\n".join([row(1), "", "  ", row(2)]).encode()
    loaded = load("jsonl", pack(b"\xef\xbb\xbf" + text), f"f.jsonl{suffix}")
    assert [p.source for p in loaded.problems] == [f"f.jsonl{suffix}:1", f"f.jsonl{suffix}:4"]
    assert loaded.read == 2


def test_a_damaged_packed_file_is_refused(load: Load) -> None:
    packed = gzip.compress("\n".join(row(i) for i in range(500)).encode())
    with pytest.raises(ProblemsError, match="cannot be read to its end"):
        load("jsonl", packed[:-20], "f.jsonl.gz")
    with pytest.raises(ProblemsError, match="cannot be read to its end"):
        load("jsonl", packed[:100] + b"\xff" * 100 + packed[200:], "f.jsonl.gz")
    with pytest.raises(ProblemsError, match="cannot be read to its end"):
        load("jsonl", b"not packed", "f.jsonl.gz")


def test_zstandard_needs_its_package_and_says_so(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.compression import compr

    monkeypatch.delitem(compr, "zstd", raising=False)  # as it is where the package is not installed
    with pytest.raises(DependencyError, match="pip install zstandard"):
        load("jsonl", row(1), "f.jsonl.zst")


def test_globs_are_sorted_and_urls_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for number, name in enumerate("cab"):
        (tmp_path / "data" / f"{name}.jsonl").write_text(row(number))
    relative = ["data/a.jsonl:1", "data/b.jsonl:1", "data/c.jsonl:1"]
    (tmp_path / "data" / "odd[1]?.txt").write_text(row(1))
    assert loaded_from("data/*.jsonl") == relative
    assert loaded_from("data/odd[1]?.txt") == ["data/odd[1]?.txt:1"]
    assert loaded_from("data/[ab]*.jsonl", limit=1) == relative[:1]
    assert loaded_from(f"{tmp_path}/data/*.jsonl") == [f"{tmp_path}/{name}" for name in relative]
    with fsspec.open("memory://pool/x.jsonl", "wb") as file:
        file.write(row(1).encode())
    assert loaded_from("memory://pool/x.jsonl") == ["memory://pool/x.jsonl:1"]
    assert loaded_from("memory://pool/*.jsonl")[0].startswith("memory://")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent.jsonl", "there is no file absent.jsonl"),
        ("absent*.jsonl", r"no file matches absent\*\.jsonl"),
        ("folder", "is a directory; say which files, such as folder/"),
        ("nosuch://x/y.jsonl", "cannot read nosuch://x/y.jsonl"),
        ("memory://absent.jsonl", "there is no file"),
    ],
)
def test_what_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ProblemsError, match=message):
        loaded_from(path)


HOSTILE = [
    (b"{not json", "not_json"),
    (b'{"question": "Q?", "answer": ' + b"9" * 5000 + b"}", "not_json"),
    (b'{"question": "Q\x01?", "answer": 1}', "not_json"),
    (b'{"question": "Q\xff?", "answer": 1}', "not_utf8"),
    (b'{"question": "Q\x00?", "answer": 1}', "control_characters"),
    (b'{"question": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "too_deep"),
    (b'{"question": "' + b"Q" * 3_000_000 + b'?", "answer": 1}', "too_long"),
    (b'{"question": {"a": "Q?"}, "answer": 1}', "wrong_type"),
    (b"12", "not_an_object"),
    (b'"' + b'\\"' * 200_000 + b'"', "not_an_object"),
]


@pytest.mark.parametrize(("content", "reason"), HOSTILE)
def test_hostile_lines_are_rejected_and_their_neighbours_kept(load: Load, content: bytes, reason: str) -> None:
    loaded = load("jsonl", b"\n".join([row(1).encode(), content, row(2).encode()]))
    assert [p.source for p in loaded.problems] == ["f:1", "f:3"]
    assert [(r.file, r.line, r.reason) for r in loaded.rejections] == [("f", 2, reason)]
    assert len(loaded.rejections[0].detail) <= 160
    assert loaded.rejections[0].detail.isprintable()


def svamp_row(number: int) -> bytes:
    return json.dumps({"Body": 'B, [{}] \\" "', "Question": f"{number}?", "Answer": number}).encode()


@pytest.mark.parametrize(("content", "reason"), HOSTILE)
def test_hostile_elements_of_a_list_are_rejected_and_their_neighbours_kept(
    load: Load, content: bytes, reason: str
) -> None:
    if content == b"{not json":
        content = b"{not json}"  # an open bracket would swallow what follows
    content = content.replace(b'"question"', b'"Body": "B.", "Question"').replace(b'"answer"', b'"Answer"')
    loaded = load("svamp", b"[" + svamp_row(1) + b"," + content + b",\n" + svamp_row(2) + b"]")
    assert [p.source for p in loaded.problems] == ["f:1", "f:3"]
    assert [(r.line, r.reason) for r in loaded.rejections] == [(2, reason)]


@pytest.mark.parametrize(
    ("tail", "reasons"),
    [
        (b"]", []),
        (b"]\r\n ", []),
        (b",]", []),
        (b"", [(2, "not_json")]),
        (b',{"Body": "cut o', [(2, "not_json")]),
        (b"] more", [(2, "not_json")]),
        (b",,]", [(2, "not_json")]),
    ],
)
def test_the_end_of_a_list(load: Load, tail: bytes, reasons: list[tuple[int, str]]) -> None:
    loaded = load("svamp", b"\xef\xbb\xbf \n[" + svamp_row(1) + tail)
    assert len(loaded.problems) == 1
    assert [(r.line, r.reason) for r in loaded.rejections] == reasons


@pytest.mark.parametrize("content", [b"", b"{}", b'{"Body": 1}\n{}', b"text"])
def test_a_file_that_holds_no_list_is_refused(load: Load, content: bytes) -> None:
    with pytest.raises(ProblemsError, match="f is not a JSON list"):
        load("svamp", content)


def test_an_empty_list_has_no_rows(load: Load) -> None:
    with pytest.raises(ProblemsError, match="has no rows"):
        load("svamp", b"[ ]")


def test_a_line_or_list_that_is_too_long_is_not_read_into_memory(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 100)
    loaded = load("jsonl", "\n".join([row(1), "x" * 1000, row(2), "y" * 500]))
    assert [p.source for p in loaded.problems] == ["f:1", "f:3"]
    assert [(r.line, r.reason) for r in loaded.rejections] == [(2, "line_too_long"), (4, "line_too_long")]
    monkeypatch.setattr(files, "MAX_LIST_BYTES", 100)
    with pytest.raises(ProblemsError, match="convert it to jsonl"):
        load("svamp", b"[" + svamp_row(1) * 5 + b"]")


def test_a_line_of_exactly_the_limit_is_read(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", len(row(1)) + 1)
    assert len(load("jsonl", f"{row(1)}\n{row(2)}\n").problems) == 2
