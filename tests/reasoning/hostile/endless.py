"""Programs that do not end by themselves, or nest for ever."""

from __future__ import annotations

LOOPS = {
    "while": ("while True:\n    pass", "time_limit"),
    "catches everything": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "time_limit",
    ),
    "finally continues": (
        "def f():\n    while True:\n        try:\n            return 1\n        finally:\n            continue\n"
        "answer = f()",
        "time_limit",
    ),
    "in exec": ("exec('while True: pass')", "time_limit"),
    "in solution": ("def solution():\n    while True: pass", "time_limit"),
    "in repr": ("class A:\n    def __repr__(self):\n        while True: pass\nanswer = A()", "time_limit"),
    "in str": ("class A:\n    def __str__(self):\n        while True: pass\nanswer = A()", "time_limit"),
    "in the text of an error": (
        "class A:\n    def __str__(self):\n        while True: pass\nraise ValueError(A())",
        "time_limit unsupported runtime_error",
    ),
    "in a hash": ("class A:\n    def __hash__(self):\n        while True: pass\nanswer = len({A()})", "time_limit"),
    "in a comparison": (
        "class A:\n    def __eq__(self, o):\n        while True: pass\nanswer = [A()].index(1)",
        "time_limit",
    ),
    "in a key": ("def key(n):\n    while True: pass\nanswer = sorted([2, 1], key=key)", "time_limit"),
    "a dict that never empties": ("d = {0: 0}\nwhile d:\n    d[len(d)] = d.pop(len(d) - 1)\nanswer = 1", "time_limit"),
    "an iterator of its own": (
        "class A:\n    def __iter__(self): return self\n    def __next__(self): return 1\nfor n in A(): pass",
        "time_limit",
    ),
    "in a coroutine": (
        "import asyncio\nasync def f():\n    while True:\n        await asyncio.sleep(0)\nasyncio.run(f())",
        "time_limit refused",
    ),
    "doubles its calls": ("def f(n):\n    return 1 if n == 0 else f(n - 1) + f(n - 1)\nanswer = f(200)", "time_limit"),
    "catches recursion": (
        "def f():\n    try:\n        f()\n    except RecursionError:\n        f()\nf()\nanswer = 1",
        "time_limit",
    ),
    "raises and catches": (
        "while True:\n    try:\n        raise ValueError('x' * 1000)\n    except ValueError:\n        pass",
        "time_limit",
    ),
    "joins a string": ("a = ''\nwhile True:\n    a += 'x'\n    a = a[:1000]", "time_limit"),
    "collects cycles": ("while True:\n    a = []\n    a.append(a)", "time_limit"),
    "waits on its clock": (
        "import time\nend = time.time() + 5\nwhile time.time() < end: pass\nanswer = 1",
        "time_limit",
    ),
    "sleeps": ("import time\nfor _ in range(90):\n    time.sleep(100)\nanswer = 1", "ok"),
    "sleeps for ever": ("import time\nwhile True:\n    time.sleep(1)", "time_limit refused"),
    "sleeps in asyncio": ("import asyncio\nasyncio.run(asyncio.sleep(10**9))\nanswer = 1", "ok"),
}

