"""One level of a slide as an array that reads only what is sliced."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.damage import Marked
    from napari_histodistill.slides.pyramid.levels import LevelInfo

CHUNK_PX = 1024
"""Edge of a dask chunk at level 0; dask's cost grows with the number of blocks."""

VIEW_PX = 512
"""Edge of the chunks that napari reads: it fetches and uploads whole chunks."""


class MarkedReader(Protocol):
    """A slide as its levels need it: sizes, and pixels with damage striped."""

    @property
    def level_infos(self) -> tuple[LevelInfo, ...]:
        """Size and tile size of every level, finest first."""
        ...

    def read_marked(
        self, level: int, y: int, x: int, height: int, width: int
    ) -> Marked:
        """Return a rectangle given in pixels of the level."""
        ...


class LevelArray:
    """One level as an array that reads only what is sliced; safe to use from threads.

    dask accepts it (:attr:`Slide.levels`), and so does napari, which then asks for
    whole ``chunks`` of what is in view. Without dask in between, a frame costs the same
    on a slide of any size; dask's cost per frame grows with the number of blocks in the
    level. These pixels are for looking at: an error would leave a whole chunk black, so
    damage is striped instead.

    Attributes
    ----------
    shape : tuple of int
        ``(height, width, channels)``.
    dtype : dtype
        Type of the pixels.
    chunks : tuple of int
        Shape that is worth reading at once, as in zarr.
    """

    ndim = 3

    def __init__(
        self, slide: MarkedReader, level: int, probe: npt.NDArray[Any]
    ) -> None:
        info = slide.level_infos[level]
        self.shape = (info.height, info.width, probe.shape[2])
        self.dtype = probe.dtype
        self.chunks = (
            chunk_px(info.tile_height, info.height, VIEW_PX),
            chunk_px(info.tile_width, info.width, VIEW_PX),
            probe.shape[2],
        )
        self._slide, self._level = slide, level

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

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
            marked = self._slide.read_marked(self._level, y0, x0, y1 - y0, x1 - x0)
            pixels = marked.pixels
        return pixels[rows, :][..., columns, :][..., keys[2]]

    def __array__(
        self,
        dtype: npt.DTypeLike | None = None,
        copy: bool | None = None,  # noqa: FBT001 - numpy's signature
    ) -> npt.NDArray[Any]:
        """Return the whole level: gigabytes at level 0."""
        whole = self[:, :, :]
        return whole if dtype is None else whole.astype(dtype)


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
