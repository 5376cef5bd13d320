"""The page of a run: everything in one file, for a browser without a network.

    html = render("s3://bucket/runs/gsm8k")
    write_page("runs/tiny", "tiny.html")

The page carries a policy that lets a browser load nothing and run nothing but its own style and script, which the
policy names by their hashes: should anything hostile get through the escaping, it still does nothing.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from fdd_ray.errors import StoreError
from fdd_ray.report.html import evidence, scores, work
from fdd_ray.report.html.examples import examples
from fdd_ray.report.html.markup import Markup, join, tag, text
from fdd_ray.report.html.samples import Samples, draw
from fdd_ray.report.scores import differences
from fdd_ray.report.status import driver_line, read_status
from fdd_ray.store import files
from fdd_ray.store.ledger import read_ledger
from fdd_ray.store.manifest import EXPERIMENT, Found, find_stages

_MARK = "fdd-ray report"
_START = f'<!doctype html>\n<html lang="en" data-made-by="{_MARK}">'


def write_page(directory: str, path: str) -> None:
    """Write the page of the run at ``directory`` to ``path``, both local or URLs; a former page is replaced.

    Raises:
        StoreError: If there is no run, its files were changed, or another kind of file is at ``path``.
    """
    former = files.read_bytes(path)
    if former is not None and not former.startswith(_START.encode()):
        raise StoreError(f"{path} is no report that fdd-ray wrote, and is left alone; name another file with --html")
    files.write_bytes(path, render(directory).encode())


def render(directory: str, now: float | None = None) -> str:
    """The page of a run that is live, dead or finished, local or on an object store.

    Raises:
        StoreError: If there is no run, or its files were changed.
    """
    directory = files.absolute(directory)
    status = read_status(directory)
    found, events = find_stages(directory), read_ledger(directory)
    experiment = (files.read_bytes(files.join(directory, EXPERIMENT)) or b"").decode("utf-8", "replace")
    plain = {"directory": directory, **_settings(experiment)}
    compared = list(differences(status))
    done = work.finished(found)
    seed = plain.get("seed", 0)
    samples = draw(found, seed if isinstance(seed, int) else 0)
    sections = [
        ("Accuracy by round", scores.accuracy(status)),
        ("Differences between rounds", scores.differences_section(compared)),
        ("By steps and by majority", scores.by_steps(status)),
        ("The pool", work.pool(done)),
        ("From asked to kept", work.flow(status)),
        ("Tokens, money and time", work.cost(found, status)),
        ("Copies and benchmark problems kept out", evidence.copies(done, status, samples.evidence)),
        ("Examples", _examples(samples)),
        ("What the run was made with", evidence.made_with(done, events, experiment, plain)),
    ]
    name = str(plain.get("name") or directory.rsplit("/", 1)[-1])
    now = time.time() if now is None else now
    head = [
        tag("h1", text(name, 120)),
        scores.result(status, compared),
        tag("p", f"{_state(status)}. {_when(found)}", class_="quiet"),
        tag("p", f"When this page was written, {_utc(now)}: ", text(driver_line(status, now), 400), class_="quiet"),
    ]
    return _whole(name, head, sections)


def _whole(name: str, head: Sequence[Markup], sections: Sequence[tuple[str, Sequence[Markup]]]) -> str:
    style, script = (_file(file) for file in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none';"
        " form-action 'none'"
    )
    links = (tag("li", tag("a", title, href=f"#s{number}")) for number, (title, _) in enumerate(sections))
    shown = (
        tag("section", tag("h2", title, id=f"s{number}"), *parts, aria_labelledby=f"s{number}")
        for number, (title, parts) in enumerate(sections)
    )
    policy_tag = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    lines = [
        _START,
        "<head>",
        '<meta charset="utf-8">',
        policy_tag,
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", text(name, 120), ": fdd-ray report"),
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        tag("a", "to the results", href="#main", class_="skip"),
        tag("header", *head, tag("nav", tag("ul", *links), aria_label="sections")),
        tag("main", join(shown), id="main"),
        f"<script>{script}</script>",
        "</body>",
        "</html>\n",
    ]
    return "\n".join(lines)


def _examples(samples: Samples) -> list[Markup]:
    shown = examples(samples)
    if not shown:
        return [tag("p", "No stage with examples is done yet.")]
    rows, total = samples.looked
    note = (
        f"A sample by the seed of the run: outcomes are drawn in turn so that rare ones are seen, so shares must be"
        f" read from the counts above. New problems are drawn from {rows:,} of {total:,} judged rows. Long texts are"
        " cut; characters that are not printable are shown as ⟨U+202E⟩."
    )
    return [tag("p", note, class_="quiet"), tag("div", id="filters", hidden=""), *shown]


def _state(status: Mapping[str, Any]) -> str:
    driver = status["driver"]
    if driver["alive"]:
        return "At work"
    ended = driver["ended"]
    return "Not finished" if ended is None else str(text(str(ended["reason"]).capitalize(), 40))


def _when(found: Sequence[Found]) -> str:
    begun = [item.begun for item in found if item.begun]
    if not begun:
        return "No stage was begun."
    ends = [item.begun + item.manifest.seconds for item in found if item.begun and item.manifest]
    last = f"; the last finished stage ended {_utc(max(ends))}" if ends else ""
    return f"The first stage was begun {_utc(min(begun))}{last}."


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def _settings(experiment: str) -> dict[str, Any]:
    """The experiment as plain values; nothing of one that cannot be read, whose text is shown all the same."""
    import yaml

    try:
        plain = yaml.safe_load(experiment)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _file(name: str) -> str:
    """A file of this package; it goes into the page as it is, so no tag may end in it."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
