"""The key to an endpoint: read from the environment where it is used, and never seen anywhere else."""

from __future__ import annotations

import os
import re
from typing import NoReturn

from fdd_ray.engines.base import EndpointError

_BLOT = "[key]"
# Shorter ones are words such as EMPTY, which servers that want none are given; texts may hold these.
_SHORTEST_SECRET = 8
# What JSON may write as an escape though it need not: printable ASCII but for the quote and the backslash.
# An escaped backslash is matched too, so that what follows it is not taken for an escape.
_ESCAPE = re.compile(rb"\\\\|\\u00([2-7][0-9a-fA-F])|\\(/)")


class Key:
    """A secret that does not show itself, nor travels to other processes.

    Args:
        name: Name of the environment variable that holds it; None for no key.

    Raises:
        EndpointError: If the variable is not set, or holds what can be no key.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._value = "none"
        if name is not None:
            value = os.environ.get(name, "").strip()
            if not value:
                raise EndpointError(
                    f"no key: {name} is not set where this engine runs; set it before Ray's nodes start (or in the"
                    " job's environment), or set api_key_env: null for an endpoint that wants none"
                )
            if not re.fullmatch(r"[!-~]+", value):
                raise EndpointError(f"{name} holds spaces or letters that no key has; set it to the key alone")
            self._value = value

    def reveal(self) -> str:
        """The key itself, for the request's header alone."""
        return self._value

    def blot_out(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self._value, _BLOT) if self._is_secret else text

    def blot_out_json(self, body: bytes) -> bytes:
        """The body of a reply without the key, also where the key was written in JSON's escapes."""
        if not self._is_secret:
            return body
        plain = _ESCAPE.sub(_unescaped, body) if b"\\" in body else body
        return plain.replace(self._value.encode(), _BLOT.encode())

    @property
    def _is_secret(self) -> bool:
        return self._name is not None and len(self._value) >= _SHORTEST_SECRET

    def __repr__(self) -> str:
        return f"Key({self._name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"the key in {self._name} stays in this process; read it from the environment where it is used")


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        return found[2] or found[0]
    character = bytes.fromhex(found[1].decode())
    return found[0] if character in (b'"', b"\\", b"\x7f") else character
