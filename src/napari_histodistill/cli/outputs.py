"""Folders and files that commands write: made late, checked first, written whole."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.cli.console import encodable, tell
from napari_histodistill.errors import InputError, refused_by_disk
from napari_histodistill.files import written_beside
from napari_histodistill.lock import WriterLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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


LOCK = ".histodistill.lock"
"""Held by the run that writes results into a folder, and removed at its end."""


@contextmanager
def claimed_folder(path: Path) -> Iterator[Path]:
    """Make a folder for results, and keep other runs out of it until the block ends.

    Raises
    ------
    InputError
        If it cannot be written to, or another run writes to it: the message names it.
    """
    lock = WriterLock(output_folder(path) / LOCK)
    try:
        yield path
    finally:
        lock.release(remove=True)


def refuse_occupied(out: Path, *results: str, option: str = "-o") -> None:
    """Refuse a folder in which other things have the names of results.

    Called before anything is computed.

    Parameters
    ----------
    out : Path
        The folder that ``-o`` names.
    results : str
        Names of the files and folders that will be written, ``.csv``, ``.geojson`` or
        ``.zarr``.
    option : str
        The option that names the folder.

    Raises
    ------
    InputError
        If one of them is there and is no earlier result.
    """
    from napari_histodistill.export.by_suffix import in_the_way

    around = _zarr_around(out.absolute())
    if around is not None:
        msg = (
            f"{option} {out}: {around} is a Zarr, whose files belong together; choose "
            f"another {option}."
        )
        raise InputError(msg)
    if out.exists() and not out.is_dir():
        msg = f"{option} {out}: this is a file; choose a folder, or a new name for one."
        raise InputError(msg)
    taken = next((name for name in results if in_the_way(out / name)), None)
    if taken is not None:
        msg = (
            f"{option} {out}: its {taken} was not written by this program; choose "
            f"another {option}."
        )
        raise InputError(msg)


def refuse_others(
    out: Path, ours: Mapping[str, Callable[[Path], bool]], what: str
) -> None:
    """Refuse a folder in which other things have the names of results.

    Parameters
    ----------
    out : Path
        The folder that ``-o`` names.
    ours : mapping of str to callable
        Name of a result to a function that says whether what is there is an earlier
        one, which may be replaced.
    what : str
        What the results are, in words.

    Raises
    ------
    InputError
        If one of them is there and is no earlier result.
    """
    for name, is_ours in ours.items():
        path = out / name
        if (path.exists() or path.is_symlink()) and not is_ours(path):
            msg = (
                f"-o {out}: its {name} is not {what} by this program; choose another "
                "-o."
            )
            raise InputError(msg)


def refuse_as_store(out: Path, store: Path, slide: Path) -> None:
    """Refuse a folder in which something else has the name that a slide's store needs.

    Raises
    ------
    InputError
        If so; the message names it. A folder full of Zarr slides has such names.
    """
    from napari_histodistill.maps.store import is_store

    empty = store.is_dir() and not any(store.iterdir())
    if not store.exists() or empty or is_store(store):
        return
    what = (
        "the slide itself"
        if slide.exists() and store.samefile(slide)
        else "something else, and no embedding store"
    )
    msg = (
        f"-o {out}: the embeddings would go to {store.name}, which is {what}; choose "
        "another -o."
    )
    raise InputError(msg)


def _zarr_around(out: Path) -> Path | None:
    """Return the Zarr into whose files a result would go.

    Far up, a file called ``zarr.json`` makes no Zarr: one that somebody left in
    ``/tmp`` would close all of it.
    """
    there = next(part for part in (out, *out.parents) if part.exists())
    for part in (there, *there.parents):
        if (part is there or part.suffix == ".zarr") and _is_zarr(part):
            return part
    return None


def _is_zarr(folder: Path) -> bool:
    marks = (".zattrs", ".zgroup", ".zarray", "zarr.json")
    return any((folder / name).is_file() for name in marks)


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
