"""Hatching of a map's squares: diagonal lines, as dense on screen at every zoom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.geometry import WorldTransform

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides import TileGrid

    Levels = tuple[npt.NDArray[np.uint8], ...]

DARK, LIGHT = 1, 2
"""Labels of a line and of its light edge: one of them stands out on any class."""

PERIOD_PX = 8
"""Distance of lines, in pixels of a level."""

SQUARE_PX = 16
"""Pixels of a square at the finest level."""

MOST_PX = 2**24
"""Pixels of the finest level, at most."""

SMALLEST_PX = 128
"""A level whose longer side is no longer than this is the last."""


def hatched(squares: npt.NDArray[np.bool_]) -> Levels:
    """Return the levels of a hatching, finest first, each half as fine as the last.

    A viewer shows the level whose pixels are about as large as those of the screen. As
    lines keep their distance in pixels from level to level, they keep it on screen.

    Parameters
    ----------
    squares : ndarray of bool
        ``(rows, columns)``: which squares of the map are hatched.

    Returns
    -------
    tuple of ndarray
        ``(h, w)`` uint8: :data:`DARK`, :data:`LIGHT` or 0, which is transparent. The
        finest has :func:`pixels_per_square` pixels a square.
    """
    size = pixels_per_square(squares.shape)
    inside = np.repeat(np.repeat(squares, size, axis=0), size, axis=1)
    levels = [_lines(inside)]
    while max(inside.shape) > SMALLEST_PX:
        inside = _halved(inside)
        levels.append(_lines(inside))
    return tuple(levels)


def pixels_per_square(shape: tuple[int, ...]) -> int:
    """Return the edge of a square at the finest level, in pixels."""
    size = SQUARE_PX
    while size > 1 and shape[0] * shape[1] * size**2 > MOST_PX:
        size //= 2
    return size


def hatching_world(grid: TileGrid) -> WorldTransform:
    """Return scale and translate, µm, of the finest level over a grid."""
    size, world = pixels_per_square(grid.shape), grid.world()
    scale = tuple(step / size for step in world.scale)
    # From the centre of the first square to that of its first pixel.
    y, x = (
        start - step / 2 + fine / 2
        for start, step, fine in zip(world.translate, world.scale, scale, strict=True)
    )
    return WorldTransform(scale=(scale[0], scale[1]), translate=(y, x))


def _lines(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    rows, columns = np.ogrid[: inside.shape[0], : inside.shape[1]]
    along = (rows + columns) % PERIOD_PX
    pattern = np.select([along < 2, along < 4], [DARK, LIGHT], 0).astype(np.uint8)
    return np.where(inside, pattern, 0).astype(np.uint8)


def _halved(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return a mask half as fine, in which no square gets lost."""
    rows, columns = (n + n % 2 for n in inside.shape)
    whole = np.zeros((rows, columns), np.bool_)
    whole[: inside.shape[0], : inside.shape[1]] = inside
    blocks = whole.reshape(rows // 2, 2, columns // 2, 2)
    found: npt.NDArray[np.bool_] = np.any(blocks, axis=(1, 3))
    return found
