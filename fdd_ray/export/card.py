"""The model card: README.md with the front matter the hub reads, every figure of it out of the run's own books.

Nothing in it is rounded away or filled in by guess: what nobody told, such as a licence, is said to be unknown.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from fdd_ray import __version__
from fdd_ray.export.facts import Facts, license_of
from fdd_ray.export.markdown import block, code, table
from fdd_ray.export.usage import how_to_use
from fdd_ray.progress import duration
from fdd_ray.report.scores import percent

UNKNOWN = "unknown: fill in"
_HUB_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Licenses:
    """Licences by the hub's names; empty: what the models' folders say, or unknown.

    Attributes:
        student: Of what is handed on.
        teacher: Of the teacher; some forbid training other models on what the teacher wrote.
    """

    student: str = ""
    teacher: str = ""


def model_card(facts: Facts, config: Mapping[str, Any], licenses: Licenses, name: str) -> str:
    """The text of README.md.

    Args:
        facts: See `fdd_ray.export.facts.read_facts`.
        config: The student's config.json.
        licenses: Licences, as far as they are known.
        name: What the model is called.
    """
    base = str(_at(facts.experiment, "student", "model") or "")
    base_license = license_of(base)
    licenses = Licenses(licenses.student or base_license, licenses.teacher or license_of(_teacher(facts)))
    front = yaml.safe_dump(_front(facts, config, licenses, base, name), sort_keys=False, allow_unicode=False)
    sections = [
        ("How to use it", how_to_use(facts, config)),
        ("Results", _results(facts)),
        ("Data", _data(facts)),
        ("Contamination", _contamination(facts)),
        ("Training", _training(facts, config)),
        ("Cost", _cost(facts)),
        ("Licences", _licences(facts, licenses, base, base_license)),
        ("Limitations", _limitations(facts)),
        ("Versions and settings", _settings(facts, config)),
    ]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    return f"---\n{front}---\n\n# {code(name)}\n\n{_summary(facts, base)}\n\n{body}\n"


def _front(facts: Facts, config: Mapping[str, Any], licenses: Licenses, base: str, name: str) -> dict[str, Any]:
    sources = _list(facts.experiment.get("pool"))
    datasets = sorted(
        {str(s["path"]) for s in sources if s.get("format") == "hub" and _HUB_ID.fullmatch(str(s["path"]))}
    )
    front: dict[str, Any] = {"license": licenses.student or "unknown"}
    if licenses.student and not _HUB_LICENSE.fullmatch(licenses.student):
        front |= {"license": "other", "license_name": licenses.student}
    if _HUB_ID.fullmatch(base) and not os.path.isdir(base):
        front["base_model"] = [base]
    task = "text2text-generation" if config.get("is_encoder_decoder") else "text-generation"
    front |= {"library_name": "transformers", "pipeline_tag": task, "language": ["en"]}
    front["tags"] = ["math", "distillation", "fdd-ray", f"{facts.experiment.get('kind')}-of-thought"]
    if datasets:
        front["datasets"] = datasets
    results = [
        {
            "task": {"type": task, "name": "Mathematical word problems"},
            "dataset": {"name": benchmark, "type": _dataset_type(facts, benchmark)},
            "metrics": [
                {"type": "accuracy", "name": "Greedy accuracy, %", "value": round(100 * found["value"], 4)},
            ],
        }
        for benchmark, found in sorted(facts.entry["accuracy"].items())
    ]
    if results:
        front["model-index"] = [{"name": name, "results": results}]
    return front


def _dataset_type(facts: Facts, benchmark: str) -> str:
    """The hub id of a benchmark that was read from the hub; otherwise its name."""
    sources = _list(_at(facts.experiment, "benchmarks", benchmark))
    paths = [str(source.get("path")) for source in sources if source.get("format") == "hub"]
    return paths[0] if len(paths) == 1 else benchmark


def _summary(facts: Facts, base: str) -> str:
    teacher = _teacher(facts)
    wrote = f"the teacher {code(teacher)}" if teacher else "the data set"
    chosen = ""
    if facts.best_on:
        chosen = (
            f"\n\n**Round {facts.round} was chosen because it scores best on {code(facts.best_on)}.** Choosing on a"
            " test set is selecting on it: its score there is too high by an amount nobody knows. Judge this model on"
            " other problems."
        )
    return (
        f"A student distilled from {code(base)} by Feedback-Driven Distillation (arXiv 2411.14698) with fdd-ray,"
        f" on rationales from {wrote}. This is the student of round {facts.round} of the run"
        f" {code(str(facts.experiment.get('name')))}.{chosen}"
    )


def _results(facts: Facts) -> str:
    students = [
        ("base, untouched", facts.status["base"]),
        *((f"round {e['round']}", e) for e in facts.status["rounds"]),
    ]
    students = [(name, entry) for name, entry in students if entry["accuracy"]]
    benchmarks = sorted({benchmark for _, entry in students for benchmark in entry["accuracy"]})
    if not facts.entry["accuracy"]:
        return "This student has not been scored: nothing is known of how well it does."
    mine = f"round {facts.round}"
    rows = [
        [f"**{name}** (this model)" if name == mine else name,
         *(percent(entry["accuracy"].get(benchmark)) for benchmark in benchmarks)]
        for name, entry in students
    ]  # fmt: skip
    sizes = {b: entry["accuracy"][b]["n"] for _, entry in students for b in entry["accuracy"]}
    parts = [
        "Greedy accuracy in percent with 95 % Wilson intervals, one attempt at each problem. The base is the control:"
        " the same model before any fine-tuning, asked in the same way.",
        table(["student", *(f"{code(b)}, {sizes[b]} problems" for b in benchmarks)], rows),
    ]
    if facts.gain:
        rows = [
            [code(b), f"{100 * f.paired.difference:+.1f} [{100 * f.paired.low:+.1f}, {100 * f.paired.high:+.1f}]",
             str(f.paired.gained), str(f.paired.lost), f"{f.paired.p_value:.2g}"]
            for b, f in sorted(facts.gain.items())
        ]  # fmt: skip
        parts += [
            "This model against the base, on the same problems (paired bootstrap of 10,000 resamples; exact McNemar"
            " test):",
            table(["benchmark", "difference in points [95 %]", "solved now", "no longer solved", "p"], rows),
        ]
    majority = facts.entry["majority"]
    if majority:
        rows = [[code(b), percent(found)] for b, found in sorted(majority["accuracy"].items())]
        parts += [
            f"By majority of {majority['k']} sampled attempts:",
            table(["benchmark", f"majority@{majority['k']} % [95 %]"], rows),
        ]
    for benchmark, by_steps in sorted(facts.entry["by_steps"].items()):
        rows = [[s, percent(found), str(found["n"])] for s, found in sorted(by_steps.items(), key=lambda i: int(i[0]))]
        parts += [f"On {code(benchmark)} by number of steps:", table(["steps", "% [95 %]", "problems"], rows)]
    return "\n\n".join(parts)


def _data(facts: Facts) -> str:
    read = facts.problems.summary.get("pool", {})
    first = facts.status["rounds"][0]
    parts = [_account("Pool: rows of its files", read)]
    if first["asked"] is not None:
        parts.append(_account("Rationales: seed problems", {**first, "rows": first["asked"]}))
    for number, manifest in sorted(facts.curated.items()):
        counts = dataclasses.asdict(manifest.counts)
        kept = ", ".join(f"{n} {code(str(o))}" for o, n in sorted(manifest.summary.get("kept", {}).items()))
        text = _account(f"Round {number}: new problems asked of the teacher", counts)
        parts.append(f"{text}\n\nAccepted in round {number}: {kept or 'none'}.")
    origins = facts.finetuned.summary.get("origins", {})
    trained = facts.finetuned.counts
    made_of = ", ".join(f"{n} from {code(str(o))} problems" for o, n in sorted(origins.items()))
    parts.append(
        f"Distillation set: {trained.kept} rationales trained on of {trained.rows} ({made_of});"
        f" {sum(trained.rejected.values())} rejected ({_reasons(trained.rejected)})."
    )
    return "\n\n".join(parts)


def _contamination(facts: Facts) -> str:
    settings = _at(facts.experiment, "decontaminate") or {}
    sizes = {name: n for name, n in facts.problems.summary.get("sizes", {}).items() if name != "pool"}
    against = ", ".join(f"{code(name)} ({n} problems)" for name, n in sorted(sizes.items())) or "no benchmark"
    checks = ["the same problem or text"]
    if settings.get("ngram"):
        masked = ", numbers masked" if settings.get("masked") else ""
        checks.append(f"{settings['ngram']} words in a row{masked}")
    if settings.get("containment"):
        checks.append(f"{100 * settings['containment']:g} % of its runs of three words in one benchmark problem")
    if settings.get("judge"):
        checks.append(f"the teacher's verdict on the {settings['judge']} closest benchmark problems")
    rows = []
    places = [("pool", facts.problems.summary.get("pool", {}).get("rejected", {}))]
    places += [(f"round {number}, new problems", m.counts.rejected) for number, m in sorted(facts.curated.items())]
    for place, rejected in places:
        found = {reason: n for reason, n in rejected.items() if reason.startswith("in_benchmark")}
        rows += [[place, code(reason), str(n)] for reason, n in sorted(found.items())] or [[place, "none", "0"]]
    return (
        f"Every seed problem and every new problem was compared with {against}, and rejected for: {'; '.join(checks)}."
        f" Removed:\n\n{table(['from', 'reason', 'problems'], rows)}\n\n"
        "Not checked: what base and teacher saw before; and a rewording that keeps few words gets past such checks."
    )


def _training(facts: Facts, config: Mapping[str, Any]) -> str:
    summary, settings = facts.finetuned.summary, _at(facts.experiment, "finetune") or {}
    known = [
        ("architecture", code(", ".join(map(str, config.get("architectures") or [])))),
        ("parameters", _number(summary.get("parameters"))),
        ("started from", code(str(settings.get("start_from", "")))),
        ("epochs", _number(summary.get("epochs"))),
        ("steps", _number(summary.get("steps"))),
        ("tokens, all epochs", _number(summary.get("tokens"))),
        ("of which carry loss", _number(summary.get("completion_tokens"))),
        ("loss of a token, first step", _number(summary.get("loss_first"))),
        ("loss of a token, last epoch", _number(summary.get("loss_last"))),
        ("peak learning rate", _number(settings.get("learning_rate"))),
        ("workers", _number(summary.get("workers"))),
    ]
    return "Loss on the rationale alone, not on the prompt.\n\n" + table(
        ["", ""], [list(row) for row in known if row[1]]
    )


def _cost(facts: Facts) -> str:
    spent = facts.status["spent"]
    last = max(entry["round"] for entry in facts.status["rounds"])
    rows = [
        [code(model), str(counts["prompt"]), str(counts["completion"])] for model, counts in spent["tokens"].items()
    ]
    seconds = spent["seconds"]
    hours = ", ".join(f"{seconds[key] / 3600:.2f} {word}" for key, word in (
        ("engine", "engine hours"), ("gpu", "GPU hours"), ("cpu", "CPU hours")))  # fmt: skip
    money = f"{spent['money']:.2f} in the currency of its prices" if spent["money"] else "not known (no prices given)"
    return (
        f"Of the whole run up to round {last}, with what was done in vain: {duration(seconds['stage'])} of stages,"
        f" {hours} reserved; money: {money}.\n\n{table(['model', 'prompt tokens', 'completion tokens'], rows)}"
    )


def _licences(facts: Facts, licenses: Licenses, base: str, base_license: str) -> str:
    teacher = _teacher(facts)
    rows = [["this model", code(licenses.student or UNKNOWN)], [f"base {code(base)}", code(base_license or UNKNOWN)]]
    if teacher:
        rows.append([f"teacher {code(teacher)}", code(licenses.teacher or UNKNOWN)])
    return (
        f"{table(['what', 'licence'], rows)}\n\n"
        "What a model wrote may be bound by that model's terms, and what is made of data by the data's; see that yours"
        " allow what you do."
    )


def _limitations(facts: Facts) -> str:
    names = ", ".join(code(name) for name in sorted(facts.entry["accuracy"])) or "nothing"
    program = facts.experiment.get("kind") == "program"
    points = [
        f"Evaluated on {names} only: word problems with one number for an answer. Other mathematics, other languages,"
        " long texts and conversation were not looked at.",
        "One training run with one seed; intervals are over problems, not over seeds.",
        "A right answer does not make a right rationale: rationales were accepted by their answers, those of new"
        " problems by agreement of several samples.",
        "Toxicity, bias and privacy were not examined; what base and teacher learned before is in here too.",
    ]
    if program:
        points.append(
            "It writes programs. Run them in a sandbox, without network or files and with limits on time and memory, as"
            " fdd-ray does, and nowhere else."
        )
    if len(facts.status["rounds"]) > 1:
        points.append("Several rounds were scored on the same benchmarks; nothing corrects for choosing among them.")
    return "\n".join(f"- {point}" for point in points)


def _settings(facts: Facts, config: Mapping[str, Any]) -> str:
    versions = ", ".join(map(code, facts.versions)) or "unknown"
    return (
        f"fdd-ray {versions} (this card: {code(__version__)}), transformers"
        f" {code(str(config.get('transformers_version', 'unknown')))}; seed {code(str(facts.experiment.get('seed')))};"
        f" fingerprint of the fine-tuning {code(facts.finetuned.fingerprint)}.\n\n"
        f"<details><summary>The resolved experiment</summary>\n\n{block(facts.experiment_text, 'yaml')}\n\n</details>"
    )


def _account(what: str, counts: Mapping[str, Any]) -> str:
    if not counts:
        return f"{what}: not known."
    rejected = counts["rejected"]
    lost = f"{sum(rejected.values())} rejected + {counts['failed']} failed"
    head = f"{what}: {counts['rows']} = {counts['kept']} kept + {lost}."
    if not rejected:
        return head
    rows = [[code(reason), str(n)] for reason, n in sorted(rejected.items(), key=lambda item: (-item[1], item[0]))]
    return f"{head}\n\n{table(['rejected because', 'rows'], rows)}"


def _reasons(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {code(reason)}" for reason, n in sorted(rejected.items())) or "none"


def _teacher(facts: Facts) -> str:
    """The teacher's name; empty where the rationales came with the data set and no round asked for more."""
    asked = facts.experiment.get("rationales") == "teacher" or bool(facts.curated)
    return str(_at(facts.experiment, "teacher", "model") or "") if asked else ""


def _number(value: Any) -> str:
    return "" if value is None or isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _at(plain: Any, *keys: str) -> Any:
    for key in keys:
        plain = plain.get(key) if isinstance(plain, Mapping) else None
    return plain


def _list(value: Any) -> Iterator[Mapping[str, Any]]:
    """Sources of problems, given as one or as a list."""
    return (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Mapping))
