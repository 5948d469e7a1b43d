"""What goes wrong on disk, in words: what zarr raises leaves as one of our errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_histodistill.errors import DiskError, InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _zarr_errors() -> tuple[type[Exception], ...]:
    from zarr.errors import BaseZarrError

    known = (OSError, ValueError, LookupError, TypeError, RuntimeError)
    # InputError: a grid that cannot be.
    more = (AttributeError, ArithmeticError, MemoryError, InputError)
    return (*known, *more, BaseZarrError)


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Call what goes wrong while reading by its name, and say what to do."""
    try:
        yield
    except StoreError:
        raise
    except _zarr_errors() as error:
        msg = (
            f"{path}: the store is damaged ({_reason(error)}); compute it again with "
            "--restart."
        )
        raise StoreError(msg) from error


@contextmanager
def trouble_writing(path: Path) -> Iterator[None]:
    """The same for writing, which a full or failing disk ends."""
    try:
        yield
    except StoreError:
        raise
    except _zarr_errors() as error:
        msg = (
            f"{path}: cannot be written ({_reason(error)}); what was finished before "
            "is kept, run again to go on."
        )
        raise DiskError(msg) from error


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
