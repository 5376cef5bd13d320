"""Experiment files and ``--set`` overrides that are wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import yaml

from .harness import Case, Make, Place


def text(content: str | bytes) -> Make:
    """An experiment file with this content."""
    return lambda place: ["run", str(place.write("x.yaml", content))]


def with_lines(*lines: str) -> Make:
    """A good experiment file with lines put after it."""

    def make(place: Place) -> Sequence[str]:
        place.rows()
        return ["run", str(place.write("x.yaml", yaml.safe_dump(place.settings()) + "\n".join(lines) + "\n"))]

    return make


def changed(**changes: Any) -> Make:
    """A good experiment in which some settings are others."""
    return lambda place: ["run", place.experiment(**changes)]


def overridden(*overrides: str) -> Make:
    """A good experiment with overrides on the command line."""
    return lambda place: ["run", place.experiment(), *(part for text in overrides for part in ("--set", text))]


def without(name: str) -> Make:
    """A good experiment that lacks one setting."""

    def make(place: Place) -> Sequence[str]:
        settings = place.settings()
        del settings[name]
        return ["run", str(place.write("x.yaml", yaml.safe_dump(settings)))]

    return make


def encoded(codec: str) -> Make:
    """A good experiment file in another encoding, with a letter that is not ASCII."""
    return lambda place: ["run", str(place.write("x.yaml", (yaml.safe_dump(place.settings()) + "# é").encode(codec)))]


def prompts(**files: str | bytes | None) -> Make:
    """A good experiment with a prompt set of its own, in which some files have other content or are missing."""
    names = ("solve_program", "solve_chain", "complex", "similar", "student_program", "student_chain")

    def make(place: Place) -> Sequence[str]:
        content: dict[str, Any] = dict.fromkeys(names, "Solve: {question}") | files
        for name, value in content.items():
            if value is not None:
                place.write(f"mine/{name}.txt", value)
        return ["run", place.experiment(prompts=str(place.folder / "mine"))]

    return make


def _unreadable(place: Place) -> Sequence[str]:
    path = place.write("x.yaml", "name: x\n")
    path.chmod(0)
    return ["run", str(path)]


def _link_to_itself(place: Place) -> Sequence[str]:
    os.symlink("x.yaml", place.folder / "x.yaml")
    return ["run", str(place.folder / "x.yaml")]


def _prompt_folder(place: Place) -> Sequence[str]:
    place.write("mine/solve_program.txt/x", "")
    return ["run", place.experiment(prompts="./mine")]


_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
_SOURCE = {"format": "jsonl", "path": "pool.jsonl"}

CASES = [
    # The file itself.
    Case("missing file", lambda _: ["run", "none.yaml"], 2, "cannot read the experiment none.yaml", "give the path"),
    Case("empty file", text(""), 2, "x.yaml:1: name is missing", "Name of the run"),
    Case("only a comment", text("# nothing yet\n"), 2, "x.yaml:1: name is missing", "Name of the run"),
    Case("a directory", lambda place: ["run", str(place.folder)], 2, "Is a directory", "give the path of a YAML file"),
    Case("no permission", _unreadable, 2, "x.yaml: Permission denied", "give the path", unprivileged=True),
    Case("a link to itself", _link_to_itself, 2, "Too many levels of symbolic links", "give the path"),
    Case("a path that is too long", lambda _: ["run", "x" * 300], 2, "File name too long", "give the path"),
    Case("a huge file", text("# " + "x" * 300_000), 2, "over 256 KiB", "give a YAML file"),
    Case("a weights file", text(os.urandom(2000)), 2, "x.yaml is not UTF-8", "save it as UTF-8"),
    Case("UTF-16", encoded("utf-16"), 2, "x.yaml is not UTF-8", "save it as UTF-8"),
    Case("Latin-1", encoded("latin-1"), 2, "x.yaml is not UTF-8", "save it as UTF-8"),
    Case("NUL bytes", text("name: a\nkind: c\0hain\n"), 2, "x.yaml:2: this is not YAML: U+0000", "remove it"),
    Case("an escape sequence", text("name: \x1b[31mred\n"), 2, "x.yaml:1: this is not YAML: U+001B", "remove it"),
    # Its YAML.
    Case("a list", text("- name: x\n"), 2, "x.yaml:1: an experiment is a mapping of", "key: value"),
    Case("a word", text("hello\n"), 2, "an experiment is a mapping of settings, not 'hello'", "key: value"),
    Case("JSON that ends early", text('{"name": "x", "pool": ['), 2, "x.yaml:1: this is not YAML", "correct the line"),
    Case("tabs", text("name: x\npool:\n\tformat: tiny\n"), 2, "x.yaml:3: this is not YAML", "indent with spaces"),
    Case("wrong indentation", text("name: x\n  rounds: 3\n"), 2, "x.yaml:2: this is not YAML", "correct the line"),
    Case("a colon in text", text("name: x: y\n"), 2, "x.yaml:1: this is not YAML", "quotes around text with a colon"),
    Case("an open quote", text("name: 'x\nrounds: 3\n"), 2, "x.yaml:3: this is not YAML", "correct the line"),
    Case("an unknown alias", text("name: *x\n"), 2, "x.yaml:1: this is not YAML: found undefined alias", "into quotes"),
    Case("two documents", text("name: x\n---\nname: y\n"), 2, "x.yaml:2: this is not YAML: a second", "remove the"),
    Case("a bomb of aliases", text(_BOMB), 2, "over 20,000 values, its aliases (*name) followed", "write the settings"),
    Case("an alias in itself", text("name: &a [*a]\n"), 2, "the YAML is nested too deeply", "write the settings out"),
    Case("deep nesting", text("name: " + "[" * 20_000), 2, "the YAML is nested too deeply", "write the settings out"),
    Case("a merge key", text("a: &a {b: 1}\n<<: *a\n"), 2, "x.yaml:2: merge keys (<<) are not", "write the settings"),
    Case("a list as a key", text("? [a, b]\n: 1\n"), 2, "x.yaml:1: a list or mapping stands where a key", "key: value"),
    Case("a tag that runs code", with_lines("seed: !!python/object/apply:os.system ['touch owned']"), 2,
         "the tag !!python/object/apply:os.system is not read", "remove it"),
    Case("a tag that makes an object", with_lines("teach: !!python/object:os.x {min_kept: 1}"), 2,
         "the tag !!python/object:os.x is not read", "remove it"),
    Case("a tag on a value", with_lines("seed: !!python/name:os.system"), 2, "the tag !!python/name", "remove it"),
    Case("a tag on a key", text("!!python/name:os.system x: 1"), 2, "the tag !!python/name", "remove it"),
    Case("an include", with_lines("seed: !include other.yaml"), 2, "the tag !include is not read", "remove it"),
    Case("binary", with_lines("seed: !!binary aGVsbG8="), 2, "the tag !!binary is not read", "remove it"),
    # Its keys.
    Case("a duplicate key", with_lines("name: again"), 2, "name is given twice (first at", "keep one"),
    Case("an unknown key", with_lines("roundz: 3"), 2, "roundz is not a setting", "did you mean rounds?"),
    Case("an unknown key without a neighbour", with_lines("qqq: 3"), 2, "qqq is not a setting", "allowed here:"),
    Case("an unknown key in a group", changed(teach={"sampels": 1}), 2, "teach.sampels is not", "teach.samples?"),
    Case("an empty key", with_lines("'': 3"), 2, " is not a setting", "allowed here:"),
    Case("a key of control characters", with_lines('"\\e[2Jx": 1'), 2, "\\x1b[2Jx is not a setting", "allowed here:"),
    Case("a hundred unknown keys", with_lines(*(f"qqq{n}: 1" for n in range(100))), 2, "qqq0 is not", "more; correct"),
    Case("a key of a million letters", with_lines("? " + "k" * 100_000, ": 1"), 2, "kkk... is not", "allowed here:"),
    Case("a missing setting", without("student"), 2, "student is missing", "The base student"),
    # Its values.
    Case("text for a number", changed(rounds="three"), 2, "rounds is 'three'", "it must be a whole number"),
    Case("half a round", changed(rounds=1.5), 2, "rounds is 1.5", "it must be a whole number"),
    Case("nothing for a number", with_lines("seed:"), 2, "seed is empty", "it must be a whole number"),
    Case("yes for a number", with_lines("seed: yes"), 2, "seed is True", "it must be a whole number"),
    Case("a list for text", changed(name=["x"]), 2, "name is a list", "it must be text"),
    Case("a mapping for text", changed(name={"a": 1}), 2, "name is a mapping", "it must be text"),
    Case("text for true", changed(finetune={"packing": "ja"}), 2, "finetune.packing is 'ja'", "true or false"),
    Case("a value for a group", with_lines("finetune: 3"), 2, "finetune is a group of settings, not 3", "give it as {"),
    Case("an empty group", with_lines("finetune:"), 2, "finetune is a group of settings, not empty", "give it as {"),
    Case("a path for a source", changed(pool="pool.jsonl"), 2, "pool[0] is a group", "give it as {format: ..."),
    Case("a list for a mapping", changed(benchmarks=["a"]), 2, "benchmarks is a mapping, not a list", "{name: ...}"),
    Case("out of range", changed(rounds=-1), 2, "rounds is -1", "allowed: at least 0"),
    Case("a negative seed", changed(seed=-5), 2, "seed is -5", "allowed: at least 0"),
    Case("nan", with_lines("finetune: {learning_rate: .nan}"), 2, "learning_rate is nan", "allowed: more than 0"),
    Case("infinity", with_lines("finetune: {learning_rate: .inf}"), 2, "learning_rate is inf", "allowed: more than 0"),
    Case("1e999", with_lines("finetune: {learning_rate: 1e999}"), 2, "learning_rate is inf", "allowed: more than 0"),
    Case("a huge float", with_lines(f"finetune: {{learning_rate: {'9' * 400}}}"), 2, "learning_rate is a number of",
         "it must be a number"),
    Case("five thousand digits", with_lines("seed: " + "9" * 5000), 2, "cannot be read as YAML's int", "correct it"),
    Case("a date that is none", with_lines("seed: 2024-13-45"), 2, "seed is '2024-13-45'", "a whole number"),
    Case("a date", with_lines("seed: 2024-01-02"), 2, "seed is '2024-01-02'", "a whole number"),
    Case("an octal surprise", with_lines("seed: 010"), 2, "seed is 010, which YAML reads as 8", "write 8"),
    Case("a time of day", with_lines("seed: 1:30"), 2, "seed is 1:30, which YAML reads as 90", "write 90"),
    Case("no such choice", changed(kind="chian"), 2, "kind is 'chian'; allowed: program, chain", "did you mean chain?"),
    Case("no such format", changed(pool={"format": "json"}), 2, "pool[0].format is 'json'", "did you mean jsonl?"),
    Case("swapped", changed(student={"model": "tiny://student", "replicas": [2, 1]}), 2,
         "student.replicas is [2, 1]", "the smaller number comes first"),
    Case("three for a pair", changed(student={"model": "tiny://student", "replicas": [1, 2, 3]}), 2,
         "student.replicas is one number or [min, max]", "[min, max]"),
    Case("a control character in a path", changed(storage="a\0b"), 2, "storage has U+0000 in it", "remove it"),
    Case("a line break in a path", with_lines("storage: |", "  runs"), 2, "storage has U+000A in it", "remove it"),
    Case("a long value", changed(kind="c" * 90_000), 2, "kind is 'cccc", "allowed: program, chain"),
    # What contradicts itself.
    Case("a name with a slash", changed(name="a/b"), 2, "name is 'a/b'", "use letters, digits"),
    Case("a name that climbs", changed(name=".."), 2, "name is '..'", "use letters, digits"),
    Case("no teacher for rounds", changed(rounds=2), 2, "teacher is missing: it writes the new problems", "teacher"),
    Case("no teacher for rationales", changed(rationales="teacher"), 2, "teacher is missing", "and the rationales"),
    Case("programs from a data set", changed(kind="program"), 2, "from_dataset gives chains", "set kind: chain"),
    Case("an empty pool", changed(pool=[]), 2, "pool is empty", "name at least one source"),
    Case("a benchmark called pool", changed(benchmarks={"pool": _SOURCE}), 2, "benchmarks.pool cannot be called that",
         "use letters"),
    Case("a file and the hub", changed(pool=_SOURCE | {"subset": "main"}), 2, "subset is only for format hub",
         "remove it"),
    Case("the hub without a split", changed(pool={"format": "hub", "path": "a/b"}), 2, "format hub needs a split",
         "such as train"),
    Case("a file without a path", changed(pool={"format": "csv"}), 2, "format csv needs a path", "a glob"),
    Case("the tiny world without a split", changed(pool={"format": "tiny"}), 2, "format tiny needs a split", "one of"),
    Case("a column for no field", changed(pool=_SOURCE | {"columns": {"anwser": "a"}}), 2, "columns.anwser is not one",
         "did you mean answer?"),
    Case("a share of a GPU", changed(student={"model": "tiny://student", "tensor_parallel": 2, "gpus_per_replica": 1}),
         2, "gpus_per_replica is 1 but tensor_parallel x pipeline_parallel is 2 x 1", "uses one GPU for each"),
    # Prompt sets.
    Case("no such prompt set", changed(prompts="tinny"), 2, "no prompt set 'tinny'", "use default, tiny or a folder"),
    Case("no such prompt folder", changed(prompts="./mine"), 2, "no prompt set './mine'", "use default, tiny or"),
    Case("a prompt is missing", prompts(complex=None), 2, "complex.txt is missing", "a prompt set has"),
    Case("a prompt without its question", prompts(similar="Write one."), 2, "similar.txt does not contain {question}",
         "the problem goes there"),
    Case("a prompt that is a directory", _prompt_folder, 2,
         "cannot read mine/solve_program.txt: Is a directory", "check the file"),
    Case("a prompt in Latin-1", prompts(similar="é {question}".encode("latin-1")), 2, "similar.txt is not UTF-8",
         "save it as UTF-8"),
    Case("a judge that sees one problem", prompts(judge="{question}?"), 2, "judge.txt does not contain {other}",
         "the benchmark problem goes there"),
    # The command line.
    Case("an override without =", overridden("rounds"), 2, "--set rounds: write it as", "--set key=value"),
    Case("an override without a key", overridden("=3"), 2, "--set =3: write it as", "--set key=value"),
    Case("an override with a gap", overridden("finetune..epochs=3"), 2, "--set finetune..epochs=3: write it as",
         "--set key=value"),
    Case("an override of a group", overridden("finetune=3"), 2, "--set finetune=3: finetune is a", "give it as {"),
    Case("an override below a value", overridden("name.x=3"), 2, "--set name.x=3: name is a mapping", "must be text"),
    Case("an override inside a list",
         lambda place: ["run", place.experiment(pool=[_SOURCE]), "--set", "pool.path=other.jsonl"], 2,
         "--set pool.path=other.jsonl: pool is a list", "give all of it: pool=[...]"),
    Case("an override that is not YAML", overridden("name=["), 2, "--set name=[:1: this is not YAML", "correct the"),
    Case("an override with nothing", overridden("name="), 2, "--set name=: name is empty", "it must be text"),
    Case("an unknown override", overridden("epochs=3"), 2, "--set epochs=3: epochs is not a setting",
         "finetune.epochs?"),
    Case("evaluate without a model", lambda place: ["evaluate", "", "--experiment", place.experiment()], 2,
         "evaluate: the model is empty", "give a folder, a hub id"),
    Case("settings of nothing", lambda _: ["settings", "nothing"], 2, "no setting begins with", "see fdd-ray"),
]  # fmt: skip
