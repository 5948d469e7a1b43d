"""A block's pixels: read once, at the student's mpp, unreadable parts marked.

Where a device resamples, whole windows are left to it as the level stores them. The CPU
resamples what is damaged, since only it can mark what damage touches, and what is too
large to wait in memory until a device has time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.pyramid.damage import probe
from napari_histodistill.slides.pyramid.resample import (
    read_level_window,
    read_resampled,
    read_resampled_marked,
)

if TYPE_CHECKING:
    import threading

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.resample import LevelWindow
    from napari_histodistill.slides.pyramid.slide import Slide

MOST_LEFT_BYTES = 2**28
"""Bytes of a window that is left to a device, at most: a window of 16 × 16 tiles of 224
px at 2.6 times their resolution. Two or more per thread wait in memory."""

_PATCH_PX = 64
"""Edge of the patches by which damage is outlined, in student pixels."""


@dataclass(frozen=True, slots=True)
class PixelWindow:
    """A rectangle in whole pixels of the student's mpp; may reach past the slide."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Raster:
    """Pixels of a window.

    Attributes
    ----------
    window : PixelWindow
        Position and size of the pixels.
    pixels : ndarray
        ``(height, width, 3)`` uint8; empty if ``left`` has them.
    bad : ndarray or None
        ``(height, width)`` bool, True where the file could not be read; None if all
        could.
    problem : str
        The reader's message; empty if all could be read.
    left : LevelWindow or None
        What is left to a device to resample, undamaged; None if nothing is.
    """

    window: PixelWindow
    pixels: npt.NDArray[np.uint8]
    bad: npt.NDArray[np.bool_] | None = None
    problem: str = ""
    left: LevelWindow | None = None

    def is_bad(self, y: int, x: int, height: int, width: int) -> bool:
        """Whether a rectangle (window pixels) touches something unreadable."""
        if self.bad is None:
            return False
        y0, x0 = max(0, y), max(0, x)
        return bool(self.bad[y0 : y + height, x0 : x + width].any())


_NOTHING = np.empty((0, 0, 3), np.uint8)


def read_window(
    slide: Slide,
    grid: TileGrid,
    window: PixelWindow,
    stop: threading.Event,
    *,
    leave: bool = False,
) -> Raster:
    """Read a window in one go or, if that fails, around the damage.

    Parameters
    ----------
    slide : Slide
        Read by level-0 regions.
    grid : TileGrid
        Converts student pixels to level-0 pixels.
    window : PixelWindow
        Rectangle to read.
    stop : threading.Event
        Once it is set, reading ends early with an incomplete raster, which is not used.
    leave : bool
        Leave resampling to a device: of what is neither damaged nor larger than
        ``MOST_LEFT_BYTES``, and where there is something to resample.

    Raises
    ------
    SlideError
        If the slide cannot be read anywhere any more: closed, or its disk is gone.
    """
    if stop.is_set():
        return Raster(window, _NOTHING)
    try:
        if leave:
            return _left(window, _level_window(slide, grid, window))
        return Raster(window, _read(slide, grid, window))
    except SlideError as error:
        problem = str(error)
    size = {"height": window.height, "width": window.width}
    region = grid.student_region(window.y, window.x, **size)
    pixels, bad, why = read_resampled_marked(slide, region, **size)
    problem = why or problem
    _try_again(slide, grid, Raster(window, pixels, bad), stop)
    if bad.all():
        _check_alive(slide, problem)
    return Raster(window, pixels, bad, problem)


def _left(window: PixelWindow, level: LevelWindow) -> Raster:
    if level.is_whole or level.pixels.nbytes > MOST_LEFT_BYTES:
        return Raster(window, level.resampled())
    return Raster(window, _NOTHING, left=level)


def _level_window(slide: Slide, grid: TileGrid, window: PixelWindow) -> LevelWindow:
    height, width = window.height, window.width
    region = grid.student_region(window.y, window.x, height, width)
    return read_level_window(slide, region, height=height, width=width)


def _try_again(
    slide: Slide, grid: TileGrid, raster: Raster, stop: threading.Event
) -> None:
    """Read bad places in small patches: not every reader knows its damage exactly."""
    window, bad = raster.window, raster.bad
    assert bad is not None
    for y in range(0, window.height, _PATCH_PX):
        for x in range(0, window.width, _PATCH_PX):
            where = slice(y, y + _PATCH_PX), slice(x, x + _PATCH_PX)
            if stop.is_set() or not bad[where].any():
                continue
            height, width = bad[where].shape
            patch = PixelWindow(window.y + y, window.x + x, height, width)
            try:
                raster.pixels[where] = _read(slide, grid, patch)
            except SlideError:
                continue
            bad[where] = False


def _read(slide: Slide, grid: TileGrid, window: PixelWindow) -> npt.NDArray[np.uint8]:
    height, width = window.height, window.width
    region = grid.student_region(window.y, window.x, height, width)
    return read_resampled(slide, region, height=height, width=width)


def _check_alive(slide: Slide, problem: str) -> None:
    """Raise if the file is gone; with a mere hole in it, some pixel can be read.

    Without this, a slide closed during a run would turn all its cells *unreadable*.
    """
    try:
        # Level 0 only: overviews may lie in memory and outlive the file.
        probe(slide.source)
    except SlideError as error:
        msg = f"{slide.name}: nothing of it can be read any more ({problem})."
        raise SlideError(msg) from error
