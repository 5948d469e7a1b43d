"""A lesson on a painted slide: four strokes, and how right the map is that they teach.

What is looked at as a tile of 200 µm is a *zone*, not a single gland: crypts with the
stroma between them are one. The zones follow from the painted truth, the strokes from
the zones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_histodistill.samples.tissue_layout import (
    CROWDED_GLAND,
    GLAND,
    GLASS,
    LYMPHOID,
    STROMA,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.samples.synthetic import SyntheticTruth
    from napari_histodistill.slides import TileGrid

GAP_UM = 60.0
"""Glands that are less than twice this apart belong together."""

STROKE_UM = 2000.0
"""A stroke is no longer than this."""

MARGIN_UM = 60.0
"""A stroke keeps this far from other tissue, where the tissue is wide enough."""

WITHIN = 0.8
"""A square lies within one tissue if so much of it is painted as that tissue."""

_DIRECTIONS = 24


@dataclass(frozen=True, slots=True)
class Stroke:
    """A straight stroke of the brush.

    Attributes
    ----------
    tissue : str
        What is under it.
    start, end : tuple of float
        ``(y, x)`` in µm from the slide's upper left corner.
    """

    tissue: str
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How much of a map is what was painted.

    Attributes
    ----------
    right, squares : int
        Of all squares on the painted tissue.
    right_within, squares_within : int
        Of those that lie within one tissue.
    """

    right: int
    squares: int
    right_within: int
    squares_within: int

    def in_words(self) -> str:
        """Return it as a sentence."""
        if not self.squares:
            return "No square of the map lies on painted tissue."
        words = (
            f"The map is what was painted on {self.right / self.squares:.0%} of "
            f"{self.squares} squares"
        )
        if not self.squares_within:
            return f"{words}."
        within = self.right_within / self.squares_within
        return f"{words}; on {within:.0%} of those that lie within one tissue."


def zones_of(truth: SyntheticTruth) -> SyntheticTruth:
    """Return the truth with the stroma between glands counted to the glands.

    Parameters
    ----------
    truth : SyntheticTruth
        Of :func:`~napari_histodistill.samples.synthetic_truth`.
    """
    labels = truth.labels
    gap = GAP_UM / truth.um_per_px
    zones = np.where(labels == GLASS, GLASS, STROMA).astype(np.uint8)
    away = {k: distance_transform_edt(labels != k) for k in (GLAND, CROWDED_GLAND)}
    for k in (GLAND, CROWDED_GLAND):
        closed = distance_transform_edt(away[k] <= gap) > gap
        zones[closed & (labels != GLASS) & (away[k] <= away[_other(k)])] = k
    zones[labels == LYMPHOID] = LYMPHOID
    return replace(truth, labels=zones)


def four_strokes(zones: SyntheticTruth) -> tuple[Stroke, ...]:
    """Return a stroke for each tissue: the longest through where it is widest.

    Parameters
    ----------
    zones : SyntheticTruth
        Of :func:`zones_of`.
    """
    tissues = (STROMA, GLAND, CROWDED_GLAND, LYMPHOID)
    return tuple(_stroke(zones, k) for k in tissues if (zones.labels == k).any())


def agreement(
    named: npt.NDArray[np.str_], grid: TileGrid, zones: SyntheticTruth
) -> Agreement:
    """Compare a map with what was painted.

    Parameters
    ----------
    named : ndarray of str
        ``(rows, columns)``: the tissue of each square, empty where there is none.
    grid : TileGrid
        Of the map.
    zones : SyntheticTruth
        Of :func:`zones_of`. A square is what most of it was painted as.
    """
    rows, columns = grid.shape
    height, width = grid.cell_size
    y, x = (
        np.minimum((np.arange(n) + 0.5) * zones.um_per_px / um / cell, last - 1).astype(
            np.intp
        )
        for n, um, cell, last in zip(
            zones.labels.shape,
            (grid.slide_mpp.y, grid.slide_mpp.x),
            (height, width),
            (rows, columns),
            strict=True,
        )
    )
    shares = np.zeros((rows, columns, len(zones.classes)))
    np.add.at(shares, (y[:, None], x[None, :], zones.labels), 1)
    shares /= np.maximum(1, shares.sum(axis=-1, keepdims=True))
    most = shares.argmax(axis=-1)
    counted = (most != GLASS) & (named != "")
    right = counted & (np.asarray(zones.classes)[most] == named)
    within = counted & (shares.max(axis=-1) >= WITHIN)
    return Agreement(
        int(right.sum()),
        int(counted.sum()),
        int((right & within).sum()),
        int(within.sum()),
    )


def _other(gland: int) -> int:
    return CROWDED_GLAND if gland == GLAND else GLAND


def _stroke(zones: SyntheticTruth, tissue: int) -> Stroke:
    um = zones.um_per_px
    depth = distance_transform_edt(np.pad(zones.labels == tissue, 1))[1:-1, 1:-1] * um
    inside = depth > min(MARGIN_UM, 0.6 * float(depth.max()))
    y, x = (int(v) for v in np.unravel_index(int(depth.argmax()), depth.shape))
    most = round(STROKE_UM / 2 / um)
    best, ends = -1, ((y, x), (y, x))
    for angle in np.linspace(0, math.pi, _DIRECTIONS, endpoint=False):
        step = math.sin(angle), math.cos(angle)
        back = _reach(inside, (y, x), (-step[0], -step[1]), most)
        ahead = _reach(inside, (y, x), step, most)
        if back + ahead > best:
            best = back + ahead
            ends = (
                (round(y - back * step[0]), round(x - back * step[1])),
                (round(y + ahead * step[0]), round(x + ahead * step[1])),
            )
    start, end = (((v + 0.5) * um, (w + 0.5) * um) for v, w in ends)
    return Stroke(zones.classes[tissue], start, end)


def _reach(
    inside: npt.NDArray[np.bool_],
    place: tuple[int, int],
    step: tuple[float, float],
    most: int,
) -> int:
    """Return how many of at most so many steps stay inside."""
    rows, columns = inside.shape
    taken = 0
    while taken < most:
        y = round(place[0] + (taken + 1) * step[0])
        x = round(place[1] + (taken + 1) * step[1])
        if not (0 <= y < rows and 0 <= x < columns and inside[y, x]):
            break
        taken += 1
    return taken
