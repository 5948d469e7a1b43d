"""Placement of overlays: the grid's geometry, and any move of the slide layer.

The user may move, rotate or warp (affine) the slide layer to register it. Overlays are
small arrays with their own scale, so they cannot copy the slide layer's transform; they
get the *difference* between where the slide is and where it would be by its µm/px alone
as an ``affine``. For a slide that has not been moved, that is the identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.geometry import WorldTransform


def moved_by(
    slide_to_world: npt.ArrayLike, mpp: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return the affine ``(3, 3)`` that carries plain µm to where the slide now lies.

    Parameters
    ----------
    slide_to_world : array-like
        ``(3, 3)`` homogeneous matrix from level-0 pixels (centre convention, ``y, x``)
        to the world: a slide layer's whole transform.
    mpp : tuple of float
        µm per level-0 pixel ``(y, x)`` that the grid was laid with.
    """
    plain = np.diag([1 / mpp[0], 1 / mpp[1], 1.0])
    affine: npt.NDArray[np.float64] = np.asarray(slide_to_world, np.float64) @ plain
    return affine


def placement(world: WorldTransform, affine: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the layer keywords that lay a small array on a slide."""
    return {
        "scale": world.scale,
        "translate": world.translate,
        "affine": affine,
        "units": ("um", "um"),
    }


def labels_placement(
    world: WorldTransform, affine: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Return the layer keywords that lay small arrays of labels on a slide."""
    return placement(world, affine) | {
        "blending": "translucent",
        "cache": False,
        "multiscale": False,
    }


def image_placement(
    world: WorldTransform, affine: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Return the layer keywords that lay a small image of values on a slide."""
    return labels_placement(world, affine) | {
        "rgb": False,
        "interpolation2d": "nearest",
    }


def thumbnail_world(
    shape: tuple[int, int], slide_shape: tuple[int, int], mpp: tuple[float, float]
) -> WorldTransform:
    """Return the transform that stretches an array exactly over a slide.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the array.
    slide_shape : tuple of int
        Height and width of level 0, pixels.
    mpp : tuple of float
        µm per level-0 pixel ``(y, x)``.
    """
    from napari_histodistill.geometry import WorldTransform

    sy, sx = slide_shape[0] / shape[0], slide_shape[1] / shape[1]
    return WorldTransform(
        scale=(sy * mpp[0], sx * mpp[1]),
        translate=((sy - 1) / 2 * mpp[0], (sx - 1) / 2 * mpp[1]),
    )
