"""Spots as a napari layer: a few genes to look at, and the whole table with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.layers.plain_names import plain_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_histodistill.layers.slide_layer import LayerTuple

SPOTS_KEY = "histodistill spots"
"""Key in a layer's metadata: the table of all genes."""

SHOWN_GENES = 8
"""Columns that napari's own tables and status bar show; all would swamp them."""


def spots_of(metadata: Mapping[str, Any]) -> Spots | None:
    """Return the table behind a layer's metadata, or None for other layers."""
    found = metadata.get(SPOTS_KEY)
    return found if isinstance(found, Spots) else None


def spot_layer(
    spots: Spots,
    *,
    size_um: float | None = None,
    affine: npt.NDArray[np.float64] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> LayerTuple:
    """Return one napari layer tuple for a table of spots.

    Parameters
    ----------
    spots : Spots
        In µm; the first genes are shown, the very first as colour.
    size_um : float, optional
        Diameter of a spot; by default half the distance of neighbours.
    affine : ndarray, optional
        ``(3, 3)``: from the spots' world to the canvas.
    metadata : mapping, optional
        Kept with the layer.
    """
    shown = [plain_name(gene) for gene in spots.genes[:SHOWN_GENES]]
    kwargs: dict[str, Any] = {
        "name": plain_name(spots.name),
        "features": {gene: spots.values[:, k] for k, gene in enumerate(shown)},
        "face_color": shown[0],
        "face_colormap": "viridis",
        "border_width": 0,
        "size": size_um or 0.5 * _spacing_um(spots.positions_um),
        "opacity": 0.8,
        "units": ("um", "um"),
        "affine": np.eye(3) if affine is None else affine,
        "metadata": {SPOTS_KEY: spots, **(metadata or {})},
    }
    return spots.positions_um, kwargs, "points"


def _spacing_um(positions: npt.NDArray[np.float64]) -> float:
    """Return the median distance to the nearest spot; 100 µm for a single spot."""
    from scipy.spatial import KDTree

    if len(positions) < 2:
        return 100.0
    distance, _ = KDTree(positions).query(positions, k=2)
    return float(np.median(distance[:, 1]))
