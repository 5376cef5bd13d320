"""The page in a real browser: nothing hostile runs, nothing is fetched, all of it can be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdd_ray.report.html.page import write_page
from tests.report.browser import NAMES, Seen, find_browser, visit
from tests.report.hostile_run import HOSTILE, hostile_run

pytestmark = [
    pytest.mark.skipif(
        find_browser() is None,
        reason=f"NOT TESTED in a browser: none of {', '.join(NAMES)} is installed; apt-get install chromium",
    ),
    pytest.mark.slow,
]
ELEMENTS = "[...new Set([...document.querySelectorAll('*')].map(e => e.localName))].sort().join(' ')"
HANDLERS = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
SHOWN = "[...document.querySelectorAll('article.example')].filter(e => e.offsetHeight > 0).length"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
OURS = (
    "html head meta title style body a header h1 h2 h3 h4 ul li strong p nav main section div figure figcaption svg"
    " rect line polyline circle text details summary table thead tbody tr th td article span bdi pre dl dt dd script"
    " label select option"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_page(hostile_run(folder / "run"), str(folder / "page.html"))
    return folder / "page.html"


def _assert_quiet(seen: Seen, page: Path) -> None:
    assert (seen.dialogs, seen.console, seen.requests) == ([], [], [page.resolve().as_uri()])


async def test_nothing_that_is_hostile_becomes_part_of_the_page(page: Path) -> None:
    scripts = "document.querySelectorAll('script, style').length"
    texts = "document.body.textContent"
    seen = await visit(page, ELEMENTS, HANDLERS, scripts, "document.title", texts)
    _assert_quiet(seen, page)
    elements, handlers, ours, title, body = seen.answers
    assert set(elements.split()) <= set(OURS.split())
    assert (handlers, ours) == ([], 2)
    assert title.startswith("</title><script>alert('name')</script>")
    assert all(told in body for told in (*HOSTILE[:5], HOSTILE[9]))
    assert not set(body) & set("\u202e\u2066\x00\x1b\u200b\ufeff")
    assert "⟨U+202E⟩" in body and "⟨U+0000⟩" in body and "⟨U+D800⟩" in body


async def test_a_page_that_was_tampered_with_runs_nothing_by_its_policy(page: Path, tmp_path: Path) -> None:
    bad = tmp_path / "tampered.html"
    evil = (
        "<script>alert(1)</script><img src='http://attacker.invalid/' onerror='alert(2)'><svg onload='alert(3)'></svg>"
    )
    bad.write_text(page.read_text().replace("</main>", f"{evil}</main>"))
    seen = await visit(bad)
    assert seen.dialogs == []
    assert sum("Content Security Policy" in line for line in seen.console) >= 4


@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_nothing_is_wider_than_the_screen(page: Path, width: int) -> None:
    open_all = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
    seen = await visit(page, open_all, WIDER, width=width)
    _assert_quiet(seen, page)
    assert seen.answers[1] == 0


async def test_examples_are_filtered_with_script_and_all_there_without(page: Path) -> None:
    choose = """(() => {
        const select = [...document.querySelectorAll('#filters select')][1];
        select.value = 'rejected';
        select.dispatchEvent(new Event('change'));
        return document.querySelector('#filters p').textContent;
    })()"""
    marked = "document.querySelectorAll('article[data-outcome=rejected]').length"
    seen = await visit(page, SHOWN, choose, SHOWN, marked)
    _assert_quiet(seen, page)
    all_of_them, said, after, rejected = seen.answers
    assert said == f"{rejected} of {all_of_them} examples shown"
    assert 0 < after == rejected < all_of_them
    bare = await visit(page, SHOWN, "document.getElementById('filters').hidden", script=False)
    assert bare.answers == [all_of_them, True]


async def test_light_and_dark_both_can_be_read(page: Path) -> None:
    """Words on their ground have a contrast of 4.5 : 1 at the least, as WCAG asks for."""
    colours = """['body', '.quiet', 'a', 'th', '.mark', '.mark.good', 'summary', 'svg text'].map(name => {
        const style = getComputedStyle(document.querySelector(name));
        let ground = document.querySelector(name);
        while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
        return [name, name.startsWith('svg') ? style.fill : style.color, getComputedStyle(ground).backgroundColor];
    })"""
    grounds = set()
    for dark in (False, True):
        seen = await visit(page, colours, dark=dark)
        for name, ink, ground in seen.answers[0]:
            assert _contrast(ink, ground) >= 4.5, (name, ink, ground, dark)
        grounds.add(seen.answers[0][0][2])
    assert len(grounds) == 2


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
