"""What a teacher says when it is asked whether two questions are the same problem.

    >>> read_verdict("Both ask for the sum of the same two prices.\\nVerdict: yes")
    True
    >>> read_verdict("yes") is None
    True

The reply is not trusted: it may quote the questions, and these may have been written to mislead. Only a
reply that commits itself exactly once, at its end, in the form that was asked for, counts.
"""

from __future__ import annotations

import re
from typing import Final

VERDICT_FORM: Final = (
    'End with one line that is either "Verdict: yes" (they are the same problem) or "Verdict: no" (they are not).'
)
_MARK: Final = re.compile(r"verdict", re.IGNORECASE)
_LINE: Final = re.compile(r"verdict: (yes|no)", re.IGNORECASE | re.ASCII)


def read_verdict(reply: str) -> bool | None:
    """Whether the teacher says that two questions are the same problem.

    Args:
        reply: The teacher's whole reply, to a prompt that ends in `VERDICT_FORM`.

    Returns:
        True or False if the last line of the reply, but for white space around it, is ``Verdict: yes`` or
        ``Verdict: no`` in any case and the word "verdict" is nowhere else; otherwise None, which must be
        counted and never be taken for a no.
    """
    last = _LINE.fullmatch(reply.strip().rpartition("\n")[2].strip())
    if last is None or len(_MARK.findall(reply)) != 1:
        return None
    return last[1].lower() == "yes"
