"""Plots as inline SVG, whose colours are the page's own, so that they follow light and dark.

    stacked_bars([Bar("round 1", "405 asked", (300, 105))], "What became of the requests")

All are drawn 360 units wide, which is a phone: there their words are as large as those around them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from fdd_ray.progress import duration
from fdd_ray.report.html.markup import Markup, join, tag, text

_WIDTH = 360
COLOURS = 8  # classes c0 to c7 of the style sheet


@dataclasses.dataclass(frozen=True)
class Point:
    """An accuracy with its interval, all as shares."""

    label: str
    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar of parts, drawn in the colours c0, c1, ...; ``note`` stands at its right."""

    label: str
    note: str
    parts: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Span:
    """Something that took time: when it began and how long it took, in seconds, and its colour."""

    label: str
    begun: float
    seconds: float
    colour: int


def points(series: Sequence[Point], label: str, control: Point | None = None) -> Markup:
    """Accuracies with intervals, joined by a line; ``control`` is a dashed line with its interval as a band."""
    height, left, right, top, bottom = 210, 48, 12, 14, 24
    every = [*series, *([control] if control else [])]
    floor = max(0.0, math.floor(10 * min(p.low for p in every) - 0.2) / 10)
    ceiling = min(1.0, math.ceil(10 * max(p.high for p in every) + 0.2) / 10)
    step = 0.1 if ceiling - floor <= 0.6 else 0.2

    def y(value: float) -> float:
        return round(top + (height - top - bottom) * (ceiling - value) / (ceiling - floor), 1)

    def x(number: int) -> float:
        return round(left + (_WIDTH - left - right) * (number + 0.5) / len(series), 1)

    drawn = []
    for number in range(round((ceiling - floor) / step) + 1):
        value = floor + number * step
        if value <= ceiling + 1e-9:
            drawn.append(_line(left, y(value), _WIDTH - right, y(value), "grid"))
            drawn.append(_words(left - 5, y(value) + 4, f"{100 * value:.0f} %", "end"))
    if control:
        band = max(1.0, round(y(control.low) - y(control.high), 1))
        drawn.append(_box(left, y(control.high), _WIDTH - left - right, band, "band"))
        drawn.append(_line(left, y(control.value), _WIDTH - right, y(control.value), "control"))
    path = " ".join(f"{x(number)},{y(point.value)}" for number, point in enumerate(series))
    drawn.append(tag("polyline", points=path, class_="line"))
    every_nth = math.ceil(len(series) / 7)
    for number, point in enumerate(series):
        here = x(number)
        drawn.append(_line(here, y(point.low), here, y(point.high), "whisker"))
        drawn += [_line(here - 4, y(end), here + 4, y(end), "whisker") for end in (point.low, point.high)]
        drawn.append(tag("circle", cx=str(here), cy=str(y(point.value)), r="4", class_="dot"))
        if number % every_nth == 0 or number == len(series) - 1:
            drawn.append(_words(here, height - 7, point.label, "middle"))
            aside = here + 7 if number < len(series) - 1 or len(series) == 1 else here - 7
            anchor = "start" if aside > here else "end"
            drawn.append(_words(aside, y(point.value) - 6, f"{100 * point.value:.1f}", anchor, "strong"))
    drawn.append(_words(left - 5, height - 7, "round", "end", "quiet"))
    return _svg(height, label, drawn)


def stacked_bars(bars: Sequence[Bar], label: str) -> Markup:
    """Bars of parts, one below another, all to one scale."""
    longest = max((sum(bar.parts) for bar in bars), default=0) or 1
    drawn = []
    for number, bar in enumerate(bars):
        top = 40 * number
        drawn.append(_words(0, top + 12, bar.label, "start"))
        drawn.append(_words(_WIDTH, top + 12, bar.note, "end", "quiet"))
        at = 0.0
        for colour, part in enumerate(bar.parts):
            wide = _WIDTH * part / longest
            if part:
                drawn.append(_box(round(at, 1), top + 17, round(max(wide, 0.8), 1), 15, f"c{colour % COLOURS}"))
            at += wide
    return _svg(40 * len(bars), label, drawn)


