"""Finding the program in a completion."""

from __future__ import annotations

import time

import pytest

from fdd_ray.reasoning.extraction import extract_program


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nanswer = 1\n```", "answer = 1"),
        ("Sure!\n```py\n\nanswer = 1\n\n```\nDone.", "answer = 1"),
        ("```\nanswer = 1\n```", "answer = 1"),
        ("```Python3\nanswer = 1\n```", "answer = 1"),
        ("```python title=a\nanswer = 1\n```", "answer = 1"),
        ("  ```python\nif True:\n    answer = 1\n  ```", "if True:\n    answer = 1"),
        ("```python\nanswer = 1\n```\nor\n```python\nanswer = 2\n```", "answer = 2"),
        ("```python\nanswer = 1\n```\nwhich prints\n```text\n1\n```", "answer = 1"),
        ("```python\nanswer = 1\n```\nand\n```python\nanswer = 2", "answer = 1"),
        ("```python\nanswer = \n```python\nanswer = 2\n```", "answer = 2"),
        ("```python\nanswer = = 1\n```", "answer = = 1"),
        ("```python\nanswer = 1\r\n```", "answer = 1"),
        ("```python\nanswer = 1\n", "answer = 1"),
        ("```python\nanswer = (1", None),
        ("```json\n{}\n```", None),
        ("```python\n```", None),
        ("answer = 1", "answer = 1"),
        ("def solution():\n    return 5", "def solution():\n    return 5"),
        ("Here it is:\napples = 3\nanswer = apples\nHope this helps", "apples = 3\nanswer = apples"),
        ("So:\ntotal = (\n    1 +\n    2\n)\nThat is all", "total = (\n    1 +\n    2\n)"),
        ("The answer is 7", None),
        ("Seven", None),
        ("7", None),
        ("if you add 3 and 4 you get 7", None),
        ("", None),
    ],
)
def test_extract_program(text: str, program: str | None) -> None:
    assert extract_program(text) == program


@pytest.mark.parametrize(
    "text",
    [
        "answer = " + "(" * 9_000,
        "answer = " + "-" * 15_000 + "1",
        "x = 1\nx" + ".a" * 9_000,
        "answer = '\0'",
        "answer = 1\n" * 100_000,
        "```" * 100_000,
        "```\n" * 100_000,
        "`" * 100_000,
        "answer = " + "[" * 150 + "]" * 150,
        "x = 1\n" + "if x:\n" * 500,
    ],
)
def test_hostile_text_takes_no_time_and_raises_nothing(text: str) -> None:
    start = time.perf_counter()
    extract_program(text)
    assert time.perf_counter() - start < 5
