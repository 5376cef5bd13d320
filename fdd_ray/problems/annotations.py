"""Turns the calculator annotations of a GSM8K solution into a program that computes its answer.

    >>> worked = "She sold 48/2 = <<48/2=24>>24 in May, 48+24 = <<48+24=72>>72 in all.\\n#### 72"
    >>> print(annotation_program(worked).program)
    step1 = 48 / 2
    answer = 48 + step1

Each annotation becomes a line. A number that an earlier line computed is written as that line's name (the
latest one, by value), so that the program carries its results on as the solution does. The program never
holds the known answer as such: its last line is the last annotation, and a solution whose annotations do not
arrive at the known answer has no program, for a reason that is given.
"""

from __future__ import annotations

import ast
import re
from fractions import Fraction
from typing import Final, Literal, NamedTuple

from fdd_ray.problems.gsm8k import calculator_annotations

Refusal = Literal[
    "",
    "no_final_answer",
    "no_annotation",
    "unreadable_annotation",
    "wrong_step",
    "nothing_computed",
    "ends_elsewhere",
]

_MOST_STEPS: Final = 100
_LONGEST_STEP: Final = 300
_MOST_TOKENS: Final = 100
_MOST_BITS: Final = 4096
_MOST_DIGITS: Final = 15
_LARGEST_POWER: Final = 64
_FINAL: Final = re.compile(r"####\s*\$?\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)\s*\Z")
_NUMBER: Final = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_TOKEN: Final = re.compile(rf"\s*(?:(?P<number>{_NUMBER})|(?P<sign>\*\*|//|[-+*/^()%]))")
_SPELLED: Final = str.maketrans(
    {
        "\u00d7": "*",
        "x": "*",
        "X": "*",
        "\u00b7": "*",
        "\u00f7": "/",
        "\u2212": "-",
        "\u2013": "-",
        "[": "(",
        "]": ")",
        "$": " ",
    }
)


class AnnotationProgram(NamedTuple):
    """The program of a solution.

    Attributes:
        program: Python that leaves the answer in ``answer``; None if there is none.
        reason: Why there is none, otherwise empty: the solution has no ``####`` line with a number, has no
            annotations, has one that is no arithmetic, has one that is wrong, computes nothing in the last, or
            its last one is not the known answer.
        detail: The annotation that the reason is about.
    """

    program: str | None
    reason: Refusal = ""
    detail: str = ""


class _Refused(Exception):
    """An annotation that cannot be turned into a line; its message is the reason."""


class _Line(NamedTuple):
    """One line of the program: its expression, its exact value, and whether it computes anything."""

    expression: str
    value: Fraction
    computes: bool


def annotation_program(answer: str) -> AnnotationProgram:
    """The program that the annotations of a worked solution describe.

    Read are the four operations, ``//``, powers, brackets, percent signs (hundredths), thousands separators,
    ``.5``, leading zeros, dollar signs and products without a sign (``2(3+4)``). A step whose written value is
    a rounded one rounds in the program too. Annotations that are empty are passed over.

    Args:
        answer: An answer as GSM8K has it, with its annotations and its ``####`` line.
    """
    final = _FINAL.search(answer)
    if final is None:
        return AnnotationProgram(None, "no_final_answer")
    annotations = [text for text in calculator_annotations(answer) if text.strip()]
    if not annotations:
        return AnnotationProgram(None, "no_annotation")
    if len(annotations) > _MOST_STEPS:
        return AnnotationProgram(None, "unreadable_annotation", f"{len(annotations)} annotations")
    names: dict[Fraction, str] = {}
    lines: list[_Line] = []
    for number, text in enumerate(annotations, start=1):
        try:
            line = _line(text, names)
        except _Refused as refused:
            reason: Refusal = "wrong_step" if str(refused) == "wrong_step" else "unreadable_annotation"
            return AnnotationProgram(None, reason, text[:_LONGEST_STEP])
        if line.computes:
            names[line.value] = f"step{number}"
        lines.append(line)
    if lines[-1].value != Fraction(final[1].replace(",", "")):
        return AnnotationProgram(None, "ends_elsewhere", annotations[-1])
    if not lines[-1].computes:
        return AnnotationProgram(None, "nothing_computed", annotations[-1])
    steps = [f"step{number} = {line.expression}" for number, line in enumerate(lines[:-1], start=1)]
    return AnnotationProgram("\n".join([*steps, f"answer = {lines[-1].expression}"]))


