"""A `View` as the lines of characters and colours that a terminal is sent.

Paint.of(sys.stderr).lines(view, width=80, height=24)
"""

from __future__ import annotations

import dataclasses
import io
import os
from typing import TextIO

from rich.console import Console

from fdd_ray.live.render import render
from fdd_ray.live.view import View


@dataclasses.dataclass(frozen=True)
class Paint:
    """What a terminal can show.

    Attributes:
        encoding: Of what it is sent.
        colour: Whether colours are wanted.
    """

    encoding: str = "utf-8"
    colour: bool = True

    @classmethod
    def of(cls, stream: TextIO) -> Paint:
        """What the terminal behind ``stream`` can show; no colours where ``NO_COLOR`` is set."""
        return cls(stream.encoding or "ascii", not os.environ.get("NO_COLOR"))

    def lines(self, view: View, width: int, height: int | None) -> list[str]:
        """The view; no line is as wide as ``width``, and there are fewer than ``height``."""
        width = max(width - 1, 10)  # a full line leaves the cursor where terminals do not agree
        console = Console(
            file=io.StringIO(),
            force_terminal=True,
            color_system="standard",
            no_color=not self.colour,
            width=width,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        ascii_only = self.encoding.lower().replace("-", "") not in ("utf8", "utf16", "utf32")
        most = None if height is None else max(height - 1, 1)
        with console.capture() as capture:
            console.print(render(view, width, most, ascii_only=ascii_only), end="")
        text = capture.get().removesuffix("\n")
        return text.split("\n") if text else []
