"""Pools in JSON lines, JSON, CSV and XML that hold nothing usable, or cannot be read."""

from __future__ import annotations

import bz2
import gzip
import json
import os
from collections.abc import Sequence
from typing import Any

from .harness import GOOD_ROWS, Case, Make, Place

_LINES = "".join(json.dumps(row) + "\n" for row in GOOD_ROWS)


def pool(format: str, content: str | bytes, name: str = "data", **more: Any) -> Make:
    """A good experiment with a pool that has this content."""

    def make(place: Place) -> Sequence[str]:
        path = place.write(name, content)
        return ["run", place.experiment(pool={"format": format, "path": str(path), **more})]

    return make


def rows(*values: Any, format: str = "gsm8k", **more: Any) -> Make:
    """A pool of these JSON lines."""
    return pool(format, "".join(json.dumps(value) + "\n" for value in values), "data.jsonl", **more)


def elements(format: str, *values: Any) -> Make:
    """A pool that is one JSON list of these elements."""
    return pool(format, json.dumps(values), "data.json")


def at(path: str, format: str = "gsm8k", **more: Any) -> Make:
    """A pool at a path where there is no such thing."""
    return lambda place: ["run", place.experiment(pool={"format": format, "path": path, **more})]


def _broken_link(place: Place) -> Sequence[str]:
    os.symlink(place.folder / "gone.jsonl", place.folder / "link.jsonl")
    return ["run", place.experiment(pool={"format": "gsm8k", "path": "link.jsonl"})]


def _link_to_itself(place: Place) -> Sequence[str]:
    os.symlink("link.jsonl", place.folder / "link.jsonl")
    return ["run", place.experiment(pool={"format": "gsm8k", "path": "link.jsonl"})]


def _unreadable(place: Place) -> Sequence[str]:
    place.rows().chmod(0)
    (place.folder / "runs").mkdir(mode=0o777)
    (place.folder / "runs").chmod(0o777)
    return ["run", place.experiment()]


def _directory(place: Place) -> Sequence[str]:
    place.rows("folder/a.jsonl")
    return ["run", place.experiment(pool={"format": "gsm8k", "path": "folder"})]


def _one_of_two_files(place: Place) -> Sequence[str]:
    place.rows("data/a.jsonl")
    place.write("data/b.jsonl.gz", b"no gzip")
    return ["run", place.experiment(pool={"format": "gsm8k", "path": "data/*"})]


def _benchmark(place: Place) -> Sequence[str]:
    path = place.write("test.jsonl", "{}\n")
    return ["run", place.experiment(benchmarks={"test": {"format": "gsm8k", "path": str(path)}})]


def _in_the_benchmark(place: Place) -> Sequence[str]:
    path = str(place.rows())
    return ["run", place.experiment(benchmarks={"test": {"format": "gsm8k", "path": path}})]


def _second_source(place: Place) -> Sequence[str]:
    good, bad = place.rows(), place.write("bad.jsonl", "nothing\n")
    return ["run", place.experiment(pool=[{"format": "gsm8k", "path": str(path)} for path in (good, bad)])]


def _too_few(place: Place) -> Sequence[str]:
    place.rows(rows=GOOD_ROWS[:3])
    return ["run", place.experiment(teach={"min_kept": 20})]


def _hub_folder(place: Place) -> Sequence[str]:
    place.write("set/train.json", '{"question": "Q?", "answer": "1"}\n{"question": ')
    return ["run", place.experiment(pool={"format": "hub", "path": str(place.folder / "set"), "split": "train"})]


def _hub_script(place: Place) -> Sequence[str]:
    place.write("set/set.py", "open('owned', 'w')\nimport datasets\n")
    return ["run", place.experiment(pool={"format": "hub", "path": str(place.folder / "set"), "split": "train"})]


def asdiv(inside: str, head: str = "") -> Make:
    """A pool in ASDiv's form."""
    return pool("asdiv", f'<?xml version="1.0"?>{head}<Machine-Reading-Corpus><ProblemSet>{inside}', "asdiv.xml")


_END = "</ProblemSet></Machine-Reading-Corpus>"
_BOMB = (
    '<!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {new} "{"&" + old + ";" * 1}{("&" + old + ";") * 9}">'
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)
_FOREIGN = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
_QUESTION = "Ann has 3 apples. How many?"

