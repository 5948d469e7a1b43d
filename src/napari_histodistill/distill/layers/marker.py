"""Brightfield immunohistochemistry as its marker: how much brown (or red) there is.

In optical density a pixel is a mixture of haematoxylin, the marker's stain, and a rest
that is neither. Their directions are measured on the slide, or given, and go with the
pairs; scikit-image separates every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.slides.tissue.stain import (
    CLOSEST_DEG,
    TYPICAL,
    degrees_between,
    glass_of_slide,
    tissue_squares,
    two_stains,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.levels import LevelInfo, PixelSource, Rect
    from napari_histodistill.slides.pyramid.slide import Slide

    Direction = tuple[float, float, float]
    StainVectors = tuple[Direction, Direction]
    """Of haematoxylin and of the marker."""

MARKERS: dict[str, Direction] = {
    "DAB": (0.27, 0.57, 0.78),
    "AEC": (0.27, 0.68, 0.68),
    "Fast Red": (0.21, 0.85, 0.48),
}
"""Directions in optical density, R G B (Ruifrok and Johnston 2001)."""

FARTHEST_DEG = 20.0
"""How far from its usual direction a measured stain may lie, in degrees: DAB and
haematoxylin are 46 apart."""

MARKER_CHANNEL = "marker"
MARKER_FULL = 3.0
"""Amount (natural logarithm of light) that becomes 255: the same in all sections, so
that one amount looks the same wherever it is."""

_MPP = 1.0


class StainOrigin(Enum):
    """Where stain directions come from; the value is its name in files."""

    MEASURED = "measured"
    USUAL = "usual"
    """Those of haematoxylin and DAB, since they could not be measured."""
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class MarkerStains:
    """The stains of a brightfield marker.

    Attributes
    ----------
    haematoxylin, marker : tuple of float
        Directions in optical density, R G B.
    glass : tuple of float
        R, G, B (0 to 255) where there is no stain.
    origin : StainOrigin
        Whether they were measured or given.
    why : str
        Why they could not be measured; empty if they were, or were given.

    Raises
    ------
    InputError
        If the two are no directions, or one.
    """

    haematoxylin: Direction
    marker: Direction
    glass: Direction
    origin: StainOrigin
    why: str = ""

    def __post_init__(self) -> None:
        pair = np.array([self.haematoxylin, self.marker], np.float64)
        lengths = np.linalg.norm(pair, axis=1)
        long_enough = np.isfinite(lengths).all() and lengths.min() > 0
        if not long_enough or degrees_between(*pair) < CLOSEST_DEG:
            msg = (
                "The stain vectors are alike, or empty: give haematoxylin and the "
                f"marker directions at least {CLOSEST_DEG:.0f}° apart."
            )
            raise InputError(msg)

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return ``(3, 3)``: a row of densities times this gives the stains' amounts.

        The third is perpendicular to both: pigment, pen, blood.
        """
        pair = np.array([self.haematoxylin, self.marker], np.float64)
        first, second = pair / np.linalg.norm(pair, axis=1, keepdims=True)
        rest = np.cross(first, second)
        found: npt.NDArray[np.float64] = np.linalg.inv(
            np.stack([first, second, rest / np.linalg.norm(rest)])
        )
        return found

    def content(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "haematoxylin": list(self.haematoxylin),
            "marker": list(self.marker),
            "glass": list(self.glass),
            "origin": self.origin.value,
        }

    def with_vectors(self, haematoxylin: Direction, marker: Direction) -> MarkerStains:
        """Return the same glass with directions that a person gives."""
        return replace(
            self,
            haematoxylin=haematoxylin,
            marker=marker,
            origin=StainOrigin.GIVEN,
            why="",
        )


def find_marker_stains(slide: Slide) -> MarkerStains:
    """Measure the stains of a brightfield marker on a slide's tissue.

    Where they cannot be measured (next to nothing is brown), the usual directions of
    haematoxylin and DAB are returned, with the reason.

    Parameters
    ----------
    slide : Slide
        A colour slide with a known µm per pixel.

    Raises
    ------
    InputError
        If it is not a colour slide, or has no tissue.
    """
    if not slide.info.is_rgb or slide.dtype != np.uint8:
        msg = f"{slide.name}: only a colour image has a marker to separate."
        raise InputError(msg)
    glass = glass_of_slide(slide)
    squares = tissue_squares(slide, mpp=max(_MPP, slide.require_mpp().mean))
    try:
        first, second, _, _ = two_stains(squares, glass=glass)
    except InputError as error:
        return _usual(glass, str(error))
    why = _why_not(first, second)
    if why:
        return _usual(glass, why)
    return MarkerStains(
        _unit(first), _unit(second), _rounded(glass, 1), StainOrigin.MEASURED
    )


def _why_not(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> str:
    """Return why two directions are not those of a marker; empty if they are."""
    off = degrees_between(first, np.array(TYPICAL["haematoxylin"]))
    if off > FARTHEST_DEG:
        return f"What should be haematoxylin has another colour ({off:.0f}° off)."
    name, off = min(
        ((n, degrees_between(second, np.array(v))) for n, v in MARKERS.items()),
        key=lambda one: one[1],
    )
    if off > FARTHEST_DEG:
        return f"No brown or red marker was found ({name} is {off:.0f}° off)."
    if degrees_between(first, second) < CLOSEST_DEG:
        return "Only one stain was found."
    return ""


def _usual(glass: Sequence[float], why: str) -> MarkerStains:
    return MarkerStains(
        TYPICAL["haematoxylin"],
        MARKERS["DAB"],
        _rounded(glass, 1),
        StainOrigin.USUAL,
        why,
    )


def say_vector(direction: Direction) -> str:
    """Return a stain vector as a person types it."""
    return " ".join(f"{value:.2f}" for value in direction)


def marker_of(slide: Slide, stains: MarkerStains) -> Slide:
    """Return the amount of a slide's marker: the same open files, read lazily.

    Its one channel is float32: the natural logarithm of how much light the marker takes
    away, 0 for none.
    """
    info = replace(slide.info, channels=(MARKER_CHANNEL,))
    return slide.with_info(info, _MarkerSource(slide.source, stains))


class _MarkerSource:
    """A source of colours, read as the amount of one stain."""

    def __init__(self, source: PixelSource, stains: MarkerStains) -> None:
        self._source, self._stains = source, stains
        self.levels: Sequence[LevelInfo] = source.levels

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, 1)`` float32; see :class:`PixelSource`."""
        from skimage.color import separate_stains

        pixels = self._source.read_level(level, rect)
        if not pixels.size:
            return np.zeros((*pixels.shape[:2], 1), np.float32)
        light = np.clip(pixels / np.array(self._stains.glass), 1 / 255, 1)
        # In units of a density of ln(1e6), as scikit-image counts.
        amounts = separate_stains(light, self._stains.matrix())
        found: npt.NDArray[np.float32] = amounts[..., 1:2] * np.log(1e6)
        return found.astype(np.float32)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _unit(vector: npt.NDArray[np.float64]) -> Direction:
    return _rounded(vector / np.linalg.norm(vector), 4)


def _rounded(
    values: Sequence[float] | npt.NDArray[np.float64], digits: int
) -> Direction:
    x, y, z = (round(float(v), digits) + 0.0 for v in values)
    return x, y, z
