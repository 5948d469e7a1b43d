"""What goes wrong on disk, in words: what zarr raises leaves as one of our errors."""

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
    # InputError: a grid that cannot be.
    more = (AttributeError, ArithmeticError, MemoryError, InputError)
    return (*known, *more, BaseZarrError)


def damage(path: Path) -> AbstractContextManager[None]:
    """Call what goes wrong while reading by its name, and say what to do."""
    words = "the store is damaged ({reason}); compute it again with --restart."
    return _named(StoreError, path, words)


def trouble_writing(path: Path) -> AbstractContextManager[None]:
    """The same for writing, which a full or failing disk ends."""
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
