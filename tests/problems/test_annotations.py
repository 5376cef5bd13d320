"""Programs out of GSM8K's calculator annotations: what becomes of one solution, and of all real ones."""

from __future__ import annotations

import ast
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from fdd_ray.problems.annotations import AnnotationProgram, annotation_program
from fdd_ray.reasoning import ProgramRunner, compare


def solution(gold: str, *annotations: str) -> str:
    return "".join(f"so <<{text}>>\n" for text in annotations) + f"#### {gold}"


def run(program: str | None) -> dict[str, object]:
    """The names a program leaves behind, run by CPython; its text is known to be harmless here."""
    assert program is not None
    names: dict[str, object] = {"__builtins__": {"round": round}}
    exec(program, names)
    return names


def test_the_chain_of_a_solution_becomes_the_chain_of_a_program() -> None:
    found = annotation_program(solution("72", "48/2=24", "48+24=72"))
    assert found == AnnotationProgram("step1 = 48 / 2\nanswer = 48 + step1")
    assert run(found.program)["answer"] == 72


@pytest.mark.parametrize(
    ("annotations", "gold", "last"),
    [
        (["20%*50=10"], "10", "answer = 20 / 100 * 50"),
        (["6/50%=12"], "12", "answer = 6 / (50 / 100)"),
        (["(20+30)%*8=4"], "4", "answer = (20 + 30) / 100 * 8"),
        (["3+(20+30)%*8=7"], "7", "answer = 3 + (20 + 30) / 100 * 8"),
        (["1,000+2,500=3,500"], "3,500", "answer = 1000 + 2500"),
        (["$5*3=$15"], "$15", "answer = 5 * 3"),
        ([".5*8=4"], "4", "answer = 0.5 * 8"),
        (["5.*8=40"], "40", "answer = 5 * 8"),
        (["007+03=10"], "10", "answer = 7 + 3"),
        (["2(3+4)=14"], "14", "answer = 2 * (3 + 4)"),
        (["(2+3)(3+4)=35"], "35", "answer = (2 + 3) * (3 + 4)"),
        (["(2+3)4=20"], "20", "answer = (2 + 3) * 4"),
        (["2x3=6"], "6", "answer = 2 * 3"),
        (["2\u00d73\u00f76=1"], "1", "answer = 2 * 3 / 6"),
        (["[2+3]*4=20"], "20", "answer = (2 + 3) * 4"),
        (["560//10=56"], "56", "answer = 560 // 10"),
        (["2^3=8"], "8", "answer = 2 ** 3"),
        (["2**3=8"], "8", "answer = 2 ** 3"),
        (["10-(2-3)=11"], "11", "answer = 10 - (2 - 3)"),
        (["-5+12=7"], "7", "answer = -5 + 12"),
        (["5-12=-7"], "-7", "answer = 5 - 12"),
        (["2+3"], "5", "answer = 2 + 3"),
        (["2+3=1+4=5"], "5", "answer = 2 + 3"),
        (["", " ", "2+3=5"], "5", "answer = 2 + 3"),
        (["2+3=5", "5=5"], "5", "answer = step1"),
        (["10/3=3.33", "3.33*3=9.99"], "9.99", "answer = step1 * 3"),
        (["200/3=67", "67-7=60"], "60", "answer = step1 - 7"),
        (["1/3*9=3.0"], "3", "answer = 1 / 3 * 9"),
        (["2+2=4", "1+3=4", "4*5=20"], "20", "answer = step2 * 5"),
    ],
)
def test_the_oddities_that_are_understood(annotations: list[str], gold: str, last: str) -> None:
    found = annotation_program(solution(gold, *annotations))
    assert found.reason == "" and found.program is not None
    assert found.program.splitlines()[-1] == last
    assert compare(str(run(found.program)["answer"]), gold) == "right"


