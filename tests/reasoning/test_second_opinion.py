"""math-verify as a second opinion: what it is asked, and that nothing it does can hang or harm us."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fdd_ray.checking import Checker, CheckSettings
from fdd_ray.engines.base import Sample
from fdd_ray.errors import DependencyError
from fdd_ray.reasoning import second_opinion
from fdd_ray.reasoning.programs import ProgramRunner
from fdd_ray.reasoning.rationales import check_rationale
from fdd_ray.reasoning.second_opinion import MathVerify, worth_asking
from fdd_ray.settings import parse_settings

POWER_TOWER = "9^{9^{9^{9}}}"
installed = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None,
    reason="NOT TESTED: math-verify is not installed; pip install 'fdd-ray[latex]'",
)


@pytest.fixture(scope="module")
def math_verify() -> Iterator[MathVerify]:
    with MathVerify(seconds=2.0) as second:
        yield second


class Scripted:
    """A second opinion that says what it was told to, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, says: bool | None) -> None:
        self.says = says
        self.asked: list[tuple[str, str]] = []

    def agrees(self, given: str, gold: str) -> bool | None:
        self.asked.append((given, gold))
        return self.says


@pytest.mark.parametrize(
    ("given", "gold", "worth"),
    [
        (r"\sqrt{49}", "7", True),
        ("7", r"\sqrt{49}", True),
        (r"\frac{\pi}{2}", r"\pi/2", True),
        ("2^3", "8", True),
        (r"\boxed{\sqrt{49}}", "7", True),
        ("7 or 8", "7", False),
        ("(7)", "7", False),
        (r"2\text{ and a half}", "2", False),
        (r"50\% \cdot 1", "50", False),
        (r"\sqrt{49}", "50%", False),
        (r"\sqrt{49}", "3:30 PM", False),
        (r"\sqrt{49} apples", "7", False),
        ("", r"\sqrt{49}", False),
        (r"\sqrt{4}" * 100, "7", False),
    ],
)
def test_only_latex_is_worth_asking_about(given: str, gold: str, worth: bool) -> None:
    assert worth_asking(given, gold) is worth


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("7", "7"),
        ("8", "7"),
        ("-7", "7"),
        ("50%", "50"),
        ("5 minutes", "5 hours"),
        ("3:30", "3:30 PM"),
        ("many", "7"),
        ("3 or 4", "3"),
        (r"\sqrt{2}", r"\sqrt{2}"),
    ],
)
def test_it_is_never_asked_about_what_we_decide_ourselves(answer: str, gold: str) -> None:
    second = Scripted(True)
    with ProgramRunner() as runner:
        alone = check_rationale("chain", f"#### {answer}", gold, runner)
        assert check_rationale("chain", f"#### {answer}", gold, runner, None, second) == alone
    assert second.asked == []


@pytest.mark.parametrize(("says", "verdict"), [(True, "right"), (False, "unparsed_answer"), (None, "unparsed_answer")])
def test_its_verdict_is_marked_as_its_own(says: bool | None, verdict: str) -> None:
    second = Scripted(says)
    with ProgramRunner() as runner:
        checked = check_rationale("chain", r"so \boxed{\sqrt{49}}", "7", runner, None, second)
        assert check_rationale("chain", r"so \boxed{\sqrt{49}}", "7", runner).verdict == "unparsed_answer"
    assert second.asked == [(r"\sqrt{49}", "7")]
    assert checked.verdict == verdict
    assert checked.detail.startswith("second opinion: scripted")


def test_a_known_answer_in_latex_is_asked_about_when_the_texts_differ() -> None:
    second = Scripted(True)
    with ProgramRunner() as runner:
        checked = check_rationale("chain", r"#### \sqrt{12}", r"2\sqrt{3}", runner, None, second)
    assert (checked.verdict, checked.rationale) == ("right", r"#### \sqrt{12}")
    assert second.asked == [(r"\sqrt{12}", r"2\sqrt{3}")]


@installed
@pytest.mark.parametrize(
    ("given", "gold", "agrees"),
    [
        (r"\sqrt{12}", r"2\sqrt{3}", True),
        (r"\sqrt{12}", r"3\sqrt{2}", False),
        ("1+x^2", "x^2+1", True),
        ("x^2-1", "x^2+1", False),
        (r"-\sqrt{2}", r"\sqrt{2}", False),
        (r"\{2,1\}", r"\{1,2\}", True),
        (r"$\frac{\pi}{2}$", r"\pi/2", True),
        (r"\boxed{\sqrt{49}}", "7", True),
        ("2^3", "2", False),
    ],
)
def test_what_math_verify_says(math_verify: MathVerify, given: str, gold: str, agrees: bool) -> None:
    assert math_verify.agrees(given, gold) is agrees


