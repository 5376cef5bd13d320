"""The folder that is handed on: weights, tokenizer with its chat template, generation settings and model card.

What loads a Hugging Face folder loads this one as it is: transformers, `vllm serve`, evaluation harnesses. It is
written beside its place and renamed, so it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fdd_ray.errors import StoreError
from fdd_ray.export.card import Licenses, model_card
from fdd_ray.export.facts import read_facts
from fdd_ray.store import content, files
from fdd_ray.store.access import explained, is_local
from fdd_ray.store.fetch import fetch_folder

CARD = "README.md"
_GENERATION = "generation_config.json"
# Of a base model's generation settings only these stay: its sampling defaults (temperature, penalties) would make
# the student answer otherwise than it was scored.
_KEPT_SETTINGS = ("suppress_tokens", "begin_suppress_tokens", "transformers_version")


class Exported(NamedTuple):
    """Where a student went, and which round it is of."""

    path: str
    round: int


def export_student(
    run: str,
    output: str,
    *,
    round: int | str | None = None,
    best_on: str = "",
    licenses: Licenses | None = None,
    name: str = "",
    force: bool = False,
) -> Exported:
    """Write the student of a round to ``output``.

    Args:
        run: The run directory, local or a URL.
        output: A local folder that does not exist yet.
        round: See `fdd_ray.export.facts.read_facts`.
        best_on: See there.
        licenses: Licences that are known better than from the models' folders.
        name: What the model is called in its card; by default the folder's name.
        force: Replace ``output`` if it is a model folder.

    Raises:
        StoreError: If there is no such student, its files were changed, or ``output`` cannot be written.
        ExperimentError: If ``round`` and ``best_on`` do not fit.
    """
    if not is_local(output):
        raise StoreError(f"{output} is a URL; export to a folder on this machine, and upload that")
    target = Path(files.absolute(output))
    facts = read_facts(run, round, best_on)
    _check_target(target, facts.directory, force=force)
    content.verify(facts.finetuned)
    with explained("write", str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _in_place(target) as part:
            _copy(Path(fetch_folder(facts.student)), part, facts.student)
            config = json.loads((part / "config.json").read_bytes())
            _write_generation(part, config)
            card = model_card(facts, config, licenses or Licenses(), name or target.name)
            (part / CARD).write_text(card, encoding="utf-8")
    return Exported(str(target), facts.round)


def _check_target(target: Path, run: str, *, force: bool) -> None:
    if is_local(run) and Path(run) in (target, *target.parents):
        raise StoreError(f"{target} lies in the run itself; export to a folder outside of {run}")
    if not os.path.lexists(target):
        return
    if not force:
        raise StoreError(f"{target} exists; name another folder, or give --force to replace it")
    if not target.is_dir() or target.is_symlink() or (any(target.iterdir()) and not (target / "config.json").is_file()):
        raise StoreError(f"{target} is no model folder, so it is not replaced; move it away, or name another folder")


@contextlib.contextmanager
def _in_place(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place at the end, flushed; gone if the block fails."""
    tag = uuid.uuid4().hex[:8]
    part, old = (target.with_name(f".{target.name}.{tag}.{suffix}") for suffix in ("part", "old"))
    part.mkdir()
    try:
        yield part
        for file in part.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if target.exists():
            target.rename(old)
        part.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _copy(student: Path, part: Path, name: str) -> None:
    """Copy the student's files; copies, for what is handed on may be changed there and the run's may not."""
    for file in sorted(student.iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.name != CARD:
            shutil.copyfile(file, part / file.name)
    found = {file.name for file in part.iterdir()}
    wanted = {"config.json": {"config.json"}, "safetensors weights": {n for n in found if n.endswith(".safetensors")},
              "a tokenizer": {"tokenizer.json", "tokenizer_config.json"} & found}  # fmt: skip
    missing = [what for what, names in wanted.items() if not names & found]
    if missing:
        raise StoreError(f"the student at {name} has no {', '.join(missing)}; do its finetune stage anew")


def _write_generation(part: Path, config: dict[str, Any]) -> None:
    """Greedy by default, with the tokens that end and pad a reply as the student was trained with them."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(part))
    except Exception as error:  # a tokenizer's files can be wrong in as many ways as there are tokenizers
        raise StoreError(
            f"the student's tokenizer cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]});"
            " do its finetune stage anew"
        ) from error
    if not tokenizer.chat_template:
        raise StoreError("the student's tokenizer has no chat template; do its finetune stage anew")
    path = part / _GENERATION
    before: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    known = {key: value for key, value in config.items() if key.endswith("_token_id") and value is not None}
    known |= {key: value for key, value in before.items() if key.endswith("_token_id") or key in _KEPT_SETTINGS}
    ends = known.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    stops = list(dict.fromkeys([tokenizer.eos_token_id, *(end for end in ends if end is not None)]))
    known |= {
        "eos_token_id": stops[0] if len(stops) == 1 else stops,
        "pad_token_id": tokenizer.pad_token_id,
        "do_sample": False,
    }
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
