"""The plan of a run: its grid, its cells, and the place of its store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.cache import cache_dir
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.geometry import Region
    from napari_histodistill.slides import Slide, TileGrid
    from napari_histodistill.slides.tissue.tissue import TissueMask
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

    Polygons = tuple[npt.NDArray[np.float64], ...]

DIVISORS = (1, 2, 4, 7, 14, 28)
"""Fractions of a tile that the Detail slider offers (7 is 32 px of 224)."""

READABLE_CELLS = 200
"""A map with fewer cells than this hardly shows a shape."""

MOST_CELLS = 4_000_000
"""Finer steps are not offered: the map would no longer be a small array."""

_QUICK_BLOCK = 4
_QUICK_CELLS = 200_000
"""Above, small blocks would be too many files."""

BETWEEN_CELLS = (
    "What is drawn lies between the squares of the map: draw a larger region, or "
    "choose a finer detail."
)


@dataclass(frozen=True, slots=True)
class Detail:
    """One step of the Detail slider.

    Attributes
    ----------
    grid : TileGrid
        Its stride is the step.
    cells : int
        About how many cells have tissue in them.
    """

    grid: TileGrid
    cells: int

    @property
    def stride_um(self) -> float:
        """Distance of cells, µm."""
        return self.grid.stride_um


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything a run needs besides the slide and the student.

    Attributes
    ----------
    grid : TileGrid
        Where the cells lie.
    mode : {"tiles", "tokens"}
        How embeddings are laid.
    region : Region or None
        Level-0 pixels; None for the whole slide.
    polygons : tuple of ndarray
        Each ``(n, 2)`` float, level-0 pixels ``(y, x)``, edge convention: drawn shapes,
        which add up; empty for no such limit.
    tissue : TissueMask or None
        None until it was found: a run then looks for it first.
    every_square : bool
        Whether to compute every cell, tissue or not.
    store_path : Path
        Named by the key of slide, student, grid, mode and precision.
    """

    grid: TileGrid
    mode: EmbeddingMode
    store_path: Path
    region: Region | None = None
    polygons: Polygons = ()
    tissue: TissueMask | None = None
    every_square: bool = False

    def wanted_cells(self) -> npt.NDArray[np.bool_]:
        """Return the cells that a run would compute, ``(rows, columns)``."""
        cells = np.zeros(self.grid.shape, bool)
        cells[self.grid.cells_in(self.region) if self.region else ...] = True
        if self.tissue is not None and not self.every_square:
            cells &= self.tissue.cells(self.grid)
        cells &= self.grid.tiles_on_slide()
        drawn = self.drawn_cells()
        return cells if drawn is None else cells & drawn

    def drawn_cells(self) -> npt.NDArray[np.bool_] | None:
        """Return the cells whose centre lies in a drawn shape, or None without one.

        Raises
        ------
        InputError
            If the shapes are too small to hold the centre of a single cell.
        """
        if not self.polygons:
            return None
        inside = np.zeros(self.grid.shape, bool)
        for polygon in self.polygons:
            for row, columns in rows_inside(self.grid, polygon):
                inside[row, columns] = True
        if not inside.any():
            raise InputError(BETWEEN_CELLS)
        return inside


def rows_inside(
    grid: TileGrid, polygon: npt.NDArray[np.float64]
) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Yield the rows, each with its columns, whose cells have their centre in a shape.

    Parameters
    ----------
    grid : TileGrid
        Where the cells lie.
    polygon : ndarray
        ``(n, 2)`` float, level-0 pixels ``(y, x)``, edge convention.
    """
    from skimage.measure import points_in_poly

    y, x = grid.centers()
    # Row by row, and only where the shape is: a large slide has ten million cells.
    around = np.asarray(polygon, float)
    (top, left), (bottom, right) = around.min(0), around.max(0)
    across = np.flatnonzero((x >= left) & (x <= right))
    centers = np.empty((len(across), 2))
    centers[:, 1] = x[across]
    for row in np.flatnonzero((y >= top) & (y <= bottom)):
        centers[:, 0] = y[row]
        columns = across[points_in_poly(centers, around)]
        if len(columns):
            yield int(row), columns


def detail_steps(
    slide: Slide, student: Student, mode: EmbeddingMode, tissue: TissueMask | None
) -> tuple[Detail, ...]:
    """Return the strides that make sense on this slide, coarse to fine.

    Raises
    ------
    InputError
        If the student cannot see the slide (mpp missing, not H&E, too coarse).
    """
    from napari_histodistill.maps.engine import plan_grid

    share = 1.0 if tissue is None else tissue.fraction
    steps: list[Detail] = []
    for divisor in DIVISORS:
        wish = student.spec.tile_um / divisor
        try:
            grid = plan_grid(slide, student, stride_um=wish, mode=mode)
        except InputError:
            if not steps:
                raise
            break  # more cells than any map may have: so would all finer ones
        cells = grid.shape[0] * grid.shape[1]
        known = [step.grid.stride_px for step in steps]
        if grid.stride_px not in known and (cells <= MOST_CELLS or not steps):
            steps.append(Detail(grid, max(1, round(cells * share))))
    return tuple(steps)


def default_step(steps: tuple[Detail, ...]) -> int:
    """Return the index of the coarsest step that still makes a readable map."""
    for k, step in enumerate(steps):
        if step.cells >= READABLE_CELLS:
            return k
    return len(steps) - 1


def finest_step(steps: tuple[Detail, ...], most_cells: int) -> int | None:
    """Return the index of the finest step with at most so many cells; None if none."""
    fitting = [k for k, step in enumerate(steps) if step.cells <= most_cells]
    return fitting[-1] if fitting else None


def run_block(grid: TileGrid, mode: EmbeddingMode, student: Student) -> int:
    """Return a block's edge in cells, where the user watches.

    A processor takes a second for the engine's own blocks: too long to see colour, and
    too much of it lies beside the view.
    """
    from napari_histodistill.maps.embedding_plan import block_edge

    rows, columns = grid.shape
    few = rows * columns <= _QUICK_CELLS
    on_cpu = student.device.name.startswith("cpu")
    if few and on_cpu and mode == "tiles":
        return _QUICK_BLOCK
    return block_edge(grid, mode, student)


def store_path_of(
    slide: Slide, student: Student, grid: TileGrid, mode: EmbeddingMode
) -> Path:
    """Return where the map of this slide by this student on this grid is kept.

    Raises
    ------
    InputError
        If slide or student carry no digest.
    """
    from napari_histodistill.maps.provenance import provenance_of, store_key

    key = store_key(grid, provenance_of(slide, student, mode))
    return cache_dir("stores", key[:2]) / f"{key}.zarr"


def stored_since(path: Path) -> str:
    """Return when a stored map was last written, for people; "" if there is none."""
    if not path.is_dir():
        return ""
    # The status array is what a run touches last.
    files = [f for f in (path / "status").rglob("*") if f.is_file()]
    if not files:
        return ""
    then = datetime.fromtimestamp(max(f.stat().st_mtime for f in files)).astimezone()
    now = datetime.now().astimezone()
    return then.strftime("%H:%M" if then.date() == now.date() else "%d %b %Y, %H:%M")
