"""Trouble with stores, in words: whatever zarr raises becomes one of our errors."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from napari_histodistill.errors import (
    DiskError,
    HistodistillError,
    InputError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _zarr_errors() -> tuple[type[Exception], ...]:
    from zarr.errors import BaseZarrError

    known = (OSError, ValueError, LookupError, TypeError, RuntimeError)
    # InputError comes from the impossible grid of a damaged file.
    more = (AttributeError, ArithmeticError, MemoryError, InputError)
    return (*known, *more, BaseZarrError)


def damage(path: Path) -> AbstractContextManager[None]:
    """Turn what goes wrong while reading into an error that says what to do."""
    words = "the store is damaged ({reason}); compute it again with --restart."
    return _named(StoreError, path, words)


def trouble_writing(path: Path) -> AbstractContextManager[None]:
    """Turn what goes wrong while writing, such as a full disk, into such an error."""
    words = (
        "cannot be written ({reason}); what was finished before is kept, run again to "
        "go on."
    )
    return _named(DiskError, path, words)


@contextmanager
def _named(kind: type[HistodistillError], path: Path, words: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except _zarr_errors() as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise kind(f"{path}: " + words.format(reason=reason)) from error
