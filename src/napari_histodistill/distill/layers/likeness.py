"""Likeness of two layers: both in one frame, and how well one predicts the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.registration import inverse
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.slides.tissue.tissue import find_tissue

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]
    Greys = npt.NDArray[np.float32]
    Bools = npt.NDArray[np.bool_]

OVERVIEW_PX = 1024
"""Longer side of the overviews that are compared."""

FINEST_UM = 1.0
"""No finer than this: texture below a nucleus differs between sections."""

BINS = 32
"""Bins of the joint histogram along each axis."""

_WRONG = 12


@dataclass(frozen=True, slots=True, eq=False)
class Overviews:
    """Both layers in the frame of the sparse one, as the start lays them.

    Attributes
    ----------
    sparse, dense : ndarray
        ``(h, w)`` float32 grey values: haematoxylin, or all channels together.
    common : ndarray
        ``(h, w)`` bool: tissue of both.
    origin_um, um_per_px : tuple of float, float
        Sparse-world (y, x) of the first pixel's centre; edge of a pixel.
    start : ndarray
        ``(3, 3)``, sparse world to dense world, µm: how ``dense`` was read.
    either_sign : bool
        Whether dark here may also mean bright there.
    """

    sparse: Greys
    dense: Greys
    common: Bools
    origin_um: tuple[float, float]
    um_per_px: float
    start: Doubles
    either_sign: bool = False


def take_overviews(
    sparse: Slide, dense: DenseLayer, *, longest_px: int = OVERVIEW_PX
) -> Overviews:
    """Read both layers at a few µm per pixel, the partner where it lies now.

    Raises
    ------
    InputError
        If the partner is a mask, or no tissue is common to both.
    """
    if dense.kind == "mask":
        msg = (
            f"{dense.name} has outlines and no grey values to compare: align it by "
            "landmarks alone."
        )
        raise InputError(msg)
    mpp, theirs = sparse.require_mpp(), dense.slide.require_mpp()
    size_um = np.array(sparse.shape) * (mpp.y, mpp.x)
    finest = max(FINEST_UM, mpp.mean, theirs.mean)
    um_per_px = max(finest, float(size_um.max()) / longest_px)
    height, width = (max(2, int(n / um_per_px)) for n in size_um)
    region = Region(
        y=0, x=0, height=height * um_per_px / mpp.y, width=width * um_per_px / mpp.x
    )
    origin = (um_per_px - mpp.y) / 2, (um_per_px - mpp.x) / 2
    y, x = (
        start + np.arange(count) * um_per_px
        for start, count in zip(origin, (height, width), strict=True)
    )
    points = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    _, tissue = dense.sees(points.reshape(1, -1, 2))
    here = find_tissue(sparse).at(points / (mpp.y, mpp.x) + 0.5)
    common = here & tissue.reshape(height, width)
    if common.mean() < 0.01:
        msg = (
            f"{dense.name} and {sparse.name} share no tissue where they lie now: place "
            "landmarks first."
        )
        raise InputError(msg)
    return Overviews(
        sparse=grey_of(read_resampled(sparse, region, height=height, width=width)),
        dense=grey_of(dense.read_at(points), colours=dense.kind == "image"),
        common=common,
        origin_um=origin,
        um_per_px=um_per_px,
        start=dense.matrix,
        either_sign=dense.kind != "image",
    )


def agreement(sparse: Greys, dense: Greys, common: Bools) -> float:
    """Return the mutual information of two images in bits, over ``common``."""
    if common.sum() < BINS**2 / 4:
        return 0.0
    joint, _, _ = np.histogram2d(sparse[common], dense[common], bins=BINS)
    joint /= joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


def distinctness(overviews: Overviews, step: Doubles) -> float:
    """Return the agreement under a step over the best that wrong places reach.

    The partner is shifted by a tenth and a fifth of the overview in all directions:
    near 1 or below, the two layers have nothing to do with each other.
    """
    at = agreement_under(overviews, step)
    extent = overviews.um_per_px * min(overviews.sparse.shape)
    wrong = []
    for k in range(_WRONG):
        turn, away = 2 * math.pi * k / _WRONG, np.eye(3)
        reach = extent * (0.1 if k % 2 else 0.2)
        away[:2, 2] = reach * math.sin(turn), reach * math.cos(turn)
        wrong.append(agreement_under(overviews, away @ step))
    return at / max(*wrong, 1e-6)


def grey_of(pixels: npt.NDArray[np.uint8], *, colours: bool = True) -> Greys:
    """Return ``(h, w)`` float32 about 0 to 1: haematoxylin, or the channels' mean."""
    if not colours:
        mean: Greys = pixels.mean(-1, dtype=np.float32) / 255
        return mean
    from skimage.color import rgb2hed

    stain = rgb2hed(pixels)[..., 0]
    low, high = np.percentile(stain, (1, 99.5))
    grey: Greys = np.clip((stain - low) / max(high - low, 1e-6), 0, 1).astype("f4")
    return grey


def _moved_picture(overviews: Overviews, step: Doubles) -> tuple[Greys, Bools]:
    """Return the dense overview under a step, and where both have tissue."""
    from scipy.ndimage import affine_transform

    um = np.diag([overviews.um_per_px, overviews.um_per_px, 1.0])
    um[:2, 2] = overviews.origin_um
    px = inverse(um) @ step @ um
    picture, mask = (
        affine_transform(values, px[:2, :2], px[:2, 2], order=1, cval=0.0)
        for values in (overviews.dense, overviews.common.astype(np.float32))
    )
    return picture, overviews.common & (mask > 0.99)


def agreement_under(overviews: Overviews, step: Doubles) -> float:
    """Return the agreement when the partner is moved by a step ``(3, 3)``, µm."""
    picture, both = _moved_picture(overviews, step)
    return agreement(overviews.sparse, picture, both)
