"""HTML of which only this package's own words are markup: all else is escaped on its way in.

>>> tag("p", "<b>bold?</b>", class_="note")
'<p class="note">&lt;b&gt;bold?&lt;/b&gt;</p>'

There is one gate, `text`: `tag` sends through it every child and every attribute that is not `Markup` already, and
nothing else makes `Markup` of a string that came from outside.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

# Joiners that scripts and emoji need; alone among the invisible characters they change no order of what is read.
_JOINERS = "\u200c\u200d"
_VOID = ("meta", "br")
_CELL = 300  # characters of a cell that are shown


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


Child = str | int | None


def text(value: Child, most: int = 0) -> Markup:
    """Any value as HTML text, safe in attributes too.

    Control characters, lone surrogates and marks that change the order of reading are shown as ⟨U+202E⟩, so that
    what is read is what is there.

    Args:
        value: What is to be shown; `Markup` is left as it is, None is nothing.
        most: Characters after which it is cut, saying so; 0 for all of it.
    """
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup("")
    whole = str(value)
    cut = whole[:most] if most else whole
    plain = cut.replace("\r\n", "\n").replace("\u00a0", " ")
    if not plain.isprintable():
        plain = "".join(map(_visible, plain))
    more = f" … ({len(whole) - most:,} more characters)" if most and len(whole) > most else ""
    return Markup(html.escape(plain + more))


def _visible(character: str) -> str:
    if character.isprintable() or character in "\n\t" or character in _JOINERS:
        return character
    return f"⟨U+{ord(character):04X}⟩"


def tag(name: str, /, *children: Child, **attributes: Child) -> Markup:
    """An element.

    Args:
        name: Its name, ours.
        children: Markup, or text that is escaped.
        attributes: ``class_`` is class, ``data_kind`` is data-kind; one that is None is left out, an empty one is
            written without a value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = key.rstrip("_").replace("_", "-")
            words.append(f'{shown}="{text(value)}"' if value != "" else shown)
    opened = f"<{' '.join(words)}>"
    return Markup(opened if name in _VOID else f"{opened}{join(children)}</{name}>")


def join(parts: Iterable[Child]) -> Markup:
    """Several parts as one; those that are no markup are escaped."""
    return Markup("".join(map(text, parts)))


def table(rows: Sequence[Sequence[Child]], label: str) -> Markup:
    """A table that scrolls in itself where it is too wide; the first row is the header, ``label`` is read aloud."""
    kinds = ["n" if all(map(_numeric, column)) else None for column in zip(*rows[1:], strict=True)]
    kinds = kinds or [None] * len(rows[0])
    head = (tag("th", text(cell, _CELL), scope="col", class_=kind) for cell, kind in zip(rows[0], kinds, strict=True))
    body = [
        tag("tr", *(tag("td", text(cell, _CELL), class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows[1:]
    ]
    inner = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=label)


def folded(summary: Child, *children: Child) -> Markup:
    """Something that is shown once it is asked for."""
    return tag("details", tag("summary", summary), *children)


def _numeric(cell: Child) -> bool:
    """Whether a cell may stand in a column of numbers; one that holds words of others is cut there, too."""
    shown = "" if cell is None else str(cell).lstrip("+-")
    return len(shown) <= 40 and (not shown or shown[0].isdecimal())
