"""What an error that came out of the sandbox says about the program: a verdict and a short detail.

A program that needs what the sandbox lacks is told apart from one that is wrong: ``unsupported`` counts
against the sandbox, ``runtime_error`` against the program. A feature counts as lacking when CPython has it.

    fault_of_error("AttributeError", "'int' object has no attribute 'bit_length'")
    # Fault(verdict='unsupported', detail='attribute:int.bit_length')

`counted_as` shortens both to a reason of few different values, so that what programs lack can be counted.
"""

from __future__ import annotations

import builtins
import importlib
import re
import sys
from types import CodeType, CoroutineType, FunctionType, GeneratorType, MethodType, TracebackType
from typing import Final, Literal, NamedTuple

ProgramVerdict = Literal[
    "ok",
    "syntax_error",
    "no_answer",
    "answer_not_number",
    "time_limit",
    "memory_limit",
    "recursion_limit",
    "output_limit",
    "source_limit",
    "unsupported",
    "refused",
    "runtime_error",
    "crashed",
]

# The modules that the sandbox has (in part); CPython's are loaded only to look up a name that it lacks.
_MODULES: Final = re.compile(
    r"asyncio|base64|binascii|bisect|collections|copy|csv|dataclasses|datetime|decimal|functools|hashlib|itertools"
    r"|json|math|random|re|time|tomllib|typing|unicodedata"
)
_TYPES: Final[dict[str, type]] = {
    kind.__name__: kind
    for kind in (int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset, range, slice)
}
_SPECIAL_NAMES: Final = frozenset(
    name
    for kind in (
        *(int, str, list, dict, type, BaseException),
        *(CodeType, CoroutineType, FunctionType, GeneratorType, MethodType, TracebackType),
    )
    for name in dir(kind)
    if name.startswith("__")
) | {"__builtins__", "__dict__", "__mro__", "__subclasses__", "__weakref__"}
_OTHER_PACKAGES: Final = re.compile(
    r"astropy|cvxpy|gmpy2|matplotlib|more_itertools|mpmath|networkx|numba|numpy|ortools|pandas|pint|plotly|pulp|scipy"
    r"|seaborn|sklearn|statsmodels|sympy|torch|z3"
)
# How the sandbox's parser names what it lacks, and the name under which that is counted.
_SYNTAX: Final = {
    "yield expressions": "yield",
    "yield from expressions": "yield from",
    "the 'del' statement": "del",
    "class inheritance and metaclasses": "class inheritance",
    "method decorators (classmethod/staticmethod/property)": "method decorators",
    "async for loops": "async for",
    "async context managers (async with)": "async with",
    "async comprehensions": "async comprehensions",
    "exception groups (try*/except*)": "except*",
    "template strings (t-strings)": "template strings",
    "type aliases": "type aliases",
    "wildcard imports": "wildcard imports",
    "long functions": "long functions",
}
_OUTSIDE: Final = re.compile(
    r"(?:concurrent|ctypes|fcntl|ftplib|glob|https?x?|importlib|inspect|io|mmap|multiprocessing|os|pathlib|pickle"
    r"|pty|requests|resource|select|shelve|shutil|signal|smtplib|socket|sqlite3|ssl|subprocess|sys|tempfile"
    r"|threading|urllib3?)(?:\..*)?"
)
_NO_MODULE: Final = re.compile(r"No module named '([\w.]{1,60})'")
_NO_IMPORT: Final = re.compile(r"cannot import name '(\w{1,60})' from '([\w.]{1,60})'")
_NO_MEMBER: Final = re.compile(r"module '([\w.]{1,60})' has no attribute '(\w{1,60})'")
_NO_ATTRIBUTE: Final = re.compile(r"(?:type object )?'([\w.]{1,60})'(?: object)? has no attribute '(\w{1,60})'")
_NO_NAME: Final = re.compile(r"name '(\w{1,60})' is not defined")
_NO_SERVICE: Final = re.compile(r"'([\w.]{1,60})' is not supported in this environment")
_NO_SYNTAX: Final = re.compile(r"The monty syntax parser does not yet support (.{1,80})")
_NOT_YET: Final = re.compile(r"\b(?:is|are) not yet supported|\bdoes not yet support\b")
_LIMITS: Final[dict[str, ProgramVerdict]] = {
    "TimeoutError": "time_limit",
    "MemoryError": "memory_limit",
    "RecursionError": "recursion_limit",
}
_FILES: Final = re.compile(r"PermissionError|File\w+Error|(?:IsA|NotA)DirectoryError|OSError")


class Fault(NamedTuple):
    """Why a program gave no answer; ``detail`` is one short printable line."""

    verdict: ProgramVerdict
    detail: str


def shorten(text: str, width: int = 200) -> str:
    """``text`` as one line of at most ``width`` printable characters, safe in a log."""
    line = " ".join(text[: 4 * width].split())
    line = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return line if len(line) <= width and len(text) <= 4 * width else line[: width - 3] + "..."


def fault_of_syntax(message: str) -> Fault:
    """The fault behind a program that the sandbox could not parse."""
    if "too deeply nested" in message:
        return Fault("recursion_limit", shorten(message))
    if message.startswith("function too large"):
        return Fault("unsupported", "syntax:long functions")
    if _NOT_YET.search(message):
        return Fault("unsupported", f"syntax:{shorten(message, 80)}")
    return Fault("syntax_error", shorten(message))


