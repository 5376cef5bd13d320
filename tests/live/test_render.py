from __future__ import annotations

import dataclasses
import re

import pytest
from rich.cells import cell_len

from fdd_ray.live.paint import Paint
from fdd_ray.live.render import amount
from fdd_ray.live.view import StageView, View, planned
from fdd_ray.progress import Standing

AT_WORK = Standing("rows", 600, 330, 30, 270, "the teacher engine 2 of 2 is loading", 60.0, 2.0, 4.0)


def _view(standing: Standing | None = AT_WORK, **changes: object) -> View:
    """In the middle of round 1 of 8; the base was scored by another process."""
    stages = []
    for stage in planned(8):
        match stage.round, stage.stage:
            case None, _:
                stage = dataclasses.replace(
                    stage, state="skipped", seconds=6.0, note="1,319 problems", scores={"gsm8k": 0.1236}
                )
            case 0, "rationales":
                stage = dataclasses.replace(stage, state="done", seconds=125.0, kept=380, rows=400)
            case 0, "score":
                stage = dataclasses.replace(stage, state="done", seconds=40.0, scores={"gsm8k": 0.45, "svamp": 0.6})
            case 0, _:
                stage = dataclasses.replace(stage, state="done", seconds=5.0)
            case 1, "split":
                stage = dataclasses.replace(stage, state="done", seconds=1.0, note="120 easy, 280 hard")
            case 1, "synthesise":
                stage = dataclasses.replace(stage, state="working", seconds=61.0, standing=standing)
        stages.append(stage)
    known = View(
        "tiny", "/runs/tiny", seconds=250.0, stages=tuple(stages), money=1.5, quiet_s=2.0, longest_s=4.0,
        tokens={"student": (20_000, 300), "teacher": (1_200_000, 34_000)},
    )  # fmt: skip
    return dataclasses.replace(known, **changes)  # type: ignore[arg-type]


def _lines(view: View, width: int = 80, height: int | None = None, encoding: str = "utf-8") -> list[str]:
    """What a terminal shows without its styles, which `rich` puts at the ends of pieces only."""
    return Paint(encoding, colour=False).lines(view, width, height)


def _plain(view: View, width: int = 80, height: int | None = None, encoding: str = "utf-8") -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in _lines(view, width, height, encoding)]


def test_what_a_person_sees_in_the_middle_of_a_run() -> None:
    assert _plain(_view()) == [
        "tiny  at work for 4m10s",
        "/runs/tiny",
        "✓ base score        6s  1,319 problems (done before)",
        "✓ round 0        2m55s  95 % kept",
        "▶ round 1",
        "  ✓ split           1s  120 easy, 280 hard",
        "  ▶ synthesise   1m01s  330/600 rows, 5.0/s, 54s left",
        "    ━━━━━━━━━━━━━━━━━━━━━━──────────────────   55 %  90 % kept",
        "    the teacher engine 2 of 2 is loading",
        "  · curate",
        "  · finetune",
        "  · score",
        "· rounds 2 to 8",
        "accuracy %     base  round 0",
        "gsm8k          12.4     45.0",
        "svamp                   60.0",
        "tokens: teacher 1.2M, student 20.3k; money 1.50",
        "last finished 2s ago",
    ]
    assert _plain(_view(), 100)[-2] == (
        "tokens: teacher 1.2M (1.2M in, 34.0k out), student 20.3k (20.0k in, 300 out); money 1.50"
    )


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 132, 400])
@pytest.mark.parametrize("height", [3, 6, 10, 24, 50, None])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_fits_every_window(width: int, height: int | None, encoding: str) -> None:
    lines = _plain(_view(name="n" * 30, directory="/数据/" + "é" * 300), width, height, encoding)
    assert max(cell_len(line) for line in lines) < width
    assert height is None or len(lines) < height
    "\n".join(lines).encode(encoding)
    shown = "\n".join(lines)
    assert "round 1" in shown or height == 3
    if width >= 60 and height != 3:
        assert "synthesise" in shown and "330/600 rows, 5.0/s, 54s left" in shown


def test_a_narrow_window_has_the_totals_and_the_end_of_the_path() -> None:
    lines = _plain(_view(directory="/a/very/long/way/down/to/the/folder/of/all/the/runs/that/there/are/tiny"), 60)
    assert lines[1].startswith("…") and lines[1].endswith("/runs/that/there/are/tiny") and len(lines[1]) == 59
    assert "tokens: teacher 1.2M, student 20.3k; money 1.50" in lines


