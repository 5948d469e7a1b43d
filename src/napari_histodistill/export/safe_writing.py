"""Writing of results: whole or not at all, and never over another program's file."""

from __future__ import annotations

import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.errors import InputError, refused_by_disk
from napari_histodistill.files import put_folder, recover, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def write_file(
    path: Path | str, content: str | bytes, is_ours: Callable[[str], bool]
) -> Path:
    """Write a file beside its place and rename it there.

    Parameters
    ----------
    path : path
        Parent folders are made.
    content : str or bytes
        Text is written as UTF-8.
    is_ours : callable
        Called with the first 4096 characters of a file that is already there; returns
        whether it is an earlier export, which may be replaced.

    Raises
    ------
    InputError
        If something else is there, or the place cannot be written to.
    """
    path = Path(path)
    refuse_strangers(path, is_ours)
    with _trouble(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return path


@contextmanager
def new_folder(path: Path, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a folder to fill; when the block ends without error it is moved in place.

    Parameters
    ----------
    path : Path
        Final place of the folder; parent folders are made.
    is_ours : callable
        Called with a folder that is already there; returns whether it is an earlier
        export, which may be replaced. An empty folder always may.

    Raises
    ------
    InputError
        If something else is there, or the place cannot be written to.
    """
    _refuse_strangers(path, lambda: folder_holds_ours(path, is_ours))
    recover(path)
    aside = _aside(path)
    try:
        with _trouble(path):
            aside.mkdir(parents=True)
            yield aside
            put_folder(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def holds_ours(path: Path, is_ours: Callable[[str], bool]) -> bool:
    """Return whether a file is an earlier export, by its first 4096 characters."""
    return path.is_file() and is_ours(_head(path))


def folder_holds_ours(path: Path, is_ours: Callable[[Path], bool]) -> bool:
    """Return whether a folder is an earlier export, or empty."""
    return path.is_dir() and (not any(path.iterdir()) or is_ours(path))


def refuse_strangers(path: Path, is_ours: Callable[[str], bool]) -> None:
    """Refuse a place where something else is than an earlier export.

    Raises
    ------
    InputError
        If so.
    """
    _refuse_strangers(path, lambda: holds_ours(path, is_ours))


def _refuse_strangers(path: Path, is_ours: Callable[[], bool]) -> None:
    if path.exists() and not is_ours():
        what = "a folder" if path.is_dir() else "a file"
        msg = (
            f"{path}: {what} is there that this export did not write; choose another "
            "name or move it away."
        )
        raise InputError(msg)


def _head(path: Path) -> str:
    with _trouble(path), path.open("rb") as file:
        return file.read(4096).decode("utf-8", "replace")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


@contextmanager
def _trouble(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror or error})."
        raise refused_by_disk(msg, error) from error
