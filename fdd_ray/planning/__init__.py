"""What an experiment will take, before it runs and while it does: rows, tokens, GPU hours, wall time and money.

    plan = make_plan(load_experiment("jobs/tiny.yaml"))
    plan.remaining.teacher_tokens       # Range(low=..., likely=..., high=...)

Estimates, each with its assumptions. What the run's own finished stages tell comes before what is assumed.
Nothing here starts Ray, or asks the network unless the run directory lies there.
"""

from fdd_ray.planning.plan import Options, Plan, StagePlan
from fdd_ray.planning.planner import make_plan
from fdd_ray.planning.ranges import Range

__all__ = ["Options", "Plan", "Range", "StagePlan", "make_plan"]