@pytest.mark.parametrize(
    ("annotations", "gold", "reason", "detail"),
    [
        ([], "5", "no_annotation", ""),
        (["", "  "], "5", "no_annotation", ""),
        (["2+3=5"], "five", "no_final_answer", ""),
        (["2+3=6"], "6", "wrong_step", "2+3=6"),
        (["2+3=5=6"], "5", "wrong_step", "2+3=5=6"),
        (["2+3=1+5"], "5", "wrong_step", "2+3=1+5"),
        (["10/3=4"], "4", "wrong_step", "10/3=4"),
        (["10/3=3.34"], "3.34", "wrong_step", "10/3=3.34"),
        (["5/2=3"], "3", "wrong_step", "5/2=3"),
        (["5/2=2"], "2", "wrong_step", "5/2=2"),
        (["2+3=5"], "6", "ends_elsewhere", "2+3=5"),
        (["2+3=5", "5*2=10"], "5", "ends_elsewhere", "5*2=10"),
        (["2+3=5"], "-5", "ends_elsewhere", "2+3=5"),
        (["5=5"], "5", "nothing_computed", "5=5"),
        (["-5=-5"], "-5", "nothing_computed", "-5=-5"),
        (["2+2=4", "5=5"], "5", "nothing_computed", "5=5"),
        (["=5"], "5", "unreadable_annotation", "=5"),
        (["2+=5"], "5", "unreadable_annotation", "2+=5"),
        (["2 3=6"], "6", "unreadable_annotation", "2 3=6"),
        (["2,5+1=26"], "26", "unreadable_annotation", "2,5+1=26"),
        (["(2+3=5"], "5", "unreadable_annotation", "(2+3=5"),
        (["2+3)=5"], "5", "unreadable_annotation", "2+3)=5"),
        (["2+3)%=5"], "5", "unreadable_annotation", "2+3)%=5"),
        (["%5=5"], "5", "unreadable_annotation", "%5=5"),
        (["2*n=6"], "6", "unreadable_annotation", "2*n=6"),
        (["3 apples + 2=5"], "5", "unreadable_annotation", "3 apples + 2=5"),
        (["5/0=5"], "5", "unreadable_annotation", "5/0=5"),
        (["0**-1=5"], "5", "unreadable_annotation", "0**-1=5"),
        (["2**0.5=5"], "5", "unreadable_annotation", "2**0.5=5"),
        (["9**64**9=5"], "5", "unreadable_annotation", "9**64**9=5"),
        (["1.2345678901234567+1=5"], "5", "unreadable_annotation", "1.2345678901234567+1=5"),
        (["__import__('os')=5"], "5", "unreadable_annotation", "__import__('os')=5"),
    ],
)
def test_what_has_no_program_and_why(annotations: list[str], gold: str, reason: str, detail: str) -> None:
    assert annotation_program(solution(gold, *annotations)) == AnnotationProgram(None, reason, detail)


@pytest.mark.parametrize(
    "annotation",
    [
        "9" * 100_000,
        "(" * 100_000,
        "(" * 99 + "1" + ")" * 99 + "=1",
        "-" * 299,
        "9**64**64**64=1",
        "((((9**64)**64)**64)**64)=1",
        "9**64*" * 40 + "1=1",
        "1%" * 100,
        "=" * 299,
    ],
)
def test_a_hostile_annotation_takes_no_time(annotation: str) -> None:
    start = time.perf_counter()
    assert annotation_program(solution("1", annotation)).program is None
    assert annotation_program(solution("1", *["1+0=1"] * 10_000)).reason == "unreadable_annotation"
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("train", {"": 6880, "ends_elsewhere": 377, "nothing_computed": 121, "no_annotation": 95}),
        ("test", {"": 1194, "ends_elsewhere": 93, "nothing_computed": 14, "no_annotation": 18}),
    ],
)
def test_every_program_of_a_real_solution_gives_the_known_answer(
    gsm8k: Path, split: str, counts: dict[str, int]
) -> None:
    path = gsm8k / f"gsm8k_{split}.jsonl"
    if not path.is_file():
        pytest.skip(f"NOT TESTED on GSM8K's {split} solutions: no {path}; name its folder in FDD_RAY_DATA")
    answers = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    found = [annotation_program(answer) for answer in answers]
    assert Counter(one.reason for one in found) == counts
    golds = [answer.rsplit("####", 1)[1].strip() for answer in answers]
    programs = [(one.program, gold) for one, gold in zip(found, golds, strict=True) if one.program is not None]
    for program, _ in programs:
        assert _computes(program), program
    with ProgramRunner(workers=2) as runner:
        results = runner.run_many([program for program, _ in programs])
    wrong = [
        (program, gold, result)
        for (program, gold), result in zip(programs, results, strict=True)
        if result.answer is None or compare(result.answer, gold) != "right"
    ]
    assert wrong == []


def _computes(program: str) -> bool:
    """Whether the answer comes of an operation, its own or that of a line that it names, and not of a literal."""
    values = {line.targets[0].id: line.value for line in ast.parse(program).body}  # type: ignore[attr-defined]
    value = values["answer"]
    while isinstance(value, ast.Name):
        value = values[value.id]
    return isinstance(value, ast.BinOp) or any(isinstance(node, ast.BinOp) for node in ast.walk(value))
