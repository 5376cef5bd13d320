"""A run directory in which every string that a model or a data set could have written is hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fdd_ray.records import (
    Attempt,
    Completion,
    Curated,
    Feedback,
    Problem,
    Rejection,
    Request,
    Taught,
    Variation,
    content_id,
    problem_id,
    to_table,
)
from fdd_ray.stages.score import Task
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Run, StageFolder, StageResult

HOSTILE = [
    "<script>alert('child')</script>",
    '"><img src=http://attacker.invalid/x.png onerror="alert(1)">',
    "'></article></main></body></html><iframe src=javascript:alert(2)></iframe>",
    "</style></script><svg/onload=alert(3)>",
    "<!-- --!><base href='http://attacker.invalid/'><form action=/x><input autofocus onfocus=alert(4)>",
    "price \u202e000,1 \u202c is \u2066reversed\u2069 \u200b\ufeff",
    "null \x00 byte, escape \x1b[31m, bell \x07, form feed \x0c",
    "x" * 100_000,
    "W" * 5_000 + " &lt;script&gt; &#60;b&#62; &amp;",
    "&#0;&#xD800;<plaintext>",
    "]]><![CDATA[<b>]]> <?php ?> {{7*7}} ${alert(5)}",
    "\u0645\u0631\u062d\u0628\u0627 12 + 3 \u05e9\u05dc\u05d5\u05dd",
    "Z\u0300\u0301\u0302\u0303" * 200,
]
ACCURACY = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 40}
SURROGATE = "SURROGATE"  # stands for a lone surrogate until the run is written


def hostile_run(folder: Path) -> str:
    """Write the run and return its directory; its last stage was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(str(folder))
    experiment = "name: \"</title><script>alert('name')</script>\"\nseed: 3\n# </pre><script>alert(6)</script>\n"
    files.write_bytes(str(folder / "experiment.yaml"), experiment.encode())
    run.once("score", None, {}, _score(1, {"base": 0.1}))
    run.once("problems", 0, {}, _problems)
    run.once("rationales", 0, {}, _rationales)
    run.once("score", 0, {}, _score(0, {"round": 0.3}))
    run.once("split", 1, {}, _split)
    run.once("synthesise", 1, {"teacher": {"model": HOSTILE[0]}}, _synthesise)
    run.once("curate", 1, {}, _curate)
    run.once("score", 1, {}, _score(2, {}))
    for path in folder.rglob("manifest.json"):  # a manifest may hold what no Parquet file can
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content).replace(SURROGATE, "\\ud800<b>"))

    def killed(stage: StageFolder) -> StageResult:
        stage.write("part-x.parquet", to_table([_problem(0)], Problem))
        raise InterruptedError

    try:
        run.once("curate", 2, {}, killed)
    except InterruptedError:
        return str(folder)
    raise AssertionError("it was not killed")


def _completion(n: int) -> Completion:
    told = HOSTILE[n % len(HOSTILE)]
    return Completion(told, told, ["right", told][n % 2], ["stop", told][n % 2], 3, told)


def _problem(n: int) -> Problem:
    return Problem.new(f"{HOSTILE[n % len(HOSTILE)]} {n}", HOSTILE[n % len(HOSTILE)], source=HOSTILE[0])


def _score(shift: int, _: object) -> Callable[[StageFolder], StageResult]:
    def write(folder: StageFolder) -> StageResult:
        rows, tasks = [], []
        for n in range(2 * len(HOSTILE)):
            problem, subject = _problem(n), ["pool", HOSTILE[0]][n % 2]
            id = content_id("t", subject, problem.id)
            made = tuple(_completion(n + k + shift) for k in range(1 + n % 3))
            right = sum(one.verdict == "right" for one in made) / len(made)
            row = Attempt(id, problem.id, subject, problem.question, "7", "program", "kept", "", right, made, 1, 1)
            rows.append(row)
            tasks.append(Task(id, problem.id, subject, problem.question, "7", 1 + n % 2))
        folder.write("part-0.parquet", to_table(rows, Attempt))
        folder.write("tasks.parquet", to_table(tasks, Task))
        names = {HOSTILE[0]: ACCURACY, SURROGATE: ACCURACY, HOSTILE[7]: ACCURACY, "pool": ACCURACY}
        summary = {
            "accuracy": names,
            "by_steps": {name: {"1": ACCURACY} for name in names},
            "majority": {"k": 4, "accuracy": {HOSTILE[0]: ACCURACY, SURROGATE: ACCURACY}},
        }
        return StageResult(Counts(len(rows), len(rows)), ("part-0.parquet",), {}, summary)

    return write


def _problems(folder: StageFolder) -> StageResult:
    rows = [_problem(n) for n in range(len(HOSTILE))]
    folder.write("pool.parquet", to_table(rows, Problem))
    bad = [Rejection(told, 1, told, told) for told in HOSTILE]
    folder.write("pool-rejections.parquet", to_table(bad, Rejection))
    account = {"rows": 20, "kept": 13, "rejected": {f"in_benchmark: {HOSTILE[0]}": 7}, "failed": 0}
    return StageResult(Counts(13, 13), ("pool.parquet",), {}, {"pool": account, "sizes": {"pool": 13}})


def _rationales(folder: StageFolder) -> StageResult:
    rows = [
        Taught(_problem(n).id, told, told, "chain", "kept", "", (told,), (_completion(n),), 1, 1, (told,), ())
        for n, told in enumerate(HOSTILE)
    ]
    folder.write("part-0.parquet", to_table(rows, Taught))
    return StageResult(Counts(13, 13), ("part-0.parquet",), {"teacher": {"prompt": 3, "completion": 4}})


def _split(folder: StageFolder) -> StageResult:
    rows = [Feedback(_problem(n).id, "easy", n / 12) for n in range(13)]
    folder.write("part-0.parquet", to_table(rows, Feedback))
    asked = [
        Request(f"r-{n}", _problem(n).id, told, told, "complex", 1, 0, told, (told,)) for n, told in enumerate(HOSTILE)
    ]
    folder.write("requests.parquet", to_table(asked, Request))
    return StageResult(Counts(13, 13), ("part-0.parquet",), {}, {"easy": 13, "hard": 0, "policy": HOSTILE[1]})


def _synthesise(folder: StageFolder) -> StageResult:
    rows = [
        Variation(
            f"r-{n}", _problem(n).id, "complex", 1, "kept", "", told, "chain",
            tuple(_completion(n + k) for k in range(6)), (told,) * 6, 1, 1, (_completion(n),), told, 0.5, told, (told,),
        )
        for n, told in enumerate(HOSTILE)
    ]  # fmt: skip
    folder.write("part-0.parquet", to_table(rows, Variation))
    return StageResult(Counts(13, 13), ("part-0.parquet",), {"teacher": {"prompt": 3, "completion": 4}})


def _curate(folder: StageFolder) -> StageResult:
    rows = [
        Curated(
            f"r-{n}", _problem(n).id, "complex", 1, "rejected" if n % 3 else "kept", told[:90] if n % 3 else "",
            problem_id(told), told, told, "chain", (told,), 3, 0.5, 2, told if n % 3 else "", 0.5, told, (told,),
        )
        for n, told in enumerate(HOSTILE)
    ]  # fmt: skip
    folder.write("part-0.parquet", to_table(rows, Curated))
    rejected = {told[:90]: 1 for n, told in enumerate(HOSTILE) if n % 3}
    kept = {"complex": 5, HOSTILE[1]: 2}
    return StageResult(Counts(13, 13 - len(rejected), rejected), ("part-0.parquet",), {}, {"kept": kept})
