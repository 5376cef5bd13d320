"""Datasets of the Hugging Face hub, or of a local folder, through the ``datasets`` library."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fdd_ray.errors import ProblemsError
from fdd_ray.nodes import printable
from fdd_ray.problems import asdiv, gsm8k, multiarith, svamp
from fdd_ray.problems.rows import RowFunction, listed, outcomes, shorten
from fdd_ray.problems.source import SourceSettings
from fdd_ray.problems.tables import fields_by, needed_columns
from fdd_ray.records import Problem, Rejection

_LIKE: Final[dict[str, tuple[RowFunction, tuple[str, ...]]]] = {
    "gsm8k": (gsm8k.gsm8k_fields, gsm8k.COLUMNS),
    "svamp": (svamp.svamp_fields, svamp.COLUMNS),
    "multiarith": (multiarith.multiarith_fields, multiarith.COLUMNS),
    "asdiv": (asdiv.asdiv_fields, asdiv.COLUMNS),
}


def read_hub(source: SourceSettings) -> Iterator[Problem | Rejection]:
    """The problems of one split of a dataset. No code of the dataset is ever run.

    Raises:
        ProblemsError: If the dataset, its subset, split or columns cannot be had.
    """
    name = "/".join(part for part in (source.path, source.subset, source.split) if part)
    dataset = _load(source, name)
    if source.like == "columns":
        to_fields = fields_by(source.columns)
        needed = needed_columns(source.columns, dataset.column_names, name)
    else:
        to_fields, columns = _LIKE[source.like]
        needed = list(columns)
        if absent := [column for column in columns if column not in dataset.column_names]:
            raise ProblemsError(
                f"{name} has no column {absent[0]!r}, so it is not like {source.like}; it has "
                f"{listed(dataset.column_names)}: choose another like, or like: columns and a mapping"
            )
    return outcomes(enumerate(_rows(dataset, needed), 1), name, to_fields)


def _load(source: SourceSettings, name: str) -> Any:
    import datasets

    datasets.disable_progress_bars()  # or the message would stand at the end of a bar
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it logs is in the exception too
    try:
        return datasets.load_dataset(source.path, source.subset, split=source.split, revision=source.revision)
    except Exception as error:  # the library, its hub client and its builders all have exceptions of their own
        offline = " (HF_HUB_OFFLINE is set)" if datasets.config.HF_HUB_OFFLINE else ""
        raise ProblemsError(
            f"cannot load {name} from the hub{offline}: {type(error).__name__}: {shorten(_cause(error))}; check the "
            "id, subset, split and revision, the network, and for a gated dataset HF_TOKEN, or download it and use its "
            "files"
        ) from error


def _cause(error: BaseException) -> str:
    """What went wrong at first: the library's last word is often only that a split could not be made."""
    while error.__cause__ is not None:
        error = error.__cause__
    return printable(" ".join(str(error).split()))


def _rows(dataset: Any, needed: list[str]) -> Iterator[Mapping[str, object]]:
    # Other columns may hold images or audio, which would be decoded for nothing.
    yield from dataset.select_columns(needed)
