"""The sections on what was made and what it cost: the pool, the flow of new problems, tokens, money and time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fdd_ray.progress import duration
from fdd_ray.report.html.markup import Child, Markup, folded, join, table, tag, text
from fdd_ray.report.html.plots import COLOURS, Bar, Span, figure, histogram, legend, stacked_bars, timeline
from fdd_ray.report.html.reading import count_values
from fdd_ray.report.status import STAGES
from fdd_ray.store.manifest import Found, Manifest
from fdd_ray.store.spent import stage_tokens

_BINS = 10
Done = Mapping[tuple[str, int | None], Manifest]


def finished(found: Sequence[Found]) -> Done:
    """The manifests of the stages that are done, by stage and round."""
    return {(item.stage, item.round): item.manifest for item in found if item.manifest is not None}


def pool(done: Done) -> list[Markup]:
    """The pool by origin, by difficulty, and how often its problems were solved."""
    parts = [_stacked("The pool by origin", _origins(done), "problems")]
    splits = sorted((number, item) for (stage, number), item in done.items() if stage == "split" and number is not None)
    sizes = [
        (f"round {number - 1}", Counter(easy=int(s.summary.get("easy", 0)), hard=int(s.summary.get("hard", 0))))
        for number, s in splits
    ]
    parts.append(_stacked("The pool by difficulty, as the student of that round found it", sizes, "problems"))
    trained = sorted(
        (number, Counter({str(origin): int(n) for origin, n in item.summary.get("origins", {}).items()}))
        for (stage, number), item in done.items()
        if stage == "finetune" and number is not None
    )
    parts.append(_stacked("The distillation set by origin", [(f"round {n}", found) for n, found in trained], "pairs"))
    for number, split in splits:
        counts = count_values(split.outputs, "pass_rate")
        if any(0 < rate < 1 for rate in counts):
            parts.append(_pass_rates(number - 1, counts))
    drawn = [part for part in parts if part]
    return [tag("div", *drawn, class_="figures")] if drawn else [tag("p", "The pool was not read yet.")]


def _origins(done: Done) -> list[tuple[str, Counter[str]]]:
    """The pool after each round by origin: what was accepted stays."""
    read = done.get(("problems", 0))
    if read is None:
        return []
    seeds = read.summary.get("sizes", {}).get("pool", read.counts.kept)
    rows = [("round 0", Counter(seed=int(seeds)))]
    number = 1
    while ("curate", number) in done:
        kept = done["curate", number].summary.get("kept", {})
        new = {origin: int(n) for origin, n in kept.items() if origin != "seed"}  # those are rationales, no problems
        rows.append((f"round {number}", rows[-1][1] + Counter(new)))
        number += 1
    return rows


def _pass_rates(number: int, counts: Counter[float]) -> Markup:
    """How many pool problems have which share of right attempts; all and none stand alone."""
    names = ["0", *(f"≤{100 * (n + 1) // _BINS}" for n in range(_BINS - 1)), "<100", "100"]
    bins = dict.fromkeys(names, 0)
    for rate, times in counts.items():
        # The small part is taken off so that a rate of 0.3 is no more than 30 %, whatever its last bit says.
        place = 0 if rate <= 0 else len(names) - 1 if rate >= 1 else 1 + int(rate * _BINS - 1e-9)
        bins[names[place]] += times
    rows: list[Sequence[Child]] = [["right attempts", "problems"], *([name, f"{n:,}"] for name, n in bins.items())]
    title = f"Pass rates at the pool after round {number}, in % of the attempts"
    return figure(title, histogram(bins, title), folded("as a table", table(rows, title)))


def flow(status: Mapping[str, Any]) -> list[Markup]:
    """What was asked for in each round, and what became of it."""
    rows = []
    for entry in status["rounds"]:
        if entry["pool_read"]:
            rows.append(("rows of the pool's files", _account(entry["pool_read"])))
        if entry["asked"] is not None:
            what = "seed problems to be taught" if entry["round"] == 0 else f"round {entry['round']}: asked for"
            rows.append((what, _account(entry)))
    if not rows:
        return [tag("p", "Nothing has been asked for and judged yet.")]
    return [_stacked("Kept, rejected by reason, failed", rows, "")]


def _account(entry: Mapping[str, Any]) -> Counter[str]:
    return Counter({"kept": entry["kept"], **entry["rejected"], "failed": entry["failed"]})


def _stacked(title: str, rows: Sequence[tuple[str, Counter[str]]], unit: str) -> Markup:
    """Bars, their legend and their table; what is rare shares a colour, but not a line of the table."""
    names = [name for name, n in sum((found for _, found in rows), Counter[str]()).most_common() if n]
    first = [name for name in ("kept", "seed", "easy") if name in names]
    names = first + [name for name in names if name not in first]
    if not names:
        return Markup("")
    own = names if len(names) <= COLOURS else names[: COLOURS - 1]
    bars = []
    for label, found in rows:
        shown = [float(found[name]) for name in own]
        rest = sum(found[name] for name in names if name not in own)
        bars.append(Bar(label, f"{sum(found.values()):,} {unit}".rstrip(), (*shown, float(rest))[:COLOURS]))
    cells: list[list[Child]] = [["", *(label for label, _ in rows)]]
    for name in names:
        cells.append([text(name, 80), *(_share(found[name], sum(found.values())) for _, found in rows)])
    cells.append(["together", *(f"{sum(found.values()):,}" for _, found in rows)])
    said = "; ".join(f"{label}: {', '.join(f'{n} {name}' for name, n in found.items() if n)}" for label, found in rows)
    known = [text(name, 40) for name in own] + (
        [text(f"{len(names) - len(own)} other reasons")] if own != names else []
    )
    plot = stacked_bars(bars, f"{title}. {said}")
    return figure(title, legend(known), plot, folded("as a table", table(cells, title)))


def _share(n: int, total: int) -> str:
    return f"{n:,} ({100 * n / total:.1f} %)" if n else ""


def cost(found: Sequence[Found], status: Mapping[str, Any]) -> list[Markup]:
    """Tokens, money and time of each stage, on one clock."""
    if not found:
        return [tag("p", "No stage was begun yet.")]
    done = [item for item in found if item.manifest is not None and item.begun]
    spans = [
        Span(_label(item), item.begun, item.manifest.seconds, STAGES.index(item.stage) if item.stage in STAGES else 7)
        for item in done
        if item.manifest is not None
    ]
    spent = status["spent"]
    money = bool(spent["money"])
    head = ["stage", "begun (UTC)", "time", "rows", "prompt tokens", "completion tokens", "CPU time", "GPU time"]
    rows: list[Sequence[Child]] = [[*head, "money"] if money else list(head)]
    for item in found:
        tokens = Counter[str]()
        for (_, kind), number in stage_tokens(item).items():
            tokens[kind] += number
        made, usage = item.manifest, item.manifest.usage if item.manifest else None
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(item.begun)) if item.begun else ""
        line = [
            text(_label(item) + (" (copied)" if made and made.forked_from else "")),
            tag("span", begun),
            duration(made.seconds) if made else "unfinished",
            f"{made.counts.rows:,}" if made else "",
            *(f"{tokens[kind]:,}" if tokens[kind] else "" for kind in ("prompt", "completion")),
            *(duration(s) if s else "" for s in ((usage.cpu_seconds, usage.gpu_seconds) if usage else (0, 0))),
        ]
        rows.append([*line, f"{usage.money:.2f}" if usage and usage.money else ""] if money else line)
    models = [
        f"{name[:120]}: {counts['prompt']:,} prompt and {counts['completion']:,} completion tokens"
        for name, counts in spent["tokens"].items()
    ]
    hours = [(name.upper() if name != "engine" else name, spent["seconds"][name]) for name in ("engine", "cpu", "gpu")]
    reserved = ", ".join(f"{name} {duration(seconds)}" for name, seconds in hours if seconds)
    said = f"All stages: {duration(spent['seconds']['stage'])}" + (f"; reserved: {reserved}" if reserved else "")
    lost = [f"{name.replace('_', ' ')} {n:,}" for name, n in spent["lost"].items() if n]
    lines = [said + (f"; money {spent['money']:,.2f}" if money else ""), *models]
    lines += [f"In vain: {', '.join(lost)}"] if lost else []
    plot = timeline(spans, f"time by stage: {'; '.join(f'{s.label} {duration(s.seconds)}' for s in spans)}")
    note = "Where nothing was at work for long, the clock is cut (dashed line)."
    return [
        tag("ul", *(tag("li", line) for line in lines)),
        figure("Time by stage", plot, tag("p", note, class_="quiet")) if spans else join([]),
        folded("tokens, money and time as a table", table(rows, "tokens, money and time by stage")),
    ]


def _label(item: Found) -> str:
    where = "base" if item.round is None else f"round {item.round}"
    return f"{where} {item.stage}"
