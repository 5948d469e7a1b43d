"""Which slides a folder holds: what it offers as a worklist.

Names decide, as in the reader, so that a folder on a slow disk is listed at once. Only
zarr folders and DICOM files are looked into, for what is no slide, and for what is one
slide in many files.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.layers.plain_names import plain_name
from napari_histodistill.slides.formats.dicom_limits import check_dicom
from napari_histodistill.slides.formats.omezarr import MAP_MARK, is_zarr_folder
from napari_histodistill.slides.formats.zarr_limits import MAX_METADATA_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FILE_ENDINGS = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu",
    ".qptiff", ".svslide", ".dcm", ".czi", ".zarr", ".zarr.zip", ".ozx",
)  # fmt: skip
"""Names that we offer to read; ``napari.yaml`` lists the same as patterns.

There it also lists signed addresses: what napari finds no reader for, it repeats whole.
"""

MOST_SLIDES = 1000
"""Slides of one worklist."""

MOST_ENTRIES = 20_000
"""Files and folders of one folder that are looked at."""

_MARKS = tuple(f'"{mark}"'.encode() for mark in (MAP_MARK, "histodistill"))
"""In the attributes of what we write as zarr: maps, and embeddings."""


def slides_in(folder: Path) -> tuple[Path, ...]:
    """Return the slides of a folder and of the folders in it, one level down.

    Slides of the folder itself come first, then those of each folder in it; all sorted
    by name as people count (``case 2`` before ``case 10``). Left out are hidden files
    and folders, maps and embeddings that this package wrote, and what a slide keeps its
    data in (inside of an OME-Zarr, the folder beside an ``.mrxs``). Of DICOM files that
    make up one slide, the largest stands for it. No slide is opened: one that is broken
    is in the list.

    Parameters
    ----------
    folder : Path
        An existing folder.

    Returns
    -------
    tuple of Path
        Empty if there are none.

    Raises
    ------
    InputError
        If the folder cannot be read, or holds more than 1,000 slides or 20,000 files.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from napari_histodistill.layers.worklist import slides_in
    >>> with TemporaryDirectory() as name:
    ...     for file in ("s10.svs", "s9.svs", ".s1.svs", "notes.txt"):
    ...         (Path(name) / file).touch()
    ...     [slide.name for slide in slides_in(Path(name))]
    ['s9.svs', 's10.svs']
    """
    found: list[Path] = []
    for slide in _walked(folder):
        found.append(slide)
        if len(found) > MOST_SLIDES:
            msg = (
                f"{plain_name(folder.name)} holds more than {MOST_SLIDES:,} slides; "
                "choose a folder with fewer."
            )
            raise InputError(msg)
    return tuple(found)


def _walked(folder: Path) -> Iterator[Path]:
    entries = _entries(folder)
    yield from _slides(entries)
    for inner in _plain_folders(entries):
        try:
            yield from _slides(_entries(inner))
        except InputError:  # one that may not be read keeps no other from being listed
            continue


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden, as people sort it."""
    found: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    found.append(folder / entry.name)
                if len(found) > MOST_ENTRIES:
                    msg = (
                        f"{plain_name(folder.name)} holds more than {MOST_ENTRIES:,} "
                        "files; choose a folder with fewer."
                    )
                    raise InputError(msg)
    except OSError as error:
        msg = (
            f"{plain_name(folder.name)}: the folder cannot be read ({error.strerror})."
        )
        raise InputError(msg) from error
    return sorted(found, key=lambda path: _as_people_sort(path.name))


def _slides(entries: Iterable[Path]) -> Iterator[Path]:
    named = [path for path in entries if path.name.lower().endswith(FILE_ENDINGS)]
    whole = _one_of_each_series([path for path in named if _is_dicom_name(path)])
    for path in named:
        if (path in whole) if _is_dicom_name(path) else _may_be_slide(path):
            yield path


def _plain_folders(entries: list[Path]) -> Iterator[Path]:
    """Yield the folders that are not a part of a slide."""
    slides = {p.stem for p in entries if p.suffix.lower() == ".mrxs"}
    for path in entries:
        is_part = path.name in slides or path.name.lower().endswith(FILE_ENDINGS)
        if not is_part and path.is_dir() and not is_zarr_folder(path):
            yield path


def _may_be_slide(path: Path) -> bool:
    """Return whether a file is none of ours, or a folder a zarr of another's."""
    if not path.is_dir():
        return path.is_file()
    return is_zarr_folder(path) and not _is_ours(path)


def _is_ours(path: Path) -> bool:
    """Return whether a zarr folder is a map or embeddings, or another's labels."""
    for name in (".zattrs", "zarr.json"):
        try:
            with (path / name).open("rb") as file:
                text = file.read(MAX_METADATA_BYTES)
        except OSError:  # not there, or opening it as a slide says what is wrong
            continue
        if b'"image-label"' in text or any(mark in text for mark in _MARKS):
            return True
    return False


def _is_dicom_name(path: Path) -> bool:
    return path.suffix.lower() == ".dcm"


def _one_of_each_series(paths: list[Path]) -> set[Path]:
    """Return the largest file of every DICOM series, and all that tell of none."""
    if len(paths) <= 1:
        return set(paths)
    alone: set[Path] = set()
    largest: dict[str, tuple[int, Path]] = {}
    for path in paths:
        try:
            series, size = check_dicom(path).series, path.stat().st_size
        except (SlideError, OSError):
            series, size = "", 0  # opening it says what is wrong
        if not series:
            alone.add(path)
        elif size > largest.get(series, (-1, path))[0]:
            largest[series] = size, path
    return alone | {path for _, path in largest.values()}


def _as_people_sort(name: str) -> list[tuple[int, str]]:
    """Return a key by which ``case 2`` comes before ``case 10``."""
    parts = re.split(r"(\d{1,9})", name.casefold())
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]
