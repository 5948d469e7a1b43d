"""Resampling on a device: a window goes up once, and tiles are cut out of it there.

The arithmetic is Pillow's, in whole numbers (``slides/pyramid/filtering.py``), so that
pixels do not depend on where they are resampled. Plain operations of torch only: a
gather, a product and a sum for each weight of the filter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_histodistill.slides.pyramid.filtering import (
    PRECISION_BITS,
    filter_weights,
    is_height_first,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.filtering import FilterWeights
    from napari_histodistill.slides.pyramid.resample import LevelWindow

    Upload = Callable[[npt.NDArray[Any]], torch.Tensor]

_BAND = 2**21
"""Numbers of the result that are computed at a time: their sums, of 32 bits, and what
is added then stay in a card's cache."""

_HALF = 1 << (PRECISION_BITS - 1)


@dataclass(frozen=True, slots=True, eq=False)
class LaidWindow:
    """A window at the student's µm per pixel that lies on a device.

    Attributes
    ----------
    pixels : torch.Tensor
        ``(h, w, 3)`` uint8, contiguous.
    """

    pixels: torch.Tensor

    def tiles(
        self, corners: npt.NDArray[np.int64], height: int, width: int
    ) -> LaidTiles:
        """Return rectangles of one size; nothing is copied yet.

        Parameters
        ----------
        corners : ndarray
            ``(n, 2)`` int64: y and x of their upper left pixels, inside the window.
        height, width : int
            Size of each in pixels.

        Raises
        ------
        ValueError
            If one of them reaches out of the window.
        """
        room = np.array(self.pixels.shape[:2]) - (height, width)
        if len(corners) and ((corners < 0) | (corners > room)).any():
            msg = f"tiles of {height} × {width} px reach out of the window on a device"
            raise ValueError(msg)
        return LaidTiles(self, corners, height, width)


@dataclass(frozen=True, slots=True, eq=False)
class LaidTiles:
    """Rectangles of a window on a device, used like an array ``(n, h, w, 3)`` of them.

    Attributes
    ----------
    window : LaidWindow
        Where they lie.
    corners : ndarray
        ``(n, 2)`` int64: y and x of each.
    height, width : int
        Size of each in pixels.
    """

    window: LaidWindow
    corners: npt.NDArray[np.int64]
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(n, h, w, 3)``."""
        return len(self.corners), self.height, self.width, 3

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Type of the pixels."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, rows: Any) -> LaidTiles:
        """Return some of them: a slice, or a bool for each."""
        return replace(self, corners=self.corners[rows])

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """``(n,)``: where in the memory of the window each begins."""
        wide = self.window.pixels.shape[1]
        places: npt.NDArray[np.int64] = (self.corners @ (wide, 1)) * 3
        return places

    def cut(self, places: torch.Tensor) -> torch.Tensor:
        """Return their pixels, ``(n, h, w, 3)`` uint8, in one gather.

        Parameters
        ----------
        places : torch.Tensor
            :attr:`places` on the device.
        """
        pixels = self.window.pixels
        row = pixels.shape[1] * 3
        last = (pixels.shape[0] - self.height) * row + row - self.width * 3
        # All rectangles of this size as one view, of which the wanted ones are copied.
        every = pixels.as_strided((last + 1, self.height, self.width * 3), (1, row, 1))
        return every[places].view(self.shape)


def lay_window(window: LevelWindow, upload: Upload, place: Upload) -> LaidWindow:
    """Resample a window on a device.

    Parameters
    ----------
    window : LevelWindow
        Pixels of a level, and which rectangle of them is wanted at what size.
    upload : callable
        Takes the pixels, ``(h, w, 3)`` uint8 with any strides, and returns them on the
        device; called once.
    place : callable
        Takes the filters of both axes, ``(n,)`` int32, and returns them on the device;
        called once.

    Returns
    -------
    LaidWindow
        The same pixels as ``window.resampled()`` has.

    Raises
    ------
    RuntimeError
        Of torch, also if memory runs out.
    """
    source, size = window.pixels.shape[:2], (window.height, window.width)
    left, upper, right, lower = window.box
    filters = [
        (filter_weights(source[0], upper, lower, size[0]), source[0]),
        (filter_weights(source[1], left, right, size[1]), source[1]),
    ]
    steps = list(enumerate(_lay_taps(filters, place)))
    pixels = upload(window.pixels)
    for axis, taps in steps if is_height_first(source, size) else reversed(steps):
        pixels = taps.applied(pixels, axis)
    return LaidWindow(pixels)


def _lay_taps(filters: list[tuple[FilterWeights, int]], place: Upload) -> list[_Taps]:
    """Lay the filters of axes of so many pixels on the device, all in one copy."""
    tables: list[npt.NDArray[np.integer[Any]]] = []
    for found, source in filters:
        index = found.first + np.arange(found.taps)[:, np.newaxis]
        # Past the end the weight is 0; any pixel will do.
        tables += [np.minimum(index, source - 1), found.weights.T]
    flat = np.concatenate([table.ravel() for table in tables], dtype=np.int32)
    sizes = [table.size for table in tables]
    parts = place(flat).split(sizes)  # type: ignore[no-untyped-call]
    laid = [part.view(table.shape) for part, table in zip(parts, tables, strict=True)]
    return [_Taps(*pair) for pair in zip(laid[::2], laid[1::2], strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class _Taps:
    """The weights of one axis on a device: for each tap, which pixels and how much."""

    index: torch.Tensor  # (taps, size)
    weights: torch.Tensor  # (taps, size)

    def applied(self, source: torch.Tensor, axis: int) -> torch.Tensor:
        """Return ``(h, w, 3)`` uint8 with this axis resampled, rounded."""
        size = list(source.shape)
        size[axis] = self.index.shape[1]
        found = source.new_empty(size)
        rows = max(1, _BAND // (size[1] * size[2]))
        for top in range(0, size[0], rows):
            band = slice(top, top + rows)
            mine = slice(None) if axis else band
            part = source[band] if axis else source
            total = torch.full_like(found[band], _HALF, dtype=torch.int32)
            for index, weights in zip(self.index, self.weights, strict=True):
                factor = weights[mine].view((1, -1, 1) if axis else (-1, 1, 1))
                total += part.index_select(axis, index[mine]) * factor
            found[band] = (total >> PRECISION_BITS).clamp_(0, 255)
        return found
