"""Handing a student on: the folder loads as it is, says what it was scored to say, and its card tells the truth."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fdd_ray.cli import main
from fdd_ray.errors import ExperimentError, StoreError
from fdd_ray.export.card import Licenses, model_card
from fdd_ray.export.facts import license_of, read_facts
from fdd_ray.export.folder import export_student
from fdd_ray.export.markdown import block, code, table
from fdd_ray.launch import TINY_EXPERIMENT, run_experiment
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Attempt, from_table, schema_of
from fdd_ray.report.status import read_status
from fdd_ray.store import files
from fdd_ray.store.manifest import Counts, read_manifest
from tests.engines.endpoint import _await_health, _end, _in_the_background

SMALL = [
    "rounds=1", "pool.size=120", "feedback.new_problems=60", "benchmarks.in_distribution.size=60",
    "benchmarks.out_of_distribution.size=30", "teacher.replicas=1", "finetune.epochs=4", "score.majority=3",
]  # fmt: skip
SECTIONS = [
    "How to use it", "Results", "Data", "Contamination", "Training", "Cost", "Licences", "Limitations",
    "Versions and settings",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of one round."""
    return run_experiment(TINY_EXPERIMENT, [*SMALL, f"storage={tmp_path_factory.mktemp('runs')}"])


@pytest.fixture(scope="module")
def exported(run: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its last student, exported."""
    output = tmp_path_factory.mktemp("exports") / "tiny-student"
    assert main(["export", run, str(output)]) == 0
    return output


@contextlib.contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """vLLM's own server with a model folder, called ``student``; gives its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--served-model-name", "student", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--kv-cache-memory-bytes", str(64 << 20), "--no-enable-chunked-prefill"]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=_in_the_background,
        )  # fmt: skip
    try:
        assert _await_health(server, port), log.read_text(errors="replace")[-3000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _end(server)


def front_matter(card: str) -> tuple[dict[str, Any], str]:
    """The front matter and the body, as the hub splits them."""
    found = re.match(r"\A---\n(.*?)\n---\n(.*)\Z", card, re.DOTALL)
    assert found is not None
    front = yaml.safe_load(found[1])
    assert isinstance(front, dict)
    return front, found[2]


def kept_attempts(run: str, subject: str) -> list[Attempt]:
    manifest = read_manifest(run, 1, "score")
    assert manifest is not None
    rows = from_table(files.read_tables(manifest.outputs, schema_of(Attempt)), Attempt)
    return sorted((row for row in rows if row.subject == subject), key=lambda row: row.problem_id)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_folder_is_an_ordinary_model_that_is_greedy_by_default(exported: Path, run: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer: Any = AutoTokenizer.from_pretrained(exported)
    model = AutoModelForCausalLM.from_pretrained(exported)
    settings = GenerationConfig.from_pretrained(exported)
    assert tokenizer.chat_template and (exported / "model.safetensors").is_file()
    assert settings.eos_token_id == tokenizer.eos_token_id and settings.pad_token_id == tokenizer.pad_token_id
    assert settings.do_sample is False
    assert model.num_parameters() == read_facts(run).finetuned.summary["parameters"]
    assert (exported / "model.safetensors").read_bytes() == Path(
        read_facts(run).student, "model.safetensors"
    ).read_bytes()


@pytest.mark.cluster
@pytest.mark.slow
def test_the_snippet_of_the_card_says_what_the_student_was_scored_to_say(exported: Path, run: str) -> None:
    _, body = front_matter((exported / "README.md").read_text())
    (snippet,) = re.findall(r"```python\n(.*?)\n```", body, re.DOTALL)
    for attempt in kept_attempts(run, "in_distribution")[:2]:
        done = subprocess.run(
            [sys.executable, "-c", snippet, str(exported), attempt.question], capture_output=True, text=True, check=True
        )
        assert done.stdout.removesuffix("\n") == attempt.completions[0].text


@pytest.mark.cluster
@pytest.mark.slow
def test_vllm_serves_the_folder_and_says_what_the_student_was_scored_to_say(
    exported: Path, run: str, tmp_path: Path
) -> None:
    """Training, scoring and the chat template agree: the plain server, which knows nothing of us, says the same."""
    prompts = load_prompts("tiny")
    attempts = kept_attempts(run, "in_distribution")[:12] + kept_attempts(run, "out_of_distribution")[:4]
    with served(exported, tmp_path / "server.log") as url:
        said = []
        for attempt in attempts:
            body = {"model": "student", "temperature": 0, "max_tokens": 100,
                    "messages": prompts.student("program", attempt.question)}  # fmt: skip
            request = urllib.request.Request(
                f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as reply:
                said.append(json.load(reply)["choices"][0]["message"]["content"])
    assert said == [attempt.completions[0].text for attempt in attempts]
    assert len(set(said)) > 3


@pytest.mark.cluster
@pytest.mark.slow
def test_the_front_matter_is_what_the_hub_reads(exported: Path, run: str) -> None:
    from huggingface_hub import ModelCard

    front, _ = front_matter((exported / "README.md").read_text())
    assert front["license"] == "unknown" and "base_model" not in front, "tiny://student is no model of the hub"
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "text-generation")
    (index,) = front["model-index"]
    accuracy = read_status(run)["rounds"][1]["accuracy"]
    shown = {result["dataset"]["name"]: result["metrics"][0]["value"] for result in index["results"]}
    assert shown == {name: round(100 * found["value"], 4) for name, found in accuracy.items()} and len(shown) == 2
    card = ModelCard.load(exported / "README.md")
    assert {result.dataset_name: result.metric_value for result in card.data.eval_results or []} == shown


@pytest.mark.cluster
@pytest.mark.slow
def test_every_figure_of_the_card_is_in_the_books(exported: Path, run: str) -> None:
    _, body = front_matter((exported / "README.md").read_text())
    assert re.findall(r"^## (.*)$", body, re.MULTILINE) == SECTIONS
    manifest = {(m.round, m.stage): m for m in (
        read_manifest(run, number, stage) for number, stage in (
            (0, "problems"), (0, "rationales"), (1, "curate"), (1, "finetune"), (1, "score"), (None, "score"))
    ) if m}  # fmt: skip
    assert len(manifest) == 6
    for key, what in (((0, "rationales"), "Rationales: seed problems"),
                      ((1, "curate"), "Round 1: new problems asked of the teacher")):  # fmt: skip
        counts = manifest[key].counts
        lost = f"{sum(counts.rejected.values())} rejected + {counts.failed} failed"
        assert f"{what}: {counts.rows} = {counts.kept} kept + {lost}." in body
        for reason, n in counts.rejected.items():
            assert f"| {code(reason)} | {n} |" in body
    for origin, n in manifest[1, "curate"].summary["kept"].items():
        assert f"{n} `{origin}`" in body
    trained = manifest[1, "finetune"]
    assert f"{trained.counts.kept} rationales trained on of {trained.counts.rows}" in body
    for key in ("parameters", "steps", "tokens", "completion_tokens"):
        assert f"| {trained.summary[key]} |" in body
    for place in ((1, "score"), (None, "score")):
        for benchmark in ("in_distribution", "out_of_distribution"):
            found = manifest[place].summary["accuracy"][benchmark]
            assert f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]" in body
    for steps, found in manifest[1, "score"].summary["by_steps"]["in_distribution"].items():
        assert f"| {steps} | {100 * found['value']:.1f} [" in body
    assert "majority@3 % [95 %]" in body
    for model, tokens in read_status(run)["spent"]["tokens"].items():
        assert f"| `{model}` | {tokens['prompt']} | {tokens['completion']} |" in body
    assert Path(run, "experiment.yaml").read_text().rstrip() in body
    assert "unknown: fill in" in body and "this model against the base".casefold() in body.casefold()


@pytest.mark.cluster
@pytest.mark.slow
def test_what_was_removed_is_told_by_place_and_reason(run: str) -> None:
    """With counts that the small run does not have: benchmark problems in pool and round, examples too long."""
    facts = read_facts(run)
    pool = {**facts.problems.summary["pool"], "rejected": {"in_benchmark: ngram": 7, "not_json": 5}}
    problems = dataclasses.replace(facts.problems, summary={**facts.problems.summary, "pool": pool})
    rejected = {"in_benchmark: same_text": 9, "copy_of_parent": 4}
    curated = {1: dataclasses.replace(facts.curated[1], counts=Counts(30, 17, rejected))}
    finetuned = dataclasses.replace(facts.finetuned, counts=Counts(180, 169, {"too_long": 11}))
    found = dataclasses.replace(facts, problems=problems, curated=curated, finetuned=finetuned, prompts_changed=True)
    card = model_card(found, {}, Licenses(), "x")
    contamination = card.partition("## Contamination")[2].partition("## ")[0]
    assert "| pool | `in_benchmark: ngram` | 7 |" in contamination
    assert "| round 1, new problems | `in_benchmark: same_text` | 9 |" in contamination
    assert "not_json" not in contamination and "copy_of_parent" not in contamination
    assert "169 rationales trained on of 180" in card and "11 rejected (11 `too_long`)" in card
    assert "The prompt set has changed since this student was trained" in card
    assert "The prompt set has changed" not in model_card(facts, {}, Licenses(), "x")


@pytest.mark.cluster
@pytest.mark.slow
def test_rounds_are_named_or_chosen_and_the_card_says_so(run: str, tmp_path: Path) -> None:
    scores = [entry["accuracy"]["in_distribution"]["value"] for entry in read_status(run)["rounds"]]
    best = export_student(run, str(tmp_path / "best"), round="best", best_on="in_distribution")
    assert scores[best.round] == max(scores)
    text = (tmp_path / "best" / "README.md").read_text()
    assert f"**Round {best.round} was chosen because it scores best on `in_distribution`.**" in text
    assert "selecting on it" in text
    first = export_student(run, str(tmp_path / "first"), round=0, licenses=Licenses("apache-2.0", "My Own Licence"))
    text = (tmp_path / "first" / "README.md").read_text()
    assert first.round == 0 and "student of round 0" in text and "selecting on it" not in text
    assert front_matter(text)[0]["license"] == "apache-2.0" and "`My Own Licence`" in text
    with pytest.raises(StoreError, match=r"round 7 of .* those with one: 0, 1"):
        export_student(run, str(tmp_path / "none"), round=7)
    with pytest.raises(ExperimentError, match="needs --best-on"):
        export_student(run, str(tmp_path / "none"), round="best")
    with pytest.raises(ExperimentError, match="there are: in_distribution, out_of_distribution"):
        export_student(run, str(tmp_path / "none"), round="best", best_on="gsm8k")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "first"]


