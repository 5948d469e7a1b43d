"""What a run and the processes that read for it say to each other.

Small things go through pipes, as pickles; pixels lie in shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.maps.block_reading import Raster
from napari_histodistill.slides.pyramid.resample import LevelWindow

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.errors import HistodistillError
    from napari_histodistill.maps.block_reading import PixelWindow
    from napari_histodistill.slides.pyramid.damage import TileCorner
    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Opening


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTask:
    """What a process reads for: the first that it is sent.

    Attributes
    ----------
    opening : Opening
        How the slide is opened.
    digest : str
        Digest that it must have.
    grid : TileGrid
        Grid of the windows.
    leave : bool
        As in :func:`~napari_histodistill.maps.block_reading.read_window`.
    threads : int
        Threads that decode in the process, at most.
    """

    opening: Opening
    digest: str
    grid: TileGrid
    leave: bool
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadWish:
    """A window to read, and the name of the shared memory that its pixels go to."""

    window: PixelWindow
    memory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFailure:
    """Why something could not be done; ``error`` is None for what is not ours."""

    error: HistodistillError | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAnswer:
    """A window that was read, without its pixels.

    Attributes
    ----------
    shape : tuple of int
        Of the pixels in the shared memory, uint8.
    box : tuple of float or None
        Where they are left to a device to resample: see :class:`LevelWindow`.
    bad : ndarray or None
        As in :class:`Raster`, eight pixels a byte.
    problem : str
        As in :class:`Raster`.
    unreadable : tuple of TileCorner
        Damaged tiles that this process has met so far.
    """

    shape: tuple[int, ...]
    box: tuple[float, float, float, float] | None
    bad: npt.NDArray[np.uint8] | None
    problem: str
    unreadable: tuple[TileCorner, ...]

    @classmethod
    def of(cls, raster: Raster, unreadable: tuple[TileCorner, ...]) -> ReadAnswer:
        """Return what is said of a raster."""
        left = raster.left
        return cls(
            shape=pixels_of(raster).shape,
            box=None if left is None else left.box,
            bad=None if raster.bad is None else np.packbits(raster.bad),
            problem=raster.problem,
            unreadable=unreadable,
        )

    def raster(self, window: PixelWindow, pixels: npt.NDArray[np.uint8]) -> Raster:
        """Return the raster again, with its pixels."""
        size = window.height, window.width
        if self.box is not None:
            nothing = np.empty((0, 0, 3), np.uint8)
            return Raster(window, nothing, left=LevelWindow(pixels, self.box, *size))
        bad = None
        if self.bad is not None:
            flat = np.unpackbits(self.bad, count=window.height * window.width)
            bad = flat.astype(bool).reshape(size)
        return Raster(window, pixels, bad, self.problem)


def pixels_of(raster: Raster) -> npt.NDArray[np.uint8]:
    """Return a raster's pixels, those that are left to a device too."""
    return raster.pixels if raster.left is None else raster.left.pixels
