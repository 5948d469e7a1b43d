"""The embeddings of one block: tiles cut from a raster, or tokens of one window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_histodistill.maps.block_reading import PixelWindow, Raster
from napari_histodistill.students.token_pooling import pool_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.maps.embedding_plan import WorkUnit
    from napari_histodistill.maps.store import EmbeddingStore
    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.students.student import Student, WindowOnDevice

CellIndices = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Row and column numbers inside a block."""


def block_window(
    grid: TileGrid, unit: WorkUnit, halo_px: int, token_stride_px: int | None
) -> PixelWindow:
    """Return the window of pixels that a block needs.

    For tiles (``token_stride_px`` None) the bounding box of the wanted cells' tiles.
    For tokens the whole block's tiles and a halo, widened to the slide's lattice of
    tokens: a token then is the same whichever cells are wanted.
    """
    if token_stride_px is None:
        rows, columns = np.nonzero(unit.wanted)
        top, left = int(rows.min()), int(columns.min())
        bottom, right = int(rows.max()), int(columns.max())
    else:
        top = left = 0
        bottom, right = (n - 1 for n in unit.wanted.shape)
    y0, x0 = tile_corner(grid, unit.row0 + top, unit.column0 + left)
    y1, x1 = tile_corner(grid, unit.row0 + bottom, unit.column0 + right)
    y1, x1 = y1 + grid.tile_px, x1 + grid.tile_px
    if token_stride_px is not None:
        s = token_stride_px
        y0, x0 = (v - halo_px - (v - halo_px) % s for v in (y0, x0))
        y1, x1 = (v + halo_px + -(v + halo_px) % s for v in (y1, x1))
    return PixelWindow(y0, x0, y1 - y0, x1 - x0)


def tile_corner(grid: TileGrid, row: int, column: int) -> tuple[int, int]:
    """Return y and x of a cell's tile in pixels of the student's mpp."""
    inset = (grid.stride_px - grid.tile_px) // 2
    return row * grid.stride_px + inset, column * grid.stride_px + inset


def embed_block(
    student: Student,
    store: EmbeddingStore,
    unit: WorkUnit,
    raster: Raster,
    *,
    batch_size: int,
    halo_px: int,
) -> Iterator[tuple[CellIndices, npt.NDArray[np.float32] | None]]:
    """Yield ``(cells, embeddings (n, dim))`` batch by batch; None for unreadable cells.

    Cells go through in row order, in batches of one size within the block, so that a
    block's numbers do not depend on anything outside it. What reading left to a device
    to resample goes there once, and tiles are cut there.
    """
    grid = store.grid
    tokens = store.provenance.mode == "tokens"
    margin = halo_px if tokens else 0
    readable, holes = _split(grid, unit, raster, margin)
    if len(holes[0]):
        yield holes, None
    if not len(readable[0]):
        return
    laid = None if raster.left is None else student.lay(raster.left)
    if tokens:
        yield readable, _pooled(student, grid, unit, raster, laid)[readable]
        return
    px = grid.tile_px
    for start in range(0, len(readable[0]), batch_size):
        rows, columns = (axis[start : start + batch_size] for axis in readable)
        corners = [
            _corner(grid, unit, raster, int(r), int(c))
            for r, c in zip(rows, columns, strict=True)
        ]
        if laid is not None:
            found = student.embed(laid.tiles(np.array(corners, np.int64), px, px))
        else:
            pixels = raster.pixels
            found = student.embed(
                np.stack([pixels[y : y + px, x : x + px] for y, x in corners])
            )
        yield (rows, columns), found


def _corner(
    grid: TileGrid, unit: WorkUnit, raster: Raster, row: int, column: int
) -> tuple[int, int]:
    """Return a tile's corner in the raster."""
    y, x = tile_corner(grid, unit.row0 + row, unit.column0 + column)
    return y - raster.window.y, x - raster.window.x


def _split(
    grid: TileGrid, unit: WorkUnit, raster: Raster, margin: int
) -> tuple[CellIndices, CellIndices]:
    """Return the wanted cells that can be computed, and those that touch damage."""
    rows, columns = np.nonzero(unit.wanted)
    if raster.bad is None:
        return (rows, columns), (rows[:0], columns[:0])
    size = grid.tile_px + 2 * margin
    bad = np.zeros(len(rows), bool)
    for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
        y, x = _corner(grid, unit, raster, int(row), int(column))
        bad[k] = raster.is_bad(y - margin, x - margin, size, size)
    return (rows[~bad], columns[~bad]), (rows[bad], columns[bad])


def _pooled(
    student: Student,
    grid: TileGrid,
    unit: WorkUnit,
    raster: Raster,
    laid: WindowOnDevice | None,
) -> npt.NDArray[np.float32]:
    """Return ``(h, w, dim)``: tokens of the window averaged under each cell's tile."""
    stride = student.spec.token_stride_px
    assert stride is not None  # the mode was checked when the grid was laid
    window = raster.window
    if laid is not None:
        whole = laid.tiles(np.zeros((1, 2), np.int64), window.height, window.width)
        tokens = student.tokens(whole)[0]
    else:
        tokens = student.tokens(raster.pixels[np.newaxis])[0]
    half = grid.stride_px / 2
    h, w = unit.wanted.shape
    rows, columns = unit.row0 + np.arange(h), unit.column0 + np.arange(w)
    return pool_tokens(
        tokens,
        stride_px=stride,
        tile_px=grid.tile_px,
        centers_y_px=rows * grid.stride_px + half - window.y,
        centers_x_px=columns * grid.stride_px + half - window.x,
    )
