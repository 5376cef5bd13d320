"""Reaching a place on disk or in an object store, and saying plainly why it cannot be reached.

    with explained("write", path):
        filesystem, inner = filesystem_of(path)
        filesystem.pipe_file(inner, data)

Local files fail with an `OSError`; what an object store's client raises is its own, so everything
that comes out of one is taken for a failure of the store.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

from fdd_ray.errors import DependencyError, FddError, StoreError

_PACKAGES = {"s3": "fdd-ray[s3]", "s3a": "fdd-ray[s3]", "gs": "fdd-ray[gcs]", "gcs": "fdd-ray[gcs]"}
_ADVICE = {
    errno.ENOSPC: "make room there and run the same command again",
    errno.EDQUOT: "make room in this quota and run the same command again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and run the same command again",
    errno.EROFS: "it is mounted read-only: mount it for writing, or name another storage",
    errno.EACCES: "give this user the right to, or name another storage",
    errno.EPERM: "give this user the right to, or name another storage",
    errno.ENAMETOOLONG: "name a storage with a shorter path",
    errno.ENOTDIR: "a file is where a folder belongs: move it away, or name another storage",
    errno.EEXIST: "a file is where a folder belongs: move it away, or name another storage",
    errno.EISDIR: "a folder is where a file belongs: move it away, or name another storage",
    errno.EMFILE: "raise the limit on open files (ulimit -n) and run the same command again",
    errno.EIO: "the disk itself fails: copy the run to another one",
}


def is_local(path: str) -> bool:
    """Whether ``path`` lies on a file system of this machine."""
    return "://" not in path or path.startswith("file://")


def filesystem_of(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path, and the path inside it.

    Listings are never cached: other processes write into the same run directory.

    Raises:
        DependencyError: If the package for this kind of store is not installed.
        StoreError: If there is no such kind of store.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(path, use_listings_cache=False)  # type: ignore[no-any-return]
    except ImportError as error:
        package = _PACKAGES.get(path.partition("://")[0], "the fsspec package for it")
        raise DependencyError(f"{path} needs a package that is not installed ({error}); install {package}") from error
    except ValueError as error:
        raise StoreError(f"cannot reach {path}: {error}; name a folder, or a URL such as s3://bucket/runs") from error


@contextlib.contextmanager
def explained(action: str, path: str) -> Iterator[None]:
    """Turn what a store raises into a `StoreError` that says what failed, where, and what to do next.

    Args:
        action: What is being done, as in "cannot write ...".
        path: Where it is being done.
    """
    try:
        yield
    except FddError:
        raise
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise StoreError(f"cannot {action} {path}: {why}; {_advice(error, path)}") from error
    except Exception as error:
        # A ValueError is about the content of a file; whoever reads it knows what to say.
        if is_local(path) or isinstance(error, ValueError):
            raise
        why = f"{type(error).__name__}: {str(error)[:300]}"
        raise StoreError(f"cannot {action} {path}: {why}; {_advice(error, path)}") from error


def _advice(error: Exception, path: str) -> str:
    if not is_local(path):
        if isinstance(error, PermissionError):
            return "check the credentials in the environment and what they may do in this bucket"
        if isinstance(error, FileNotFoundError):
            return "check that the bucket exists, and its name in storage"
        return (
            "check that the store is up, its address (AWS_ENDPOINT_URL for S3) and the credentials in the environment,"
            " then run the same command again"
        )
    known = _ADVICE.get(getattr(error, "errno", None) or 0)
    return known or f"check that {os.path.dirname(path) or '.'} exists, has room and may be written"
