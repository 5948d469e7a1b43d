"""A level of a slide, a rectangle of it, and what a backend must offer to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelInfo:
    """Size of one level, a stored or generated resolution of a slide.

    Attributes
    ----------
    height, width : int
        Size in pixels of this level.
    tile_height, tile_width : int
        Size of the compressed tiles; dask chunks are multiples of it.
    scale : tuple of float or None
        Level-0 pixels ``(y, x)`` per pixel of this level, if the format says so; None
        if it is the ratio of the sizes, which is a little larger where the last row or
        column was cut off: 462 px halved four times are 28, not 28.875.
    """

    height: int
    width: int
    tile_height: int = 256
    tile_width: int = 256
    scale: tuple[float, float] | None = None


class Rect(NamedTuple):
    """A rectangle in whole pixels of a level, or of a level shrunk while decoding.

    A tuple, because reading makes thousands of them a second. Places on a slide, which
    may lie between pixels, are a :class:`~napari_histodistill.geometry.Region`.

    Attributes
    ----------
    y, x : int
        Upper left corner.
    height, width : int
        Size.
    """

    y: int
    x: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First y below the rectangle."""
        return self.y + self.height

    @property
    def right(self) -> int:
        """First x to the right of the rectangle."""
        return self.x + self.width

    def intersection(self, other: Rect) -> Rect:
        """Return the common part of two rectangles that overlap."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Rect(y, x, bottom - y, right - x)

    def overlap(
        self, top: int, left: int, height: int, width: int
    ) -> tuple[slice, slice, slice, slice]:
        """Return the common part with a tile: rows and columns in this, then in it.

        Four numbers in place of a rectangle, and no call to another method: this runs
        once for every compressed tile of every read.
        """
        y, x = self.y, self.x
        y0, x0 = max(y, top), max(x, left)
        y1 = min(y + self.height, top + height)
        x1 = min(x + self.width, left + width)
        return (
            slice(y0 - y, y1 - y),
            slice(x0 - x, x1 - x),
            slice(y0 - top, y1 - top),
            slice(x0 - left, x1 - left),
        )

    def slices_in(self, outer: Rect) -> tuple[slice, slice]:
        """Return the rows and columns that this takes in the pixels of ``outer``."""
        y, x = self.y - outer.y, self.x - outer.x
        return slice(y, y + self.height), slice(x, x + self.width)


class PixelSource(Protocol):
    """Pixels of an open file, level by level: what every backend provides.

    The reference implementation is ``slides/tiff/source.py``. Two abilities are
    optional and looked for by name. ``read_damaged(level, rect, damage)`` reads what
    can be read and notes exactly what cannot; where it is absent, ``read_part`` in
    ``slides/pyramid/damage.py`` does so tile by tile. ``shrinks(level)`` and
    ``read_shrunk(level, shrink, rect)`` decode a level at a fraction of its size (see
    ``slides/pyramid/shrinking.py``).
    """

    levels: Sequence[LevelInfo]
    """Finest first; at least one, each smaller than the one before."""

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)`` of one level; any thread may call it.

        The rectangle lies inside the level.
        """
        ...

    def close(self) -> None:
        """Release every file handle of every thread."""
        ...
