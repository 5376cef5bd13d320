"""How long prompts are in a model's own tokens, and whether its tokenizer can write a program.

Loads tokenizers, so it runs in a process of its own, with ``HF_HUB_OFFLINE=1``; no code of a model is ever run.
"""

from __future__ import annotations

from typing import Any, Final

from fdd_ray.prompts import load_prompts, prepare_tokenizer, render_example, render_prompt

# Newlines, indentation, braces, signs: what programs are written in, and some vocabularies lack.
PROGRAM: Final = (
    "boxes = {'red': 3, 'blue': 4}\ntotal = 0\nfor count in boxes.values():\n    if count > 3:\n"
    "        total += count * 12 - 5 % 3\nanswer = total\n"
)


def render_all(questions: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`render` for each role; ``{"failed": why}`` for one whose tokenizer cannot be loaded or used."""
    told = {}
    for role, question in questions.items():
        try:
            told[role] = render(question)
        except Exception as error:  # whatever the library makes of a file that is not what it should be
            told[role] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return told


def render(question: dict[str, Any]) -> dict[str, Any]:
    """Render a role's prompts.

    Args:
        question: ``folder`` of the model; ``encoder_decoder``: whether it is one; ``prompts``: the prompt set;
            ``kinds``: those of rationales that are asked for; ``role``; ``questions``: some of the pool.

    Returns:
        ``longest``: tokens of the longest prompt; ``end``: whether there is an end token; ``program``: whether a
        program comes back from its tokens as it was; ``example``: tokens of the longest prompt with that program.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(question["folder"], trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        return {"longest": 0, "end": False, "program": True, "example": 0}
    prepare_tokenizer(tokenizer, encoder_decoder=question["encoder_decoder"])
    prompts, longest, example, program = load_prompts(question["prompts"]), 0, 0, True
    for kind in question["kinds"]:
        of = prompts.student if question["role"] == "student" else prompts.solve
        for text in question["questions"]:
            longest = max(longest, len(render_prompt(tokenizer, of(kind, text))))
        tokens, prompt = render_example(tokenizer, of(kind, question["questions"][0]), PROGRAM)
        example = max(example, len(tokens) - prompt + longest)
        if kind == "program":
            program = tokenizer.decode(tokens[prompt:-1]).strip() == PROGRAM.strip()
    return {"longest": longest, "end": True, "program": program, "example": example}
