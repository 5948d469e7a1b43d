"""The cells of two stores of one slide that lie at the same place.

The coarser of the two grids carries the result. Each of its cells meets the cell of the
other grid that covers its centre, wherever tile, stride and µm per pixel of the two
students differ; for equal grids that is the cell of the same row and column. Only cells
that are done in both stores count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.maps.store import CellStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.maps.provenance import Provenance
    from napari_histodistill.maps.store import Block
    from napari_histodistill.slides.pyramid.grid import TileGrid

    _Ints = npt.NDArray[np.intp]
    _Floats = npt.NDArray[np.float32]

BLOCK_CELLS = 2048
"""The most cells of either store that are in memory at a time."""

FEWEST_CELLS = 10
"""Fewer common cells than this say nothing about two students."""


class ReadableStore(Protocol):
    """The part of an :class:`~.maps.store.EmbeddingStore` that a comparison reads."""

    @property
    def grid(self) -> TileGrid:
        """Grid of the cells."""

    @property
    def provenance(self) -> Provenance:
        """Slide and student of the embeddings."""

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        """``(rows, columns)``: 1 where there is an embedding."""

    def read(self, block: Block | None = None) -> npt.NDArray[np.float16]:
        """Return embeddings ``(rows, columns, dim)``."""


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """The pairs of cells of two stores that lie at the same place.

    Attributes
    ----------
    grid : TileGrid
        Grid of the result: the coarser of the two.
    both : ndarray
        ``(rows, columns)`` bool: done in both stores.
    either : int
        Number of cells that only one of the two has.
    rows, columns : tuple of ndarray
        For store 0 and store 1, the row (column) that each row (column) of the result
        lies in.
    """

    grid: TileGrid
    both: npt.NDArray[np.bool_]
    either: int
    rows: tuple[_Ints, _Ints]
    columns: tuple[_Ints, _Ints]

    @property
    def count(self) -> int:
        """Number of compared cells."""
        return int(self.both.sum())

    def blocks(
        self, a: ReadableStore, b: ReadableStore, most: int = BLOCK_CELLS
    ) -> Iterator[tuple[slice, _Floats, _Floats]]:
        """Read both stores side by side, ``most`` cells of either at a time.

        Yields
        ------
        slice, ndarray, ndarray
            Positions among the compared cells (in row order of :attr:`both` within the
            blocks, see :meth:`order`), and both embeddings ``(n, dim)`` float32.
        """
        at = 0
        for where in self._windows(most):
            here = self.both[where]
            count = int(here.sum())
            if not count:
                continue
            one, other = (
                _pick(cells, rows[where[0]], columns[where[1]])[here].astype(np.float32)
                for cells, rows, columns in zip(
                    (a, b), self.rows, self.columns, strict=True
                )
            )
            yield slice(at, at + count), one, other
            at += count

    def order(self, most: int = BLOCK_CELLS) -> tuple[_Ints, _Ints]:
        """Return rows and columns of the compared cells, as blocks meet them."""
        rows, columns = [], []
        for where in self._windows(most):
            r, c = np.nonzero(self.both[where])
            rows.append(r + where[0].start)
            columns.append(c + where[1].start)
        return np.concatenate(rows), np.concatenate(columns)

    def _windows(self, most: int) -> Iterator[Block]:
        rows, columns = self.both.shape
        finer = [
            max(1.0, (int(k[-1]) + 1) / len(k)) for k in (*self.rows, *self.columns)
        ]
        down, right = max(finer[:2]), max(finer[2:])
        wide = max(1, min(columns, int(most / right)))
        # A window of n rows spans at most n × down + 1 rows of the finer store.
        high = max(1, int((most / (wide * right + 1) - 1) / down))
        for r in range(0, rows, high):
            for c in range(0, columns, wide):
                yield slice(r, min(rows, r + high)), slice(c, min(columns, c + wide))


def match_cells(a: ReadableStore, b: ReadableStore) -> Matching:
    """Find the cells of two stores that lie at the same place.

    Parameters
    ----------
    a, b : EmbeddingStore
        Two students' embeddings of one slide; may be unfinished.

    Raises
    ------
    InputError
        If they are of different slides or µm per pixel, were laid in different modes,
        or have too few cells in common.
    """
    _check(a, b)
    grids = a.grid, b.grid
    grid = grids[0] if grids[0].stride_um >= grids[1].stride_um else grids[1]
    y, x = grid.centers()
    # A border cell's centre may lie past the border.
    y = np.minimum(y, grid.slide_height - 1e-6)
    x = np.minimum(x, grid.slide_width - 1e-6)
    rows, columns, done = [], [], []
    for cells in (a, b):
        height, width = cells.grid.cell_size
        last = cells.grid.shape[0] - 1, cells.grid.shape[1] - 1
        # A sliver past the edge of a cell is rounding.
        r = np.minimum((y / height + 1e-9).astype(np.intp), last[0])
        c = np.minimum((x / width + 1e-9).astype(np.intp), last[1])
        rows.append(r)
        columns.append(c)
        done.append(cells.status[np.ix_(r, c)] == CellStatus.DONE)
    both = done[0] & done[1]
    if int(both.sum()) < FEWEST_CELLS:
        msg = (
            f"Both models have seen only {int(both.sum())} places, and at least "
            f"{FEWEST_CELLS} are needed: run both on the same, larger region."
        )
        raise InputError(msg)
    return Matching(
        grid=grid,
        both=both,
        either=int((done[0] ^ done[1]).sum()),
        rows=(rows[0], rows[1]),
        columns=(columns[0], columns[1]),
    )


def _check(a: ReadableStore, b: ReadableStore) -> None:
    one, other = a.provenance, b.provenance
    if one.slide_digest != other.slide_digest:
        msg = (
            f"These maps are of two slides, {one.slide_name} and {other.slide_name}: "
            "run both models on the same one."
        )
        raise InputError(msg)
    mpp, mpp_b = a.grid.slide_mpp, b.grid.slide_mpp
    if max(abs(mpp.y / mpp_b.y - 1), abs(mpp.x / mpp_b.x - 1)) > 1e-3:
        msg = (
            f"These maps were computed with different µm per pixel of the slide, "
            f"{mpp.mean:.4g} and {mpp_b.mean:.4g}: run one of the models again."
        )
        raise InputError(msg)
    if one.mode != other.mode:
        msg = (
            f"One map was computed in the mode {one.mode} and the other in the mode "
            f"{other.mode}, and their embeddings cannot be compared: run both models "
            "in the same mode."
        )
        raise InputError(msg)


def _pick(cells: ReadableStore, rows: _Ints, columns: _Ints) -> npt.NDArray[np.float16]:
    block = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return cells.read(block)[np.ix_(rows - rows[0], columns - columns[0])]
