"""Folders and files that commands write: made late, checked first, written whole."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.cli.console import encodable, tell
from napari_histodistill.errors import refused_by_disk
from napari_histodistill.files import written_beside

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.maps import EmbeddingStore


def output_folder(path: Path, option: str = "-o") -> Path:
    """Make a folder for results and check that it can be written to.

    Raises
    ------
    InputError
        If it cannot; the message names the option.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or error
        msg = (
            f"{option} {path}: cannot be written to ({reason}); choose another folder."
        )
        raise refused_by_disk(msg, error) from error
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let a function write beside the path, then rename: never a half-written file.

    Raises
    ------
    InputError
        If the place cannot be written to.
    """
    try:
        with written_beside(path) as beside:
            write(beside)
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror or error})."
        raise refused_by_disk(msg, error) from error
    return path


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write a JSON object for people and programs to read later."""
    text = encodable(json.dumps(content, ensure_ascii=False, indent=2)) + "\n"
    return write_whole(path, lambda beside: beside.write_text(text, "utf-8"))


def unfinished(store: EmbeddingStore) -> dict[str, int]:
    """Report on stderr if cells of a store are still to be computed.

    Returns
    -------
    dict
        For the answer: ``{"pending": n}``, or nothing if the store is finished.
    """
    from napari_histodistill.maps.store import CellStatus

    wanted = store.wanted
    pending = int((wanted & (store.status == CellStatus.PENDING)).sum())
    if not pending:
        return {}
    tell(
        f"{store.path}: {pending} of {int(wanted.sum())} squares are not computed yet; "
        "run embed again to finish."
    )
    return {"pending": pending}
