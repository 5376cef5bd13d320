"""The sections on what was kept out of the pool as a copy, and on what the run was made with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fdd_ray.records import Curated, Rejection
from fdd_ray.report.html.markup import Child, Markup, folded, table, tag, text
from fdd_ray.report.html.reading import first_rows
from fdd_ray.report.html.work import Done
from fdd_ray.store import files

_ROWS = 10
_EXPERIMENT = 200_000  # characters
_LEAK = "in_benchmark"
_COPIES = ["exact_duplicate", "duplicate", "near_duplicate", "template_cap", "copy_of_parent", "same_steps"]
_COPIES += ["same_content", "repeats_rationale"]


def copies(done: Done, status: Mapping[str, Any], evidence: Sequence[Curated]) -> list[Markup]:
    """What was rejected as a benchmark problem or as a copy: counts by round, and some of the rows."""
    rows: list[list[Child]] = [["", "rows judged", "like a benchmark", "of it", "copies", "of it"]]
    for entry in status["rounds"]:
        counted = [("rows of the pool's files", {**entry["pool_read"]})] if entry["pool_read"] else []
        if entry["asked"] is not None:
            counted.append((f"round {entry['round']}", {**entry, "rows": entry["asked"]}))
        for name, account in counted:
            leaks = Counter({r: n for r, n in account["rejected"].items() if r.startswith(_LEAK)})
            alike = Counter({r: n for r, n in account["rejected"].items() if r in _COPIES})
            both = [cell for found in (leaks, alike) for cell in (f"{sum(found.values()):,}", _reasons(found))]
            rows.append([name, f"{account['rows']:,}", *both])
    if len(rows) == 1:
        return [tag("p", "Nothing has been judged yet.")]
    parts = [table(rows, "benchmark problems and copies among what was judged")]
    if evidence:
        head: list[Child] = ["round", "reason", "new problem", "too much like", "measure", "shared words"]
        shown: list[list[Child]] = [
            [row.round, text(row.reason, 80), text(row.question, 240), text(row.evidence, 80), f"{row.similarity:.3g}",
             text(row.span, 160)]
            for row in evidence
        ]  # fmt: skip
        note = f"{len(evidence)} of the rejected rows, of each reason in turn"
        parts.append(folded(note, table([head, *shown], "rejected rows with what they are too much like")))
    return parts + _unreadable(done)


def _unreadable(done: Done) -> list[Markup]:
    """The first rows of the input files that were no usable problems."""
    read = done.get(("problems", 0))
    if read is None:
        return []
    shown: list[list[Child]] = []
    for name in sorted(name for name in read.files if name.endswith("rejections.parquet")):
        for row in first_rows(files.join(read.path, name), Rejection, _ROWS):
            shown.append([text(row.file, 120), row.line, text(row.reason, 80), text(row.detail, 240)])
    if not shown:
        return []
    head: list[Child] = ["file", "line", "reason", "detail"]
    note = f"rows of input files that were not used (up to {_ROWS} of each)"
    return [folded(note, table([head, *shown], note))]


def _reasons(found: Counter[str]) -> Markup:
    return text(", ".join(f"{n} {reason}" for reason, n in found.most_common()), 300)


def made_with(
    done: Done, events: Sequence[Mapping[str, Any]], experiment: str, plain: Mapping[str, Any]
) -> list[Markup]:
    """Versions, seed, models, drivers, and the resolved experiment."""
    begun = [event for event in events if event["event"] in ("run started", "run resumed")]
    facts: list[tuple[str, str]] = [("directory", str(plain["directory"]))]
    facts.append(("fdd_ray", ", ".join(sorted({str(event.get("version", "?")) for event in begun})) or "not noted"))
    for key in ("seed", "kind", "rounds", "prompts"):
        if key in plain:
            facts.append((key, str(plain[key])))
    for role in ("teacher", "student"):
        settings = plain.get(role)
        if isinstance(settings, Mapping):
            words = [f"{settings.get('model')}", f"engine {settings.get('engine')}", f"dtype {settings.get('dtype')}"]
            words += [f"revision {settings['revision']}"] if settings.get("revision") else []
            facts.append((role, ", ".join(words)))
    policies = {
        str(m.summary["policy"]) for (stage, _), m in done.items() if stage == "split" and "policy" in m.summary
    }
    facts += [("policy", ", ".join(sorted(policies)))] if policies else []
    forked = {m.forked_from for m in done.values() if m.forked_from}
    facts += [("forked from", ", ".join(sorted(forked)))] if forked else []
    listed = [item for name, value in facts for item in (tag("dt", name), tag("dd", text(value, 300)))]
    drivers: list[list[Child]] = [["when (UTC)", "what", "host", "how it ended"]]
    for event in events:
        if event["event"] in ("run started", "run resumed", "run ended"):
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event["time"]))
            how = " ".join(str(event[key]) for key in ("reason", "error") if event.get(key))
            drivers.append([tag("span", when), event["event"], text(str(event.get("host", "")), 80), text(how, 300)])
    settings_block = tag("pre", text(experiment, _EXPERIMENT), tabindex=0)
    return [
        tag("dl", *listed),
        folded("the resolved experiment", settings_block),
        folded("the drivers of the run", table(drivers, "drivers")),
    ]
