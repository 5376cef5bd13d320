"""What only a training worker sees: a student or examples that it cannot load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fdd_ray.errors import TrainingError
from fdd_ray.training.examples import read_examples
from fdd_ray.training.model import load_student

from .harness import Place

AGAIN = "it must be a Parquet file with the columns"


def torn_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100_000])


def torn_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def torn_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def foreign(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "mine"}))


def own_code(folder: Path) -> None:
    (folder / "x.py").write_text("open('owned', 'w')\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "x.Y"}}))


@pytest.mark.parametrize("change", [torn_weights, torn_config, torn_tokenizer, foreign, own_code])
def test_a_student_that_cannot_be_loaded_is_named(place: Place, change: Callable[[Path], None]) -> None:
    folder = place.model()
    change(folder)
    with pytest.raises(TrainingError) as caught:
        load_student(str(folder), dtype=torch.float32, packing=True)
    message = str(caught.value)
    assert message.startswith(f"cannot load the student {folder}: ")
    assert "every training worker must reach it" in message
    assert len(message) < 1000
    assert not (place.folder / "owned").exists()


def test_a_tokenizer_without_an_end_is_refused(place: Place) -> None:
    folder = place.model()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": None}))
    with pytest.raises(TrainingError, match=r"has no end token.*set eos_token in its tokenizer_config.json"):
        load_student(str(folder), dtype=torch.float32, packing=True)


def test_a_hub_id_without_a_network_says_what_to_do() -> None:
    code = (
        "import torch; from fdd_ray.errors import FddError; from fdd_ray.training.model import load_student\n"
        "try: load_student('nobody/no-such-model', dtype=torch.float32, packing=True)\n"
        "except FddError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("cannot load the student nobody/no-such-model: ")
    assert "a download beforehand (hf download)" in done.stdout


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello", {"question": ["Q?"]}, {"problem_id": [1]}],
                         ids=["empty", "a mark", "text", "other columns", "other types"])  # fmt: skip
def test_examples_that_cannot_be_read_are_named(place: Place, content: Any) -> None:
    path = place.folder / "part-0.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table(content), path)
    with pytest.raises(TrainingError) as caught:
        read_examples([str(path)])
    assert f"cannot read the examples in {path}: " in str(caught.value)
    assert AGAIN in str(caught.value)


def test_examples_of_another_type_are_named(place: Place) -> None:
    from fdd_ray.records import Example, schema_of

    names = schema_of(Example).names
    path = place.folder / "part-0.parquet"
    pq.write_table(pa.table({name: pa.array([3.5]) for name in names}), path)
    with pytest.raises(TrainingError, match=AGAIN):
        read_examples([str(path)])


def test_examples_at_an_unknown_url_are_named() -> None:
    with pytest.raises(TrainingError, match=AGAIN):
        read_examples(["nosuch://x/part-0.parquet"])