CASES = [
    # Where it should be.
    Case("a pool that is missing", at("none.jsonl"), 3, "there is no file none.jsonl", "check the path (relative to"),
    Case("a glob without a match", at("none/*.jsonl"), 3, "no file matches none/*.jsonl", "check the path and the"),
    Case("a pool in a directory", _directory, 3, "folder is a directory", "say which files, such as folder/*.jsonl"),
    Case("a broken link", _broken_link, 3, "there is no file link.jsonl", "check the path"),
    Case("a pool that links to itself", _link_to_itself, 3, "cannot read link.jsonl", "check the path"),
    Case("a pool that may not be read", _unreadable, 3, "cannot read", "your rights to it", unprivileged=True),
    Case("a pool at an unknown URL", at("nosuch://a/b.jsonl"), 3, "cannot read nosuch://a/b.jsonl", "check the path"),
    Case("a pool on a broken URL", at("http://[::1/x.jsonl"), 3, "there is no file http://[::1/x.jsonl",
         "check the path"),
    Case("a path that no file has", at("x" * 300), 3, "cannot read", "check the path"),
    Case("a hub id that is a path", at("./nowhere", "hub", split="train"), 3, "cannot load ./nowhere", "check the id"),
    Case("a torn folder for the hub", _hub_folder, 3, "cannot load", "or download it and use its files"),
    Case("a hub folder with a script", _hub_script, 3, "cannot load", "or download it and use its files"),
    # JSON lines.
    Case("an empty pool file", pool("gsm8k", ""), 3, "data has no rows", "check that it is the right file"),
    Case("blank lines", pool("gsm8k", "\n  \n\r\n\t\n"), 3, "data has no rows", "check that it is the right file"),
    Case("only a mark", pool("gsm8k", b"\xef\xbb\xbf"), 3, "data has no rows", "check that it is the right file"),
    Case("no JSON at all", pool("gsm8k", "hello\nworld\n"), 3, "2 rows (2 not_json); the first is",
         "check format: gsm8k"),
    Case("one torn line", pool("gsm8k", '{"question": "Q?", "ans'), 3, "data:1: Unterminated string", "check format"),
    Case("other columns", rows({"prompt": "Q?", "label": "1"}), 3, "the columns are: label, prompt", "check format"),
    Case("other columns in a table", rows({"prompt": "Q?", "label": 1}, format="jsonl"), 3,
         "no column 'question'; the columns are: label, prompt", "check format: jsonl and its settings"),
    Case("a column that is mapped to nothing", rows({"q": "Q?"}, format="jsonl", columns={"question": "frage"}), 3,
         "no column 'frage'; the columns are: q", "check format: jsonl and its settings"),
    Case("a null question", rows({"question": None, "answer": "#### 1"}), 3, "the question is empty", "check format"),
    Case("an empty question", rows({"question": " ", "answer": "#### 1"}), 3, "the question is empty", "check format"),
    Case("a null answer", rows({"question": "Q?", "answer": None}), 3, "the answer is empty", "check format"),
    Case("a number for a solution", rows({"question": "Q?", "answer": 7}), 3, "answer is 7, not text", "check format"),
    Case("a nested answer", rows({"question": "Q?", "answer": {"text": "1"}}), 3, "answer is an object",
         "check format"),
    Case("a list of answers", rows({"question": "Q?", "answer": ["1"]}), 3, "answer is a list", "check format"),
    Case("no final answer", rows({"question": "Q?", "answer": "It is 4."}), 3, "no #### in the answer", "check format"),
    Case("a final answer in words", rows({"question": "Q?", "answer": "#### four"}), 3, "'four', not a number",
         "check"),
    Case("an infinite answer", pool("jsonl", '{"question": "Q?", "answer": Infinity}'), 3, "the answer is inf",
         "check"),
    Case("an answer of 5000 digits", pool("jsonl", '{"question": "Q?", "answer": ' + "9" * 5000 + "}"), 3,
         "not_json", "check format"),
    Case("a question of a book", rows({"question": "Q" * 30_000, "answer": "#### 1"}), 3, "at most 20,000", "check"),
    Case("a gigantic line", pool("gsm8k", '{"question": "' + "Q" * 9_000_000 + '"}\n'), 3, "line_too_long", "check"),
    Case("NUL bytes in rows", pool("gsm8k", b'{"question": "Q\0?", "answer": "#### 1"}\n'), 3, "a NUL byte", "check"),
    Case("a disk's worth of zeros", pool("gsm8k", bytes(100_000)), 3, "a NUL byte at byte 1", "check format"),
    Case("rows in Latin-1", pool("gsm8k", '{"question": "Zoé?", "answer": "#### 1"}'.encode("latin-1")), 3,
         "1 not_utf8", "check format"),
    Case("rows in UTF-16", pool("gsm8k", _LINES.encode("utf-16")), 3, "has no usable problem", "check format"),
    Case("half a character", pool("gsm8k", '{"question": "Q\\ud800?", "answer": "#### 1"}'), 3, "U+D800",
         "check format"),
    Case("numbers as rows", pool("gsm8k", "1\n2\n3\n"), 3, "a row is an object with columns, not 1", "check format"),
    Case("a list in lines", pool("gsm8k", json.dumps(GOOD_ROWS)), 3, "not a list", "check format: gsm8k"),
    Case("a pretty list in lines", pool("gsm8k", json.dumps(GOOD_ROWS, indent=1)), 3, "not_json",
         "check format: gsm8k"),
    Case("nesting without an end", pool("gsm8k", "[" * 100_000), 3, "nested too deeply", "check format"),
    Case("gzip without its suffix", pool("gsm8k", gzip.compress(_LINES.encode()), "p.jsonl"), 3,
         "p.jsonl has no usable",
         "check format"),
    Case("a suffix without gzip", pool("gsm8k", _LINES, "p.jsonl.gz"), 3, "p.jsonl.gz cannot be read to its end",
         "fetch it again"),
    Case("half a gzip", pool("gsm8k", gzip.compress(_LINES.encode())[:-30], "p.jsonl.gz"), 3,
         "cannot be read to its end",
         "fetch it again"),
    Case("half a bzip2", pool("gsm8k", bz2.compress(_LINES.encode())[:-30], "p.jsonl.bz2"), 3,
         "cannot be read to its end", "fetch it again"),
    Case("one bad file of two", _one_of_two_files, 3, "data/b.jsonl.gz cannot be read to its end", "fetch it again"),
    Case("a bad benchmark", _benchmark, 3, "benchmark test: ", "check format: gsm8k"),
    Case("a pool that is the benchmark", _in_the_benchmark, 3, "30 are too close to a benchmark", "name more sources"),
    Case("a bad second source", _second_source, 3, "bad.jsonl has no usable problem in 1 rows", "check format"),
    Case("too few problems", _too_few, 3, "the pool has 3 usable problems, fewer than", "lower teach.min_kept"),
    # JSON lists.
    Case("lines for a list", pool("svamp", _LINES), 3, "data is not a JSON list", "one object a line is jsonl"),
    Case("an object for a list", pool("multiarith", '{"data": []}'), 3, "data is not a JSON list", "check the format"),
    Case("an empty list", pool("svamp", "[]"), 3, "data has no rows", "check that it is the right file"),
    Case("a list that ends early", pool("svamp", '[{"Body": "A'), 3, "data:1: the file ends before the list does",
         "check"),
    Case("SVAMP without a question", elements("svamp", {"Body": "B", "Answer": 1}), 3, "no column 'Question'", "check"),
    Case("SVAMP without an answer", elements("svamp", {"Body": "B", "Question": "Q?"}), 3, "no column 'Answer'",
         "check"),
    Case("MultiArith without answers", elements("multiarith", {"sQuestion": "Q?", "lSolutions": []}), 3,
         "lSolutions is empty", "check format: multiarith"),
    Case("MultiArith with a number", elements("multiarith", {"sQuestion": "Q?", "lSolutions": 4}), 3,
         "lSolutions is 4, not a list", "check format: multiarith"),
    Case("GSM8K taken for SVAMP", elements("svamp", *GOOD_ROWS), 3, "the columns are: answer, question",
         "check format"),
    # CSV.
    Case("CSV without a header", pool("csv", "How many?,7\nHow much?,8\n"), 3, "data has no column 'question'",
         "columns:"),
    Case("CSV with semicolons", pool("csv", "question;answer\nQ?;7\n"), 3, "it has question;answer", "columns:"),
    Case("CSV with tabs", pool("csv", "question\tanswer\nQ?\t7\n"), 3, "no column 'question'", "columns:"),
    Case("CSV with a header alone", pool("csv", "question,answer\n"), 3, "data has no rows", "the right file"),
    Case("ragged CSV", pool("csv", "question,answer\nQ?,7,8\nR?\n"), 3, "3 cells under 2 columns", "check format: csv"),
    Case("CSV with an open quote", pool("csv", 'question,answer\n"Q?,7\n'), 3, "not_csv", "check format: csv"),
    Case("CSV in UTF-16", pool("csv", "question,answer\nQ?,7\n".encode("utf-16")), 3, "header is no UTF-8", "save it"),
    Case("an empty CSV", pool("csv", ""), 3, "data has no rows", "check that it is the right file"),
    Case("JSON lines taken for CSV", pool("csv", _LINES), 3, "no column 'question'", "columns:"),
    # XML.
    Case("XML that ends early", asdiv("<Problem><Body>A"), 3, "asdiv.xml:1: this is not well-formed XML", "fetch the"),
    Case("XML with a bomb of entities", asdiv(_END, _BOMB), 3, "asdiv.xml has a DOCTYPE",
         "fetch it again or remove it"),
    Case("XML that reads files", asdiv(f"<Problem><Body>&a;</Body></Problem>{_END}", _FOREIGN), 3,
         "asdiv.xml has a DOCTYPE", "fetch it again or remove it"),
    Case("XML without problems", asdiv(_END), 3, "asdiv.xml has no rows", "check that it is the right file"),
    Case("XML with an open ampersand", asdiv(f"<Problem><Body>A & B</Body></Problem>{_END}"), 3, "not well-formed XML",
         "fetch the original file again"),
    Case("ASDiv without an answer", asdiv(f"<Problem><Body/><Question>{_QUESTION}</Question></Problem>{_END}"), 3,
         "no column 'answer'", "check format: asdiv"),
    Case("HTML taken for XML", pool("asdiv", "<!DOCTYPE html><html><p>Not found</html>"), 3, "has a DOCTYPE",
         "fetch it"),
    Case("nothing taken for XML", pool("asdiv", ""), 3, "this is not well-formed XML: no element found", "fetch the"),
]  # fmt: skip
