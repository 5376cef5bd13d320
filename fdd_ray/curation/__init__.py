"""Keeps the pool clean: no problem twice, no template too often, no benchmark problem at all.

``duplicates`` looks within the pool, ``contamination`` across to the benchmarks, ``folding`` is what both
mean by "the same text".
"""

from __future__ import annotations

from fdd_ray.curation.contamination import BenchmarkGuard, Contamination
from fdd_ray.curation.duplicates import DuplicateSettings, Entry, Finding, find_duplicates
from fdd_ray.curation.folding import Folded, fold

__all__ = [
    "BenchmarkGuard",
    "Contamination",
    "DuplicateSettings",
    "Entry",
    "Finding",
    "Folded",
    "find_duplicates",
    "fold",
]
