"""Programs that try to break the interpreter, what reads its errors, or the program that comes next."""

from __future__ import annotations

EXCEPTIONS = {
    "control characters": ("raise ValueError('\\x1b[31m\\x00\\x07')", "runtime_error"),
    "a long message": ("raise ValueError('x' * 1_000_000)", "runtime_error"),
    "a message larger than memory": ("raise ValueError('x' * 25_000_000)", "runtime_error memory_limit"),
    "many lines": ("raise ValueError('\\n'.join(['Traceback'] * 100_000))", "runtime_error"),
    "writing from right to left": ("raise ValueError('\\u202e\\u2066 answer = 7')", "runtime_error"),
    "a surrogate": ("raise ValueError(chr(0xdcff))", "runtime_error"),
    "markup": ("raise ValueError('[red]x[/red] {0} %s <script>')", "runtime_error"),
    "an object as message": (
        "class A:\n    def __str__(self): return open('@SECRET_FILE@').read()\nraise ValueError(A())",
        "runtime_error unsupported refused",
    ),
    "several arguments": ("raise ValueError('x', 'y' * 1_000_000)", "runtime_error unsupported"),
    "a key": ("answer = {}['x' * 1_000_000]", "runtime_error"),
    "an assertion": ("assert 1 == 2, 'x' * 1_000_000", "runtime_error"),
    "an assertion shown": ("a = ['x' * 100_000] * 10\nassert a == 3", "runtime_error"),
    "a long name": ("answer = " + "x" * 15_000, "runtime_error"),
    "a long attribute": ("answer = (1)." + "x" * 15_000, "runtime_error"),
    "a long module": ("import " + "x" * 15_000, "runtime_error unsupported"),
    "a strange name": ("answer = \u212b\u0301\u0327", "runtime_error syntax_error"),
    "a chain": (
        "e = None\nfor _ in range(10_000):\n    try:\n        raise ValueError('x') from e\n"
        "    except ValueError as f:\n        e = f\nraise e",
        "runtime_error",
    ),
    "the interrupt": ("raise KeyboardInterrupt()", "runtime_error"),
    "the end of generators": ("raise StopIteration('x')", "runtime_error"),
    "no exception": ("raise 7", "runtime_error"),
    "a class": ("class A: pass\nraise A()", "runtime_error"),
    "in the handler": (
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('x' * 1_000_000)",
        "runtime_error",
    ),
    "in finally": ("try:\n    1 / 0\nfinally:\n    raise KeyError('x' * 1_000_000)", "runtime_error"),
    "a syntax error with hostile text": ("answer = '\x1b[31m' '" + "x" * 10_000, "syntax_error"),
}

