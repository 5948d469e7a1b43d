"""Where a partner may lie: every turn, side, scale and shift, looked at very small.

Masked normalised cross-correlation (Padfield 2012, "Masked object registration in the
Fourier domain") compares all shifts of a turned and scaled thumbnail at once, and only
where both layers reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.layers.thumbnails import GreyThumbnail
    from napari_histodistill.running import CancelToken

    Doubles = npt.NDArray[np.float64]
    Greys = npt.NDArray[np.float32]

EDGE_PX = 64
"""Longer side of the larger layer."""

TURN = 8
"""Degrees between two angles that are looked at."""

LEAST_OVERLAP = 0.3
"""Share of the smaller layer that the other must cover."""

PEAKS = 3
"""Shifts that are kept of every turn, side and scale."""

DETAIL_PX = 8.0
"""What is coarser than this is taken away: outlines alone fit in many places."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One way for a partner to lie.

    Attributes
    ----------
    matrix : ndarray
        ``(3, 3)``, sparse world to dense world, µm.
    score : float
        How far the correlation lies above nothing, in standard deviations.
    """

    matrix: Doubles
    score: float


def look_for_places(
    sparse: GreyThumbnail,
    dense: GreyThumbnail,
    scales: Sequence[float],
    *,
    either_sign: bool,
    cancel: CancelToken,
) -> Iterator[list[Place]]:
    """Compare all places, scale by scale.

    Parameters
    ----------
    sparse, dense : GreyThumbnail
        Of both layers.
    scales : sequence of float
        How much larger tissue may be on the dense image than both µm/px say.
    either_sign : bool
        Whether dark may also mean bright.
    cancel : CancelToken
        Asked at every turn.

    Yields
    ------
    list of Place
        Of one scale, in no order.

    Raises
    ------
    Cancelled
        When asked to stop.
    """
    for scale in scales:
        edge = max(sparse.size_um.max(), dense.size_um.max() / scale)
        um = float(edge) / EDGE_PX
        fixed = _Fixed(sparse, dense, scale, um)
        found: list[Place] = []
        for mirrored in (False, True):
            for degrees in range(0, 360, TURN):
                cancel.check()
                turn = _turn(degrees, mirrored=mirrored)
                found += fixed.peaks(turn, either_sign=either_sign)
        yield found


def _turn(degrees: float, *, mirrored: bool) -> Doubles:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.diag([1.0, -1.0 if mirrored else 1.0])


class _Fixed:
    """The sparse thumbnail, transformed once for each scale."""

    def __init__(
        self, sparse: GreyThumbnail, dense: GreyThumbnail, scale: float, um: float
    ) -> None:
        from scipy import fft

        self._fft = fft
        reach = int(np.ceil(np.hypot(EDGE_PX, EDGE_PX)))
        self._size = fft.next_fast_len(EDGE_PX + reach, real=True)
        self._um, self._middle = um, sparse.middle_um
        self._their_middle = dense.middle_um
        here = _small(sparse, um)
        self._there = _small(dense, um * scale)
        self._whole = np.ones_like(self._there)
        self._scale = scale
        self._centre = np.array(here.shape) / 2 - 0.5
        self._area = float(here.size)
        self._mask, self._one, self._two = (
            self._forward(x) for x in (np.ones_like(here), here, here * here)
        )

    def _forward(self, values: Greys) -> Any:
        return self._fft.rfft2(values, (self._size, self._size))

    def peaks(self, turn: Doubles, *, either_sign: bool) -> list[Place]:
        """Return the best shifts under a turn ``(2, 2)``, sparse to dense."""
        grey, inside = self._turned(turn)
        mask, one, two = (
            np.conj(self._forward(x)) for x in (inside, grey, grey * grey)
        )
        products = np.stack(
            [
                self._mask * mask,
                self._one * mask,
                self._two * mask,
                self._mask * one,
                self._mask * two,
                self._one * one,
            ]
        )
        n, s, ss, d, dd, sd = self._fft.irfft2(products, (self._size, self._size))
        n = np.maximum(n, 1)
        spread = np.maximum(ss - s * s / n, 1e-6) * np.maximum(dd - d * d / n, 1e-6)
        r = np.clip((sd - s * d / n) / np.sqrt(spread), -0.99, 0.99)
        least = LEAST_OVERLAP * min(self._area, float(inside.sum()))
        value = np.where(n >= least, np.arctanh(np.abs(r) if either_sign else r), 0)
        value *= np.sqrt(n)
        found = []
        for _ in range(PEAKS):
            at = np.unravel_index(int(value.argmax()), value.shape)
            shift = np.array([k - self._size if k > EDGE_PX else k for k in at])
            centre = np.array(grey.shape) / 2 - 0.5 + shift
            found.append(Place(self._matrix(turn, centre), float(value[at])))
            rows, columns = (np.arange(-4, 5) + k for k in at)
            value[np.ix_(rows % self._size, columns % self._size)] = 0
        return found

    def _turned(self, turn: Doubles) -> tuple[Greys, Greys]:
        """Return the whole turned partner, and where it reaches."""
        from scipy.ndimage import affine_transform

        size = np.abs(turn.T) @ np.array(self._there.shape)
        shape = tuple(max(2, int(np.ceil(n - 1e-6))) for n in size)
        middle = np.array(self._there.shape) / 2 - 0.5
        offset = middle - turn @ (np.array(shape) / 2 - 0.5)
        grey, inside = (
            affine_transform(values, turn, offset, shape, order=1)
            for values in (self._there, self._whole)
        )
        reached = (inside > 0.5).astype(np.float32)
        return grey * reached, reached

    def _matrix(self, turn: Doubles, centre: Doubles) -> Doubles:
        # The partner's middle lies at this pixel of the sparse thumbnail.
        here = self._middle + (centre - self._centre) * self._um
        matrix = np.eye(3)
        matrix[:2, :2] = self._scale * turn
        matrix[:2, 2] = self._their_middle - matrix[:2, :2] @ here
        return matrix


def _small(thumbnail: GreyThumbnail, um: float) -> Greys:
    """Return a thumbnail at ``um`` a pixel about the same middle, its detail only."""
    from scipy.ndimage import affine_transform, gaussian_filter

    grey, own = thumbnail.level(um)
    step = um / own
    shape = tuple(max(2, round(n / um)) for n in thumbnail.size_um)
    offset = [
        n / 2 - 0.5 - step * (m / 2 - 0.5)
        for n, m in zip(grey.shape, shape, strict=True)
    ]
    small = affine_transform(grey, [step, step], offset, shape, order=1, mode="nearest")
    weight = gaussian_filter(np.ones_like(small), DETAIL_PX, mode="constant")
    detail: Greys = small - gaussian_filter(small, DETAIL_PX, mode="constant") / weight
    return detail
