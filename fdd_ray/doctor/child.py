"""Part of a check in a process of its own, with a deadline: what joins Ray, or loads libraries that may crash.

    ask("fdd_ray.doctor.hub:read", {"sources": []}, deadline_s=60, variables={"HF_HUB_OFFLINE": "1"})

Question and answer are JSON. A process that overruns its deadline is killed with all that it started; it also ends
itself then, or when who asked is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fdd_ray import errors
from fdd_ray.errors import EngineError, FddError

_LAST_LINES: Final = 3
_WATCH_S: Final = 1.0


def ask(function: str, argument: Any, deadline_s: float, variables: Mapping[str, str] | None = None) -> Any:
    """What a function returns that is called in a fresh process.

    Args:
        function: ``module:name``; it takes one argument, which JSON can hold, and returns such a thing.
        argument: Its argument.
        deadline_s: Seconds that it may take, the start of the process included.
        variables: Environment variables beside ours.

    Raises:
        FddError: What the function raised.
        EngineError: If it gave no answer in time, or its process died.
        RuntimeError: If it raised anything else.
    """
    with tempfile.TemporaryDirectory(prefix="fdd-doctor-") as folder:
        question, answer, log = (Path(folder, name) for name in ("question", "answer", "log"))
        question.write_text(json.dumps(argument))
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "fdd_ray.doctor.child", function, str(question), str(answer), str(deadline_s)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, **(variables or {})},
                start_new_session=True,
            )
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise EngineError(
                f"no answer within {deadline_s:g} s{_last_words(log)}; see what hangs there, and try again when the"
                " machine has less to do"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not answer.is_file():
            raise EngineError(
                f"its process ended with {process.returncode} and without an answer{_last_words(log)}; reinstall the"
                " packages it uses in the tested versions"
            )
        return _read(json.loads(answer.read_text()))


def _read(told: dict[str, Any]) -> Any:
    if "answer" in told:
        return told["answer"]
    kind = getattr(errors, told["error"], None)
    if isinstance(kind, type) and issubclass(kind, FddError):
        raise kind(told["text"])
    raise RuntimeError(f"{told['error']}: {told['text']}")


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f" ({' / '.join(lines[-_LAST_LINES:])[-300:]})" if lines else ""


def _end_in_time(parent: int, deadline_s: float) -> None:
    """End this process and what it started when it is late, or its parent is gone."""
    end = time.monotonic() + deadline_s
    while os.getppid() == parent and time.monotonic() < end:
        time.sleep(_WATCH_S)
    os.killpg(0, signal.SIGKILL)


def _answer(function: str, question: str, answer: str, deadline_s: str) -> None:
    """Runs in the process of its own, which leads a group."""
    watch = (os.getppid(), float(deadline_s) + _WATCH_S)
    threading.Thread(target=_end_in_time, args=watch, daemon=True).start()
    module, _, name = function.partition(":")
    told: dict[str, Any]
    try:
        told = {"answer": getattr(importlib.import_module(module), name)(json.loads(Path(question).read_text()))}
    except FddError as error:
        told = {"error": type(error).__name__, "text": str(error)}
    except Exception as error:
        told = {"error": type(error).__name__, "text": " ".join(str(error).split())[:500]}
    whole = Path(f"{answer}.part")
    whole.write_text(json.dumps(told))
    whole.rename(answer)


if __name__ == "__main__":
    _answer(*sys.argv[1:5])
    sys.stdout.flush()
    os._exit(0)  # libraries that were loaded may not end by themselves
