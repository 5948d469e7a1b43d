"""Xenium's output folder: a cell for every spot, with its counts and its centroid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.spots.hdf5_files import open_hdf5
from napari_histodistill.distill.spots.parquet_files import read_parquet
from napari_histodistill.distill.spots.space_ranger import counts_of, rows_of
from napari_histodistill.distill.spots.spot_columns import shortened
from napari_histodistill.distill.spots.spot_tables import RawSpots
from napari_histodistill.distill.spots.spot_text import read_text
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.spots.spot_wish import SpotWish

MATRIX = "cell_feature_matrix.h5"
CELLS = ("cells.csv.gz", "cells.csv", "cells.parquet")
"""The same table, the first that is there: only the last needs pyarrow."""

_FRAME = "Positions are µm on Xenium's own image: the H&E must lie on it."
_COLUMNS = ("cell_id", "x_centroid", "y_centroid")


def is_xenium(path: Path) -> bool:
    """Whether a folder is Xenium's, with all that is read of it."""
    return (path / MATRIX).is_file() and any((path / n).is_file() for n in CELLS)


def read_xenium(path: Path, wish: SpotWish | None = None) -> RawSpots:
    """Read the cells of Xenium's output folder.

    Their centroids are µm in the frame of Xenium's own image (DAPI), so an H&E has to
    be registered to that.

    Parameters
    ----------
    path : Path
        The folder, with :data:`MATRIX` and one of :data:`CELLS`.
    wish : SpotWish, optional
        It is of one section: no library can be chosen.

    Raises
    ------
    InputError
        If it is damaged, or its files do not belong together.
    """
    if wish is not None and wish.library:
        msg = f"{path.name} is of one library: leave out {wish.library!r}."
        raise InputError(msg)
    with open_hdf5(path / MATRIX, "Xenium's .h5") as file:
        values, barcodes, genes, notes = counts_of(file)
    found = next(path / name for name in CELLS if (path / name).is_file())
    parquet = found.suffix == ".parquet"
    table = read_parquet(found, _COLUMNS) if parquet else read_text(found)
    missing = [name for name in _COLUMNS if name not in table.names]
    if missing:
        msg = (
            f"{found.name}: there is no column {missing[0]} among "
            f"{shortened(table.names) or 'none'}."
        )
        raise InputError(msg)
    rows = rows_of(path.name, table, barcodes, named="cell_id")
    y, x = (table.columns[table.names.index(f"{axis}_centroid")] for axis in "yx")
    return RawSpots(
        name=path.resolve().name,
        positions=np.stack([y[rows], x[rows]], axis=1).astype(np.float64),
        unit="µm",
        um_per_px=None,
        values=values,
        genes=genes,
        spot_size=None,
        notes=(*notes, _FRAME),
    )
