"""AnnData and SpatialData as Zarr folders: looked through before any of it is read.

A SpatialData folder holds AnnData under ``tables`` (``table`` before version 0.1),
beside images and shapes. Positions are those of the table, as spatialdata-io writes
them (``obsm["spatial"]``); where it has none, those of the shapes that its rows belong
to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_histodistill.distill.spots.h5ad_files import SPATIALDATA, read_anndata
from napari_histodistill.distill.spots.spatial_shapes import SHAPES, SpatialShapes
from napari_histodistill.distill.spots.spot_columns import first_line, shortened
from napari_histodistill.distill.spots.spot_wish import (
    SeveralLibrariesError,
    SpotWish,
)
from napari_histodistill.distill.spots.stored_zarr import ZarrTables
from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.slides.formats.zarr_limits import check_files

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.spots.spot_tables import RawSpots

_MARKS = ("zarr.json", ".zgroup")
_TABLES = ("tables", "table")
_OF_IMAGES = {"multiscales", "plate", "well", "bioformats2raw.layout"}
"""Attributes that OME-Zarr has at its root."""


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return any((path / mark).is_file() for mark in _MARKS)


def holds_table(path: Path) -> bool:
    """Whether a folder is AnnData, or SpatialData with a table, and not an image.

    Some programs keep tables of regions inside an OME-Zarr image, or a plate of them.
    """
    from napari_histodistill.slides.formats.omezarr import open_group
    from napari_histodistill.slides.formats.zarr_images import ome_of

    tables = (one for name in _TABLES for one in (path / name).glob("*"))
    if not any((table / "obs").is_dir() for table in (path, *tables)):
        return False
    try:
        root, close = open_group(path)
    except SlideError:
        return False
    try:
        return not _OF_IMAGES & ome_of(root).keys()
    finally:
        close()


def tables_bytes(path: Path) -> int:
    """Return the bytes of a Zarr's tables and shapes; images are not read."""
    parts = ("X", "layers", "raw", "obs", "var", "obsm", *_TABLES, SHAPES)
    files = (f for part in parts for f in (path / part).rglob("*"))
    return sum(f.lstat().st_size for f in files)


def read_zarr(path: Path, wish: SpotWish | None = None) -> RawSpots:
    """Read positions, counts and scale of an AnnData or SpatialData folder.

    Parameters
    ----------
    path : Path
        The folder.
    wish : SpotWish, optional
        As for ``.h5ad``. Of several tables of SpatialData, ``library`` names one; of
        one table for several elements, the element whose rows are read.

    Raises
    ------
    SeveralLibrariesError
        If it has several tables or libraries, and none is named.
    InputError
        If it is neither, has no positions or values, or is not safe to read.
    """
    import zarr

    wish = wish or SpotWish()
    try:
        check_files(path)
        root = zarr.open_group(path, mode="r", use_consolidated=False)
        file, stem = ZarrTables(path.name, root), path.stem
        within = next((name for name in _TABLES if file.is_group(name)), "")
        if within:
            table, wish, part = _table(file, within, wish)
            stem = f"{stem} {table}".strip()
            shapes = SpatialShapes(path, file, part)
            annotates = part.has(SPATIALDATA)
            return read_anndata(part, stem, wish, shapes.places if annotates else None)
        if not file.has("obs"):
            msg = (
                f"{path.name} is neither AnnData nor SpatialData: it has no obs and no "
                "tables."
            )
            raise InputError(msg)
        return read_anndata(file, stem, wish)
    except InputError:
        raise
    except Exception as error:
        # zarr and its codecs raise a dozen kinds of errors for damaged files.
        msg = (
            f"{path.name} cannot be read as AnnData or SpatialData; it may be damaged "
            f"or another kind of Zarr ({first_line(error)})."
        )
        raise InputError(msg) from error


def _table(
    file: ZarrTables, within: str, wish: SpotWish
) -> tuple[str, SpotWish, ZarrTables]:
    """Return the name of the table that is wanted, what is wanted of it, and itself."""
    names = [n for n in file.names(within) if file.has(f"{within}/{n}/obs")]
    if not names:
        msg = f"{file.name} is SpatialData without a table of counts."
        raise InputError(msg)
    if wish.library in names:
        chosen, wish = wish.library, replace(wish, library="")
    elif len(names) > 1:
        msg = (
            f"{file.name} holds {len(names)} tables ({shortened(names)}): choose one "
            "by its name; they are never mixed."
        )
        raise SeveralLibrariesError(msg, names)
    else:
        chosen = names[0]
    table = file.root[f"{within}/{chosen}"]
    return (chosen if len(names) > 1 else ""), wish, ZarrTables(file.name, table)
