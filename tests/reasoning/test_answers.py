"""Reading and comparing answers, pair by pair."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from fdd_ray.reasoning.answers import (
    Tolerance,
    canonical,
    compare,
    final_answer,
    parse_number,
    without_answer_line,
    write_number,
)

# (given, gold): every pair is checked in both directions.
EQUAL = [
    ("7", "7"),
    ("7.0", "7"),
    ("7.", "7"),
    ("7" + " " * 300, "7"),
    ("07", "7"),
    ("+7", "7"),
    ("1,234", "1234"),
    ("1 234", "1234"),
    ("1\u202f234", "1,234"),
    ("1\u00a0234\u00a0567", "1234567"),
    ("1,234,567.50", "1234567.5"),
    ("$1{,}234$", "1234"),
    ("-5", "\u22125"),
    ("-5", "\u20135"),
    ("- 5", "-5"),
    ("minus 5", "-5"),
    ("negative 5", "-5"),
    ("-$5", "$-5"),
    ("$18.00", "18"),
    ("$18", "18 dollars"),
    ("\\$18", "18"),
    ("USD 18", "18"),
    ("18 \u20ac", "18"),
    ("\u00a318", "18"),
    ("Rs. 500", "500"),
    ("18.", "18"),
    ("18 (dollars)", "18"),
    ("12 apples", "12"),
    ("12 apples.", "12"),
    ("12 red apples", "12"),
    ("5 km/h", "5"),
    ("12 cm^2", "12"),
    ("12 cm\u00b2", "12"),
    ("5 \u00b0C", "5"),
    ("45^\\circ", "45"),
    ("5 m", "5"),
    ("50%", "50%"),
    ("50%", "0.5"),
    ("50\\%", "50 percent"),
    ("50 per cent", "1/2"),
    ("12.5%", "1/8"),
    ("12 1/2 %", "0.125"),
    ("0.5%", "0.005"),
    ("3/4", "0.75"),
    ("3 / 4", "0.75"),
    ("6/8", "3/4"),
    ("-3/4", "-0.75"),
    ("18/3", "6"),
    ("1,000/4", "250"),
    ("\\frac{3}{4}", "0.75"),
    ("\\dfrac{3}{4}", "3/4"),
    ("\u00be", "0.75"),
    ("2 1/2", "2.5"),
    ("-2 1/2", "-2.5"),
    ("2\u00bd", "2.5"),
    ("2\\frac{1}{2}", "2.5"),
    ("2 1/2 hours", "2.5"),
    ("1e6", "1,000,000"),
    ("1E6", "1000000"),
    ("1.5e-3", "0.0015"),
    ("1.5 x 10^6", "1500000"),
    ("1.5 \u00d7 10^6", "1500000"),
    ("1.5 \\times 10^{6}", "1,500,000"),
    ("2*10**3", "2000"),
    ("3 million", "3,000,000"),
    ("$2.5 billion", "2500000000"),
    ("5 hundred thousand", "500000"),
    ("\\boxed{18}", "18"),
    ("$\\boxed{18}$", "18"),
    ("\\boxed{18\\text{ dollars}}", "18"),
    ("#### 18", "18"),
    ("**18**", "18"),
    ("`18`", "18"),
    ("$18$", "18"),
    ("\\(18\\)", "18"),
    ("x = 18", "18"),
    ("= 18", "18"),
    (".5", "0.5"),
    ("-0", "0"),
    ("0.30000000000000004", "0.3"),
    ("18.000000000000004", "18"),
    ("3:30", "3:30"),
    ("3:30 PM", "3:30  pm."),
    ("3:30 PM", "15:30"),
    ("7:30", "7:30 a.m."),
    ("noon", "12:00 PM"),
    ("twenty-five", "25"),
    ("Tuesday", " tuesday"),
    ("2:1", "2:1"),
]

# (given, gold, verdict)
DIFFERENT = [
    ("8", "7", "wrong_answer"),
    ("7.1", "7", "wrong_answer"),
    ("7.5", "7.4", "wrong_answer"),
    ("1,234", "1.234", "wrong_answer"),
    ("100001", "100000", "wrong_answer"),
    ("10000000000000001", "10000000000000000", "wrong_answer"),
    ("18.02", "18.00", "wrong_answer"),
    ("1/3", "0.3", "wrong_answer"),
    ("0.333", "1/3", "wrong_answer"),
    ("2 1/2", "1", "wrong_answer"),
    ("1e6", "1", "wrong_answer"),
    ("3 million", "3", "wrong_answer"),
    ("5", "-5", "wrong_sign"),
    ("-5", "5", "wrong_sign"),
    ("-2.5", "2 1/2", "wrong_sign"),
    ("-50%", "50%", "wrong_sign"),
    ("0.5", "0", "wrong_answer"),
    ("50%", "50", "percent_mismatch"),
    ("50", "50%", "percent_mismatch"),
    ("0.5%", "0.5", "percent_mismatch"),
    ("12.5 percent", "12.5", "percent_mismatch"),
    ("0.5%", "50%", "wrong_answer"),
    ("50%", "5", "wrong_answer"),
    ("", "7", "unparsed_answer"),
    ("seven apples", "7", "unparsed_answer"),
    ("(7)", "7", "unparsed_answer"),
    ("--7", "7", "unparsed_answer"),
    ("7 or 8", "7", "unparsed_answer"),
    ("7, 8", "7", "unparsed_answer"),
    ("7-8", "7", "unparsed_answer"),
    ("7\u20138", "7", "unparsed_answer"),
    ("3,5", "3.5", "unparsed_answer"),
    ("1,23", "123", "unparsed_answer"),
    ("0,500", "500", "unparsed_answer"),
    ("1,234,56", "123456", "unparsed_answer"),
    ("3*4", "12", "unparsed_answer"),
    ("2^3", "8", "unparsed_answer"),
    ("2\u00b2", "2", "unparsed_answer"),
    ("5!", "5", "unparsed_answer"),
    ("5x", "5", "unparsed_answer"),
    ("5k", "5", "unparsed_answer"),
    ("5M", "5", "unparsed_answer"),
    ("5\u03c0", "5", "unparsed_answer"),
    ("2 and a half", "2", "unparsed_answer"),
    ("3 thousandths", "3", "unparsed_answer"),
    ("5 feet 3 inches", "5", "unparsed_answer"),
    ("5 PM", "5", "unparsed_answer"),
    ("5 p.m.", "5", "unparsed_answer"),
    ("5 o'clock", "5", "unparsed_answer"),
    ("3:30", "3.5", "unparsed_answer"),
    ("18:00", "18", "unparsed_answer"),
    ("x=5, y=6", "6", "unparsed_answer"),
    ("\u0661\u0662", "12", "unparsed_answer"),
    ("nan", "7", "unparsed_answer"),
    ("inf", "7", "unparsed_answer"),
    ("1/0", "7", "unparsed_answer"),
    ("1e999999999", "7", "unparsed_answer"),
    ("1e-999999999", "0", "unparsed_answer"),
    ("9" * 101, "7", "unparsed_answer"),
    ("7" + " apples" * 100, "7", "unparsed_answer"),
    ("5 AM", "5 PM", "half_day_mismatch"),
    ("3:30", "3:31", "wrong_time"),
    ("Tuesday", "Monday", "wrong_answer"),
    ("", "Monday", "wrong_answer"),
    ("7", "Monday", "wrong_answer"),
]


@pytest.mark.parametrize(("given", "gold"), EQUAL)
def test_equal_answers_are_right_in_both_directions_and_vote_together(given: str, gold: str) -> None:
    assert compare(given, gold) == "right"
    assert compare(gold, given) == "right"
    assert canonical(given) == canonical(gold)


@pytest.mark.parametrize(("given", "gold", "verdict"), DIFFERENT)
def test_different_answers_get_their_reason_and_vote_apart(given: str, gold: str, verdict: str) -> None:
    assert compare(given, gold) == verdict
    assert canonical(given) != canonical(gold)


def test_a_third_is_a_rounded_third_only_within_the_tolerance() -> None:
    assert compare("0.333", "1/3", tolerance=Tolerance(relative=1e-2)) == "right"
    assert compare("0.333", "1/3", tolerance=Tolerance(relative=1e-4)) == "wrong_answer"
    assert compare("1/3", "0.333") == "right", "the known answer is only written to three places"
    assert compare("0.3333333333333333", "1/3") == "right"


def test_the_last_place_of_the_known_answer_counts_from_two_decimals() -> None:
    assert compare("2.68", "2.67") == "right"
    assert compare("2.69", "2.67") == "wrong_answer"
    assert compare("2.6", "2.5") == "wrong_answer"
    assert compare("12.26%", "12.25%") == "right"
    assert compare("13.25%", "12.25%") == "wrong_answer"
    assert compare("2.68", "2.67", tolerance=Tolerance(last_places=0)) == "wrong_answer"


def test_whole_numbers_are_exact_whatever_the_tolerance() -> None:
    assert compare("101", "100", tolerance=Tolerance(relative=0.1, absolute=5)) == "wrong_answer"
    assert compare("100.5", "100", tolerance=Tolerance(relative=0.1)) == "right"


def test_numbers_are_exact_fractions_and_remember_how_they_were_written() -> None:
    number = parse_number("12.50%")
    assert number is not None
    assert (number.value, number.written, number.percent, number.places) == (
        Fraction(1, 8),
        Fraction(25, 2),
        True,
        2,
    )


def test_written_numbers_are_plain() -> None:
    assert write_number(Fraction(2) ** 100) == str(2**100)
    assert write_number(Fraction(1, 3)) == "0.3333333333"
    assert write_number(Fraction(repr(1 / 3))) == "0.3333333333"
    assert write_number(Fraction(-2, 3)) == "-0.6666666667"
    assert write_number(Fraction(25, 10**4)) == "0.0025"
    assert write_number(Fraction(1234567890123, 2)) == "617283945062"
    assert write_number(Fraction("99999999999.99999")) == "100000000000"
    assert write_number(Fraction("0.99999999999")) == "1"
    assert write_number(Fraction(0)) == "0"
    assert write_number(Fraction(12345678901234, 10**20)) == "0.0000001234567890"[:-1]
    assert write_number(Fraction("1e-50")) == "0." + "0" * 49 + "1"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 + 4 = 7\n#### 7", "7"),
        ("#### 5\nno, wait\n#### 7 apples \nI hope this helps, 99", "7 apples"),
        ("a\r\n  #### $1,234\r\n", "$1,234"),
        ("####\nso \\boxed{7}", "7"),
        ("\\boxed{5} then \\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}"),
        ("#### 7\n\\boxed{8}", "7"),
        ("The answer is $18.00.", "$18.00."),
        ("The answer is 5. No, the answer is **6**. Done.", "**6**"),
        ("The final answer is: 18, because of that.", "18"),
        ("Answer: 1,234\nBye", "1,234"),
        ("the answer is\n7", "7"),
        ("There were 3 and then 4 makes 7", None),
        ("\\boxed{7", None),
        ("The answer is", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_the_last_number_is_taken_only_when_asked_for() -> None:
    assert final_answer("so 3 and then $1,234.50!", last_number=True) == "$1,234.50"
    assert final_answer("none", last_number=True) is None


def test_a_chain_without_its_answer_line() -> None:
    assert without_answer_line("a\n#### 1\nb\n#### 2\nc") == "a\n#### 1\nb\n"
    assert without_answer_line("a 2") == "a 2"


HOSTILE = [
    "a" * 199 + "!",
    "5" + " a" * 99 + "!",
    " " * 199,
    "-" * 200,
    "1," * 100,
    "1,000" * 39,
    "9" * 200,
    "9 " * 100,
    "\\frac{" * 33,
    "\\frac{1}{" * 22,
    "\\boxed{" * 20_000,
    "answer is " * 20_000,
    "#### " * 20_000,
    "answer" + " " * 100_000,
    "9" * 100_000,
    "1," * 50_000,
    "1,000," * 20_000,
    "5" + " " * 100_000,
    "12:" * 33_000,
    "one hundred and " * 6_000,
    "one " * 49,
    "$" * 100_000,
    "%" * 100_000,
    "(" * 100_000,
    "\n" * 100_000,
    "\u00bd" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_takes_no_time(text: str) -> None:
    start = time.perf_counter()
    for reader in (parse_number, final_answer, canonical):
        reader(text)
    final_answer(text, last_number=True)
    for known in ("7", "50%", "3:30 PM", "Monday", text):
        compare(text, known)
        compare(known, text)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("piece", ["9", "1,", "1,000,", "5 ", "(", "12:", "one ", "\\frac{", "answer is "])
def test_comparing_takes_time_linear_in_the_text(piece: str) -> None:
    def seconds(characters: int) -> float:
        text = (piece * characters)[:characters]
        best = 9.0
        for _ in range(3):
            start = time.perf_counter()
            compare(text, "7")
            compare("7", text)
            compare(text, text)
            best = min(best, time.perf_counter() - start)
        return best

    # 32 times the text: a quadratic reader would take a thousand times as long.
    assert seconds(320_000) < 150 * seconds(10_000) + 0.01
