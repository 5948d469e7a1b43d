"""Slides stored flipped or rotated (TIFF tag 274), shown upright."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.slides.pyramid.damage import Damage, read_part
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.levels import PixelSource

# orientation: (transposed, y flipped, x flipped). The stored image is transposed
# first; the flips are those of the upright image.
_MOVES = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def describe(orientation: int) -> str:
    """Return how the image is stored, in words."""
    transposed, flip_y, flip_x = _MOVES[orientation]
    words = ["transposed"] * transposed
    words += ["upside down"] * flip_y + ["mirrored"] * flip_x
    return " and ".join(words) or "upright"


class OrientedSource:
    """A source turned upright; reads only the requested rectangle."""

    def __init__(self, source: PixelSource, orientation: int) -> None:
        self._source = source
        self._transposed, self._flip_y, self._flip_x = _MOVES[orientation]
        self.levels: Sequence[LevelInfo] = tuple(
            self._turned(level) for level in source.levels
        )

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        return self._upright(self._source.read_level(level, self._stored(level, rect)))

    def read_damaged(self, level: int, rect: Rect, damage: Damage) -> npt.NDArray[Any]:
        """Read what can be read and note the rest; see :func:`read_part`."""
        stored = self._stored(level, rect)
        part = Damage(stored.height, stored.width, damage.like)
        pixels = read_part(self._source, level, stored, part)
        if part.bad is not None:
            part.bad = self._upright(part.bad)
            damage.add_part(part, 0, 0)
        return self._upright(pixels)

    def _stored(self, level: int, rect: Rect) -> Rect:
        """Return where an upright rectangle lies in the stored image."""
        info = self.levels[level]
        y = info.height - rect.bottom if self._flip_y else rect.y
        x = info.width - rect.right if self._flip_x else rect.x
        if self._transposed:
            return Rect(x, y, rect.width, rect.height)
        return Rect(y, x, rect.height, rect.width)

    def _upright(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._transposed:
            pixels = pixels.swapaxes(0, 1)
        pixels = pixels[:: -1 if self._flip_y else 1, :: -1 if self._flip_x else 1]
        return np.ascontiguousarray(pixels)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _turned(self, level: LevelInfo) -> LevelInfo:
        if not self._transposed:
            return level
        return LevelInfo(
            height=level.width,
            width=level.height,
            tile_height=level.tile_width,
            tile_width=level.tile_height,
        )
