"""Model folders that are whole and that are not, and names of the hub with and without a cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from fdd_ray.doctor import host, models
from fdd_ray.doctor.findings import Finding
from fdd_ray.doctor.host import Disk
from fdd_ray.doctor.models import look_at_model
from fdd_ray.engines.base import EngineSettings
from fdd_ray.tiny import model_path

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model."""
    made = tmp_path / "model"
    shutil.copytree(model_path("student"), made)
    return made


def shard(folder: Path) -> None:
    """Cut the weights of a model into two files with an index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for name, half in zip(SHARDS, halves, strict=True):
        save_file({tensor: tensors[tensor] for tensor in half}, folder / name, {"format": "pt"})
    where = {tensor: name for name, half in zip(SHARDS, halves, strict=True) for tensor in half}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "model.safetensors").unlink()


def look(model: object, role: str = "student", **settings: Any) -> list[Finding]:
    return list(look_at_model(role, EngineSettings(model=str(model), **settings)))


def only(found: list[Finding]) -> Finding:
    (finding,) = [finding for finding in found if finding.level != "ok"]
    return finding


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_whole_folder_is_good(folder: Path) -> None:
    (finding,) = look(folder)
    assert finding.level == "ok" and "0.9 M parameters" in finding.found
    shard(folder)
    assert [f.level for f in look(folder)] == ["ok"]
    assert [f.level for f in look("tiny://teacher", "teacher")] == ["ok"]


def test_a_missing_shard(folder: Path) -> None:
    shard(folder)
    (folder / SHARDS[1]).unlink()
    finding = only(look(folder))
    assert (finding.level, finding.exit_code) == ("problem", 2)
    assert finding.found.startswith("student: ") and f"1 are missing, first {SHARDS[1]}" in finding.found
    assert "download the model again" in finding.next


@pytest.mark.parametrize("sharded", [False, True])
def test_truncated_weights(folder: Path, sharded: bool) -> None:
    if sharded:
        shard(folder)
    path = folder / (SHARDS[0] if sharded else "model.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 1000])
    finding = only(look(folder))
    assert (finding.level, finding.exit_code) == ("problem", 2) and "cut off" in finding.found and finding.next


def test_no_tokenizer_no_config_no_folder(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in only(look(folder)).found
    (folder / "config.json").unlink()
    assert "no config.json" in only(look(folder)).found
    assert "there is no such folder" in only(look(folder / "none")).found


def test_a_teacher_without_chat_template_is_a_note(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    finding = only(look(folder, "teacher"))
    assert finding.level == "note" and "has no chat template" in finding.found
    assert [f.level for f in look(folder, "student")] == ["ok"]
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert [f.level for f in look(folder, "teacher")] == ["ok"]


def test_what_vllm_would_refuse_of_the_configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    heads, positions = config["num_attention_heads"], config["max_position_embeddings"]
    finding = only(look(folder, tensor_parallel=heads + 1))
    assert (finding.level, finding.exit_code) == ("problem", 2) and "attention heads" in finding.found
    assert "pipeline_parallel" in only(look(folder, pipeline_parallel=99)).found
    finding = only(look(folder, max_model_len=positions + 1))
    assert finding.level == "problem" and "positions" in finding.found
    assert [f.level for f in look(folder, max_model_len=positions)] == ["ok"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, of this test alone; no network may be asked."""
    made = tmp_path / "hub"
    made.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(made))
    return made


def put(cache: Path, name: str, source: Path) -> Path:
    """A model in the cache, as downloads lay it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("a" * 40)
    shutil.copytree(source, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    return snapshot


def test_a_hub_id_that_is_cached(cache: Path) -> None:
    put(cache, "owner/tiny-1B", model_path("student"))
    (finding,) = look("owner/tiny-1B")
    assert finding.level == "ok" and "is whole" in finding.found


def test_a_hub_id_that_is_not_cached_is_said_to_be_downloaded(cache: Path) -> None:
    finding = only(look("owner/model-1B"))
    assert finding.level == "note" and "it is downloaded, about 1.9 GiB by its name," in finding.found
    assert "was not asked" in finding.found and "hf download owner/model-1B" in finding.next


def test_a_download_that_is_not_whole(cache: Path) -> None:
    snapshot = put(cache, "owner/tiny-1B", model_path("student"))
    shard(snapshot)
    (snapshot / SHARDS[0]).unlink()
    finding = only(look("owner/tiny-1B"))
    assert finding.level == "note" and "1 of 2 files of weights are missing" in finding.found


def test_broken_weights_in_the_cache_are_a_problem(cache: Path) -> None:
    snapshot = put(cache, "owner/tiny-1B", model_path("student"))
    path = snapshot / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    finding = only(look("owner/tiny-1B"))
    assert (finding.level, finding.exit_code) == ("problem", 2) and "cut off" in finding.found


def test_offline_or_without_room_it_cannot_be_downloaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "disk_of", lambda path: Disk(path, 100 << 30, 1 << 30))
    finding = only(look("owner/model-1B"))
    assert (finding.level, finding.exit_code) == ("problem", 4) and "1.0 GiB free" in finding.found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    finding = only(look("owner/model-1B"))
    assert (finding.level, finding.exit_code) == ("problem", 5) and "HF_HUB_OFFLINE" in finding.found


def test_folders_of_the_cache_are_found_by_name_and_revision(cache: Path) -> None:
    snapshot = put(cache, "owner/tiny-1B", model_path("student"))
    assert models.cached("owner/tiny-1B", None) == snapshot
    assert models.cached("owner/tiny-1B", "a" * 40) == snapshot
    assert models.cached("owner/other", None) is None


def test_simulated_models_and_urls(tmp_path: Path) -> None:
    assert only(look("x", engine="simulated")).level == "note"
    empty = only(look("memory://nowhere/model"))
    assert (empty.level, empty.exit_code) == ("problem", 2) and "no config.json" in empty.found