# A single call that runs for ever inside the interpreter.
NATIVE_LOOPS = {
    "sum of a range": ("answer = sum(range(10**13))", "time_limit"),
    "sum of a count": ("import itertools\nanswer = sum(itertools.count())", "time_limit"),
    "membership of a count": ("import itertools\nanswer = int(-1 in itertools.count())", "time_limit"),
    "any": ("import itertools\nanswer = any(itertools.repeat(0))", "time_limit"),
    "set of one": ("import itertools\nanswer = len(set(itertools.repeat(1)))", "time_limit"),
    "product of ones": ("import itertools, math\nanswer = math.prod(itertools.repeat(1))", "time_limit"),
    "filter": ("import itertools\nanswer = next(filter(None, itertools.repeat(0)))", "time_limit"),
    "slice": ("import itertools\nanswer = next(itertools.islice(itertools.count(), 10**15, None))", "time_limit"),
    "chain": ("import itertools\nanswer = next(itertools.chain.from_iterable(itertools.repeat([])))", "time_limit"),
    "permutations": ("import itertools\nanswer = sum(1 for _ in itertools.permutations(range(20)))", "time_limit"),
    "product of ranges": ("import itertools\nanswer = max(itertools.product(range(100), repeat=20))[0]", "time_limit"),
    "reduce": ("import functools, itertools\nanswer = functools.reduce(max, itertools.repeat(1))", "time_limit"),
    "iterated call": ("answer = len(set(iter(int, 1)))", "time_limit"),
    "joined emptiness": ("import itertools\nanswer = len(''.join(itertools.repeat('')))", "time_limit"),
    "equal long lists": (
        "a = [1] * 10**5\nb = list(a)\nanswer = int([a] * 10**5 == [b] * 10**5)",
        "time_limit memory_limit",
    ),
    "one hash for all": (
        "class A:\n    def __hash__(self): return 1\nanswer = len({A() for _ in range(50_000)})",
        "time_limit memory_limit",
    ),
    "inserts in front": ("a = []\nwhile True:\n    a.insert(0, 1)", "time_limit memory_limit"),
    "shuffles": ("import random\na = list(range(100_000))\nwhile True:\n    random.shuffle(a)", "time_limit"),
    "backtracks": ("import re\nanswer = 1 if re.match('(a+)+$', 'a' * 40 + 'b') else 2", "ok"),
    "backtracks by reference": (
        "import re\nanswer = 1 if re.match(r'(a*)*\\1b$', 'a' * 5000 + 'c') else 2",
        "runtime_error time_limit",
    ),
    "backtracks by alternation": ("import re\nanswer = 1 if re.match('(a|aa)+$', 'a' * 5000 + 'b') else 2", "ok"),
    "logarithm of many digits": (
        "from decimal import Decimal, getcontext\ngetcontext().prec = 10**5\nanswer = Decimal(2).ln()",
        "time_limit",
    ),
}

# What the interpreter does not stop by its own clock, so that the worker has to be killed.
OVERRUN = {
    "equal trees": (
        "a = [0]\nb = [0]\nfor _ in range(60):\n    a = [a, a]\n    b = [b, b]\nanswer = int(a == b)",
        "time_limit",
    ),
    "ordered trees": (
        "a = (0,)\nb = (0,)\nfor _ in range(60):\n    a = (a, a)\n    b = (b, b)\nanswer = int(a < b)",
        "time_limit",
    ),
    "equal dicts": (
        "a = {0: 0}\nb = {0: 0}\nfor _ in range(60):\n    a = {0: a, 1: a}\n    b = {0: b, 1: b}\nanswer = int(a == b)",
        "time_limit",
    ),
    "membership of a tree": (
        "a = [0]\nb = [0]\nfor _ in range(60):\n    a = [a, a]\n    b = [b, b]\nanswer = int(a in [b])",
        "time_limit",
    ),
    "gathers": (
        "import asyncio\nasync def f(): return 1\nasync def g():\n"
        "    return sum(await asyncio.gather(*[f() for _ in range(80_000)]))\n"
        "answer = asyncio.run(g())",
        "time_limit memory_limit",
    ),
    "gathers from a list": (
        "import asyncio\nasync def f(): return 1\nall = [f() for _ in range(60_000)]\nasync def g():\n"
        "    return len(await asyncio.gather(*all))\nanswer = asyncio.run(g())",
        "time_limit memory_limit",
    ),
    "a greatest divisor": (
        "import math\nanswer = math.gcd((1 << 20_000_000) - 1, (1 << 19_999_999) - 3)",
        "time_limit memory_limit",
    ),
    "a common multiple": ("import math\nanswer = math.lcm(*range(1, 200_000)) % 7", "time_limit memory_limit"),
    "many fields": (
        "import collections\nanswer = len(collections.namedtuple('A', ['a%d' % n for n in range(200_000)])._fields)",
        "time_limit memory_limit",
    ),
}

