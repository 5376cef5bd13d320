"""The command that looks for what would go wrong, before anything is paid for."""

from __future__ import annotations

import argparse
import os
import sys
import threading

from fdd_ray.commands.common import add_json, add_overrides, print_json


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    doctor = commands.add_parser(
        "doctor",
        help="look for what would go wrong: packages, GPUs, ports, storage, sandbox, models, problems, settings",
    )
    doctor.add_argument(
        "experiment", nargs="?", help="a YAML file, such as jobs/tiny.yaml; without it, this machine alone is examined"
    )
    add_overrides(doctor)
    doctor.add_argument("--no-ray", action="store_true", help="do not join the cluster that the run would join")
    add_json(doctor)
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from fdd_ray.doctor.examination import Subject, examine
    from fdd_ray.doctor.findings import exit_code
    from fdd_ray.doctor.text import Printer, findings_json, summary
    from fdd_ray.errors import ExperimentError

    if options.overrides and options.experiment is None:
        raise ExperimentError("--set changes an experiment, and none is named; give its file: fdd-ray doctor FILE.yaml")
    subject = Subject(options.experiment, tuple(options.overrides), use_ray=not options.no_ray)
    if options.json:
        findings = examine(subject)
        print_json(findings_json(findings, options.experiment))
    else:
        findings = examine(subject, Printer(lambda line: print(line, flush=True)).tell)
        print(summary(findings))
    code = exit_code(findings)
    if any(thread.name.startswith("doctor: ") for thread in threading.enumerate()):
        # A check that hangs may have started threads for which Python would wait at its end.
        sys.stdout.flush()
        os._exit(code)
    return code
