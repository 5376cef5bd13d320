"""What errors of the sandbox say about a program, and under which reason it is counted."""

from __future__ import annotations

import builtins
import sys
from collections import Counter

import pytest

from fdd_ray.checking import Checker, CheckSettings
from fdd_ray.engines.base import Sample
from fdd_ray.reasoning.faults import Fault, counted_as, fault_of_error
from fdd_ray.reasoning.programs import ProgramLimits, ProgramRunner


@pytest.mark.parametrize(
    ("name", "message", "fault"),
    [
        ("AttributeError", "'int' object has no attribute 'bit_length'", ("unsupported", "attribute:int.bit_length")),
        ("AttributeError", "'int' object has no attribute 'bit_lengths'", ("runtime_error", None)),
        (
            "AttributeError",
            "type object 'datetime.datetime' has no attribute 'fromtimestamp'",
            ("unsupported", "attribute:datetime.datetime.fromtimestamp"),
        ),
        ("AttributeError", "'datetime.datetime' object has no attribute 'shout'", ("runtime_error", None)),
        ("AttributeError", "'Apple' object has no attribute '__globals__'", ("unsupported", None)),
        ("AttributeError", "'Apple' object has no attribute '__price__'", ("runtime_error", None)),
        ("AttributeError", "module 'asyncio' has no attribute 'create_task'", ("unsupported", None)),
        ("AttributeError", "module 'os' has no attribute 'fork'", ("refused", "os.fork")),
        ("ImportError", "cannot import name 'xyzzy' from 'math' (unknown location)", ("runtime_error", None)),
        ("TypeError", "callable replacement is not yet supported in re.sub()", ("unsupported", None)),
        ("SyntaxError", "function too large: jump offset", ("unsupported", "syntax:long functions")),
        ("NameError", "name 'solution' is not defined", ("runtime_error", None)),
    ],
)
def test_fault_of_error(name: str, message: str, fault: tuple[str, str | None]) -> None:
    found = fault_of_error(name, message)
    assert found.verdict == fault[0]
    assert fault[1] is None or found == Fault(*fault)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sympy", "unsupported: module:sympy"),
        ("import scipy.stats", "unsupported: module:scipy"),
        ("from fractions import Fraction", "unsupported: module:fractions"),
        ("import _thread", "unsupported: module:other"),
        ("import secret_recipe_of_the_model", "unsupported: module:other"),
        ("def f():\n    yield 1", "unsupported: syntax:yield"),
        ("x = 1\ndel x", "unsupported: syntax:del"),
        ("class A: pass\nclass B(A): pass", "unsupported: syntax:class inheritance"),
        ("class A:\n    @property\n    def x(self): return 1", "unsupported: syntax:method decorators"),
        ("from math import *", "unsupported: syntax:wildcard imports"),
        ("x = input()", "unsupported: builtin:input"),
        ("answer = (7).bit_length()", "unsupported: attribute:int.bit_length"),
        ("import functools\nfunctools.singledispatch", "unsupported: attribute:functools.singledispatch"),
        ("class Owned: pass\nOwned.__mro__", "unsupported: attribute:__mro__"),
        ("import re\nre.sub('a', lambda m: 'b', 'a')", "unsupported: call"),
        ("raise ValueError([1])", "unsupported: interpreter"),
        (
            "raise NotImplementedError('The monty syntax parser does not yet support owning')",
            "unsupported: syntax:other",
        ),
        ("import os\nos.fork()", "refused"),
        ("answer = 1 / 0", "runtime_error"),
    ],
)
def test_counted_as(source: str, reason: str) -> None:
    result = RUNNER.run(source)
    assert counted_as(result.verdict, result.detail) == reason


RUNNER = ProgramRunner(ProgramLimits(seconds=5))


@pytest.fixture(scope="module", autouse=True)
def _close_the_runner() -> object:
    yield
    RUNNER.close()


def test_whatever_a_detail_says_reasons_are_few_short_and_printable() -> None:
    hostile = [
        "",
        ":",
        "x",
        "\x1b[31m",
        "x" * 10_000,
        "__class__",
        "__\u202e__",
        "a.b",
        "math.",
        ".",
        "os.fork",
        "int.\n",
    ]
    kinds = ["module", "builtin", "syntax", "attribute", "interpreter", "call", "", "\n", "other"]
    reasons = {counted_as("unsupported", f"{kind}:{name}") for kind in kinds for name in hostile}
    reasons |= {counted_as("unsupported", f"module:package{n}") for n in range(5_000)}
    reasons |= {counted_as("unsupported", f"attribute:int.name{n}") for n in range(5_000)}
    reasons |= {counted_as("unsupported", f"attribute:Class{n}.__init__") for n in range(5_000)}
    assert len(reasons) < 20
    assert all(len(reason) <= 100 and reason.isprintable() for reason in reasons)
    names = {counted_as("unsupported", f"module:{name}") for name in sys.stdlib_module_names}
    names |= {counted_as("unsupported", f"builtin:{name}") for name in dir(builtins)}
    assert len(names) < 600


async def test_completions_carry_the_feature_so_that_rows_are_counted_by_it() -> None:
    programs = [
        "import sympy\nanswer = 1",
        "import sympy as sp\nanswer = 2",
        "def f():\n    yield 1\nanswer = 7",
        "answer = 7",
    ]
    checker = Checker("program", CheckSettings(programs=ProgramLimits(seconds=5)))
    samples = [Sample(f"```python\n{program}\n```", "stop", 1) for program in programs]
    checked = await checker.check(samples, "7")
    assert Counter(completion.verdict for completion, _ in checked) == {
        "unsupported: module:sympy": 2,
        "unsupported: syntax:yield": 1,
        "right": 1,
    }