RECURSION = {
    "calls itself": ("def f():\n    return f()\nf()", "recursion_limit"),
    "calls each other": ("def f(): return g()\ndef g(): return f()\nf()", "recursion_limit"),
    "by lambda": ("f = lambda f: f(f)\nf(f)", "recursion_limit"),
    "by eval": ("s = 'eval(s)'\nanswer = eval(s)", "recursion_limit"),
    "by exec": ("s = 'exec(s)'\nexec(s)", "recursion_limit"),
    "by a key": ("def f(n):\n    return sorted([n], key=lambda m: f(m + 1))\nf(0)", "recursion_limit"),
    "by map": ("def f(n): return list(map(f, [n]))\nf(1)", "recursion_limit"),
    "by reduce": (
        "import functools\ndef f(a, b): return functools.reduce(f, [a, b])\nanswer = f(1, 2)",
        "recursion_limit",
    ),
    "by a comprehension": ("def f(): return [f() for _ in [1]]\nf()", "recursion_limit"),
    "by a decorator": ("def d(f): return d(f)\n@d\ndef g(): pass", "recursion_limit"),
    "by a cache": ("import functools\n@functools.lru_cache(None)\ndef f(n): return f(n + 1)\nf(0)", "recursion_limit"),
    "by a default": ("import collections\nd = collections.defaultdict(lambda: d[0])\nanswer = d[0]", "recursion_limit"),
    "by awaiting": ("import asyncio\nasync def f(): return await f()\nanswer = asyncio.run(f())", "recursion_limit"),
    "by gathering": (
        "import asyncio\nasync def f(): return await asyncio.gather(f())\nanswer = asyncio.run(f())",
        "memory_limit recursion_limit",
    ),
    "in repr": ("class A:\n    def __repr__(self): return f'{A()!r}'\nanswer = A()", "recursion_limit"),
    "in comparison": (
        "class A:\n    def __eq__(self, o): return [self] == [A()]\nanswer = int(A() == A())",
        "recursion_limit",
    ),
    "in a hash": ("class A:\n    def __hash__(self): return len({A()})\nanswer = hash(A())", "recursion_limit"),
    "in addition": ("class A:\n    def __add__(self, o): return A() + o\nanswer = A() + 1", "recursion_limit"),
    "in iteration": ("class A:\n    def __iter__(self): return iter(A())\nanswer = len(list(A()))", "recursion_limit"),
    "in a context": (
        "class A:\n    def __enter__(self):\n        with A(): return 1\n    def __exit__(self, *a): pass\n"
        "with A(): answer = 1",
        "recursion_limit",
    ),
    "in init": ("class A:\n    def __init__(self): A()\nA()", "recursion_limit"),
    "nests brackets": ("answer = " + "(" * 5_000 + "1" + ")" * 5_000, "recursion_limit"),
    "nests lists": ("answer = " + "[" * 5_000 + "]" * 5_000, "recursion_limit"),
    "nests signs": ("answer = " + "-" * 15_000 + "1", "recursion_limit"),
    "nests attributes": ("x = 1\nx" + ".a" * 9_000, "recursion_limit"),
    "nests calls": ("answer = " + "abs(" * 3_000 + "1" + ")" * 3_000, "recursion_limit"),
    "nests sums": ("answer = " + "1+" * 9_000 + "1", "recursion_limit ok"),
    "nests choices": ("answer = " + "1 if 1 else " * 1_500 + "1", "recursion_limit"),
    "nests lambdas": ("answer = " + "lambda:" * 2_500 + "1", "recursion_limit"),
    "nests in eval": ("answer = eval('(' * 100_000)", "recursion_limit"),
    "nests negations in eval": ("answer = eval('not ' * 500_000 + '1')", "recursion_limit memory_limit"),
    "nests json": ("import json\nanswer = json.loads('[' * 500_000)", "runtime_error recursion_limit"),
    "nests a pattern": ("import re\nre.compile('(' * 10_000)", "runtime_error"),
    "lifts the limit": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()", "refused"),
}