def histogram(counts: Mapping[str, int], label: str) -> Markup:
    """Upright bars with their counts, as many as there are names."""
    height, bottom, top = 150, 20, 16
    highest = max(counts.values(), default=0) or 1
    wide = _WIDTH / max(1, len(counts))
    drawn = [_line(0, height - bottom, _WIDTH, height - bottom, "grid")]
    for number, (name, count) in enumerate(counts.items()):
        tall = round((height - bottom - top) * count / highest, 1)
        middle = round(wide * (number + 0.5), 1)
        if count:
            box = (round(wide * number + wide * 0.12, 1), round(height - bottom - tall, 1), round(wide * 0.76, 1), tall)
            drawn.append(_box(*box, "c0"))
            drawn.append(_words(middle, box[1] - 4, f"{count:,}", "middle", "small"))
        drawn.append(_words(middle, height - 6, name, "middle", "small"))
    return _svg(height, label, drawn)


def timeline(spans: Sequence[Span], label: str) -> Markup:
    """What took time, one below another, on one clock; where nothing was at work for long, the clock is cut.

    A cut is a dashed line; it takes 3 % of the width.
    """
    left, row, right = 118, 18, 48
    cuts, length = _cuts(spans)
    room = _WIDTH - left - right
    start = min((span.begun for span in spans), default=0.0)

    def x(moment: float) -> float:
        lost = sum(after - before - kept for before, after, kept in cuts if moment >= after)
        return left + room * (moment - start - lost) / length

    height = row * len(spans) + 6
    drawn = [_line(round(x(after), 1), 0, round(x(after), 1), height, "control") for _, after, _ in cuts]
    for number, span in enumerate(spans):
        top = row * number
        drawn.append(_words(0, top + 13, span.label, "start", "small"))
        wide = max(1.5, room * span.seconds / length)
        drawn.append(_box(round(x(span.begun), 1), top + 3, round(wide, 1), 12, f"c{span.colour % COLOURS}"))
        drawn.append(_words(_WIDTH, top + 13, duration(span.seconds), "end", "small"))
    return _svg(height, label, drawn)


def legend(names: Sequence[str]) -> Markup:
    """What the colours c0, c1, ... mean."""
    items = (
        tag("li", tag("span", class_=f"swatch c{number % COLOURS}", aria_hidden="true"), name)
        for number, name in enumerate(names)
    )
    return tag("ul", *items, class_="legend")


def figure(title: str, *children: Markup) -> Markup:
    """Plots and the like under a title."""
    return tag("figure", tag("figcaption", title), *children)


def _cuts(spans: Sequence[Span]) -> tuple[list[tuple[float, float, float]], float]:
    """The long pauses as (from, to, seconds of the axis that stand for it), and the length of the axis."""
    busy: list[list[float]] = []
    for span in sorted(spans, key=lambda span: span.begun):
        if busy and span.begun <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], span.begun + span.seconds)
        else:
            busy.append([span.begun, span.begun + span.seconds])
    worked = sum(end - begin for begin, end in busy) or 1.0
    kept = 0.03 * worked
    pauses = [(before[1], after[0]) for before, after in itertools.pairwise(busy)]
    cuts = [(begin, end, kept) for begin, end in pauses if end - begin > 2 * kept]
    whole = (busy[-1][1] - busy[0][0]) if busy else 1.0
    return cuts, max(1e-9, whole - sum(end - begin - kept for begin, end, kept in cuts))


def _svg(height: float, label: str, drawn: Sequence[Markup]) -> Markup:
    return tag("svg", join(drawn), viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=text(label, 2000))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=str(x1), y1=str(y1), x2=str(x2), y2=str(y2), class_=kind)


def _box(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return tag("rect", x=str(x), y=str(y), width=str(width), height=str(height), class_=kind)


def _words(x: float, y: float, words: str, anchor: str, kind: str | None = None) -> Markup:
    shown = words if len(words) <= 44 else f"{words[:43]}…"
    return tag("text", shown, x=str(round(x, 1)), y=str(round(y, 1)), text_anchor=anchor, class_=kind)
