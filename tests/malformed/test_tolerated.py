"""What looks malformed but is understood, and bad rows among good ones: rejected, counted and kept on record."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from fdd_ray.cli import main
from fdd_ray.engines.folders import check_model_folder, knows
from fdd_ray.engines.tensors import read_header
from fdd_ray.experiment import load_experiment
from fdd_ray.tiny import model_path

from .harness import GOOD_ROWS, Place, RayStarts

BAD_LINES = [
    (b'{"question": "Q?", "ans', "not_json"),
    (b'{"question": null, "answer": "#### 1"}', "empty_question"),
    (b'{"question": "Q?", "answer": "four"}', "no_final_answer"),
    (b'{"question": "Q\xff?", "answer": "#### 1"}', "not_utf8"),
    (b'{"question": "Q\\ud800?", "answer": "#### 1"}', "not_utf8"),
    (b'{"\\ud800\\u001b[2J": 1}', "missing_column"),
    (b"\0\0\0\0", "control_characters"),
    (b"[" * 50_000, "too_deep"),
    (b"7", "not_an_object"),
    (json.dumps(GOOD_ROWS[0]).encode(), "duplicate"),
    (b'{"question": "the last line is torn", "answer": "#### ', "not_json"),
]


def test_bad_rows_among_good_ones_are_rejected_counted_and_kept_on_record(place: Place) -> None:
    good = [json.dumps(row).encode() for row in GOOD_ROWS]
    lines = good[:5] + [line for line, _ in BAD_LINES[:-1]] + good[5:] + [BAD_LINES[-1][0]]
    place.write("pool.jsonl", b"\n".join(lines))
    with pytest.raises(RayStarts):
        main(["run", place.experiment()])
    folder = place.run / "round-00/problems"
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert (counts["rows"], counts["kept"]) == (len(lines), len(GOOD_ROWS))
    rejections = pq.read_table(folder / "pool-rejections.parquet").to_pylist()
    places = [*range(6, 5 + len(BAD_LINES)), len(lines)]
    assert [(row["line"], row["reason"]) for row in rejections] == [
        (number, reason) for number, (_, reason) in zip(places, BAD_LINES, strict=True)
    ]
    assert all(row["detail"].isprintable() for row in rejections)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_experiments_from_windows_are_read(place: Place, mark: bytes, end: bytes) -> None:
    content = yaml.safe_dump(place.settings()).encode().replace(b"\n", end)
    assert load_experiment(place.write("x.yaml", mark + content)).name == "case"


def test_text_is_taken_as_it_is_written(place: Place) -> None:
    path = place.experiment()
    student = load_experiment(path, ["student.revision=0123", "student.label_selector={a: no, b: 1.10}"]).student
    assert student.revision == "0123"
    assert student.label_selector == {"a": "no", "b": "1.10"}
    assert load_experiment(path, ["name=2024-01-02"]).name == "2024-01-02"
    assert load_experiment(path, ["student.revision="]).student.revision is None


def test_aliases_are_followed(place: Place) -> None:
    place.write("x.yaml", yaml.safe_dump(place.settings()) + "teacher: &t {model: tiny://teacher, replicas: 2}\n")
    path = place.write("y.yaml", (place.folder / "x.yaml").read_text().replace("student:", "teacher: &t", 1)
                       .replace("teacher: &t {model: tiny://teacher, replicas: 2}", "student: *t"))  # fmt: skip
    experiment = load_experiment(path)
    assert experiment.student == experiment.teacher


def test_the_libraries_architectures_are_known() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert len(CONFIG_MAPPING_NAMES) > 300
    assert [kind for kind in CONFIG_MAPPING_NAMES if not knows(kind)] == []
    assert not any(map(knows, ("lllama", "my-model", ".*", "lla")))


def test_headers_agree_with_the_library_on_every_tensor(place: Place) -> None:
    from safetensors import safe_open

    path = model_path("student") / "model.safetensors"
    header = read_header(path)
    with safe_open(path, "np") as file:
        assert sorted(header) == sorted(file.keys())
        assert {name: list(file.get_slice(name).get_shape()) for name in file.keys()} == {  # noqa: SIM118
            name: entry["shape"] for name, entry in header.items()
        }


def test_models_in_shards_pass(place: Place) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = place.model()
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, some in shards.items():
        save_file({name: weights[name].to(torch.float16) for name in some}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, some in shards.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_model_folder(folder)


def test_what_an_engine_is_told_apart_is_not_checked(place: Place) -> None:
    folder = place.model()
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink()
    check_model_folder(folder, engine_args={"load_format": "dummy", "tokenizer": str(model_path("student"))})
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "own", "auto_map": {"AutoConfig": "x.Y"}}
    Path(folder / "config.json").write_text(json.dumps(config))
    check_model_folder(
        folder, trust_remote_code=True, engine_args={"load_format": "dummy", "skip_tokenizer_init": True}
    )
