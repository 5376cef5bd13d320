"""Model folders that no engine could load, or should not."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .harness import Case, Make, Place

Change = Callable[[Path], Any]
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234567\n"
_WEIGHTS = "model.safetensors"


def model(change: Change, **settings: Any) -> Make:
    """A good model folder after a change."""

    def make(place: Place) -> Sequence[str]:
        folder = place.model()
        change(folder)
        return ["run", place.experiment(student={"model": str(folder), **settings})]

    return make


def named(name: str) -> Make:
    """A model of this name."""
    return lambda place: ["run", place.experiment(student={"model": name})]


def config(**values: Any) -> Make:
    """A model with other values in its config.json; None removes one."""
    return model(lambda folder: _edit(folder / "config.json", values))


def _edit(path: Path, values: dict[str, Any]) -> None:
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def wrote(name: str, content: str | bytes) -> Change:
    """Put a file into the folder."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str, share: float) -> Change:
    """Cut a file off after a share of its bytes."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return change


def removed(*names: str) -> Change:
    """Remove files from the folder."""

    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def header(content: Any, tail: bytes = b"") -> Change:
    """A weights file with this header."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return wrote(_WEIGHTS, struct.pack("<Q", len(data)) + data + tail)


def _both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def _index(weight_map: Any, *, rename: str = "model-00001-of-00002.safetensors") -> Change:
    def change(folder: Path) -> None:
        (folder / _WEIGHTS).rename(folder / rename)
        (folder / f"{_WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return change


def _vocabulary(change: Callable[[dict[str, Any]], None]) -> Change:
    def rewrite(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return rewrite


def _empty_folder(place: Place) -> Sequence[str]:
    (place.folder / "model").mkdir()
    return ["run", place.experiment(student={"model": "./model"})]


def _one_too_high(place: Place) -> Sequence[str]:
    place.model("models/mine")
    return ["run", place.experiment(student={"model": "./models"})]


def _adapter(place: Place) -> Sequence[str]:
    place.write("model/adapter_config.json", "{}")
    place.write("model/adapter_model.safetensors", b"x")
    return ["run", place.experiment(student={"model": "./model"})]


def _gguf(place: Place) -> Sequence[str]:
    place.write("model/model-q4.gguf", b"GGUF")
    return ["run", place.experiment(student={"model": "./model"})]


def _file(place: Place) -> Sequence[str]:
    folder = place.model()
    return ["run", place.experiment(student={"model": str(folder / _WEIGHTS)})]


def _of_the_teacher(place: Place) -> Sequence[str]:
    folder = place.model()
    (folder / "config.json").write_text("{")
    return ["run", place.experiment(teacher={"model": str(folder)}, rounds=1)]


def _evaluated(place: Place) -> Sequence[str]:
    folder = place.model()
    cut(_WEIGHTS, 0.5)(folder)
    return ["evaluate", str(folder), "--benchmark", f"mine={place.rows('test.jsonl')}"]


def _tensor(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


_LFS = "git lfs pull"
_AGAIN = "copy or download it again"
_SHARD = "model-00001-of-00002.safetensors"

CASES = [
    # The folder.
    Case("a model folder that is missing", named("./none"), 2, "student: model './none': there is no such",
         "check the path"),
    Case("a model path that is no hub id", named("models/mine/student"), 2, "there is no such folder", "owner/name"),
    Case("a model in another home", named("~nobody-here/x"), 2, "there is no such folder", "check the path"),
    Case("a model path that is too long", named("/" + "x" * 300), 2, "File name too long", "check the path"),
    Case("an unknown tiny model", named("tiny://nonsense"), 2, "tiny://nonsense",
         "has tiny://teacher and tiny://student"),
    Case("a mistyped scheme", named("tinny://student"), 2, "tinny:// is no kind of URL", "tiny://student"),
    Case("a file for a model", _file, 2, "model.safetensors' is a file", "give the folder that it is in"),
    Case("an empty model folder", _empty_folder, 2, "model has no config.json, it is empty",
         "give a Hugging Face model"),
    Case("a folder of models", _one_too_high, 2, "models has no config.json", "did you mean models/mine?"),
    Case("a LoRA adapter", _adapter, 2, "is a LoRA adapter without its base model", "merge the two"),
    Case("a GGUF file", _gguf, 2, "holds GGUF files", "give the model in Hugging Face format"),
    Case("a model of the teacher's", _of_the_teacher, 2, "teacher: ", _AGAIN),
    Case("a model to evaluate", _evaluated, 2, "model.safetensors is cut off", _AGAIN),
    Case("a folder that may not be read", model(lambda folder: folder.chmod(0)), 2, "cannot read", "your rights to it",
         unprivileged=True),
    Case("weights that may not be read", model(lambda folder: (folder / _WEIGHTS).chmod(0)), 2,
         "model.safetensors: Permission denied", "your rights to it", unprivileged=True),
    # config.json.
    Case("a torn config", model(cut("config.json", 0.5)), 2, "config.json is torn or not JSON", _AGAIN),
    Case("an empty config", model(wrote("config.json", "")), 2,
         "config.json is torn or not JSON (it is empty)", _AGAIN),
    Case("a config that is a page", model(wrote("config.json", "<html>404</html>")), 2, "config.json is torn", _AGAIN),
    Case("a config that is a pointer", model(wrote("config.json", _POINTER)), 2, "is a Git LFS pointer", _LFS),
    Case("a config that is a list", model(wrote("config.json", "[]")), 2, "config.json holds no JSON object", _AGAIN),
    Case("a config in UTF-16", model(wrote("config.json", b"\xff\xfe\x00")), 2, "config.json is torn or not", _AGAIN),
    Case("a deep config", model(wrote("config.json", "[" * 99_999)), 2, "config.json is torn or not JSON", _AGAIN),
    Case("a config that is a folder", model(_both(removed("config.json"), lambda f: (f / "config.json").mkdir())), 2,
         "config.json: Is a directory", "check the path"),
    Case("a config without a kind", config(model_type=None), 2, "config.json has no model_type", "download it again"),
    Case("a kind that is a number", config(model_type=7), 2, "config.json has no model_type", "download it again"),
    Case("an unknown kind", config(model_type="lllama"), 2, "know no model_type 'lllama'", "did you mean llama?"),
    Case("a kind of the future", config(model_type="zzz9"), 2, "know no model_type 'zzz9'", "install newer versions"),
    Case("code of its own", config(model_type="mine", auto_map={"AutoConfig": "x.Y"}), 2,
         "needs Python code that came with the model", "set trust_remote_code: true"),
    Case("an encoder", config(model_type="bert", architectures=["BertForMaskedLM"]), 2,
         "BertForMaskedLM writes no text",
         "whose architecture is ...ForCausalLM"),
    Case("a classifier", config(architectures=["LlamaForSequenceClassification"]), 2, "writes no text", "ForCausalLM"),
    Case("a model without a head", config(architectures=["LlamaModel"]), 2, "LlamaModel writes no text", "ForCausalLM"),
    Case("an encoder and a decoder", config(model_type="t5", is_encoder_decoder=True), 2, "encoder-decoder model",
         "choose a decoder-only model"),
    Case("a wrong vocabulary size", config(vocab_size=961), 2, "says vocab_size 961, but the weights", "from one"),
    # Weights.
    Case("no weights", model(removed(_WEIGHTS)), 2, "has no weights (*.safetensors)", "download the model with all"),
    Case("a pickle", model(_both(removed(_WEIGHTS), wrote("pytorch_model.bin", b"\x80\x02"))), 2,
         "has its weights in pytorch_model.bin only, a pickle", "save_pretrained it"),
    Case("half of the weights", model(cut(_WEIGHTS, 0.5)), 2, "model.safetensors is cut off", _AGAIN),
    Case("weights without the last byte", model(cut(_WEIGHTS, 0.9999999)), 2, "model.safetensors is cut off", _AGAIN),
    Case("empty weights", model(wrote(_WEIGHTS, b"")), 2, "no safetensors file (empty)", _AGAIN),
    Case("three bytes of weights", model(wrote(_WEIGHTS, b"abc")), 2, "it has 3 bytes", _AGAIN),
    Case("weights that are text", model(wrote(_WEIGHTS, "no weights at all")), 2,
         "is cut off or no safetensors", _AGAIN),
    Case("weights that are a pointer", model(wrote(_WEIGHTS, _POINTER)), 2, "is a Git LFS pointer, not the", _LFS),
    Case("a bomb of a header", model(wrote(_WEIGHTS, struct.pack("<Q", 2**63) + b"{}")), 2, "its header should have",
         _AGAIN),
    Case("a header that is no JSON", model(header(b"{not json")), 2, "its header is not JSON", _AGAIN),
    Case("a header without an end", model(header(b"[" * 99_999)), 2, "its header is not JSON", _AGAIN),
    Case("a header that is a list", model(header([1])), 2, "its header is no JSON object", _AGAIN),
    Case("a header of nothing", model(header({})), 2, "there is no tensor in it", _AGAIN),
    Case("a tensor without a type", model(header({"x": {}})), 2, "does not say what 'x' is", _AGAIN),
    Case("a tensor that is a number", model(header({"x": 1})), 2, "does not say what 'x' is", _AGAIN),
    Case("a tensor of another size", model(header(_tensor(shape=[3]), bytes(8))), 2,
         "contradicts itself about 'x'", _AGAIN),
    Case("a tensor that ends first", model(header(_tensor(data_offsets=[8, 0]), bytes(8))), 2,
         "contradicts itself", _AGAIN),
    Case("a negative shape", model(header(_tensor(shape=[-2, -1]), bytes(8))), 2, "contradicts itself", _AGAIN),
    Case("more weights than tensors", model(header(_tensor(), bytes(99))), 2, "take 8 bytes, and 99 are there", _AGAIN),
    Case("a shard is missing", model(_index({"a": _SHARD, "b": "model-00002-of-00002.safetensors"})), 2,
         "names 2 files, of which 1 are missing, first model-00002", "download the model"),
    Case("a torn index", model(_both(_index({}), cut(f"{_WEIGHTS}.index.json", 0.5))), 2, "index.json is torn", _AGAIN),
    Case("an index of nothing", model(_index({})), 2, "has no weight_map", "download it again"),
    Case("an index of numbers", model(_index({"a": 1})), 2, "has no weight_map", "download it again"),
    Case("an index that leaves", model(_index({"a": "../../etc/passwd"})), 2, "names a file elsewhere",
         "from its source"),
    Case("an index of other weights", model(_index({"lm_head.weight": _SHARD})), 2, "has no tensor 'lm_head.weight'",
         "download both again"),
    # The tokenizer.
    Case("no tokenizer", model(removed("tokenizer.json")), 2, "has no tokenizer", "copy it from the model"),
    Case("a torn tokenizer", model(cut("tokenizer.json", 0.5)), 2, "tokenizer.json is torn or not JSON", _AGAIN),
    Case("a tokenizer that is a pointer", model(wrote("tokenizer.json", _POINTER)), 2, "is a Git LFS pointer", _LFS),
    Case("a tokenizer of nothing", model(wrote("tokenizer.json", "{}")), 2, "has no vocabulary (model.vocab)", _AGAIN),
    Case("a tokenizer of words", model(_vocabulary(lambda t: t["model"].update(vocab={"a": "b"}))), 2,
         "the token ids in model.vocab are no numbers", _AGAIN),
    Case("a tokenizer of another model", model(_vocabulary(lambda t: t["model"]["vocab"].update(zzz=32_000))), 2,
         "has token ids up to 32000, but config.json says vocab_size 960", "take the tokenizer that came with"),
    Case("a torn tokenizer config", model(cut("tokenizer_config.json", 0.5)), 2,
         "tokenizer_config.json is torn", _AGAIN),
    Case("a link to nowhere", model(_both(removed("tokenizer.json"),
         lambda f: os.symlink(f / "blobs/gone", f / "tokenizer.json"))), 2, "has no tokenizer",
         "copy it from the model"),
]  # fmt: skip
