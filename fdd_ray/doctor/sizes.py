"""Bytes as people read them.

>>> gib(3 << 30)
'3.0 GiB'
"""

from __future__ import annotations


def gib(amount: float) -> str:
    """Bytes in GiB, or in MiB where that is more readable."""
    if amount < 1 << 30:
        return f"{amount / (1 << 20):,.0f} MiB"
    return f"{amount / (1 << 30):,.1f} GiB"
