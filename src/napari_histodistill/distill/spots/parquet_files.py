"""Parquet files, as far as spots need them; pyarrow reads them, where it is there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.spots.spot_columns import first_line
from napari_histodistill.distill.spots.spot_text import TextTable
from napari_histodistill.errors import InputError
from napari_histodistill.files import is_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

MOST_ROWS = 2**24
"""Rows that a file may have."""


@contextmanager
def open_parquet(path: Path, instead: str) -> Iterator[Any]:
    """Open a file as pyarrow's ``ParquetFile``, for a while.

    Parameters
    ----------
    path : Path
        The file.
    instead : str
        What can be done without pyarrow, for the message: "write it as .csv".

    Raises
    ------
    InputError
        If it is no plain file, pyarrow is missing, it has more than :data:`MOST_ROWS`,
        or it cannot be read, also while it is open.
    """
    if not is_plain(path):
        msg = f"{path.name} is a link or not a plain file: copy the file itself."
        raise InputError(msg)
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        msg = (
            f"{path.name}: reading .parquet needs pyarrow: pip install "
            f'"napari-histodistill[spatial]", or {instead}.'
        )
        raise InputError(msg) from error
    try:
        # Memory-mapped: no more is read than the columns that are named.
        with ParquetFile(path, memory_map=True) as file:
            if file.metadata.num_rows > MOST_ROWS:
                msg = f"{path.name} claims {file.metadata.num_rows:,} spots."
                raise InputError(msg)
            yield file
    except InputError:
        raise
    except Exception as error:
        # pyarrow has a tree of errors of its own.
        msg = f"{path.name} cannot be read as .parquet ({first_line(error)})."
        raise InputError(msg) from error


def read_parquet(path: Path, wanted: Sequence[str]) -> TextTable:
    """Read some columns of a table, those that are there.

    Raises
    ------
    InputError
        If it cannot be read, or is no plain file.
    """
    with open_parquet(path, "write it as .csv") as file:
        names = [n for n in wanted if n in file.schema_arrow.names]
        frame = file.read(columns=names)
        columns = [_values(frame.column(n)) for n in names]
    return TextTable(
        tuple(names),
        tuple(
            c.astype(np.float64 if c.dtype.kind in "iufb" else object) for c in columns
        ),
    )


def _values(column: Any) -> npt.NDArray[Any]:
    """Return a column; texts kept as bytes, as early Xenium's ids, become texts."""
    from pyarrow import string, types

    if types.is_binary(column.type):
        column = column.cast(string())
    found: npt.NDArray[Any] = column.to_numpy()
    return found
