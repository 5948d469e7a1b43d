"""Cells of a grid merged into exact rectilinear polygons.

Traced along the cells' edges in time that grows with the number of edges: merging
boxes one by one takes a minute for a speckled map of 450 × 450 cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.grid import TileGrid

Point = tuple[int, int]
"""A corner of cells, ``(row, column)`` of the lattice."""

# Directions as (row, column) steps, clockwise on screen; the cell lies to the right.
_RIGHT, _DOWN, _LEFT, _UP = (0, 1), (1, 0), (0, -1), (-1, 0)
_CLOCKWISE = {_RIGHT: _DOWN, _DOWN: _LEFT, _LEFT: _UP, _UP: _RIGHT}
_COUNTER = {after: before for before, after in _CLOCKWISE.items()}


def outline(cells: npt.NDArray[np.bool_], grid: TileGrid) -> Any:
    """Merge cells into polygons in level-0 pixels.

    The outline follows the cells' edges exactly (no smoothing: the map knows no more),
    keeps holes, ends at the slide's border and has no point in the middle of an edge.
    Cells that touch by a corner only belong to different polygons.

    Parameters
    ----------
    cells : ndarray of bool
        ``(rows, columns)``.
    grid : TileGrid
        Grid of the cells.

    Returns
    -------
    shapely MultiPolygon
        Coordinates are ``(x, y)``, as in GeoJSON; empty if no cell is set.
    """
    height, width = grid.cell_size
    rows, columns = grid.shape
    # The last row and column end with the slide, wherever their cells end.
    y = np.append(np.arange(rows) * height, grid.slide_height)
    x = np.append(np.arange(columns) * width, grid.slide_width)
    return outline_between(cells, y, x)


def outline_between(
    cells: npt.NDArray[np.bool_],
    y: npt.NDArray[np.float64],
    x: npt.NDArray[np.float64],
) -> Any:
    """Merge cells into polygons, as :func:`outline` does, between any edges.

    Parameters
    ----------
    cells : ndarray of bool
        ``(rows, columns)``.
    y, x : ndarray
        ``(rows + 1,)`` and ``(columns + 1,)`` float: the cells' edges, in the unit of
        the polygons.
    """
    pieces = pieces_of(cells)
    shells: dict[int, list[Point]] = {}
    holes: dict[int, list[list[Point]]] = {}
    for first, ring in _rings(cells):
        piece = int(pieces[first])
        if _area(ring) > 0:
            shells[piece] = ring
        else:
            holes.setdefault(piece, []).append(ring)
    polygons = [
        shapely.Polygon(
            _placed(shell, y, x), [_placed(h, y, x) for h in holes.get(piece, ())]
        )
        for piece, shell in sorted(shells.items())
    ]
    return shapely.MultiPolygon(polygons)


def pieces_of(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the number of the piece that each cell belongs to, from 1; 0 for none.

    Piece ``k`` is polygon ``k - 1`` of :func:`outline`: cells that touch by a corner
    only belong to different pieces.
    """
    from skimage.measure import label

    pieces: npt.NDArray[np.int64] = label(cells, connectivity=1)
    return pieces


def _rings(cells: npt.NDArray[np.bool_]) -> list[tuple[Point, list[Point]]]:
    """Return ``(a cell inside, corners)`` of every closed outline, cells to the right.

    Shells run clockwise on screen and holes counter-clockwise.
    """
    edges = _edges(cells)
    found = []
    while edges:
        start, directions = next(iter(edges.items()))
        direction, cell = next(iter(directions.items()))
        path = _walk(edges, start, direction)
        found += [(cell, _corners(ring)) for ring in _simple(path)]
    return found


def _edges(cells: npt.NDArray[np.bool_]) -> dict[Point, dict[Point, Point]]:
    """Return the unit edges between cells and not: start → direction → cell."""
    padded = np.pad(cells, 1)
    inside = padded[1:-1, 1:-1]
    sides = (
        (padded[:-2, 1:-1], _RIGHT, (0, 0)),
        (padded[1:-1, 2:], _DOWN, (0, 1)),
        (padded[2:, 1:-1], _LEFT, (1, 1)),
        (padded[1:-1, :-2], _UP, (1, 0)),
    )
    edges: dict[Point, dict[Point, Point]] = {}
    for neighbour, direction, (down, right) in sides:
        rows, columns = np.nonzero(inside & ~neighbour)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            start = (row + down, column + right)
            edges.setdefault(start, {})[direction] = (row, column)
    return edges


def _walk(
    edges: dict[Point, dict[Point, Point]], start: Point, direction: Point
) -> list[Point]:
    """Follow the edges round until the start, using them up."""
    path, at = [], start
    while True:
        path.append(at)
        directions = edges[at]
        del directions[direction]
        if not directions:
            del edges[at]
        at = (at[0] + direction[0], at[1] + direction[1])
        # Where two cells meet by a corner, stay with this one: turn clockwise first.
        turns = (_CLOCKWISE[direction], direction, _COUNTER[direction])
        onward = next((d for d in turns if d in edges.get(at, ())), None)
        if onward is None:
            return path
        direction = onward


def _simple(path: list[Point]) -> list[list[Point]]:
    """Split a closed path where it meets itself: rings must not touch themselves."""
    rings: list[list[Point]] = []
    stack: list[Point] = []
    seen: dict[Point, int] = {}
    for point in path:
        if point in seen:
            cut = seen[point]
            ring = stack[cut:]
            for passed in ring[1:]:
                del seen[passed]
            del stack[cut + 1 :]
            rings.append(ring)
        else:
            seen[point] = len(stack)
            stack.append(point)
    rings.append(stack)
    return rings


def _corners(ring: list[Point]) -> list[Point]:
    """Return the ring without the points at which it goes straight on."""
    points = np.array(ring)
    step = np.roll(points, -1, axis=0) - points
    turns = (step != np.roll(step, 1, axis=0)).any(axis=1)
    return [(int(row), int(column)) for row, column in points[turns]]


def _area(ring: list[Point]) -> float:
    """Return the enclosed area in cells, positive if clockwise on screen."""
    row, column = np.array(ring).T
    after_row, after_column = np.roll(row, -1), np.roll(column, -1)
    return float((column * after_row - after_column * row).sum()) / 2


def _placed(
    ring: list[Point], y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return ``(n, 2)``: x and y of a ring's corners."""
    row, column = np.array(ring).T
    return np.stack([x[column], y[row]], axis=1)