@pytest.mark.cluster
@pytest.mark.slow
def test_nothing_is_replaced_unless_it_is_a_model_and_force_is_given(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    assert main(["export", run, str(target)]) == StoreError.exit_code
    assert "exists; name another folder, or give --force" in capsys.readouterr().err
    assert main(["export", run, str(target), "--force"]) == StoreError.exit_code
    assert "is no model folder, so it is not replaced" in capsys.readouterr().err
    (target / "config.json").write_text("{}")
    assert main(["export", run, str(target), "--force"]) == 0
    assert not (target / "thesis.txt").exists() and (target / "README.md").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside it"
    assert main(["export", run, f"{run}/here"]) == StoreError.exit_code
    assert "lies in the run itself" in capsys.readouterr().err


@pytest.mark.cluster
@pytest.mark.slow
def test_a_student_that_was_changed_is_not_handed_on(run: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = copy / "round-01" / "finetune" / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(StoreError, match="is not what round 1 finetune wrote"):
        export_student(str(copy), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_sampling_defaults_of_a_base_do_not_follow_the_student(run: str, tmp_path: Path) -> None:
    """Otherwise `vllm serve` would sample, or penalise, where the student was scored greedily."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    _forget_files(copy / "round-01" / "finetune")
    path = copy / "round-01" / "finetune" / "student" / "generation_config.json"
    before = {"eos_token_id": [5, 1], "do_sample": True, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.1}
    path.write_text(json.dumps(before))
    export_student(str(copy), str(tmp_path / "out"))
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert sorted(settings["eos_token_id"]) == [1, 5] and settings["do_sample"] is False
    assert not {"temperature", "top_p", "repetition_penalty"} & settings.keys()


@pytest.mark.cluster
@pytest.mark.slow
def test_what_models_and_data_wrote_stays_text(run: str, tmp_path: Path) -> None:
    """Names and reasons that try to end the front matter, a table, a fence or the section they are in."""
    evil = "x\n---\nlicense: mit\n| `` ```\n## Owned\n</details><script>"
    facts = read_facts(run)
    plain = {**facts.experiment, "student": {"model": evil}, "teacher": {"model": evil}, "kind": "program"}
    curated = {
        number: dataclasses.replace(
            m, counts=dataclasses.replace(m.counts, rejected={evil: 3, f"in_benchmark: {evil}": 2})
        )
        for number, m in facts.curated.items()
    }
    text = f"name: |\n  {evil}\n"
    hostile = dataclasses.replace(facts, experiment=plain, experiment_text=text, curated=curated, best_on=evil)
    card = model_card(hostile, {"architectures": [evil]}, Licenses(evil, evil), evil)
    front, body = front_matter(card)
    assert (front["license"], front["license_name"]) == ("other", evil)
    assert front["model-index"][0]["name"] == evil
    outside = re.sub(r"^(`{3,})[a-z]*\n.*?\n\1$", "", body, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^## (.*)$", outside, re.MULTILINE) == SECTIONS
    assert "<script>" not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    for line in outside.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 6), line


@pytest.mark.cluster
@pytest.mark.slow
def test_a_run_on_an_object_store_is_exported(run: str, exported: Path, s3_storage: str, tmp_path: Path) -> None:
    for path in sorted(Path(run).rglob("*")):
        if path.is_file():
            files.write_bytes(f"{s3_storage}/tiny/{path.relative_to(run)}", path.read_bytes())
    found = export_student(f"{s3_storage}/tiny", str(tmp_path / "tiny-student"))
    assert found.round == 1
    assert {p.name for p in (tmp_path / "tiny-student").iterdir()} == {p.name for p in exported.iterdir()}
    same = (tmp_path / "tiny-student" / "model.safetensors").read_bytes() == (
        exported / "model.safetensors"
    ).read_bytes()
    assert same and (tmp_path / "tiny-student" / "README.md").read_text() == (exported / "README.md").read_text()


def _forget_files(stage: Path) -> None:
    """Take the record of a stage's files out of its manifest, as stages of old have none."""
    manifest = json.loads((stage / "manifest.json").read_text())
    (stage / "manifest.json").write_text(json.dumps({**manifest, "files": {}}))


def test_no_run_exits_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == StoreError.exit_code
    assert "there is no run at" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path), str(tmp_path / "out"), "--round", "last"])


