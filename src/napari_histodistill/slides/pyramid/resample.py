"""Rectangles of a slide resampled to the µm per pixel that a student needs.

Tile corners at a student's µm per pixel fall between the pixels of every level, so
pixels are interpolated at exact positions; nothing is rounded to whole pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.slides.pyramid.filtering import FILTER
from napari_histodistill.slides.pyramid.levels import Rect
from napari_histodistill.slides.pyramid.shrinking import read_shrunk, shrinks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_histodistill.geometry import Region
    from napari_histodistill.slides.pyramid.slide import Slide

TOLERANCE = 1.02
"""A level up to two percent too coarse still counts as fine enough. Nominal 4 × steps
of a pyramid are often 4.0003 ×, and scanners of "0.25 µm" write 0.2498 or 0.2527: such
slides must not be resampled with different filters."""


_SAME = 1e-9
"""Scales that differ by less are the same: on no slide do they part by a pixel."""

REACH = 2
"""Pixels on either side that the filter uses when nothing is shrunk."""

SPARE = 2
"""Decoding shrinks a level to no less than this many times the size that is needed.
With two pixels left for each one of the result, the filter hides the difference from
decoding everything (cosine of Lite0 embeddings on H&E .997 and more); with one for one
it does not (.97): the image is then as sharp as a scanner's own level, sharper than
after the filter."""


def best_level(slide: Slide, region: Region, *, height: int, width: int) -> int:
    """Return the coarsest level that is still fine enough for a resampling.

    Parameters
    ----------
    slide : Slide
    region : Region
        In level-0 pixels.
    height, width : int
        Size of the result in pixels.
    """
    want_y, want_x = region.height / height, region.width / width
    fine_enough = [
        k
        for k, (sy, sx) in enumerate(slide.scales)
        if sy <= want_y * TOLERANCE and sx <= want_x * TOLERANCE
    ]
    return max(fine_enough, default=0)


@dataclass(frozen=True, slots=True, eq=False)
class LevelWindow:
    """Pixels as a level stores them, and which rectangle of them is wanted, how large.

    Attributes
    ----------
    pixels : ndarray
        ``(h, w, 3)`` uint8: the rectangle and what the filter needs around it; beyond
        the slide's border mirrored.
    box : tuple of float
        The rectangle in ``pixels``: left, upper, right and lower edge.
    height, width : int
        Size of the result in pixels.
    """

    pixels: npt.NDArray[np.uint8]
    box: tuple[float, float, float, float]
    height: int
    width: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is to be resampled: whole pixels, one for each of the result.

        Judged in float32, as Pillow keeps places.
        """
        left, upper, right, lower = (float(np.float32(edge)) for edge in self.box)
        return (
            (right - left, lower - upper) == (self.width, self.height)
            and left.is_integer()
            and upper.is_integer()
        )

    def resampled(self) -> npt.NDArray[np.uint8]:
        """Return the result, ``(height, width, 3)`` uint8, computed by the CPU."""
        if self.is_whole:
            x, y = (int(np.float32(edge)) for edge in self.box[:2])
            rows, columns = slice(y, y + self.height), slice(x, x + self.width)
            return np.ascontiguousarray(self.pixels[rows, columns])
        image = Image.fromarray(np.ascontiguousarray(self.pixels))
        return np.asarray(image.resize((self.width, self.height), FILTER, box=self.box))


