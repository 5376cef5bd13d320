"""A `View` as text for a terminal, without a terminal: a pure function of the view and the room there is.

    Console().print(render(view, width=80, height=24))

    tiny  at work for 4m10s
    /runs/tiny
    ✓ base score        6s  1,319 problems
    ▶ round 0
      ✓ problems        1s  300 of 310 kept
      ▶ rationales     45s  120/300 rows, 2.7/s, 1m07s left
        ━━━━━━━━━━━━━━━━────────────────────────   40 %  91 % kept
      · finetune
      · score
    · rounds 1 to 3
    accuracy %     base
    gsm8k          12.4
    tokens: teacher 1.2M (1.0M in, 200.0k out)
    last finished 2s ago

Whatever is shown goes through `fdd_ray.nodes.printable` and is never read as markup: names, folders and details
come from files and other processes. Where there are more lines than room, finished rounds are told in one line,
then of all stages only the one at work is shown, then accuracy is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from fdd_ray.live.view import DONE, RunState, StageView, View
from fdd_ray.nodes import printable
from fdd_ray.progress import Standing, duration

# Wider lines are harder to read, and shorter ones survive a window that is made narrower.
MOST_COLUMNS: Final = 100
_MARKS: Final = {
    "done": ("✓", "+", "green"),
    "skipped": ("✓", "+", "dim"),
    "copied": ("✓", "+", "dim"),
    "working": ("▶", ">", "cyan"),
    "stopped": ("✗", "x", "red"),
    "to come": ("·", ".", "dim"),
}
_STATES: Final[dict[RunState, tuple[str, str]]] = {
    "at work": ("at work for", "cyan"),
    "finished": ("finished after", "green"),
    "failed": ("failed after", "red"),
    "interrupted": ("interrupted after", "yellow"),
    "killed": ("was killed after", "red"),
}
_ROLES: Final = ("teacher", "student")
_Piece = tuple[str, str]
_Round = tuple[int | None, list[StageView]]


def render(view: View, width: int, height: int | None = None, *, ascii_only: bool = False) -> Group:
    """The view in lines that fit.

    Args:
        view: What to show.
        width: Columns of the terminal.
        height: Most lines; None for as many as there are.
        ascii_only: Use no other characters.
    """
    artist = _Artist(min(width, MOST_COLUMNS), ascii_only)
    head, scores, foot = artist.head(view), artist.scores(view.stages), artist.foot(view)
    rounds = [
        (number, list(stages)) for number, stages in itertools.groupby(view.stages, key=lambda stage: stage.round)
    ]
    body = artist.rounds(rounds)
    if height is not None:
        room = height - len(head) - len(foot)
        for shorter in (artist.rounds_in_short, artist.work_only):
            if len(body) + len(scores) > room:
                body = shorter(rounds)
        for part, least in ((scores, 0), (head, 1), (foot, 1)):
            if len(head) + len(body) + len(scores) + len(foot) > height:
                del part[least:]
    return Group(*[*head, *body, *scores, *foot][:height])


def amount(number: float) -> str:
    """A count in few characters: ``950``, ``12.3k``, ``4.5M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{number:.0f}"


