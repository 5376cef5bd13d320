"""Finds the program in what a model wrote.

    extract_program("Sure!\\n```python\\nanswer = 3 * 4\\n```\\nDone.")     # "answer = 3 * 4"

Nothing is run here; a text without fences is parsed, and taken as a program only if that succeeds.
"""

from __future__ import annotations

import ast
import re
from typing import Final

_LONGEST_PARSED: Final = 20_000
_FENCE: Final = re.compile(r"[ \t]*```[ \t]*(\w*)([^`]*)")
_PYTHON_TAGS: Final = frozenset({"", "python", "python3", "py"})
_CODE_LINE: Final = re.compile(r"(?:import|from|def|class|for|while|if|return|print|#)\b|[A-Za-z_]\w* *[-+*/]?=[^=]")


def extract_program(text: str) -> str | None:
    """The program in a completion, without fences and surrounding blank lines.

    That is the last complete fenced block that is Python or unmarked; without any, what follows an opening
    fence that was never closed (an engine may stop at the fence), or the text itself without the sentences
    around it, if either parses.
    """
    blocks: list[str] = []
    block: list[str] | None = None
    tag = ""
    for line in text.splitlines():
        fence = _FENCE.fullmatch(line)
        if fence is None:
            if block is not None:
                block.append(line)
        elif block is None or fence[1] or fence[2].strip():
            block, tag = [], fence[1].casefold()
        else:
            if tag in _PYTHON_TAGS and "".join(block).strip():
                blocks.append("\n".join(block))
            block = None
    if blocks:
        return blocks[-1].strip("\n")
    candidate = "\n".join(block) if block and tag in _PYTHON_TAGS else _without_sentences(text)
    return candidate.strip("\n") if _looks_like_code(candidate) else None


def _without_sentences(text: str) -> str:
    """``text`` from its first to its last line that looks like code or is indented under code."""
    lines = text.splitlines()
    code = [number for number, line in enumerate(lines) if _CODE_LINE.match(line)]
    if not code:
        return ""
    last = code[-1]
    while last + 1 < len(lines) and lines[last + 1][:1] in (" ", "\t", ")", "]", "}"):
        last += 1
    return "\n".join(lines[code[0] : last + 1])


def _looks_like_code(text: str) -> bool:
    """Whether ``text`` parses and does more than name something; nothing of it is run."""
    if len(text) > _LONGEST_PARSED:
        return False
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(statement, ast.Expr) for statement in body)
