"""The command line. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Sequence

from fdd_ray import __version__
from fdd_ray.commands import cleaning, comparing, doctor, models, planning, runs
from fdd_ray.errors import FddError

_NOTES = """\
environment:
  FDD_RAY_PLAIN=1 plain lines in place of the live view on a terminal    NO_COLOR=1 no colours

exit codes:
  0 done    2 bad usage or experiment    3 problems unreadable    4 run directory unusable
  5 engines failed    6 fine-tuning failed    7 a stage's result is not good enough to go on
  8 an optional package is missing    9 the budget is used up    130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal or file cannot show is shown as \xfc, never a crash
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a run as Ctrl-C does
    try:
        return int(options.command(options))
    except FddError as error:
        print(f"fdd-ray: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fdd-ray: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdd-ray",
        description="Feedback-Driven Distillation on Ray: a teacher, a small student, and rounds of feedback.",
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fdd-ray {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (runs, doctor, comparing, planning, models, cleaning):
        module.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
