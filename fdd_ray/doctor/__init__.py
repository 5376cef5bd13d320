"""Checks of a machine, a cluster and an experiment, before any money is spent.

    findings = examine(Subject("jobs/mine.yaml"))
    exit_code(findings)                 # 0 if none of them is a problem

Nothing here starts an engine. Ray is joined only where an experiment would run on a cluster that is up, and then in
a process of its own. Whatever is broken, there is a finding for it: a check that crashes or hangs is one as well.
"""

from fdd_ray.doctor.examination import Subject, examine
from fdd_ray.doctor.findings import Finding, exit_code

__all__ = ["Finding", "Subject", "examine", "exit_code"]
