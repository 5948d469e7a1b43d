"""A similarity map as a small picture, for e-mails and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.maps import SimilarityMap

# Ten steps of matplotlib's viridis (CC0): perceptually uniform, colour-blind safe.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 74, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (110, 206, 88),
        (181, 222, 43),
        (253, 231, 37),
    ],
    float,
)

LONGEST_PX = 1024


def heat_colors(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return ``(rows, columns, 4)`` uint8: −1 dark, 1 bright, NaN transparent."""
    at = (np.nan_to_num(values, nan=-1) + 1) / 2 * (len(_VIRIDIS) - 1)
    steps = np.arange(len(_VIRIDIS))
    rgb = [np.interp(at, steps, _VIRIDIS[:, c]) for c in range(3)]
    alpha = np.where(np.isnan(values), 0, 255)
    return np.stack([*rgb, alpha], axis=-1).round().astype(np.uint8)


def write_heatmap(heat: SimilarityMap, path: Path) -> None:
    """Write a PNG of the map, each cell a square of whole pixels."""
    from PIL import Image

    colors = heat_colors(heat.values)
    side = max(1, LONGEST_PX // max(colors.shape[:2]))
    large = colors.repeat(side, axis=0).repeat(side, axis=1)
    Image.fromarray(large).save(path, format="PNG")
