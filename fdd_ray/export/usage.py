"""The part of a model card that says how to ask the student: in exactly the form it was trained on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from fdd_ray.export.facts import Facts
from fdd_ray.export.markdown import block, code

_CAUSAL = """\
import sys
from transformers import AutoTokenizer, {auto}

folder, question = sys.argv[1:]
PROMPT = {prompt!r}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto}.from_pretrained(folder)
messages = [{{"role": "user", "content": PROMPT.replace("{{question}}", question)}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
reply = model.generate(**inputs, max_new_tokens={tokens})[0]
print(tokenizer.decode(reply{cut}, skip_special_tokens=True))
"""
_SERVED = """\
vllm serve FOLDER --served-model-name student
curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d @- <<'END'
{{"model": "student", "temperature": 0, "max_tokens": {tokens}, "messages": [{{"role": "user", "content": {content}}}]}}
END
"""


def how_to_use(facts: Facts, config: Mapping[str, Any]) -> str:
    """The section of the card: the prompt, and how to ask with transformers and vLLM."""
    kind = facts.experiment.get("kind")
    encoder_decoder = bool(config.get("is_encoder_decoder"))
    score = facts.experiment.get("score")
    tokens = int(score.get("max_tokens", 512)) if isinstance(score, Mapping) else 512
    said = {
        "program": "It answers with a Python program that leaves the answer in the variable `answer`.",
        "chain": "It answers with a chain of thought whose last line is `#### ` and the answer.",
    }.get(str(kind), f"It answers with rationales of the kind {code(str(kind))}.")
    if facts.prompts is None:
        return (
            f"{said} The prompt set {code(str(facts.experiment.get('prompts')))} that it was trained with can no longer"
            " be read, so the exact prompt is unknown: fill it in here. Give it as the one user message of a chat."
        )
    prompt = facts.prompts.texts[f"student_{kind}"]
    changed = (
        "\n\nThe prompt set has changed since this student was trained: see that this prompt is still the one."
        if facts.prompts_changed
        else ""
    )
    auto = "AutoModelForSeq2SeqLM" if encoder_decoder else "AutoModelForCausalLM"
    cut = "" if encoder_decoder else '[inputs["input_ids"].shape[1] :]'
    parts = [
        f"{said} It was trained on one form of question only: the text below, with the problem in place of"
        f" `{{question}}`, as the one user message of a chat; the tokenizer brings the chat template.{changed}",
        block(prompt, "text"),
        "With transformers, as `python ask.py FOLDER QUESTION`:",
        block(_CAUSAL.format(auto=auto, prompt=prompt, tokens=tokens, cut=cut), "python"),
    ]
    if encoder_decoder:
        parts.append("vLLM does not serve encoder-decoder models.")
    else:
        parts += ["With vLLM:", block(_SERVED.format(tokens=tokens, content=json.dumps(prompt)), "sh")]
    parts.append(
        "Greedy, as it was scored; `generation_config.json` has no sampling defaults of the base model. To score it"
        " again:"
    )
    again = f"fdd-ray evaluate FOLDER --kind {kind} --prompts {shlex.quote(facts.prompts.name)} --benchmark NAME=FILE"
    parts.append(block(f"{again} --set score.max_tokens={tokens}", "sh"))
    return "\n\n".join(parts)
