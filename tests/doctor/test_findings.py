"""Checks that crash, hang or end the process are findings; exit codes are those of our exceptions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from fdd_ray.doctor.findings import Check, Finding, exit_code, note, of_error, ok, problem, run_checks
from fdd_ray.doctor.text import Printer, findings_json, summary
from fdd_ray.errors import EngineError, ExperimentError, StoreError


def test_findings_come_in_order_with_their_group() -> None:
    told: list[Finding] = []
    checks = [Check("a", "first", lambda: [ok("1"), note("2", "look")]), Check("b", "second", lambda: [ok("3")])]
    found = run_checks(checks, told.append)
    assert [(f.group, f.level, f.found) for f in found] == [("a", "ok", "1"), ("a", "note", "2"), ("b", "ok", "3")]
    assert told == found and exit_code(found) == 0


def test_a_check_that_crashes_is_a_finding_and_the_others_go_on() -> None:
    def broken() -> Iterator[Finding]:
        yield ok("seen before")
        raise KeyError("odd")

    found = run_checks([Check("a", "the odd thing", broken), Check("b", "next", lambda: [ok("fine")])])
    assert [f.level for f in found] == ["ok", "problem", "ok"]
    assert "the odd thing: the check itself failed (KeyError: 'odd')" in found[1].found and found[1].next
    assert exit_code(found) == 1


def test_a_library_that_exits_does_not_end_the_doctor() -> None:
    def leaves() -> Iterator[Finding]:
        raise SystemExit(3)
        yield

    found = run_checks([Check("a", "leaver", leaves), Check("b", "next", lambda: [ok("fine")])])
    assert "SystemExit" in found[0].found and found[1].found == "fine"


def test_our_errors_say_what_to_do_and_keep_their_exit_code() -> None:
    def unreadable() -> Iterator[Finding]:
        raise StoreError("cannot read /x: gone; bring it back")
        yield

    (found,) = run_checks([Check("a", "store", unreadable)])
    assert (found.level, found.found, found.next) == ("problem", "cannot read /x: gone", "bring it back")
    assert found.exit_code == 4
    assert of_error(StoreError("nothing to separate")).next


def test_a_check_that_hangs_is_a_finding_after_its_deadline() -> None:
    release = threading.Event()

    def hangs() -> Iterator[Finding]:
        yield ok("so far")
        release.wait(60)

    began = time.monotonic()
    found = run_checks([Check("a", "the share", hangs, 0.3, StoreError), Check("b", "next", lambda: [ok("fine")])])
    release.set()
    assert time.monotonic() - began < 10
    assert [f.level for f in found] == ["ok", "problem", "ok"]
    assert found[1].found == "the share: no answer within 0.3 s" and found[1].exit_code == 4


def test_the_exit_code_is_2_for_the_experiment_and_else_that_of_the_first_problem() -> None:
    engine, store = problem("a", "b", EngineError), problem("a", "b", StoreError)
    assert exit_code([ok("x"), note("y", "z")]) == 0
    assert exit_code([ok("x"), engine, store]) == 5 and exit_code([store, engine]) == 4
    assert exit_code([engine, problem("a", "b", ExperimentError)]) == 2


def test_text_names_each_group_once_and_obeys_no_control_character() -> None:
    lines: list[str] = []
    printer = Printer(lines.append)
    checks = [
        Check("storage", "a", lambda: [ok("fine"), note("odd \x1b[31mred\nline", "mend it")]),
        Check("models", "b", lambda: [ok("x " * 200)]),
    ]
    found = run_checks(checks, printer.tell)
    assert lines[0] == "storage" and lines.count("storage") == 1 and "models" in lines
    assert lines[1] == "  ok       fine"
    assert "\x1b" not in "".join(lines) and "x1b[31mred line" in lines[2]
    assert lines[3].strip() == "next: mend it"
    assert max(len(part) for line in lines for part in line.splitlines()) <= 118
    assert summary(found) == "no problem; 1 to look at, 2 good"
    assert summary([*found, problem("a", "b", EngineError)]).startswith("1 problem with which a run would fail")


def test_json_holds_all_of_it() -> None:
    found = run_checks([Check("g", "n", lambda: [problem("bad", "mend", StoreError)])])
    assert findings_json(found, "x.yaml") == {
        "experiment": "x.yaml",
        "exit_code": 4,
        "findings": [{"group": "g", "level": "problem", "found": "bad", "next": "mend", "exit_code": 4}],
    }
