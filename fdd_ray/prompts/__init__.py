"""The teacher's and the student's prompts, and the one function that turns a chat into tokens.

A prompt set is a folder with one text file for each thing that is asked (`PROMPTS` and `OPTIONAL_PROMPTS`);
the word ``{question}`` in it stands for the problem. ``default`` is written for instruction-tuned teachers,
``tiny`` for the models of the tiny world; an experiment may name a folder of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from fdd_ray.errors import ExperimentError, FddError
from fdd_ray.records import Kind, Origin

PROMPTS = ("solve_program", "solve_chain", "complex", "similar", "student_program", "student_chain")
# Needed only where the option that asks them is on: feedback.bridge_after, decontaminate.judge.
OPTIONAL_PROMPTS = ("bridge", "judge")
_MAX_BYTES = 256 << 10
_PROBLEM_TAG = re.compile(r"<problem>(.*?)(?:</problem>|\Z)", re.DOTALL)
_LABEL = re.compile(r"^\s*(?:\*\*)?(?:new |similar |harder )?(?:problem|question)(?:\*\*)?\s*:(?:\*\*)?\s*", re.I)

# For base models whose tokenizer brings no chat template of its own.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'Answer:\\n' + message['content'] + eos_token }}"
    "{% else %}{{ 'Question:\\n' + message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer:\\n' }}{% endif %}"
)
# The same for an encoder: the text alone, between the tokens that the encoder knows it by.
_ENCODER_TEMPLATE = (
    "{{ %s }}{%% for message in messages %%}{{ message['content'] }}"
    "{%% if not loop.last %%}{{ '\\n\\n' }}{%% endif %%}{%% endfor %%}{{ %s }}"
)


class Message(TypedDict):
    """One turn of a chat, in the form of the OpenAI and Hugging Face chat formats."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """The texts of one prompt set, by name (see `PROMPTS`)."""

    name: str
    texts: dict[str, str]

    def _user(self, name: str, question: str, other: str = "") -> list[Message]:
        values = {"question": question, "other": other}
        text = re.sub(r"\{(question|other)\}", lambda found: values[found[1]], self.texts[name])
        return [Message(role="user", content=text)]

    def require(self, name: str, setting: str) -> None:
        """Check that this set has an optional prompt.

        Raises:
            ExperimentError: If it has not; it names the ``setting`` that asks for it.
        """
        if name not in self.texts:
            raise ExperimentError(
                f"{setting} needs the prompt {name}.txt, which the prompt set {self.name!r} does not have;"
                " add it to a set of your own, or use prompts: default"
            )

    def solve(self, kind: Kind, question: str) -> list[Message]:
        """Ask the teacher for a rationale."""
        return self._user(f"solve_{kind}", question)

    def vary(self, origin: Origin, question: str) -> list[Message]:
        """Ask the teacher for a new problem: ``complex``, ``similar`` or ``bridge``."""
        return self._user(origin, question)

    def judge(self, question: str, benchmark_question: str) -> list[Message]:
        """Ask the teacher whether a new question is a benchmark problem in other words."""
        return self._user("judge", question, benchmark_question)

    def student(self, kind: Kind, question: str) -> list[Message]:
        """Ask the student: the very prompt it is fine-tuned on."""
        return self._user(f"student_{kind}", question)


def load_prompts(name: str) -> PromptSet:
    """The prompt set called ``name``: ``default``, ``tiny``, or the path of a folder.

    Raises:
        ExperimentError: If a file is missing or forgets ``{question}``.
    """
    folder = Path(__file__).parent / name if re.fullmatch(r"[a-z_]+", name) else Path(name)
    if not os.path.isdir(folder):
        raise ExperimentError(f"prompts: there is no prompt set {name!r}; use default, tiny or a folder's path")
    texts = {}
    for prompt in (*PROMPTS, *OPTIONAL_PROMPTS):
        path = folder / f"{prompt}.txt"
        if not os.path.lexists(path):
            if prompt in OPTIONAL_PROMPTS:
                continue
            raise ExperimentError(f"prompts: {path} is missing; a prompt set has {', '.join(PROMPTS)} (.txt)")
        texts[prompt] = _read(path).removesuffix("\n")
        if "{question}" not in texts[prompt]:
            raise ExperimentError(f"prompts: {path} does not contain {{question}}; the problem goes there")
        if prompt == "judge" and "{other}" not in texts[prompt]:
            raise ExperimentError(f"prompts: {path} does not contain {{other}}; the benchmark problem goes there")
    return PromptSet(name, texts)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ExperimentError(
            f"prompts: cannot read {path}: {error.strerror}; check the file and your rights"
        ) from error
    except UnicodeDecodeError as error:
        raise ExperimentError(f"prompts: {path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    if len(data) > _MAX_BYTES:
        raise ExperimentError(f"prompts: {path} has over {_MAX_BYTES >> 10} KiB, too much for a prompt; shorten it")
    return text.replace("\r\n", "\n")


def read_new_problem(reply: str) -> str | None:
    """The problem in a teacher's reply to a `PromptSet.vary` prompt, or None if there is none."""
    tagged = _PROBLEM_TAG.search(reply)
    text = _LABEL.sub("", tagged.group(1) if tagged else reply).strip()
    return text or None


