"""Whether a model's tokenizer suits what it is asked: an end token, programs, and prompts that leave room.

    look_at_words(experiment, {"student": folder}, ["A baker has 3 ..."])

What is wrong with these shows late in a run: in the fine-tuning, after the teacher's tokens were paid for, or as
rows that are rejected one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from fdd_ray.doctor.child import ask
from fdd_ray.doctor.findings import Finding, note, ok, problem
from fdd_ray.engines.folders import read_object
from fdd_ray.errors import EngineError, TrainingError
from fdd_ray.experiment import Experiment

Role = Literal["teacher", "student"]
DEADLINE_S: Final = 150.0  # transformers and PyTorch are imported, and other work may be at hand
QUESTIONS: Final = 50
# Stands in where nothing of the pool could be read.
_QUESTION: Final = "A baker has 3 trays of 12 rolls and sells 17 of them in the morning. How many rolls are left?"


def look_at_words(
    experiment: Experiment, folders: Mapping[Role, Path], questions: Sequence[str], deadline_s: float = DEADLINE_S
) -> Iterator[Finding]:
    """Load the tokenizers of the roles' models and render what these will be asked.

    Args:
        experiment: The settings.
        folders: Where the models lie, by role; a role whose model is not here is left out.
        questions: Some of the pool; may be none.
        deadline_s: Seconds that may take, for all of them together.
    """
    asked: dict[Role, dict[str, Any]] = {}
    configs: dict[Role, dict[str, Any]] = {}
    for role, folder in folders.items():
        config = read_object(folder / "config.json")
        if config.get("auto_map"):
            yield note(
                f"{role}: the model brings code of its own, which is not run here, so its tokenizer was not tried",
                "nothing to do; its engines try it",
            )
            continue
        configs[role] = config
        kinds = [experiment.kind]
        if experiment.mix.both_kinds or (role == "teacher" and experiment.synthesise.second_solutions):
            kinds = ["program", "chain"]
        asked[role] = {
            "role": role,
            "folder": str(folder),
            "encoder_decoder": bool(config.get("is_encoder_decoder")),
            "prompts": experiment.prompts,
            "kinds": kinds,
            "questions": list(questions)[:QUESTIONS] or [_QUESTION],
        }
    if asked:
        told = ask("fdd_ray.doctor.rendering:render_all", asked, deadline_s, {"HF_HUB_OFFLINE": "1"})
        for role, config in configs.items():
            yield from judge(role, experiment, config, told[role])


def judge(role: Role, experiment: Experiment, config: dict[str, Any], told: dict[str, Any]) -> Iterator[Finding]:
    """What the rendered prompts say; see `fdd_ray.doctor.rendering.render`."""
    if "failed" in told:
        yield problem(
            f"{role}: its tokenizer cannot be used ({told['failed']})",
            "copy or download the tokenizer's files again, from the model that this one was made from",
            TrainingError if role == "student" else EngineError,
        )
        return
    if not told["end"]:
        yield problem(
            f"{role}: its tokenizer has no end token, so that a student could not learn to stop",
            "set eos_token in its tokenizer_config.json",
            TrainingError if role == "student" else EngineError,
        )
        return
    if role == "student" and not told["program"]:
        yield problem(
            "student: its tokenizer cannot write programs: newlines, indentation or signs are lost, as T5's vocabulary"
            " lacks them",
            "set kind: chain (and mix.both_kinds: false), or choose a student of another family, such as CodeT5+",
            TrainingError,
        )
    yield from _room(role, experiment, config, told)
    if role == "student":
        yield from _training(experiment, config, told)


def _room(role: Role, experiment: Experiment, config: dict[str, Any], told: dict[str, Any]) -> Iterator[Finding]:
    """Whether prompt and completion fit into what the model takes."""
    settings = experiment.student if role == "student" else experiment.teacher
    assert settings is not None
    if role == "student":
        most, name = experiment.score.max_tokens, "score.max_tokens"
    else:
        most, name = max(
            (experiment.teach.max_tokens, "teach.max_tokens"),
            (experiment.synthesise.max_solution_tokens, "synthesise.max_solution_tokens"),
        )
    positions = config.get("max_position_embeddings")
    room = settings.max_model_len or (positions if isinstance(positions, int) else None)
    longest = told["longest"]
    if room is None or config.get("is_encoder_decoder"):
        yield ok(f"{role}: its prompts have up to {longest:,} tokens (of the pool's first questions)")
    elif longest >= room:
        yield problem(
            f"{role}: prompts have up to {longest:,} tokens, and the model takes {room:,} with the completion",
            f"raise {role}.max_model_len if it is what limits, use shorter prompts, or another model",
            EngineError,
        )
    elif longest + most > room:
        yield note(
            f"{role}: a prompt of up to {longest:,} tokens leaves {room - longest:,} of {room:,} for a completion, less"
            f" than {name} = {most:,}; longer ones are cut off and rejected",
            f"lower {name}, or raise {role}.max_model_len if it is what limits",
        )
    else:
        yield ok(f"{role}: prompts of up to {longest:,} tokens and completions of {most:,} fit into {room:,}")


def _training(experiment: Experiment, config: dict[str, Any], told: dict[str, Any]) -> Iterator[Finding]:
    """Whether examples fit into a row of the fine-tuning, and rows into the student."""
    length, longest = experiment.finetune.max_length, told["longest"]
    positions = config.get("max_position_embeddings")
    if longest >= length:
        yield problem(
            f"fine-tuning: the student's prompts have up to {longest:,} tokens, and finetune.max_length is {length:,}:"
            " such examples are all too long",
            "raise finetune.max_length",
            TrainingError,
        )
    elif told["example"] > length:
        yield note(
            f"fine-tuning: the longest prompt with a short program has {told['example']:,} tokens, and"
            f" finetune.max_length is {length:,}; longer examples are rejected",
            "raise finetune.max_length if memory allows",
        )
    if isinstance(positions, int) and length > positions:
        yield note(
            f"fine-tuning: finetune.max_length = {length:,} is over the {positions:,} positions that the student knows;"
            " an example that is longer ends the fine-tuning",
            f"set it to at most {positions}",
        )
