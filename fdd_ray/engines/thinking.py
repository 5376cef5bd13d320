"""Taking a reasoning model's thinking off its answer: a small student is taught the answer alone.

    >>> answer_of("<think>3 and 4 make 7</think>\\n\\nanswer = 3 + 4", "stop")
    ('answer = 3 + 4', 'stop')
    >>> answer_of("<think>3 and 4 make", "length")
    ('', 'length')

The thinking is kept nowhere: it is often ten times as long as the answer, nothing checks it, and a text that
stays in the rows would sooner or later be trained on. Its tokens are counted, for they were paid for.
"""

from __future__ import annotations

OPEN = "<think>"
CLOSE = "</think>"


def answer_of(
    text: str, finish: str, open_tag: str = OPEN, close_tag: str = CLOSE, *, opened: bool = False
) -> tuple[str, str]:
    """The answer in a completion, which is what stands after the last closing tag, and how it ended.

    Args:
        text: The completion. A text without any tag is all answer.
        finish: ``stop`` or ``length``.
        open_tag: What begins the thinking; it may stand in the prompt, before the completion.
        close_tag: What ends it.
        opened: Whether the prompt is known to end inside the thinking.

    Returns:
        The answer and its finish; ``length``, with what stood before, if the thinking never ended.
    """
    _, closed, answer = text.rpartition(close_tag)
    before, reopened, _ = answer.partition(open_tag)
    if reopened or (opened and not closed):
        return ("" if opened and not closed else before.strip()), "length"
    return (answer.lstrip() if closed else text), finish


def is_open(prompt: str, open_tag: str = OPEN) -> bool:
    """Whether a rendered prompt ends inside the thinking, as some chat templates make it.

    >>> is_open("<|assistant|><think>\\n"), is_open("<|assistant|><think>\\n\\n</think>\\n\\n")
    (True, False)
    """
    return prompt.rstrip().endswith(open_tag)
