"""Slides over arrays, in memory or computed lazily: numpy, dask, zarr."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.pyramid.colours import Colours, colours_of_samples
from napari_histodistill.slides.pyramid.levels import LevelInfo
from napari_histodistill.slides.pyramid.limits import MAX_CHANNELS
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.geometry import Mpp
    from napari_histodistill.slides.pyramid.levels import Rect


class ArraySource:
    """Levels that are arrays of shape ``(h, w)`` or ``(h, w, samples)``.

    Parameters
    ----------
    arrays : sequence of array-like
        Levels, finest first: anything with ``shape``, ``dtype`` and basic slicing.
    colours : Colours
        How samples become channels.
    name : str
        Name of the slide in messages.
    """

    def __init__(self, arrays: Sequence[Any], colours: Colours, *, name: str) -> None:
        self._arrays, self._colours, self._name = list(arrays), colours, name
        self._closed = False
        self.levels: Sequence[LevelInfo] = tuple(_level_info(a) for a in self._arrays)

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        if self._closed:
            msg = f"{self._name}: the slide was closed; open it again."
            raise ClosedSlideError(msg)
        rows, columns = slice(rect.y, rect.bottom), slice(rect.x, rect.right)
        pixels = np.asarray(self._arrays[level][rows, columns])
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        return self._colours.apply(pixels)

    def close(self) -> None:
        """Let go of the arrays."""
        self._closed = True
        self._arrays = []


def slide_from_arrays(
    levels: Sequence[Any] | Any,
    *,
    name: str,
    mpp: Mpp | None = None,
    channels: Sequence[str] | None = None,
    digest: str | None = None,
) -> Slide:
    """Make a slide from arrays.

    Parameters
    ----------
    levels : array-like or sequence of array-like
        The pyramid, finest first; numpy, dask or zarr arrays of shape ``(h, w)``,
        ``(h, w, 3)``, ``(h, w, 4)`` or ``(h, w, c)``. Coarser levels are added until
        the coarsest is at most 1024 px.
    name : str
        Name on screen and in messages.
    mpp : Mpp, optional
        µm per pixel of the first level.
    channels : sequence of str, optional
        Names, one per channel. By default, three or four uint8 channels are red, green,
        blue (and opacity, composited over white); others are numbered.
    digest : str, optional
        Fingerprint of the content; computed from the pixels by default.

    Returns
    -------
    Slide

    Raises
    ------
    SlideError
        If shapes, types or names do not fit together.
    """
    arrays = [levels] if hasattr(levels, "shape") else list(levels)
    _check(arrays, name)
    colours = _colours(arrays[0], channels, name)
    if digest is None:
        digest = _digest(arrays)
    info = SlideInfo(
        name=name,
        mpp=mpp,
        channels=colours.channels,
        digest=digest,
        notes=colours.notes,
    )
    source = ArraySource(arrays, colours, name=name)
    return Slide(with_overviews(source), info)


def _check(arrays: list[Any], name: str) -> None:
    if not arrays:
        msg = f"{name}: a slide needs at least one level."
        raise SlideError(msg)
    first = arrays[0]
    before: tuple[int, ...] | None = None
    for array in arrays:
        shape = tuple(array.shape)
        if len(shape) not in {2, 3} or 0 in shape:
            msg = f"{name}: a level must be (height, width[, channels]), not {shape}."
            raise SlideError(msg)
        if shape[2:] != tuple(first.shape[2:]) or array.dtype != first.dtype:
            msg = f"{name}: all levels need the same channels and type of pixel."
            raise SlideError(msg)
        if before and (
            shape[0] > before[0] or shape[1] > before[1] or shape[:2] == before[:2]
        ):
            msg = f"{name}: levels must get smaller, but {shape} follows {before}."
            raise SlideError(msg)
        before = shape
    if np.dtype(first.dtype).kind not in "buif":
        msg = f"{name}: pixels of type {first.dtype} are not an image."
        raise SlideError(msg)
    if len(first.shape) == 3 and first.shape[2] > MAX_CHANNELS:
        msg = (
            f"{name}: {first.shape[2]} channels are too many; the order of axes is "
            "(height, width, channels)."
        )
        raise SlideError(msg)


def _colours(array: Any, channels: Sequence[str] | None, name: str) -> Colours:
    samples = array.shape[2] if len(array.shape) == 3 else 1
    if channels is not None:
        if len(channels) != samples:
            msg = f"{name}: {len(channels)} names for {samples} channels."
            raise SlideError(msg)
        colours = tuple(channels)
        return Colours(colours, background=255 if colours == ("R", "G", "B") else 0)
    dtype = np.dtype(array.dtype)
    if samples in {3, 4} and dtype == np.uint8:
        return colours_of_samples(samples, dtype)
    if samples == 1:
        return Colours(("grey",))
    return Colours(tuple(f"channel {k + 1}" for k in range(samples)))


def _level_info(array: Any) -> LevelInfo:
    height, width = array.shape[:2]
    # zarr has `chunks`, dask `chunksize`; numpy neither.
    chunks = getattr(array, "chunksize", None) or getattr(array, "chunks", None)
    if chunks is None or not all(isinstance(c, int) for c in chunks[:2]):
        return LevelInfo(height=height, width=width)
    return LevelInfo(
        height=height, width=width, tile_height=chunks[0], tile_width=chunks[1]
    )


def _digest(arrays: list[Any]) -> str:
    """Return a fingerprint of shapes, of the coarsest and of the finest level.

    Of a level of more than 4096 × 4096 px, only 64 blocks of 64 px are read.
    """
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{tuple(array.shape)}{array.dtype}".encode())
    for array in (arrays[0], arrays[-1]):
        height, width = array.shape[:2]
        if height * width <= 4096 * 4096:
            sha.update(np.ascontiguousarray(array).tobytes())
            continue
        for k in range(64):
            y = (height - 64) * (k // 8) // 7 if height > 64 else 0
            x = (width - 64) * (k % 8) // 7 if width > 64 else 0
            block = np.asarray(array[y : y + 64, x : x + 64])
            sha.update(np.ascontiguousarray(block).tobytes())
    return sha.hexdigest()
