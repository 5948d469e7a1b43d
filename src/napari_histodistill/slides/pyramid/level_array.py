"""The levels of a slide as dask arrays over this package's reader."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.slides.pyramid.levels import Rect

if TYPE_CHECKING:
    import dask.array as da
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.damage import StripedSource
    from napari_histodistill.slides.pyramid.levels import LevelInfo

CHUNK_PX = 512
"""Edge of a chunk: a viewer fetches and uploads whole chunks of what is in view."""

MOST_BLOCKS = 10_000
"""Most blocks of a level. An operation on a whole array costs dask 3 to 10 µs for each;
in older versions, so does a slice of it."""


def lazy_levels(source: StripedSource) -> tuple[da.Array, ...]:
    """Return the levels as dask arrays ``(height, width, channels)``, finest first.

    Nothing is read before it is computed; :class:`LevelArray` lies underneath.
    """
    import dask.array as da

    def lazy(level: int, info: LevelInfo) -> da.Array:
        array = LevelArray(source, level)
        # A name from the content would make two openings of one file share a result in
        # dask's cache, also after one of them was closed. Inlined, a slice costs recent
        # versions of dask the same however many blocks there are.
        return da.from_array(
            array,
            chunks=(*chunk_shape(info), array.shape[2]),
            name=False,
            asarray=False,
            meta=np.empty((0, 0, 0), array.dtype),
            inline_array=True,
        )

    return tuple(lazy(k, info) for k, info in enumerate(source.levels))


def chunk_shape(info: LevelInfo) -> tuple[int, int]:
    """Return height and width of a level's chunks: a whole number of compressed tiles.

    Their edge is about :data:`CHUNK_PX`, or as much more as it takes to cut the level
    into no more than :data:`MOST_BLOCKS`.
    """
    wish = CHUNK_PX
    while True:
        height = chunk_px(info.tile_height, info.height, wish)
        width = chunk_px(info.tile_width, info.width, wish)
        blocks = math.ceil(info.height / height) * math.ceil(info.width / width)
        if blocks <= MOST_BLOCKS:
            return height, width
        wish *= 2


class LevelArray:
    """One level as an array that reads only what is sliced; safe to use from threads.

    It lies under the dask arrays of :attr:`Slide.levels`. Its pixels are for looking
    at: an error would leave a whole chunk black, so damage is striped instead.

    Attributes
    ----------
    shape : tuple of int
        ``(height, width, channels)``.
    dtype : dtype
        Type of the pixels.
    """

    ndim = 3

    def __init__(self, source: StripedSource, level: int) -> None:
        info, channels = source.levels[level], source.like.shape[2]
        self.shape = (info.height, info.width, channels)
        self.dtype = source.like.dtype
        self._source, self._level = source, level

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Return the pixels at a whole number, a slice or a tuple, as numpy does.

        Raises
        ------
        IndexError
            If the key is something else or lies outside the level.
        """
        keys = [*key] if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (4 - len(keys))
        keys += [slice(None)] * (3 - len(keys))
        if len(keys) != 3:
            msg = f"a level has three axes, not {len(keys)}"
            raise IndexError(msg)
        (y0, y1, rows), (x0, x1, columns) = map(_spanned, keys[:2], self.shape[:2])
        if y1 <= y0 or x1 <= x0:
            pixels = np.zeros((max(0, y1 - y0), max(0, x1 - x0), self.shape[2]))
            pixels = pixels.astype(self.dtype)
        else:
            rect = Rect(y0, x0, y1 - y0, x1 - x0)
            pixels = self._source.read(self._level, rect).pixels
        return pixels[rows, :][..., columns, :][..., keys[2]]

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse: a file that is open here is not open in another process.

        Raises
        ------
        TypeError
            If dask would send it to another process.
        """
        msg = (
            "the pixels of an open slide cannot go to another process; compute with "
            "dask's threads (scheduler='threads'), or open the slide there."
        )
        raise TypeError(msg)


def _spanned(key: Any, size: int) -> tuple[int, int, Any]:
    """Return start and stop of the pixels that a key spans, and the key within."""
    if isinstance(key, slice):
        start, stop, step = key.indices(size)
        chosen = range(start, stop, step)
        if not chosen:
            return 0, 0, slice(None)
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
        return low, high + 1, slice(None, None, step)
    index = operator.index(key)
    if not -size <= index < size:
        msg = f"pixel {index} is outside of {size}"
        raise IndexError(msg)
    return index % size, index % size + 1, 0


def chunk_px(tile: int, extent: int, wish: int) -> int:
    """Return the multiple of the compressed tile's edge that is nearest to ``wish``."""
    if extent <= wish:
        return extent
    if tile > 2 * wish:  # a strip, as wide as the slide: a screen needs less of it
        return wish
    return min(extent, tile * max(1, round(wish / tile)))