def read_resampled(
    slide: Slide, region: Region, *, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Read a rectangle and resample it to a size.

    The coarsest level that is still fine enough is read and shrunk with an antialiasing
    cubic filter at exact positions (pixels stay as they are if nothing is to be shrunk
    or shifted). Beyond the border the tissue is mirrored: to a student, a white or
    black border would look like one more kind of tissue.

    Parameters
    ----------
    slide : Slide
        A colour slide.
    region : Region
        In level-0 pixels, not necessarily whole; may reach past the border.
    height, width : int
        Size of the result in pixels.

    Returns
    -------
    ndarray
        ``(height, width, 3)`` uint8.

    Raises
    ------
    SlideError
        If the slide is not 8-bit colour, or its file cannot be read there.
    InputError
        If the size is not positive.
    """
    window = read_level_window(slide, region, height=height, width=width)
    return window.resampled()


def read_level_window(
    slide: Slide, region: Region, *, height: int, width: int
) -> LevelWindow:
    """Read what :func:`read_resampled` reads, and leave the resampling to the caller.

    Parameters and errors are the same.

    Returns
    -------
    LevelWindow
        Its ``resampled()`` is what :func:`read_resampled` returns.
    """
    if not slide.info.is_rgb or slide.dtype != np.uint8:
        channels = ", ".join(slide.info.channels[:4])
        msg = (
            f"{slide.name}: students read 8-bit colour (RGB), but this slide has "
            f"{slide.dtype} pixels with the channels {channels}."
        )
        raise SlideError(msg)
    if height < 1 or width < 1:
        msg = f"A resampled image needs a positive size, got {height} × {width}."
        raise InputError(msg)
    pixels, box = _around(slide, region, height, width)
    return LevelWindow(pixels, box, height, width)


def is_one_for_one(slide: Slide, factor: tuple[float, float]) -> bool:
    """Return whether a level has the pixels that are wanted, so none are resampled.

    Parameters
    ----------
    slide : Slide
    factor : tuple of float
        Level-0 pixels per pixel that is wanted, ``(y, x)``.
    """
    return any(
        all(
            abs(want / has - 1) < _SAME for want, has in zip(factor, scale, strict=True)
        )
        for scale in slide.scales
    )


def read_resampled_marked(
    slide: Slide, region: Region, *, height: int, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], str]:
    """Read what can be read of a rectangle and resample it, for damaged files.

    As :func:`read_resampled`, for use where that has failed.

    Returns
    -------
    pixels : ndarray
        ``(height, width, 3)`` uint8.
    bad : ndarray of bool
        ``(height, width)``: pixels that include something unreadable.
    problem : str
        Message of the first error; empty if everything could be read.
    """
    problems: list[str] = []

    def read(level: int, rect: Rect) -> npt.NDArray[Any]:
        marked = slide.read_marked(level, *rect)
        size = rect.height, rect.width
        bad = np.zeros(size, bool) if marked.bad is None else marked.bad
        problems.append(marked.problem)
        return np.dstack([marked.pixels, bad.astype(np.uint8)])

    pixels, box = _around(slide, region, height, width, read=read)
    size = width, height
    colours = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    touched = Image.fromarray(pixels[..., 3].astype(np.float32))
    bad = np.abs(np.asarray(touched.resize(size, FILTER, box=box))) > 1e-6
    return np.array(colours.resize(size, FILTER, box=box)), bad, problems[0]


def _around(
    slide: Slide,
    region: Region,
    height: int,
    width: int,
    *,
    read: Callable[[int, Rect], npt.NDArray[Any]] | None = None,
) -> tuple[npt.NDArray[Any], tuple[float, float, float, float]]:
    """Return the pixels that a resampling uses, and where the region lies in them."""
    place = _place(slide, region, height, width, shrinks=read is None)
    if place.shrink > 1:
        read_here = partial(read_shrunk, slide.source, place.level, place.shrink)
    else:
        read_here = partial(read or slide.source.read_level, place.level)
    pixels = _read_mirrored(read_here, place.rows, place.columns, place.shape)
    return pixels, place.box


@dataclass(frozen=True, slots=True)
class _Place:
    """What a resampling reads: rows and columns of a level, shrunk or not."""

    level: int
    shrink: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    shape: tuple[int, int]
    box: tuple[float, float, float, float]


def bytes_read(slide: Slide, region: Region, *, height: int, width: int) -> int:
    """Return the bytes of what :func:`read_level_window` reads, without reading it."""
    place = _place(slide, region, height, width, shrinks=True)
    (top, bottom), (left, right) = place.rows, place.columns
    return 3 * (bottom - top) * (right - left)


def _place(
    slide: Slide, region: Region, height: int, width: int, *, shrinks: bool
) -> _Place:
    level = best_level(slide, region, height=height, width=width)
    info, (sy, sx) = slide.level_infos[level], slide.scales[level]
    shrink = 1
    for factor in shrinks_of(slide.source, level) if shrinks else ():
        coarsest = factor * SPARE <= TOLERANCE * min(
            region.height / height / sy, region.width / width / sx
        )
        rows, columns = _windows(region, height, width, (sy * factor, sx * factor))
        if coarsest and (
            _holds(info.height, factor, rows) and _holds(info.width, factor, columns)
        ):
            shrink = factor
    fy, fx = sy * shrink, sx * shrink
    rows, columns = _windows(region, height, width, (fy, fx))
    shape = info.height // shrink, info.width // shrink
    box = (
        region.x / fx - columns[0],
        region.y / fy - rows[0],
        region.right / fx - columns[0],
        region.bottom / fy - rows[0],
    )
    return _Place(level, shrink, rows, columns, shape, box)


def _windows(
    region: Region, height: int, width: int, scale: tuple[float, float]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns at a scale that a resampling to a size uses."""
    fy, fx = scale
    return (
        _window(region.y / fy, region.bottom / fy, height),
        _window(region.x / fx, region.right / fx, width),
    )


def _holds(size: int, shrink: int, window: tuple[int, int]) -> bool:
    """Whether a window of a shrunk level leaves out its last, incomplete pixel."""
    return size % shrink == 0 or window[1] <= size // shrink


def _window(start: float, stop: float, size: int) -> tuple[int, int]:
    """Return the whole pixels that the filter uses when resampling to ``size``."""
    reach = math.ceil(REACH * max(1.0, (stop - start) / size)) + 1
    return math.floor(start) - reach, math.ceil(stop) + reach


def _read_mirrored(
    read: Callable[[Rect], npt.NDArray[Any]],
    rows: tuple[int, int],
    columns: tuple[int, int],
    shape: tuple[int, int],
) -> npt.NDArray[Any]:
    y, x = _mirrored(*rows, shape[0]), _mirrored(*columns, shape[1])
    y0, x0 = int(y.min()), int(x.min())
    pixels = read(Rect(y0, x0, int(y.max()) - y0 + 1, int(x.max()) - x0 + 1))
    # Indices that simply count up (the usual case, nothing mirrored) need no copy.
    if len(y) != pixels.shape[0] or y[0] != y0:
        pixels = pixels[y - y0]
    if len(x) != pixels.shape[1] or x[0] != x0:
        pixels = pixels[:, x - x0]
    return pixels


def _mirrored(start: int, stop: int, size: int) -> npt.NDArray[np.int64]:
    """Return source indices, mirrored at both borders: … 1 0 | 0 1 … n-1 | n-1 ….

    Mirrored as often as needed: a tile may be larger than a tiny slide.
    """
    index = np.arange(start, stop) % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def read_channels(
    slide: Slide, region: Region, *, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Read a rectangle of a slide with any channels and resample it to a size.

    As :func:`read_resampled`, for pixels of any type; channels are kept apart.

    Returns
    -------
    ndarray
        ``(height, width, channels)`` float32, in the slide's own units.

    Raises
    ------
    SlideError
        If the file cannot be read there.
    """
    pixels, box = _around(slide, region, height, width)
    resized = [
        Image.fromarray(np.ascontiguousarray(pixels[:, :, k], np.float32)).resize(
            (width, height), Image.Resampling.BILINEAR, box=box
        )
        for k in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(channel) for channel in resized], axis=-1)


def read_nearest(
    slide: Slide, pixels: npt.NDArray[np.float64]
) -> npt.NDArray[np.generic]:
    """Return a slide's stored values at positions, without blending: for categories.

    Parameters
    ----------
    slide : Slide
    pixels : ndarray
        ``(h, w, 2)``, (y, x) in level-0 pixels, edge convention; positions outside get
        the nearest value inside.

    Returns
    -------
    ndarray
        ``(h, w, channels)``, in the slide's own type.
    """
    shape = np.array(slide.shape)
    place = np.clip(np.floor(pixels).astype(np.intp), 0, shape - 1)
    y0, x0 = place.min((0, 1)).tolist()
    y1, x1 = place.max((0, 1)).tolist()
    window = slide.read_pixels(0, y0, x0, y1 - y0 + 1, x1 - x0 + 1)
    found: npt.NDArray[np.generic] = window[place[..., 0] - y0, place[..., 1] - x0]
    return found