def test_a_low_window_tells_finished_rounds_in_one_line_and_then_the_work_alone() -> None:
    stages = tuple(
        dataclasses.replace(stage, state="done", seconds=60.0)
        if (stage.round or 0) < 5
        else dataclasses.replace(stage, state="working", standing=AT_WORK)
        if (stage.round, stage.stage) == (5, "split")
        else stage
        for stage in planned(8)
    )
    view = _view(stages=stages)
    assert len(_plain(view)) == 19
    lines = _plain(view, height=19)
    assert lines[2:5] == ["✓ base to round 3  20m00s", "✓ round 4        5m00s", "▶ round 5"]
    assert lines[-3] == "· rounds 6 to 8"
    assert _plain(_view(), height=13)[-5:-2] == [
        "accuracy %     base  round 0", "gsm8k          12.4     45.0", "svamp                   60.0",
    ]  # fmt: skip
    assert not any("accuracy" in line for line in _plain(_view(), height=9))
    lines = _plain(view, height=10)
    assert lines[2].startswith("▶ round 5 split") and "330/600" in lines[2] and lines[-1] == "last finished 2s ago"


def test_a_long_silence_is_called_unusual_only_against_what_was_usual() -> None:
    usual, unusual = _view(quiet_s=29.0), _view(quiet_s=31.0)
    assert _plain(usual)[-1] == "last finished 29s ago"
    assert _plain(unusual)[-1] == "nothing finished for 31s: unusual, before it never took over 4s here"
    assert _plain(_view(quiet_s=31.0, longest_s=20.0))[-1] == "last finished 31s ago"
    assert _plain(_view(quiet_s=500.0, longest_s=None))[-1] == "last finished 8m20s ago"


def test_no_colour_where_none_is_wanted() -> None:
    coloured = "".join(Paint("utf-8", colour=True).lines(_view(quiet_s=99.0), 80, 24))
    plain = "".join(Paint("utf-8", colour=False).lines(_view(quiet_s=99.0), 80, 24))
    codes = [f"\x1b[{code}m" for code in range(30, 38)]
    assert any(code in coloured for code in codes)
    assert not any(code in plain for code in codes) and "\x1b[3" not in plain and "\x1b[9" not in plain


HOSTILE = "[red]x[/red][/] \x1b[2J\x1b]0;t\x07\x1b[31m\u202e\r\n\x9b1A[link=file:///etc]"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_comes_from_elsewhere_is_neither_obeyed_nor_read_as_markup(encoding: str) -> None:
    standing = dataclasses.replace(AT_WORK, detail=HOSTILE, unit=HOSTILE)
    view = _view(standing, name=HOSTILE, directory=HOSTILE, tokens={HOSTILE: (1, 2)})
    stages = [dataclasses.replace(s, note=HOSTILE, scores={HOSTILE: 0.5} if s.scores else {}) for s in view.stages]
    stages.append(StageView(HOSTILE, 9, "stopped", 1.0, HOSTILE))
    calm = len(_lines(_view(), 1000, None, encoding))
    lines = _lines(dataclasses.replace(view, stages=tuple(stages)), 1000, None, encoding)
    text = "\n".join(lines)
    assert len(lines) == calm + 1  # a stage more and its round, and one benchmark less
    assert "[red]x[/red][/]" in text and "[link=file:///etc]" in text
    for found in ("\x1b[2J", "\x1b]", "\x07", "\u202e", "\r", "\x9b", "\x1b[31mx"):
        assert found not in text.replace("\x1b[31m✗", "")
    for line in _plain(dataclasses.replace(view, stages=tuple(stages)), 1000, None, encoding):
        assert line.isprintable()


def test_rates_and_what_is_left_are_of_this_process_only() -> None:
    resumed = dataclasses.replace(AT_WORK, total=1000, done=900, resumed=890, seconds=10.0, kept=5)
    text = "\n".join(_plain(_view(resumed)))
    assert "900/1000 rows, 1.0/s, 1m40s left" in text and "90 %  50 % kept" in text
    slow = dataclasses.replace(resumed, seconds=1000.0)
    assert "900/1000 rows, 0.6/min, 2h46m left" in "\n".join(_plain(_view(slow)))


def test_how_a_run_ended() -> None:
    stages = tuple(
        dataclasses.replace(stage, state="stopped") if stage.state == "working" else stage for stage in _view().stages
    )
    lines = _plain(_view(stages=stages, state="failed", quiet_s=None))
    assert lines[0] == "tiny  failed after 4m10s"
    assert "✗ round 1" in lines and "  ✗ synthesise   1m01s  unfinished, 330/600 rows" in lines
    assert not any("left" in line or "last finished" in line for line in lines)


def test_amounts() -> None:
    assert [amount(n) for n in (0, 9999, 12_345, 4.5e6, 2e9)] == ["0", "9999", "12.3k", "4.5M", "2.0G"]


def test_a_view_grows_older() -> None:
    later = _view().later(5.0)
    assert (later.seconds, later.quiet_s) == (255.0, 7.0)
    assert [stage.seconds for stage in later.stages if stage.state == "working"] == [66.0]
    assert later.stages[0].seconds == 6.0
