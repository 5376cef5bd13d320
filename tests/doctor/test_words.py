"""What a tokenizer says of a run: end tokens, programs, and room for prompts and completions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest

from fdd_ray.doctor import words
from fdd_ray.doctor.findings import Finding
from fdd_ray.doctor.rendering import render, render_all
from fdd_ray.doctor.words import judge, look_at_words
from fdd_ray.experiment import Experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.settings import read_settings
from fdd_ray.tiny import make_problems, model_path

GOOD = {"longest": 60, "end": True, "program": True, "example": 120}
CONFIG = {"max_position_embeddings": 512}


def experiment(*overrides: str) -> Experiment:
    return read_settings(Experiment, TINY_EXPERIMENT, overrides)


def judged(
    *overrides: str, role: Literal["teacher", "student"] = "student", config: dict[str, Any] = CONFIG, **told: Any
) -> list[Finding]:
    return list(judge(role, experiment(*overrides), config, {**GOOD, **told}))


def bad(found: list[Finding]) -> list[tuple[str, int]]:
    return [(finding.level, finding.exit_code) for finding in found if finding.level != "ok"]


def test_what_fits_is_good() -> None:
    (finding,) = judged()
    assert finding.found == "student: prompts of up to 60 tokens and completions of 100 fit into 512"
    assert bad(judged(role="teacher")) == []
    assert bad(judged(config={"is_encoder_decoder": True})) == []


def test_no_end_token() -> None:
    assert bad(judged(end=False)) == [("problem", 6)]
    assert bad(judged(role="teacher", end=False)) == [("problem", 5)]


def test_a_student_that_cannot_write_programs() -> None:
    found = judged(program=False)
    assert bad(found) == [("problem", 6)] and "kind: chain" in found[0].next
    assert bad(judged(role="teacher", program=False)) == []


def test_prompts_that_leave_no_room() -> None:
    assert bad(judged(role="teacher", longest=512)) == [("problem", 5)]
    found = judged(role="teacher", longest=450)
    assert bad(found) == [("note", 0)] and "leaves 62 of 512" in found[0].found
    assert bad(judged("teacher.max_model_len=150", role="teacher")) == [("note", 0)]
    assert bad(judged("score.max_tokens=480")) == [("note", 0)]


def test_examples_against_the_rows_of_the_fine_tuning() -> None:
    assert bad(judged(longest=256)) == [("problem", 6)]
    found = judged(longest=200, example=300)
    assert bad(found) == [("note", 0)] and "300 tokens" in found[-1].found
    assert bad(judged("finetune.max_length=1024")) == [("note", 0)]


def test_real_tokenizers(tmp_path: Path) -> None:
    questions = [problem.question for problem in make_problems("pool", 5, seed=1)]
    question = {
        "folder": str(model_path("student")), "encoder_decoder": False, "prompts": "tiny", "kinds": ["program"],
        "role": "student", "questions": questions,
    }  # fmt: skip
    told = render(question)
    assert told["end"] and told["longest"] > 20 and told["example"] > told["longest"]
    copy = tmp_path / "model"
    shutil.copytree(model_path("student"), copy)
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config["eos_token"] = None
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    assert not render(question | {"folder": str(copy)})["end"]


def test_a_tokenizer_that_loses_newlines_is_found_out(tmp_path: Path) -> None:
    """The student's own, made to take every run of white space for one space, as T5's does."""
    copy = tmp_path / "model"
    shutil.copytree(model_path("student"), copy)
    state = json.loads((copy / "tokenizer.json").read_text())
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    state["normalizer"] = (
        {"type": "Sequence", "normalizers": [spaces, state["normalizer"]]} if state["normalizer"] else spaces
    )
    (copy / "tokenizer.json").write_text(json.dumps(state))
    question = {
        "encoder_decoder": False,
        "prompts": "tiny",
        "kinds": ["program"],
        "role": "student",
        "questions": ["How many?"],
    }
    assert render(question | {"folder": str(model_path("student"))})["program"]
    assert not render(question | {"folder": str(copy)})["program"]


@pytest.mark.slow
def test_it_runs_in_a_process_of_its_own() -> None:
    folders: dict[words.Role, Path] = {"teacher": model_path("teacher"), "student": model_path("student")}
    found = list(look_at_words(experiment(), folders, []))
    assert [(f.level, f.found.partition(":")[0]) for f in found] == [("ok", "teacher"), ("ok", "student")]


def test_a_model_with_code_of_its_own_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "ask", lambda *args: pytest.fail("it was loaded"))
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoConfig": "evil.Config"}}')
    (finding,) = look_at_words(experiment(), {"student": tmp_path}, [])
    assert finding.level == "note" and "code of its own" in finding.found


def test_a_tokenizer_that_cannot_be_loaded(tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model_path("student"), copy)
    (copy / "tokenizer.json").write_text('{"model": {"type": "odd"}}')
    question = {"encoder_decoder": False, "prompts": "tiny", "kinds": ["program"], "role": "x", "questions": ["How?"]}
    folders = {"teacher": copy, "student": model_path("student")}
    told = render_all({role: question | {"folder": str(folder)} for role, folder in folders.items()})
    assert "failed" in told["teacher"] and told["student"]["end"], "one does not hide the other"
    found = list(judge("teacher", experiment(), CONFIG, told["teacher"]))
    assert bad(found) == [("problem", 5)] and "cannot be used" in found[0].found
    assert bad(list(judge("student", experiment(), CONFIG, {"failed": "x"}))) == [("problem", 6)]