@pytest.mark.parametrize(
    ("contents", "found"),
    [
        ({"README.md": "---\nlicense: gemma\n---\n# x"}, "gemma"),
        (
            {"README.md": "---\nlicense: [broken\n---\n", "LICENSE": "MIT License\n\nPermission is hereby granted"},
            "mit",
        ),
        ({"LICENSE": "  Apache License\n  Version 2.0, January 2004"}, "apache-2.0"),
        ({"LICENSE": "All rights reserved"}, ""),
        ({"README.md": "# no front matter"}, ""),
        ({"README.md": "---\nlicense: [a, b]\n---\n"}, ""),
    ],
)
def test_the_licence_of_a_base_is_read_from_its_folder(contents: Mapping[str, str], found: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    assert license_of(str(tmp_path)) == found


def test_no_licence_is_guessed_for_what_is_not_here() -> None:
    assert license_of("some/model") == license_of("/no/such/folder") == license_of("tiny://student") == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain", "`plain`"), ("a\n# b", "`a # b`"), ("`", "`` ` ``"), ("a``b", "```a``b```"), ("", "(empty)"),
     ("x" * 300, f"`{'x' * 197}...`"), ("a\x1b[31m\u2028b", "`a [31m b`")],
)  # fmt: skip
def test_code_is_one_line_that_nothing_in_it_can_end(text: str, shown: str) -> None:
    assert code(text) == shown


def test_blocks_and_tables_hold_what_is_in_them() -> None:
    assert block("a\n````\nb", "yaml") == "`````yaml\na\n````\nb\n`````"
    assert table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"
