"""Cells of a grid merged into exact rectilinear polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.grid import TileGrid


def outline(cells: npt.NDArray[np.bool_], grid: TileGrid) -> Any:
    """Merge cells into a polygon or multipolygon in level-0 pixels.

    The outline follows the cells' edges exactly (no smoothing: the map knows no more),
    keeps holes, ends at the slide's border and has no point in the middle of an edge.

    Parameters
    ----------
    cells : ndarray of bool
        ``(rows, columns)``.
    grid : TileGrid
        Where the cells lie.

    Returns
    -------
    shapely Polygon or MultiPolygon
        Coordinates are ``(x, y)``, as in GeoJSON; empty if no cell is set.
    """
    # Merged on the lattice of whole numbers, where equal corners are exactly equal.
    merged = shapely.unary_union(_strips(cells))
    merged = shapely.simplify(merged, 0)
    return shapely.transform(shapely.normalize(merged), lambda xy: _to_slide(xy, grid))


def polygons(shape: Any) -> list[Any]:
    """Return the single polygons of a shape."""
    return [p for p in shapely.get_parts(shape) if not p.is_empty]


def _strips(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Return every horizontal run of cells as a box in cell units."""
    padded = np.zeros((cells.shape[0], cells.shape[1] + 2), np.int8)
    padded[:, 1:-1] = cells
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    _, ends = np.nonzero(change == -1)
    boxes: npt.NDArray[np.object_] = np.atleast_1d(
        shapely.box(starts, rows, ends, rows + 1)
    )
    return boxes


def _to_slide(xy: npt.NDArray[np.float64], grid: TileGrid) -> npt.NDArray[np.float64]:
    height, width = grid.cell_size
    rows, columns = grid.shape
    # The last row and column end with the slide, wherever their cells end.
    x = np.where(xy[:, 0] >= columns, grid.slide_width, xy[:, 0] * width)
    y = np.where(xy[:, 1] >= rows, grid.slide_height, xy[:, 1] * height)
    return np.stack([x, y], axis=1)