def fault_of_error(name: str, message: str) -> Fault:
    """The fault behind an exception of type ``name`` that ended a program."""
    message = message[:1000]
    verdict = _LIMITS.get(name)
    if verdict is not None:
        return Fault(verdict, shorten(message))
    if name == "SyntaxError":
        return fault_of_syntax(message)
    if _FILES.fullmatch(name):
        return Fault("refused", shorten(f"{name}: {message}"))
    if name == "NotImplementedError" and (found := _NO_SYNTAX.match(message)):
        return Fault("unsupported", f"syntax:{shorten(found[1], 80)}")
    if name == "NotImplementedError" and message.startswith("Wildcard imports"):
        return Fault("unsupported", "syntax:wildcard imports")
    if name == "RuntimeError" and (found := _NO_SERVICE.match(message)):
        return Fault("refused", found[1])
    if name == "RuntimeError" and message.startswith("suspension limit"):
        return Fault("refused", "asked for what is not there too often")
    if name == "RuntimeError" and message.startswith("Internal error in monty"):
        return Fault("unsupported", shorten(f"interpreter:{message}"))
    if name == "ValueError" and message.startswith("Exceeds the limit (4300 digits)"):
        return Fault("answer_not_number", "a whole number of more than 4300 digits")
    return _lacking(name, message) or Fault("runtime_error", shorten(f"{name}: {message}"))


def counted_as(verdict: ProgramVerdict, detail: str) -> str:
    """The reason under which a program without an answer is counted: its verdict, with the feature if it lacks one.

    Args:
        verdict: The verdict.
        detail: What was seen. A program can have it say anything, so only names that CPython, well-known packages
            or the sandbox's parser have are taken over; the rest is ``other``. There are some thousand reasons
            at most, and each is short and printable.

    Returns:
        ``time_limit``, ``unsupported: module:sympy``, ``unsupported: syntax:yield``, ``unsupported: other``...
    """
    if verdict != "unsupported":
        return verdict
    kind, _, name = detail.partition(":")
    feature = "other"
    if kind == "module":
        package = name.partition(".")[0]
        known = _OTHER_PACKAGES.fullmatch(package) or (package in sys.stdlib_module_names and package[0] != "_")
        feature = f"module:{package if known else 'other'}"
    elif kind == "builtin":
        feature = f"builtin:{name if hasattr(builtins, name) else 'other'}"
    elif kind == "syntax":
        feature = f"syntax:{_SYNTAX.get(name, 'other')}"
    elif kind == "attribute":
        feature = f"attribute:{_known_attribute(*name.rpartition('.')[::2])}"
    elif kind in ("interpreter", "call"):
        feature = kind
    return f"unsupported: {feature}"


def _known_attribute(owner: str, attribute: str) -> str:
    if _MODULES.fullmatch(owner) and hasattr(importlib.import_module(owner), attribute):
        return f"{owner}.{attribute}"
    kind = _type_named(owner)
    if kind is not None and hasattr(kind, attribute):
        return f"{owner}.{attribute}"
    return attribute if attribute in _SPECIAL_NAMES else "other"


def _type_named(name: str) -> type | None:
    """CPython's type of that name, for built-in types and those of the modules that the sandbox has."""
    module, _, member = name.rpartition(".")
    if not module:
        return _TYPES.get(member)
    found = getattr(importlib.import_module(module), member, None) if _MODULES.fullmatch(module) else None
    return found if isinstance(found, type) else None


def _lacking(name: str, message: str) -> Fault | None:
    """The fault behind a name, module or attribute that the sandbox does not know, if CPython does."""
    if name == "ModuleNotFoundError" and (found := _NO_MODULE.match(message)):
        return Fault("refused" if _OUTSIDE.fullmatch(found[1]) else "unsupported", f"module:{found[1]}")
    if name == "NameError" and (found := _NO_NAME.match(message)):
        return Fault("unsupported", f"builtin:{found[1]}") if hasattr(builtins, found[1]) else None
    if name == "ImportError" and (found := _NO_IMPORT.match(message)):
        return _lacking_member(found[2], found[1])
    if name == "AttributeError" and (found := _NO_MEMBER.match(message)):
        return _lacking_member(found[1], found[2])
    if name == "AttributeError" and (found := _NO_ATTRIBUTE.match(message)):
        owner, attribute = found[1], found[2]
        has_it = hasattr(_type_named(owner) or object, attribute) or attribute in _SPECIAL_NAMES
        return Fault("unsupported", f"attribute:{owner}.{attribute}") if has_it else None
    if _NOT_YET.search(message):
        return Fault("unsupported", f"call:{shorten(message, 80)}")
    return None


def _lacking_member(module: str, member: str) -> Fault | None:
    if _OUTSIDE.fullmatch(module):
        return Fault("refused", f"{module}.{member}")
    if _MODULES.fullmatch(module) and hasattr(importlib.import_module(module), member):
        return Fault("unsupported", f"attribute:{module}.{member}")
    return None
