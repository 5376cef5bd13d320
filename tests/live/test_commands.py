"""The live view of the commands themselves, as far as they come without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdd_ray.store import files
from tests.live.terminal import ROOT, terminal

CLI = ("-m", "fdd_ray.cli")
NOBODY = "http://127.0.0.1:9/v1"


def _run(storage: Path) -> list[str]:
    """A run whose teacher is an endpoint that nobody serves: it ends before Ray starts, in its second stage."""
    plain = f"{{model: x, endpoint: '{NOBODY}', api_key_env: null, request_tries: 1}}"
    return ["run", str(ROOT / "jobs" / "tiny.yaml"), "--set", f"storage={storage}", "--set", f"teacher={plain}"]


def test_run_shows_what_was_done_before_and_how_it_failed(tmp_path: Path) -> None:
    for done in ("✓ problems", "(done before)"):
        with terminal(*CLI, *_run(tmp_path), columns=90) as found:
            assert found.end() == 5
            lines = [line for line in found.all_lines() if line]
        (title,) = (number for number, line in enumerate(lines) if line.startswith("tiny  failed after "))
        assert lines[title + 1] == f"{tmp_path}/tiny" or lines[title + 1].startswith("…")
        shown = "\n".join(lines[title:])
        assert "✗ base" in shown and "✗ score" in shown and "unfinished" in shown and "· rounds 1 to 3" in shown
        (problems,) = (line for line in lines[title:] if "✓ problems" in line)
        assert done in problems and " kept" in problems
        (error,) = (number for number, line in enumerate(lines) if line.startswith("fdd-ray: "))
        assert error > title, "the error is told below the last state"
        assert found.cursor_is_visible


def test_evaluate_shows_what_it_evaluates(tmp_path: Path) -> None:
    problems = tmp_path / "x.jsonl"
    problems.write_text('{"question": "How many are 2 and 3 apples?", "answer": "5"}\n')
    more = ["--benchmark", f"x={problems}", "--format", "jsonl", "--set", f"storage={tmp_path}/runs"]
    more += ["--set", "student.request_tries=1"]
    with terminal(*CLI, "evaluate", "some-model", "--endpoint", NOBODY, *more) as found:
        assert found.end() == 5
        lines = [line for line in found.all_lines() if line]
    assert any(line.startswith("evaluation of some-model  failed after ") for line in lines)
    assert any("✓ round 0 problems" in line and "1 of 1 kept" in line for line in lines)
    assert any("✗ score" in line for line in lines)


def test_a_run_that_is_refused_at_once(tmp_path: Path) -> None:
    files.write_bytes(str(tmp_path / "tiny" / "experiment.yaml"), b"torn: [")
    with terminal(*CLI, *_run(tmp_path)) as found:
        assert found.end() == 4
        assert found.cursor_is_visible and found.sent.count(b"\x1b[?7l") == found.sent.count(b"\x1b[?7h")
        assert any("is torn" in line for line in found.all_lines())


@pytest.mark.parametrize("plain", [{"FDD_RAY_PLAIN": "1"}])
def test_run_with_plain_lines(tmp_path: Path, plain: dict[str, str]) -> None:
    with terminal(*CLI, *_run(tmp_path), columns=300, **plain) as found:
        assert found.end() == 5
        assert b"\x1b" not in found.sent
        lines = [line for line in found.all_lines() if line]
    assert lines[0] == f"[    0s] experiment tiny: {tmp_path}/tiny"
    assert "] round 0 problems: done in " in lines[1]
    assert lines[-1].startswith("fdd-ray: ")
