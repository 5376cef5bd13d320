"""What several commands have in common."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``--set KEY=VALUE``, as often as wanted."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting of the experiment, such as finetune.epochs=3; may be given often",
    )


def add_json(parser: argparse._ActionsContainer) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print it for programs")


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
