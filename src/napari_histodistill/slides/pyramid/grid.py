"""The grid: where on a slide the embeddings lie.

Three sizes meet here and are easily mixed up:

* the *tile* is what the student sees (say 224 px at 1.0 µm/px: 224 µm);
* the *stride* is the distance between neighbouring cells (say 64 µm);
* the *cell* is the square of one stride that is coloured on the map. It has nothing to
  do with a biological cell; the window calls it a square.

A cell's tile is centred on the cell, so a tile is usually larger than its cell and
overlaps its neighbours'. Cells cover the slide without gap or overlap, starting at its
upper left corner; the last row and column may reach past the border, and so may tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp, Region, WorldTransform

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Cells of one stride laid over a slide; make one with :meth:`over`.

    All alignment between embeddings, overlays and exports lives in this type.

    Attributes
    ----------
    slide_height, slide_width : int
        Size of level 0 in pixels.
    slide_mpp : Mpp
        µm per level-0 pixel.
    mpp : float
        µm per pixel that the student needs.
    tile_px, stride_px : int
        Edge of the tile and distance between cells, in pixels of the student's
        ``mpp``. They differ by an even number, so that tiles start on whole pixels.
    """

    slide_height: int
    slide_width: int
    slide_mpp: Mpp
    mpp: float
    tile_px: int
    stride_px: int

    def __post_init__(self) -> None:
        if min(self.slide_height, self.slide_width, self.tile_px, self.stride_px) < 1:
            msg = f"A grid needs positive sizes, got {self}."
            raise InputError(msg)
        if not (math.isfinite(self.mpp) and self.mpp > 0):
            msg = f"The student's mpp must be a positive number, got {self.mpp}."
            raise InputError(msg)
        if (self.tile_px - self.stride_px) % 2:
            msg = (
                f"Tile ({self.tile_px} px) and stride ({self.stride_px} px) must both "
                "be even or both be odd, so that tiles start on whole pixels."
            )
            raise InputError(msg)

    @classmethod
    def over(
        cls,
        slide_shape: tuple[int, int],
        slide_mpp: Mpp,
        *,
        mpp: float,
        tile_px: int,
        stride_px: int,
    ) -> TileGrid:
        """Lay a grid over a slide of ``slide_shape`` (height, width, level-0 px)."""
        return cls(
            slide_height=slide_shape[0],
            slide_width=slide_shape[1],
            slide_mpp=slide_mpp,
            mpp=mpp,
            tile_px=tile_px,
            stride_px=stride_px,
        )

    @property
    def px_per_student_px(self) -> tuple[float, float]:
        """Level-0 pixels per pixel at the student's mpp, ``(y, x)``."""
        return self.mpp / self.slide_mpp.y, self.mpp / self.slide_mpp.x

    @property
    def cell_size(self) -> tuple[float, float]:
        """Height and width of a cell in level-0 pixels."""
        fy, fx = self.px_per_student_px
        return self.stride_px * fy, self.stride_px * fx

    @property
    def stride_um(self) -> float:
        """Distance between neighbouring cells in µm."""
        return self.stride_px * self.mpp

    @property
    def tile_um(self) -> float:
        """Edge of a tile in µm."""
        return self.tile_px * self.mpp

    @property
    def cell_mm2(self) -> float:
        """Area of a whole cell in mm²."""
        return (self.stride_um / 1000) ** 2

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.cell_size
        # A sliver thinner than a millionth of a cell is a rounding error, not tissue.
        rows = math.ceil(self.slide_height / height - 1e-6)
        columns = math.ceil(self.slide_width / width - 1e-6)
        return max(1, rows), max(1, columns)

    def cell_region(self, row: int, column: int) -> Region:
        """Return the cell's square in level-0 pixels; it may reach past the border."""
        height, width = self.cell_size
        return Region(y=row * height, x=column * width, height=height, width=width)

    def tile_region(self, row: int, column: int) -> Region:
        """Return the tile that the student sees for a cell, in level-0 pixels."""
        return self.student_region(
            row * self.stride_px + (self.stride_px - self.tile_px) // 2,
            column * self.stride_px + (self.stride_px - self.tile_px) // 2,
            self.tile_px,
            self.tile_px,
        )

    def tiles_on_slide(self) -> npt.NDArray[np.bool_]:
        """Return which cells have a tile that touches the slide, ``(rows, columns)``.

        All have, unless the stride is wider than the tile: a border cell may then reach
        so far past the slide that the tile at its centre lies entirely outside, and
        would show nothing but the mirrored tissue of other cells.
        """
        (rows, columns), (fy, fx) = self.shape, self.px_per_student_px
        inset = (self.stride_px - self.tile_px) // 2
        y = (np.arange(rows) * self.stride_px + inset) * fy
        x = (np.arange(columns) * self.stride_px + inset) * fx
        return np.outer(y < self.slide_height, x < self.slide_width)

    def student_region(self, y: int, x: int, height: int, width: int) -> Region:
        """Convert a rectangle in pixels of the student's mpp to level-0 pixels."""
        fy, fx = self.px_per_student_px
        return Region(y=y * fy, x=x * fx, height=height * fy, width=width * fx)

    def cell_at(self, y: float, x: float) -> tuple[int, int]:
        """Return ``(row, column)`` of the cell that covers a level-0 position.

        Raises
        ------
        InputError
            If the position lies outside the slide.
        """
        if not (0 <= y < self.slide_height and 0 <= x < self.slide_width):
            msg = (
                f"Position ({y:g}, {x:g}) lies outside the slide "
                f"({self.slide_height} × {self.slide_width} px)."
            )
            raise InputError(msg)
        height, width = self.cell_size
        rows, columns = self.shape
        return min(int(y / height), rows - 1), min(int(x / width), columns - 1)

    def cells_in(self, region: Region) -> tuple[slice, slice]:
        """Return the rows and columns of all cells that touch a level-0 region."""
        height, width = self.cell_size
        rows, columns = self.shape
        r0 = min(rows, max(0, math.floor(region.y / height)))
        c0 = min(columns, max(0, math.floor(region.x / width)))
        r1 = max(r0, min(rows, math.ceil(region.bottom / height)))
        c1 = max(c0, min(columns, math.ceil(region.right / width)))
        return slice(r0, r1), slice(c0, c1)

    def centers(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return y of rows and x of columns at their centres, level-0 px, edge."""
        (rows, columns), (height, width) = self.shape, self.cell_size
        y = (np.arange(rows, dtype=np.float64) + 0.5) * height
        x = (np.arange(columns, dtype=np.float64) + 0.5) * width
        return y, x

    def areas_mm2(self) -> npt.NDArray[np.float64]:
        """Return each cell's area on the slide in mm², ``(rows, columns)``."""
        (rows, columns), (height, width) = self.shape, self.cell_size
        y = np.clip(self.slide_height - np.arange(rows) * height, 0, height)
        x = np.clip(self.slide_width - np.arange(columns) * width, 0, width)
        return np.outer(y * self.slide_mpp.y, x * self.slide_mpp.x) / 1e6

    def world(self) -> WorldTransform:
        """Return scale and translate that lay a ``(rows, columns)`` array on the slide.

        In µm, for an array drawn by pixel centres, on a slide layer whose level-0 pixel
        ``(0, 0)`` is centred at the world's origin.
        """
        height, width = self.cell_size
        my, mx = self.slide_mpp.y, self.slide_mpp.x
        return WorldTransform(
            scale=(height * my, width * mx),
            translate=((height - 1) / 2 * my, (width - 1) / 2 * mx),
        )
