"""The one exception tree of fdd_ray.

Every message says what failed, where, and what to do next. Exceptions carry their message in
``args`` alone, so that they survive the pickling that a trip between Ray processes means. Each class
owns the exit code with which ``fdd-ray`` ends when it is not handled.
"""

from __future__ import annotations


class FddError(Exception):
    """Anything that fdd_ray itself reports as failed.

    Attributes:
        exit_code: What ``fdd-ray`` exits with; 1 is kept for bugs, 2 for bad usage.
    """

    exit_code = 1


class ExperimentError(FddError, ValueError):
    """The experiment file or an override on the command line is wrong; nothing was started."""

    exit_code = 2


class ProblemsError(FddError, ValueError):
    """A pool or benchmark could not be read, or holds too few usable problems."""

    exit_code = 3


class StoreError(FddError):
    """A run directory cannot be used as asked: changed settings, foreign or torn files, no access."""

    exit_code = 4


class EngineError(FddError, RuntimeError):
    """An engine did not start, died too often, or cannot serve what it was asked."""

    exit_code = 5


class TrainingError(FddError, RuntimeError):
    """Fine-tuning did not start or failed for good."""

    exit_code = 6


class StageError(FddError, RuntimeError):
    """A stage finished, but what it made is not good enough to go on with."""

    exit_code = 7


class DependencyError(FddError, ImportError):
    """An optional package that the experiment asks for is not installed."""

    exit_code = 8


class BudgetError(FddError, RuntimeError):
    """The budget is used up; everything that was finished is written, and the run can go on."""

    exit_code = 9