class _Artist:
    def __init__(self, width: int, ascii_only: bool) -> None:
        self._width = width
        self._ascii = ascii_only

    # -- above and below the table ----------------------------------------------------------------

    def head(self, view: View) -> list[Text]:
        word, style = _STATES[view.state]
        title = self._line((view.name, "bold"), ("  ", ""), (f"{word} {duration(view.seconds)}", style))
        return [title, self._line((self._tail(view.directory), "dim"))]

    def foot(self, view: View) -> list[Text]:
        lines = []
        names = [*(role for role in _ROLES if role in view.tokens), *sorted(set(view.tokens) - {*_ROLES})]
        used = [(name, *view.tokens[name]) for name in names if any(view.tokens[name])]
        told = [
            f"{name} {amount(prompt + completion)} ({amount(prompt)} in, {amount(completion)} out)"
            for name, prompt, completion in used
        ]
        money = f"money {view.money:,.2f}" if view.money else ""
        text = _costs(told, money)
        if cell_len(text) > self._width:
            text = _costs([f"{name} {amount(prompt + completion)}" for name, prompt, completion in used], money)
        if text:
            lines.append(self._line((text, "")))
        if view.quiet_s is not None:
            lines.append(self._heartbeat(view, view.quiet_s))
        return lines

    def _heartbeat(self, view: View, quiet: float) -> Text:
        if not view.unusual or view.longest_s is None:
            return self._line((f"last finished {duration(quiet)} ago", "dim"))
        longest = duration(view.longest_s)
        return self._line(
            (f"nothing finished for {duration(quiet)}: unusual, before it never took over {longest} here", "yellow")
        )

    # -- the table --------------------------------------------------------------------------------

    def rounds(self, rounds: Sequence[_Round]) -> list[Text]:
        """Every round in a line, those that are not done or to come with their stages."""
        return [
            line
            for state, found in itertools.groupby(rounds, key=lambda item: _state(item[1]))
            for line in self._alike(state, list(found))
        ]

    def rounds_in_short(self, rounds: Sequence[_Round]) -> list[Text]:
        """Like `rounds`, with one line for all finished rounds but the last."""
        done = [item for item in rounds if _state(item[1]) == "done"]
        if len(done) < 3:
            return self.rounds(rounds)
        first, last = _name(done[0][0]), _name(done[-2][0])
        seconds = sum(stage.seconds or 0.0 for _, stages in done[:-1] for stage in stages)
        line = self._line(self._mark("done"), (f"{first} to {last}  {duration(seconds)}", ""))
        return [line, *self.rounds([item for item in rounds if item not in done[:-1]])]

    def work_only(self, rounds: Sequence[_Round]) -> list[Text]:
        """The stages at work or stopped, and nothing else."""
        return [
            line
            for number, stages in rounds
            for stage in stages
            if stage.state in ("working", "stopped")
            for line in self._stage(stage, f"{_name(number)} {stage.stage}", "")
        ]

    def _alike(self, state: str, rounds: list[_Round]) -> list[Text]:
        if state == "done":
            return [line for number, stages in rounds for line in self._done_round(number, stages)]
        if state == "to come":
            first, last = rounds[0][0], rounds[-1][0]
            name = _name(first) if len(rounds) == 1 or first is None else f"rounds {first} to {last}"
            return [self._line(self._mark("to come"), (name, "dim"))]
        lines = []
        for number, stages in rounds:
            stopped = any(stage.state == "stopped" for stage in stages)
            lines.append(self._line(self._mark("stopped" if stopped else "working"), (_name(number), "bold")))
            lines += [line for stage in stages for line in self._stage(stage, f"{stage.stage:<10}", "  ")]
        return lines

    def _done_round(self, number: int | None, stages: list[StageView]) -> list[Text]:
        if len(stages) == 1:
            return self._stage(stages[0], f"{_name(number)} {stages[0].stage}".ljust(12), "")
        skipped = all(stage.state != "done" for stage in stages)
        seconds = sum(stage.seconds or 0.0 for stage in stages)
        made = {stage.stage: stage for stage in stages}
        source = made.get("curate" if number else "rationales")
        kept = f"{_percent(source.kept / source.rows)} kept" if source is not None and source.rows else ""
        line = self._line(
            self._mark("skipped" if skipped else "done"),
            (f"{_name(number):<12}  {duration(seconds):>6}  {kept}", ""),
            (" (done before)" if skipped else "", "dim"),
        )
        return [line]

    def _stage(self, stage: StageView, name: str, indent: str) -> list[Text]:
        mark, seconds = self._mark(stage.state), duration(stage.seconds) if stage.seconds is not None else ""
        if stage.state == "to come":
            return [self._line((indent, ""), mark, (name, "dim"))]
        begin: list[_Piece] = [(indent, ""), mark, (f"{name}  {seconds:>6}  ", "")]
        if stage.state in DONE:
            how = {"skipped": " (done before)", "copied": " (copied)"}.get(stage.state, "")
            return [self._line(*begin, (stage.note, ""), (how, "dim"))]
        now, lines = stage.standing, []
        if stage.state == "stopped":
            how_far = stage.note if now is None or now.seconds is None else _share(now)
            return [self._line(*begin, ("unfinished", "red"), (f", {how_far}" if how_far else "", ""))]
        if now is None:
            return [self._line(*begin, (stage.note or "at work", ""))]
        if now.seconds is None:
            lines.append(self._line(*begin, ("starting", "")))
        else:
            lines.append(self._line(*begin, (", ".join(_numbers(now)), "")))
        if now.seconds is not None and now.total:
            lines.append(self._bar(now, f"{indent}  "))
        if now.detail:
            lines.append(self._line((f"{indent}  ", ""), (now.detail, "dim")))
        return lines

    def _bar(self, now: Standing, indent: str) -> Text:
        share = min(1.0, now.done / now.total)
        fresh = now.done - now.resumed
        kept = f"  {_percent(min(1.0, now.kept / fresh))} kept" if now.kept is not None and fresh > 0 else ""
        after = f"  {_percent(share):>5}{kept}"
        cells = max(0, min(40, self._width - len(indent) - len(after)))
        full = round(cells * share)
        line, rest = ("#", "-") if self._ascii else ("━", "─")
        return self._line((indent, ""), (line * full, "cyan"), (rest * (cells - full), "dim"), (after, ""))

    # -- accuracy by round ------------------------------------------------------------------------

    def scores(self, stages: Sequence[StageView]) -> list[Text]:
        """A row for each benchmark with a column for each student; the last ones, if there is not room for all."""
        scored = [stage for stage in stages if stage.scores]
        names = sorted({name for stage in scored for name in stage.scores})
        if not names:
            return []
        first = max(10, min(max(len(name) for name in names), 24))
        shown = scored[-max(1, (self._width - first) // 9) :]
        heads = ["base" if stage.round is None else f"round {stage.round}"[-8:] for stage in shown]
        rows = [("accuracy %", heads)]
        for name in names:
            values = [stage.scores.get(name) for stage in shown]
            rows.append((name, ["" if value is None else f"{100 * value:.1f}" for value in values]))
        return [
            self._line((printable(name)[:first].ljust(first), "bold" if cells is heads else ""),
                       ("".join(f" {cell:>8}" for cell in cells), "bold" if cells is heads else ""))
            for name, cells in rows
        ]  # fmt: skip

    # -- pieces -----------------------------------------------------------------------------------

    def _mark(self, state: str) -> _Piece:
        wide, plain, style = _MARKS[state]
        return (f"{plain if self._ascii else wide} ", style)

    def _tail(self, path: str) -> str:
        """The end of a path that is too long: it says more than the beginning."""
        path = printable(path)
        dots = "..." if self._ascii else "…"
        if cell_len(path) <= self._width:
            return path
        while cell_len(path) > self._width - len(dots):
            path = path[1:]
        return dots + path

    def _line(self, *pieces: _Piece) -> Text:
        """One line of exactly these pieces, cut where the room ends."""
        text = Text(no_wrap=True, overflow="crop" if self._ascii else "ellipsis", end="\n")
        for piece, style in pieces:
            shown = printable(piece)
            text.append(shown.encode("ascii", "backslashreplace").decode() if self._ascii else shown, style or None)
        text.truncate(self._width, overflow="crop" if self._ascii else "ellipsis")
        return text


def _state(stages: Sequence[StageView]) -> str:
    states = {stage.state for stage in stages}
    if states <= {*DONE}:
        return "done"
    return "to come" if states == {"to come"} else "begun"


def _name(round: int | None) -> str:
    return "base" if round is None else f"round {round}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _share(now: Standing) -> str:
    return f"{now.done}/{now.total} {now.unit}" if now.total else f"{now.done} {now.unit}"


def _numbers(now: Standing) -> list[str]:
    rate = now.rate
    parts = [_share(now), f"{60 * rate:.1f}/min" if 0 < rate < 0.1 else f"{rate:.1f}/s"]
    if now.left_s is not None:
        parts.append(f"{duration(now.left_s)} left")
    return parts


def _costs(told: Sequence[str], money: str) -> str:
    tokens = f"tokens: {', '.join(told)}" if told else ""
    return "; ".join(text for text in (tokens, money) if text)