def _line(annotation: str, names: dict[Fraction, str]) -> _Line:
    """The line of an annotation ``expression=value``; each further ``=`` must give the same value."""
    if len(annotation) > _LONGEST_STEP:
        raise _Refused("too long")
    first, *others = annotation.split("=")
    tree = _parsed(first)
    value = _value(tree)  # says no to all that is not arithmetic
    # A number alone, signed or not, is no computation unless an earlier line made it.
    bare = tree.operand if isinstance(tree, ast.UnaryOp) else tree
    computes = not isinstance(bare, ast.Constant) or _number(bare) in names
    line = _Line(ast.unparse(_Named(names).visit(tree)), value, computes)
    for other in others:
        written = _parsed(other)
        if _value(written) == line.value:
            continue
        if not isinstance(written, ast.Constant):
            raise _Refused("wrong_step")
        line = _rounded(line, _number(written), len(other.partition(".")[2].strip()))
    return line


def _rounded(line: _Line, value: Fraction, places: int) -> _Line:
    """``line`` with its value rounded to ``value``, if that is what was written down."""
    scaled = line.value * 10**places
    # Ties are left alone: interpreters do not round them alike.
    if scaled.denominator == 2 or Fraction(round(scaled), 10**places) != value:
        raise _Refused("wrong_step")
    inner = f"{line.expression}, {places}" if places else line.expression
    return line._replace(expression=f"round({inner})", value=value)


def _parsed(text: str) -> ast.expr:
    """``text`` as a syntax tree of numbers and operators, and nothing else."""
    text = text.translate(_SPELLED).strip()
    tokens: list[str] = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None or len(tokens) >= _MOST_TOKENS:
            raise _Refused("no arithmetic")
        place = found.end()
        token = found["sign"] or _plain(found["number"])
        if token == "%":
            if not tokens or not (tokens[-1] == ")" or tokens[-1][-1].isdigit()):
                raise _Refused("a percent sign behind nothing")
            # Bound to its number, whatever stands before it: 6/50% is 12.
            start = _opening(tokens) if tokens[-1] == ")" else len(tokens) - 1
            tokens[start:] = ["(", *tokens[start:], "/", "100", ")"]
            continue
        if tokens and (token == "(" or found["number"]) and (tokens[-1] == ")" or tokens[-1][-1].isdigit()):
            if found["number"] and tokens[-1] != ")":
                raise _Refused("two numbers side by side")
            tokens.append("*")
        tokens.append("**" if token == "^" else token)
    try:
        tree = ast.parse(" ".join(tokens), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _Refused("no arithmetic") from error
    return tree


def _opening(tokens: list[str]) -> int:
    """Where the bracket opens that the last token closes."""
    depth = 0
    for place in range(len(tokens) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(tokens[place], 0)
        if depth == 0:
            return place
    raise _Refused("brackets do not match")


def _plain(number: str) -> str:
    """A number as Python writes it: ``007`` is 7, ``.5`` is 0.5, ``1,000.`` is 1000."""
    whole, _, decimals = number.replace(",", "").partition(".")
    if decimals and len(whole) + len(decimals) > _MOST_DIGITS:
        raise _Refused("more digits than a float holds")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")


def _number(node: ast.Constant) -> Fraction:
    # The text of the float is the text that was parsed, up to zeros at its end.
    if not isinstance(node.value, (int, float)) or isinstance(node.value, bool):
        raise _Refused("no number")
    return Fraction(repr(node.value))


def _value(node: ast.expr) -> Fraction:
    """The exact value of a tree."""
    if isinstance(node, ast.Constant):
        return _number(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if not isinstance(node, ast.BinOp):
        raise _Refused("no arithmetic")
    left, right = _value(node.left), _value(node.right)
    match node.op:
        case ast.Add():
            value = left + right
        case ast.Sub():
            value = left - right
        case ast.Mult():
            value = left * right
        case ast.Pow():
            if right.denominator != 1 or abs(right) > _LARGEST_POWER or (left == 0 and right < 0):
                raise _Refused("a power that is not computed here")
            value = left ** int(right)
        case ast.Div() | ast.FloorDiv() if right != 0:
            value = left / right if isinstance(node.op, ast.Div) else Fraction(left // right)
        case _:
            raise _Refused("divides by zero")
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise _Refused("too large")
    return value


class _Named(ast.NodeTransformer):
    """Writes numbers that are known by name as that name."""

    def __init__(self, names: dict[Fraction, str]) -> None:
        self._names = names

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        name = self._names.get(_number(node))
        return node if name is None else ast.Name(name, ast.Load())
