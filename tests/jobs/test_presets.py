"""The presets: each is whole, plans, keeps no secret, says where its numbers come from, and is in the README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fdd_ray.cli import main
from fdd_ray.experiment import Experiment, load_experiment
from fdd_ray.planning import make_plan
from fdd_ray.settings import describe

FOLDER = Path(__file__).parents[2] / "jobs"
JOBS = sorted(FOLDER.glob("*.yaml"))
GSM8K = [path for path in JOBS if "tiny" not in path.stem]
PARTS = sorted((FOLDER / "base").glob("*.yaml"))
PAPER = {"flan_t5_small", "flan_t5_base", "flan_t5_large", "codet5p_770m"}
CURRENT = {"smollm2_135m", "smollm2_360m", "qwen2.5_0.5b", "llama3.2_1b"}
ENCODER_DECODERS = re.compile(r"t5", re.I)
# Values that look like keys of vendors, and settings that would hold one.
SECRET = re.compile(r"sk-|hf_[A-Za-z0-9]{8}|AKIA|AIza|(?:api_key|token|secret|password)\s*:", re.I)


def ids(path: Path) -> str:
    return path.stem


def test_each_student_has_an_open_and_an_api_teacher() -> None:
    stems = {path.stem for path in JOBS}
    for student in PAPER | CURRENT:
        assert {f"gsm8k_{student}", f"gsm8k_{student}_api"} <= stems
        own, api = (load_experiment(FOLDER / f"gsm8k_{student}{end}.yaml") for end in ("", "_api"))
        assert own.teacher is not None and own.teacher.endpoint is None
        assert api.teacher is not None and api.teacher.endpoint is not None
        assert (own.student, own.finetune) == (api.student, api.finetune)


def test_presets_are_short() -> None:
    assert all(len(path.read_text().splitlines()) <= 12 for path in GSM8K)


@pytest.mark.parametrize("path", GSM8K, ids=ids)
def test_presets_plan(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(path), "--set", f"storage={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "0 of 20 stages are done" in text and "teacher tokens" in text


@pytest.mark.parametrize("path", GSM8K, ids=ids)
def test_presets_fit_their_budget_and_their_student_is_small_or_pointed_out(path: Path, tmp_path: Path) -> None:
    experiment = load_experiment(path, [f"storage={tmp_path}"])
    warnings = make_plan(experiment).warnings
    assert not any(line.startswith("budget") and "possibly" not in line for line in warnings), warnings
    large = [line for line in warnings if line.startswith("the student has")]
    assert bool(large) == ("Llama-3.2-1B" in experiment.student.model)


@pytest.mark.parametrize("path", GSM8K, ids=ids)
def test_encoder_decoders_run_in_transformers_and_the_others_in_vllm(path: Path) -> None:
    experiment = load_experiment(path)
    wanted = "transformers" if ENCODER_DECODERS.search(experiment.student.model) else "vllm"
    assert experiment.student.engine == wanted
    if "flan" in experiment.student.model:
        assert experiment.kind == "chain"  # the tokenizer keeps no newlines, so no programs


@pytest.mark.parametrize("path", GSM8K, ids=ids)
def test_lengths_fit_together(path: Path) -> None:
    experiment = load_experiment(path)
    finetune, teacher = experiment.finetune, experiment.teacher
    assert teacher is not None
    assert finetune.micro_batch_rows * finetune.max_length * finetune.workers[1] <= 2 * finetune.batch_tokens
    assert experiment.score.max_tokens < finetune.max_length
    longest = max(experiment.teach.max_tokens, experiment.synthesise.max_solution_tokens)
    if teacher.max_model_len is not None:
        assert longest + 1024 <= teacher.max_model_len
    if experiment.student.max_model_len is not None:
        assert experiment.score.max_tokens + 512 <= experiment.student.max_model_len


@pytest.mark.parametrize("path", [*JOBS, *PARTS], ids=ids)
def test_no_preset_holds_a_secret_or_a_price(path: Path) -> None:
    text = path.read_text()
    assert not SECRET.search(re.sub(r"(?m)^\s*#.*$", "", text).replace("teacher_tokens:", ""))
    plain = yaml.safe_load(text)
    assert not plain.get("prices")
    for role in ("teacher", "student"):
        engine = plain.get(role) or {}
        assert not engine.get("prompt_price") and not engine.get("completion_price")
        if engine.get("endpoint"):
            assert ".example.com/" in engine["endpoint"]
            assert re.fullmatch(r"[A-Z_]+", engine["api_key_env"])


@pytest.mark.parametrize("path", [*JOBS, *PARTS], ids=ids)
def test_every_key_is_a_setting_that_is_explained(path: Path) -> None:
    known = {item.key: item.help for item in describe(Experiment)}
    for key in _keys(yaml.safe_load(path.read_text())):
        if key != "extends":
            assert known.get(key), key


def _keys(plain: Any, prefix: str = "") -> list[str]:
    """Keys as `describe` writes them: lists and single items alike as [], free names as NAME."""
    found = []
    for key, value in plain.items():
        name = f"{prefix}{key}"
        found.append(name)
        if name == "benchmarks":
            for sources in value.values():
                for source in sources if isinstance(sources, list) else [sources]:
                    found += _keys(source, "benchmarks.NAME[].")
        elif name == "pool":
            for source in value if isinstance(value, list) else [value]:
                found += _keys(source, "pool[].")
        elif isinstance(value, dict) and not name.endswith("columns"):
            found += _keys(value, f"{name}.")
    return found


@pytest.mark.parametrize("path", [path for path in PARTS if "api" not in path.stem], ids=ids)
def test_parts_say_where_their_numbers_come_from(path: Path) -> None:
    comments = " ".join(line for line in path.read_text().splitlines() if line.lstrip().startswith("#"))
    if path.stem.startswith("student"):
        assert "our choice" in comments and "not tuned" in comments
    elif path.stem.startswith("teacher"):
        assert "GPU" in comments or "4,096" in comments
    else:
        assert "our choice" in comments


def test_the_readme_names_every_preset_and_part() -> None:
    text = (FOLDER / "README.md").read_text()
    for path in JOBS:
        assert f"`{path.name}`" in text, path.name
    for path in PARTS:
        assert f"`base/{path.name}`" in text, path.name
    for name in re.findall(r"`(?:base/)?([a-z0-9_.]+\.yaml)`", text):
        assert (FOLDER / name).exists() or (FOLDER / "base" / name).exists(), name


def test_parts_are_used(tmp_path: Path) -> None:
    named = {Path(name).name for path in (*JOBS, *PARTS) for name in _extended(path)}
    assert {path.name for path in PARTS} <= named


def _extended(path: Path) -> list[str]:
    given = yaml.safe_load(path.read_text()).get("extends", [])
    return [given] if isinstance(given, str) else given
