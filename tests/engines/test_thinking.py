from __future__ import annotations

import pytest

from fdd_ray.engines.base import EngineSettings, Sampling
from fdd_ray.engines.thinking import answer_of, is_open
from fdd_ray.engines.vllm import _Manner
from fdd_ray.settings import parse_settings
from fdd_ray.tiny import model_path


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("answer = 7", "stop", ("answer = 7", "stop")),
        ("  answer = 7\n", "stop", ("  answer = 7\n", "stop")),  # nothing to strip: as it came
        ("<think>3 + 4</think>\n\nanswer = 7", "stop", ("answer = 7", "stop")),
        ("\n<think>\n</think>\n\nanswer = 7", "stop", ("answer = 7", "stop")),
        ("3 + 4 is 7\n</think>\nanswer = 7", "stop", ("answer = 7", "stop")),  # the template opened it
        ("<think>a</think>b<think>c</think>answer = 7", "stop", ("answer = 7", "stop")),
        ("<think>a</think>answer = ", "length", ("answer = ", "length")),
        ("<think>3 + 4 is", "length", ("", "length")),
        ("<think>3 + 4 is. answer = 7", "stop", ("", "length")),  # it ended, but never said its answer
        ("<think>a</think>answer = 7 <think>no, wait", "length", ("answer = 7", "length")),
        ("<think>a</think>", "stop", ("", "stop")),
        ("", "stop", ("", "stop")),
    ],
)
def test_the_answer_is_what_stands_after_the_thinking(text: str, finish: str, expected: tuple[str, str]) -> None:
    assert answer_of(text, finish) == expected


def test_a_prompt_that_opens_the_thinking_makes_an_unclosed_one_visible() -> None:
    assert answer_of("3 + 4 is", "length", opened=True) == ("", "length")
    assert answer_of("answer = 7", "stop", opened=True) == ("", "length")
    assert answer_of("so 7</think>answer = 7", "stop", opened=True) == ("answer = 7", "stop")
    assert is_open("Answer:\n<think>\n") and not is_open("<think>\n\n</think>\n\n") and not is_open("What is it?")


def test_tags_are_a_setting() -> None:
    assert answer_of("[[a]]7", "stop", "[[", "]]") == ("7", "stop")
    assert answer_of("<think>a</think>7", "stop", "[[", "]]") == ("<think>a</think>7", "stop")
    settings = parse_settings(EngineSettings, "{model: m, thinking: keep, thinking_open: '[[', thinking_close: ']]'}")
    assert (settings.thinking, settings.thinking_open, settings.thinking_close) == ("keep", "[[", "]]")
    with pytest.raises(ValueError, match="cannot be empty"):
        EngineSettings("m", thinking_close="")


def test_a_hostile_text_takes_no_time() -> None:
    assert answer_of("<think>" * 200_000 + "</think>" * 200_000 + "7", "stop") == ("7", "stop")


class _Said:
    """A finished output of vLLM, as far as it is looked at."""

    def __init__(self, *texts: tuple[str, str]) -> None:
        self.prompt_token_ids = [0] * 9
        self.outputs = [_Choice(i, text, finish) for i, (text, finish) in reversed(list(enumerate(texts)))]


class _Choice:
    def __init__(self, index: int, text: str, finish: str) -> None:
        self.index, self.text, self.finish_reason, self.token_ids = index, text, finish, [0] * (10 + index)


def _manner(template: str = "", **rest: object) -> _Manner:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path("teacher"))
    if template:
        tokenizer.chat_template = template
    return _Manner(EngineSettings("m", **rest), tokenizer, 512)  # type: ignore[arg-type]


def test_vllm_replies_hold_the_answer_and_all_tokens() -> None:
    said = _Said(("<think>a</think>answer = 7", "stop"), ("<think>a", "length"), ("answer = 7", "stop"))
    chat = [{"role": "user", "content": "What is 3 + 4?"}]
    manner = _manner()
    reply = manner.reply(said, manner.read(chat))  # type: ignore[arg-type]
    assert [(s.text, s.finish, s.tokens) for s in reply.samples] == [
        ("answer = 7", "stop", 10),
        ("", "length", 11),
        ("answer = 7", "stop", 12),
    ]
    assert (reply.prompt_tokens, reply.completion_tokens) == (9, 33)
    keeping = _manner(thinking="keep")
    kept = keeping.reply(said, keeping.read(chat))  # type: ignore[arg-type]
    assert kept.samples[0].text == "<think>a</think>answer = 7" and kept.samples[1].text == "<think>a"


def test_the_chat_template_gets_its_arguments_and_tells_whether_it_opens_the_thinking() -> None:
    template = (
        "{{ messages[0]['content'] }} {% if enable_thinking is not defined or enable_thinking %}<think>\n"
        "{% else %}<think>\n\n</think>\n\n{% endif %}"
    )
    chat = [{"role": "user", "content": "a"}]
    thinking, quiet = _manner(template), _manner(template, chat_template_kwargs={"enable_thinking": False})
    assert thinking.read(chat).opened and not quiet.read(chat).opened  # type: ignore[arg-type]
    assert len(quiet.read(chat).tokens) > len(thinking.read(chat).tokens)  # type: ignore[arg-type]
    said = _Said(("answer = 7", "stop"))
    assert thinking.reply(said, thinking.read(chat)).samples[0].finish == "length"  # type: ignore[arg-type]
    assert quiet.reply(said, quiet.read(chat)).samples[0].text == "answer = 7"  # type: ignore[arg-type]


def test_tags_that_are_special_tokens_are_left_in_the_text() -> None:
    plain, special = _manner(), _manner(thinking_close="<|end|>")
    assert plain.parameters(Sampling()).skip_special_tokens
    special._tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    again = _Manner(special._settings, special._tokenizer, 512)
    assert not again.parameters(Sampling()).skip_special_tokens


def test_sampling_settings_reach_vllm() -> None:
    settings = parse_settings(
        EngineSettings,
        "{model: m, sampling: {top_k: 20, min_p: 0.1, repetition_penalty: 1.1, presence_penalty: 0.5,"
        " frequency_penalty: -0.5, stop: ['\\n\\nQ', END]}}",
    )
    manner = _manner(sampling=settings.sampling)
    drawn = manner.parameters(Sampling(temperature=0.7, top_p=0.9))
    assert (drawn.top_k, drawn.min_p, drawn.repetition_penalty) == (20, 0.1, 1.1)
    assert (drawn.presence_penalty, drawn.frequency_penalty, drawn.stop) == (0.5, -0.5, ["\n\nQ", "END"])
    plain = _manner().parameters(Sampling(temperature=0.7))
    assert (plain.top_k, plain.min_p, plain.repetition_penalty, plain.stop) == (0, 0.0, 1.0, [])


@pytest.mark.parametrize("wrong", ["{top_k: 0}", "{min_p: 1.5}", "{repetition_penalty: 0}", "{stop: ''}"])
def test_sampling_settings_out_of_range_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="sampling"):
        parse_settings(EngineSettings, f"{{model: m, sampling: {wrong}}}")