@installed
@pytest.mark.parametrize(
    "hostile",
    [
        POWER_TOWER,
        r"\boxed{" + POWER_TOWER + "}",
        "99999999999!",
        "((x+y)^{99})^{99}",
        r"\left(" * 60,
        "{" * 400,
        r"\frac{" * 80,
        r"\sqrt{" * 80 + "2" + "}" * 80,
        r"x^{" + "9" * 480 + "}",
        "\x00\ud800\n\r\\",
    ],
)
def test_hostile_latex_neither_hangs_nor_is_right(math_verify: MathVerify, hostile: str) -> None:
    math_verify.agrees("2^3", "8")  # the start is not timed
    start = time.perf_counter()
    assert not math_verify.agrees(hostile, "7")
    assert not math_verify.agrees("7", hostile)
    # Two deadlines of 2 s and a start in between, on a busy machine.
    assert time.perf_counter() - start < 30
    assert math_verify.agrees("2^3", "8") is True, "it works after what it was put through"


@installed
def test_one_that_overruns_is_killed_and_replaced() -> None:
    with MathVerify(seconds=1.0) as second:
        assert second.agrees("2^3", "8") is True
        before = second._process
        assert before is not None
        assert second.agrees(POWER_TOWER, "1") is None
        assert before.returncode == -9
        assert second.agrees("2^3", "8") is True
        assert second._process is not None and second._process.pid != before.pid


@installed
def test_it_kills_itself_when_nobody_is_left_to_do_it() -> None:
    code = (
        "from fdd_ray.reasoning.second_opinion import MathVerify\n"
        "import os, sys, threading, time\n"
        "second = MathVerify(seconds=1.0)\n"
        "assert second.agrees('2^3', '8')\n"
        "print(second._process.pid, flush=True)\n"
        f"threading.Thread(target=second.agrees, args=({POWER_TOWER!r}, '1'), daemon=True).start()\n"
        "time.sleep(0.3)\n"
        "os._exit(0)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    pid = int(shown.stdout)
    end = time.monotonic() + 20
    while time.monotonic() < end and _runs(pid):
        time.sleep(0.1)
    assert not _runs(pid)


@installed
def test_its_memory_and_its_environment_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "do-not-leak")
    with MathVerify(memory_mib=700) as second:
        assert second.agrees("2^3", "8") is True
        assert second._process is not None
        folder = f"/proc/{second._process.pid}"
        with open(f"{folder}/environ", encoding="utf-8") as file:
            assert "do-not-leak" not in file.read()
        with open(f"{folder}/limits", encoding="utf-8") as file:
            (limit,) = [line for line in file if line.startswith("Max address space")]
        assert str(700 << 20) in limit.split()


@installed
def test_several_threads_take_turns(math_verify: MathVerify) -> None:
    found: list[tuple[int, bool | None]] = []

    def ask(number: int) -> None:
        found.append((number, math_verify.agrees(f"2^{{{number}}}", str(2**number + number % 2))))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [(number, number % 2 == 0) for number in range(8)]


@installed
def test_it_can_be_pickled_and_closed_at_any_time(math_verify: MathVerify) -> None:
    assert math_verify.agrees("2^3", "8") is True
    with pickle.loads(pickle.dumps(math_verify)) as other:
        assert other.seconds == math_verify.seconds
        assert other.agrees("2^3", "8") is True
        other.close()
        assert other.agrees("2^3", "8") is True


@installed
async def test_a_checker_asks_it_only_when_it_was_switched_on() -> None:
    sample = Sample(r"so \boxed{\sqrt{49}}", "stop", 5)
    ((completion, _),) = await Checker("chain", CheckSettings(second_opinion="math_verify")).check([sample], "7")
    assert completion.verdict == "right"
    ((completion, _),) = await Checker("chain", CheckSettings()).check([sample], "7")
    assert completion.verdict == "unparsed_answer"


def test_without_math_verify_the_experiment_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_opinion.importlib.util, "find_spec", lambda name: None)
    assert parse_settings(CheckSettings, "{}").second_opinion == "none"
    with pytest.raises(DependencyError, match=r"fdd-ray\[latex\].*check.second_opinion=none"):
        parse_settings(CheckSettings, "second_opinion: math_verify")


def test_asking_nobody_starts_and_imports_nothing() -> None:
    code = (
        "import sys\nfrom fdd_ray.checking import Checker, CheckSettings\n"
        "Checker('chain', CheckSettings())\nsys.exit('math_verify' in sys.modules or 'sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
