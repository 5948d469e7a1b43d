"""The cubic filter of resampling in numbers: which pixels, and how much of each.

Pillow resamples 8-bit images in whole numbers, along one axis and then along the other,
rounded after each. Here are the same weights and the same order, so that a device with
an arithmetic of its own comes to the same pixels (``students/backends/resampling.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

FILTER = Image.Resampling.BICUBIC
"""Equally sharp wherever its positions fall. A triangle filter leaves pixels unchanged
where the new positions coincide with them and blurs in between, so that slides of 0.25
and 0.2527 µm gave different maps (cosine of the embeddings of the same painted tissue
.95; with this filter .99)."""

PRECISION_BITS = 22
"""Weights are multiples of 2 to the power of minus this: a sum of weighted bytes then
fits into 32 bits, overshoot included."""

SUPPORT = 2.0
"""Pixels on either side that the filter covers when nothing is shrunk."""

_SHARPNESS = -0.5


@dataclass(frozen=True, slots=True, eq=False)
class FilterWeights:
    """What each pixel of a result is made of, along one axis.

    Attributes
    ----------
    first : ndarray
        ``(size,)`` int64: the first source pixel of each.
    weights : ndarray
        ``(size, taps)`` int32, in units of ``2 ** -PRECISION_BITS``: of the first
        source pixel, the next, and so on; 0 past the end of the source.
    """

    first: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int32]

    @property
    def taps(self) -> int:
        """Source pixels that count for one pixel of the result, at most."""
        return int(self.weights.shape[1])


def filter_weights(source: int, start: float, stop: float, size: int) -> FilterWeights:
    """Return the weights by which a stretch of an axis becomes ``size`` pixels.

    Parameters
    ----------
    source : int
        Pixels of the source along this axis.
    start, stop : float
        Where the stretch begins and ends, in pixels of the source from its edge; as
        precise as float32, which Pillow keeps them in.
    size : int
        Pixels of the result along this axis.

    Returns
    -------
    FilterWeights
        The antialiasing cubic filter of Pillow, to the bit.
    """
    begin, end = np.float32(start), np.float32(stop)
    scale = float(end - begin) / size
    stretch = max(scale, 1.0)
    support = SUPPORT * stretch
    taps = math.ceil(support) * 2 + 1
    center = float(begin) + (np.arange(size) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), source)
    place = np.arange(taps)
    far = (place + first[:, np.newaxis] - center[:, np.newaxis] + 0.5) * (1 / stretch)
    exact = np.where(place < (last - first)[:, np.newaxis], _cubic(np.abs(far)), 0.0)
    # One after the other, as Pillow adds: a pairwise sum differs in the last bit.
    exact /= np.cumsum(exact, axis=1)[:, -1:]
    whole = np.trunc(exact * 2**PRECISION_BITS + np.copysign(0.5, exact))
    return FilterWeights(first, whole.astype(np.int32))


def is_height_first(source: tuple[int, int], size: tuple[int, int]) -> bool:
    """Return whether Pillow resamples along columns before it does along rows.

    Parameters
    ----------
    source, size : tuple of int
        Height and width of the source and of the result.
    """
    lost_rows, lost_columns = (a - b for a, b in zip(source, size, strict=True))
    return lost_rows > max(0, 2 * lost_columns) and _orders_by_shape()


@cache
def _orders_by_shape() -> bool:
    """Whether this Pillow begins with the height of tall images; older ones do not."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 8), dtype=np.uint8)
    image, (left, right) = Image.fromarray(noise), (0.4, 7.6)
    at_once = image.resize((8, 16), FILTER, box=(left, 0, right, 64))
    by_width = image.resize((8, 64), FILTER, box=(left, 0, right, 64))
    return bool((np.asarray(at_once) != by_width.resize((8, 16), FILTER)).any())


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the filter at distances from its middle, none of them negative."""
    a = _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < SUPPORT, far, 0.0))
