"""Checks of a machine, a cluster and an experiment, before any money is spent.

    from fdd_ray.doctor.examination import Subject, examine
    findings = examine(Subject("jobs/mine.yaml"))

Nothing here starts an engine. Ray is joined only where an experiment would run on a cluster that is up, and then in
a process of its own. Whatever is broken, there is a finding for it: a check that crashes or hangs is one as well.
(Nothing is imported here: parts of it run on nodes, and in processes that shall start quickly.)
"""
