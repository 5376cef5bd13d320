"""Where pools and benchmarks come from: GSM8K, SVAMP, MultiArith, ASDiv, tables, the hub, the tiny world.

    >>> source = SourceSettings(format="tiny", split="pool", size=2)
    >>> loaded = load_problems([source], seed=0, name="pool")
    >>> loaded.problems[1].source
    'tiny/pool#1'

Every row of a source becomes either a problem or a rejection that says where it stands and what is wrong
with it; `load_problems` returns both. Nothing heavy is imported before something is read.
"""

from fdd_ray.problems.annotations import AnnotationProgram, annotation_program
from fdd_ray.problems.gsm8k import calculator_annotations
from fdd_ray.problems.load import LoadedProblems, load_problems, read_problems
from fdd_ray.problems.source import SourceSettings

__all__ = [
    "AnnotationProgram",
    "LoadedProblems",
    "SourceSettings",
    "annotation_program",
    "calculator_annotations",
    "load_problems",
    "read_problems",
]