CRASHES = {
    "drops a deep list": ("a = []\nfor _ in range(100_000):\n    a = [a]\na = None\nanswer = 1", "ok"),
    "drops a deep object": (
        "class A: pass\na = A()\nfor _ in range(30_000):\n    b = A()\n    b.x = a\n    a = b\na = b = None\n"
        "answer = 1",
        "ok",
    ),
    "hashes a deep tuple": (
        "a = ()\nfor _ in range(100_000):\n    a = (a,)\nanswer = hash(a)",
        "recursion_limit memory_limit",
    ),
    "compares deep lists": (
        "a = []\nb = []\nfor _ in range(50_000):\n    a = [a]\n    b = [b]\nanswer = int(a == b)",
        "recursion_limit",
    ),
    "shows a deep list": (
        "a = []\nfor _ in range(50_000):\n    a = [a]\nanswer = a",
        "recursion_limit answer_not_number",
    ),
    "copies a deep list": (
        "import copy\na = []\nfor _ in range(50_000):\n    a = [a]\nanswer = len(copy.deepcopy(a))",
        "recursion_limit ok",
    ),
    "writes a deep json": (
        "import json\na = []\nfor _ in range(50_000):\n    a = [a]\nanswer = len(json.dumps(a))",
        "recursion_limit runtime_error",
    ),
    "runs a deep enumeration": (
        "a = [1]\nfor _ in range(50_000):\n    a = iter(a)\n    a = enumerate(a)\nanswer = str(next(a))",
        "answer_not_number recursion_limit runtime_error",
    ),
    "runs a deep chain": (
        "import itertools\na = iter([1])\nfor _ in range(50_000):\n    a = itertools.chain(a)\nanswer = next(a)",
        "recursion_limit ok",
    ),
    "calls a deep partial": (
        "import functools\na = abs\nfor _ in range(50_000):\n    a = functools.partial(a)\nanswer = a(-1)",
        "recursion_limit ok",
    ),
    "shows a deep dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: object\na = A(1)\n"
        "for _ in range(50_000): a = A(a)\nanswer = a",
        "recursion_limit answer_not_number",
    ),
    "clears while it sorts": (
        "a = [3, 2, 1]\ndef key(n):\n    a.clear()\n    return n\na.sort(key=key)\nanswer = len(a)",
        "ok runtime_error",
    ),
    "clears while it compares": (
        "class A:\n    def __eq__(self, o):\n        a.clear()\n        return True\na = [A(), A(), A()]\n"
        "answer = int(a == [A(), A(), A()])",
        "ok runtime_error",
    ),
    "clears while it hashes": (
        "s = set()\nclass A:\n    def __hash__(self):\n        s.clear()\n        return 1\n    def __eq__(self, o):\n"
        "        s.clear()\n"
        "        return False\nfor _ in range(100): s.add(A())\nanswer = len(s)",
        "ok runtime_error",
    ),
    "clears while it shows": (
        "d = {}\nclass A:\n    def __repr__(self):\n        d.clear()\n        return 'x'\nd[1] = A()\nd[2] = A()\n"
        "answer = len(repr(d))",
        "ok runtime_error",
    ),
    "grows a dict that it walks": ("d = {1: 1}\nfor k in d: d[k + 1] = 1\nanswer = 1", "runtime_error"),
    "extends by itself": ("a = [1]\na.extend(a)\na += a\na[1:1] = a\nanswer = len(a)", "ok"),
    "awaits twice": (
        "import asyncio\nasync def f(): return 1\nasync def g():\n    c = f()\n    await c\n    return await c\n"
        "answer = asyncio.run(g())",
        "runtime_error",
    ),
    "awaits itself": (
        "import asyncio\nasync def f(): return await c\nc = f()\nanswer = asyncio.run(c)",
        "runtime_error",
    ),
    "gathers one twice": (
        "import asyncio\nasync def f(): return 1\nasync def g():\n    c = f()\n"
        "    return sum(await asyncio.gather(c, c))\nanswer = asyncio.run(g())",
        "ok runtime_error",
    ),
    "runs a loop in a loop": (
        "import asyncio\nasync def f(): return asyncio.run(f())\nanswer = asyncio.run(f())",
        "runtime_error recursion_limit",
    ),
    "many constants": (
        "answer = sum(eval('[' + ','.join(str(n) for n in range(70_000)) + ']'))",
        "unsupported ok memory_limit",
    ),
    "many arguments": ("answer = max(*range(500_000))", "ok memory_limit"),
    "many parameters": (
        "exec('def f(' + ','.join('x%d' % n for n in range(20_000)) + '): return 1')\nanswer = 1",
        "ok syntax_error unsupported memory_limit",
    ),
    "a long jump": ("if answer if 0 else 1:\n" + "    x = 1\n" * 1_900 + "answer = 1", "ok unsupported"),
    "many cases": (
        "exec('match 1:\\n' + ''.join('  case %d: pass\\n' % n for n in range(2, 20_000)))\nanswer = 1",
        "unsupported ok",
    ),
    "many conditions": (
        "exec('x = 1\\nif x == 0: pass\\n' + ''.join('elif x == %d: pass\\n' % n for n in range(2, 20_000)))\n"
        "answer = 1",
        "recursion_limit memory_limit",
    ),
    "many blocks": (
        "exec('\\n'.join(' ' * n + 'for x%d in [1]:' % n for n in range(90)) + '\\n' + ' ' * 90 + 'pass')\nanswer = 1",
        "ok recursion_limit syntax_error",
    ),
    "a signalling NaN": (
        "from decimal import Decimal\nanswer = int(sorted([Decimal('sNaN'), Decimal(1)])[0])",
        "runtime_error",
    ),
    "the largest date": ("import datetime\nanswer = datetime.timedelta(days=10**18).days", "runtime_error"),
    "a long date format": (
        "import datetime\nanswer = len(datetime.datetime(1, 1, 1).strftime('%-999999999d'))",
        "ok runtime_error memory_limit",
    ),
    "a huge precision": (
        "from decimal import Decimal, getcontext\ngetcontext().prec = 10**18\nanswer = Decimal(1) / 3",
        "runtime_error memory_limit",
    ),
    "a huge repetition": ("import re\nanswer = 1 if re.match('a{4294967295}', 'a') else 2", "runtime_error"),
    "a wrong group": ("import re\nanswer = len(re.sub('a', '\\\\g<99999999999999>', 'a'))", "ok runtime_error"),
    "a character too far": ("answer = ord(chr(0x110000))", "runtime_error"),
}

# What a program leaves behind must not reach the one that follows.
NEXT_PROGRAM = {
    "leaves an answer": ("answer = 666\ndef solution(): return 666", "ok"),
    "changes a module": (
        "import math\nmath.floor = lambda n: 666\nmath.pi = 666\nanswer = 666",
        "ok runtime_error unsupported",
    ),
    "changes a built-in type": ("int.__add__ = lambda a, b: 666\nanswer = 666", "runtime_error unsupported"),
    "changes the decimal context": ("from decimal import getcontext\ngetcontext().prec = 1\nanswer = 666", "ok"),
    "changes the random seed": ("import random\nrandom.seed(666)\nanswer = 666", "ok"),
    "changes the folder": ("import os\nos.chdir('/tmp')\nanswer = 666", "ok refused"),
    "leaves a task": (
        "import asyncio\nasync def f():\n    while True:\n        await asyncio.sleep(1)\nc = f()\nanswer = 666",
        "ok",
    ),
    "leaves an open print": ("print('x' * 4000, end='')\nanswer = 666", "ok"),
    "fills the memory and stops": ("a = [0] * 2_000_000\nanswer = 666", "ok memory_limit"),
    "replaces print": ("print = len = abs = sum = None\nanswer = 666", "ok"),
    "writes into a default": ("def f(a=[]):\n    a.append(1)\n    return len(a)\nf()\nanswer = f() * 333", "ok"),
}
