"""The headers of safetensors files: which tensors there are, and whether the file is whole.

A file is 8 bytes with the length of a JSON header, the header (name, type, shape and place of each tensor),
and the tensors one after the other; so the header alone tells how long the file must be.

    >>> sorted(read_header(model_path("student") / "model.safetensors"))[0]
    'model.embed_tokens.weight'
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Final

from fdd_ray.errors import ExperimentError

_MAX_HEADER_BYTES: Final = 100_000_000  # the format's own limit
_BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
}  # fmt: skip
_EMBEDDINGS: Final = ("embed_tokens.weight", "wte.weight", "embed_in.weight")


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file, by name: ``dtype``, ``shape`` and ``data_offsets`` of each.

    Raises:
        ExperimentError: If it is no safetensors file, or one that was cut off or changed.
        OSError: If it cannot be read.
    """
    size = os.path.getsize(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if (start + file.read(15)).startswith(b"version https://git-lfs"):
            raise ExperimentError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
        if length > min(size - 8, _MAX_HEADER_BYTES) or len(start) < 8:
            raise _broken(path, f"it has {size:,} bytes, and its header should have {length:,}" if size else "empty")
        file.seek(8)
        data = file.read(length)
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _broken(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    end = max((_end_of(path, name, entry) for name, entry in header.items()), default=0)
    if not header:
        raise _broken(path, "there is no tensor in it")
    if end != size - 8 - length:
        raise _broken(path, f"its tensors take {end:,} bytes, and {size - 8 - length:,} are there")
    return header


def embedding_rows(header: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The rows of each token embedding in a header, by name; those that are packed are left out."""
    return {
        name: entry["shape"][0]
        for name, entry in header.items()
        if name.endswith(_EMBEDDINGS) and len(entry["shape"]) == 2 and entry["dtype"] in ("F32", "F16", "BF16")
    }


def _end_of(path: Path, name: str, entry: Any) -> int:
    """Where a tensor ends, after what its header says was checked."""
    try:
        begin, end = entry["data_offsets"]
        shape, bits = entry["shape"], _BITS.get(entry["dtype"])
        plain = all(isinstance(number, int) and number >= 0 for number in (begin, end, *shape))
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, f"its header does not say what {name[:80]!r} is") from error
    if not plain or begin > end or (bits is not None and math.prod(shape) * bits != (end - begin) * 8):
        raise _broken(path, f"its header contradicts itself about {name[:80]!r}")
    return int(end)


def _broken(path: Path, why: str) -> ExperimentError:
    return ExperimentError(f"{path} is cut off or no safetensors file ({why}); copy or download it again")