def prepare_tokenizer(tokenizer: Any, *, encoder_decoder: bool = False) -> Any:
    """Give a tokenizer without a chat template a plain one, and without a pad token its eos.

    The template is saved with the tokenizer, so whoever loads an exported student asks it in the same form.

    Args:
        tokenizer: A Hugging Face tokenizer; it is changed in place.
        encoder_decoder: Whether prompts go to an encoder: then the plain template is the bare text, as T5's
            family was trained on it, in the special tokens that the tokenizer itself puts around a text
            (``</s>`` at the end for T5, ``<s>`` and ``</s>`` for CodeT5+).
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = _encoder_template(tokenizer) if encoder_decoder else PLAIN_TEMPLATE
    return tokenizer


def _encoder_template(tokenizer: Any) -> str:
    framed, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
    before, after = framed[:start], framed[start + len(bare) :]
    if not after and tokenizer.eos_token_id is not None:
        after = [tokenizer.eos_token_id]
    texts = ("".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (before, after))
    return _ENCODER_TEMPLATE % tuple(json.dumps(text, ensure_ascii=False) for text in texts)


def decoder_start(model: Any, name: str, error: type[FddError]) -> int:
    """The token that the decoder of an encoder-decoder model begins with (T5: its pad token).

    Args:
        model: The model.
        name: What it is called in the message.
        error: What is raised if neither the model's configuration nor its generation configuration says it.
    """
    for config in (model.generation_config, model.config):
        start = getattr(config, "decoder_start_token_id", None)
        if start is not None:
            return int(start)
    raise error(
        f"{name} does not say what its decoder begins with; set decoder_start_token_id in its config.json"
        " (for T5 models the pad_token_id, 0)"
    )


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat up to where the model's reply begins: for an encoder-decoder model, the encoder's input.

    Training, scoring and generation all come through here, so a student is always asked in exactly
    the form it was trained on. It is also what ``apply_chat_template(messages, add_generation_prompt=True)``
    of the exported tokenizer gives.
    """
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render_example(tokenizer: Any, messages: Sequence[Message], reply: str) -> tuple[list[int], int]:
    """Token ids of a chat with its reply and the end token, and how many of them are the prompt.

    For an encoder-decoder model the prompt goes to the encoder and the rest to the decoder.
    """
    prompt = render_prompt(tokenizer, messages)
    completion = list(tokenizer(reply, add_special_tokens=False)["input_ids"])
    return [*prompt, *completion, tokenizer.eos_token_id], len(prompt)
