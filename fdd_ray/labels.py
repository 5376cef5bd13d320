"""Labels of nodes: which of them a selector asks for, by Ray's rules, and how to stay where one is.

Ray matches labels where it places actors, but has no function to ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node's labels meet a selector: a value, ``in(a, b)``, and either with ``!`` before it.

    >>> matches({"tier": "big"}, {"tier": "in(big, huge)"}), matches({"tier": "big"}, {"tier": "!big"})
    (True, False)
    """
    for name, wanted in selector.items():
        plain = wanted.removeprefix("!")
        listed = re.fullmatch(r"in\((.*)\)", plain)
        values = {value.strip() for value in listed[1].split(",")} if listed else {plain}
        if (labels.get(name) in values) == wanted.startswith("!"):
            return False
    return True


def this_node() -> dict[str, str]:
    """The selector of the node that this process is on; Ray must be initialised.

    For small helpers of a driver: they live as long as it does, and on a node that came for somebody else even one
    that reserves nothing would keep that node from going again.
    """
    import ray

    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
