"""Layers of a comparison: the difference, and a place with its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.layers.overlay_placement import image_placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.layers.slide_layer import LayerTuple
    from napari_histodistill.maps.difference import DifferenceMap

CIVIDIS = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8779", "#a59c74",
    "#c3b369", "#e1cc55", "#fee838",
)  # fmt: skip
"""Control points of matplotlib's cividis (CC0): perceptually uniform, the same for the
colour-blind, and not the colours of a similarity map."""

ENDS = ("#0072b2", "#56b4e9", "#f0e6c8", "#e69f00", "#d55e00")
"""Two ends that everybody can tell apart (Okabe-Ito): blue and orange."""

FAINTEST = 0.3
"""Opacity of the smallest difference that is shown."""

PLACE_STYLES = (("diamond", "white"), ("disc", "#56b4e9"), ("square", "#e69f00"))
"""Symbol and colour of the place itself, of A's and of B's neighbours."""


def difference_colormap(*, two_ends: bool) -> dict[str, Any]:
    """Return the colours of a difference map: smaller differences are fainter.

    Cells without a value are transparent.
    """
    names = ENDS if two_ends else CIVIDIS
    share = np.abs(np.linspace(-1 if two_ends else 0, 1, len(names)))
    opaque = FAINTEST + (1 - FAINTEST) * share
    return {
        "name": "histodistill news" if two_ends else "histodistill difference",
        "colors": [
            [*(int(name[k : k + 2], 16) / 255 for k in (1, 3, 5)), float(alpha)]
            for name, alpha in zip(names, opaque, strict=True)
        ],
        "nan_color": "transparent",
    }


def difference_shown(
    difference: DifferenceMap, threshold: float
) -> npt.NDArray[np.float32]:
    """Return the values that reach the threshold, NaN (transparent) elsewhere."""
    clear = difference.values >= threshold
    return np.where(clear, difference.signed(), np.nan).astype(np.float32)


def difference_limits(
    difference: DifferenceMap, threshold: float
) -> tuple[float, float]:
    """Return contrast limits: from the threshold on, or equal for both ends."""
    high = max(float(np.nanmax(difference.values)), 1e-3)
    if difference.ends is not None:
        return -high, high
    return min(threshold, 0.999 * high), high


def difference_layer(
    difference: DifferenceMap,
    *,
    threshold: float,
    affine: npt.NDArray[np.float64],
    name: str = "Difference of A and B",
) -> LayerTuple:
    """Return an Image layer of the grid's size.

    Parameters
    ----------
    difference : DifferenceMap
        Map to show.
    threshold : float
        Smaller differences are transparent.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    kwargs = image_placement(difference.grid.world(), affine) | {
        "name": name,
        "colormap": difference_colormap(two_ends=difference.ends is not None),
        "contrast_limits": difference_limits(difference, threshold),
        "opacity": 0.8,
    }
    return difference_shown(difference, threshold), kwargs, "image"


def place_layer(
    place: tuple[float, float],
    nearest: Sequence[Sequence[tuple[float, float]]],
    mpp: tuple[float, float],
    *,
    affine: npt.NDArray[np.float64],
    name: str = "Place and its neighbours",
) -> LayerTuple:
    """Return a Points layer: a place, A's neighbours and B's.

    Parameters
    ----------
    place : tuple of float
        Level-0 pixels ``(y, x)``, edge convention.
    nearest : sequence of two sequences of (y, x)
        Places that A finds most similar, and those that B does.
    mpp : tuple of float
        µm per level-0 pixel ``(y, x)``.
    affine : ndarray
        ``(3, 3)``, see :func:`~napari_histodistill.layers.overlay_placement.moved_by`.
    name : str
        Name of the layer.
    """
    groups = [place], *nearest
    styles = [
        style
        for style, group in zip(PLACE_STYLES, groups, strict=True)
        for _ in range(len(group))
    ]
    points = np.array([p for group in groups for p in group], float).reshape(-1, 2)
    kwargs: dict[str, Any] = {
        "name": name,
        "scale": mpp,
        "affine": affine,
        "units": ("um", "um"),
        "border_color": "black",
        "border_width": 0.05,
        "canvas_size_limits": (12, 18),
        "blending": "translucent_no_depth",
        "symbol": [symbol for symbol, _ in styles],
        "face_color": [color for _, color in styles],
    }
    return points - 0.5, kwargs, "points"
