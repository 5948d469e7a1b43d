"""Thumbnails of two layers, at any scale, laid on one another in one frame.

A thumbnail is grey: how much of something lies there. That is the optical density of
colours, the mean of normalised channels, what is outlined in a mask; glass and darkness
are near 0 in all of them, so that the unlike can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.registration import apply, inverse
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.resample import read_channels, read_nearest
from napari_histodistill.slides.tissue.tissue import glass_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.layers.partners import DenseLayer
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]
    Greys = npt.NDArray[np.float32]
    Bools = npt.NDArray[np.bool_]

LONGEST_PX = 1024
"""Longer side of the largest thumbnail."""

PERCENTILES = (1.0, 99.5)
"""Of the grey values, what becomes 0 and 1."""

_DARKEST = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class GreyThumbnail:
    """A layer, small and grey.

    Attributes
    ----------
    levels : tuple of ndarray
        ``(h, w)`` float32, 0 to 1; each has half the edge of the one before.
    um : float
        Edge of a pixel of the first level in the layer's own world, µm.
    corner_um : tuple of float
        Its upper left corner (y, x) there: half a pixel of the slide before (0, 0).
    """

    levels: tuple[Greys, ...]
    um: float
    corner_um: tuple[float, float]

    @classmethod
    def of(
        cls, grey: Greys, um: float, corner_um: tuple[float, float]
    ) -> GreyThumbnail:
        """Return a picture ``(h, w)`` with its smaller levels."""
        levels = [grey]
        while min(levels[-1].shape) >= 32:
            levels.append(_halved(levels[-1]))
        return cls(tuple(levels), um, corner_um)

    @property
    def size_um(self) -> Doubles:
        """Height and width, µm."""
        return np.array(self.levels[0].shape) * self.um

    @property
    def middle_um(self) -> Doubles:
        """Its middle (y, x), µm."""
        return np.array(self.corner_um) + self.size_um / 2

    @property
    def corners_um(self) -> Doubles:
        """``(4, 2)``, its corners, µm."""
        shares = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float64)
        return shares * self.size_um + self.corner_um

    def level(self, um: float) -> tuple[Greys, float]:
        """Return the coarsest level that is as fine as ``um``, and its pixel's edge."""
        number = int(np.floor(np.log2(max(1.0, um / self.um * 1.05))))
        number = min(number, len(self.levels) - 1)
        return self.levels[number], self.um * 2**number


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """Two layers in one frame of the sparse world.

    Attributes
    ----------
    sparse, dense : ndarray
        ``(h, w)`` float32, 0 to 1; 0 where the layer does not reach.
    inside : ndarray
        ``(h, w)`` bool: where both reach.
    um : float
        Edge of a pixel in the sparse world, µm.
    origin_um : tuple of float
        Centre (y, x) of the first pixel.
    matrix : ndarray
        ``(3, 3)``, sparse world to dense world, µm: how they are laid.
    """

    sparse: Greys
    dense: Greys
    inside: Bools
    um: float
    origin_um: tuple[float, float]
    matrix: Doubles


def take_thumbnails(
    slide: Slide, dense: DenseLayer | None = None
) -> tuple[GreyThumbnail, GreyThumbnail]:
    """Read a slide, or a partner's, once, and look at it in two ways.

    All that lies there; and nuclei alone: haematoxylin, or the first channel, as is the
    custom. Of one channel and of masks the two are one.

    Parameters
    ----------
    slide : Slide
        With µm per pixel.
    dense : DenseLayer, optional
        The partner whose slide it is; colours without.

    Raises
    ------
    InputError
        If it is the same everywhere.
    """
    mpp = slide.require_mpp()
    size = np.array(slide.shape) * (mpp.y, mpp.x)
    um = max(min(mpp.y, mpp.x), float(size.max()) / LONGEST_PX)
    height, width = (max(2, int(n / um + 1e-6)) for n in size)
    looks = _looks(slide, dense, um, (height, width))
    corner = -mpp.y / 2, -mpp.x / 2
    made = [_thumbnail(slide.name, grey, um, corner) for grey in looks]
    return made[0], made[-1]


def _thumbnail(
    name: str, grey: npt.NDArray[Any], um: float, corner: tuple[float, float]
) -> GreyThumbnail:
    low, high = np.percentile(grey, PERCENTILES)
    high = high if high > low else grey.max()
    if not high - low > 1e-6:
        msg = f"{name} is the same everywhere: there is nothing to compare."
        raise InputError(msg)
    grey = np.clip((grey - low) / (high - low), 0, 1).astype(np.float32)
    return GreyThumbnail.of(grey, um, corner)


def _looks(
    slide: Slide, dense: DenseLayer | None, um: float, shape: tuple[int, int]
) -> list[npt.NDArray[Any]]:
    mpp = slide.require_mpp()
    height, width = shape
    if dense is not None and dense.kind == "mask":
        y, x = ((np.arange(n) + 0.5) * um for n in shape)
        places = np.stack(np.meshgrid(y / mpp.y, x / mpp.x, indexing="ij"), axis=-1)
        labels = read_nearest(slide, places)[..., 0]
        values, counts = np.unique(labels, return_counts=True)
        return [np.asarray(labels != values[counts.argmax()], np.float32)]
    region = Region(y=0, x=0, height=height * um / mpp.y, width=width * um / mpp.x)
    pixels = read_channels(slide, region, height=height, width=width)
    if dense is not None and dense.ranges is not None:
        low, high = dense.ranges.T
        light = np.clip((pixels - low) / (high - low), 0, 1)
        return [light.mean(-1), light[..., 0]][: light.shape[-1]]
    from skimage.color import rgb2hed

    light = np.clip(pixels / 255, 0, 1)
    clean = np.clip(light / glass_of(light), _DARKEST, 1)
    return [-np.log10(clean).mean(-1), rgb2hed(clean)[..., 0]]


def _halved(grey: Greys) -> Greys:
    height, width = (n // 2 for n in grey.shape)
    whole = grey[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    halved: Greys = whole.mean((1, 3))
    return halved


def lay(
    sparse: GreyThumbnail, dense: GreyThumbnail, matrix: Doubles, longest_px: int
) -> Laid | None:
    """Lay both in the frame where they overlap.

    Parameters
    ----------
    sparse, dense : GreyThumbnail
        Of both layers.
    matrix : ndarray
        ``(3, 3)``, sparse world to dense world, µm.
    longest_px : int
        Longer side of the frame; shorter where a layer has no such detail.

    Returns
    -------
    Laid or None
        None if they do not overlap.
    """
    ours = sparse.corners_um
    theirs = apply(inverse(matrix), dense.corners_um)
    low = np.maximum(ours.min(0), theirs.min(0))
    high = np.minimum(ours.max(0), theirs.max(0))
    if (high - low).min() <= 0:
        return None
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    um = max(float((high - low).max()) / longest_px, 0.99 * sparse.um, dense.um / scale)
    shape = tuple(max(2, int(n)) for n in (high - low) / um)
    frame = np.diag([um, um, 1.0])
    frame[:2, 2] = low + um / 2
    here, inside = _seen(sparse, frame, um, shape)
    there, reached = _seen(dense, matrix @ frame, um * scale, shape)
    origin = float(frame[0, 2]), float(frame[1, 2])
    return Laid(here, there, inside & reached, um, origin, matrix)


def _seen(
    thumbnail: GreyThumbnail, to_world: Doubles, um: float, shape: tuple[int, ...]
) -> tuple[Greys, Bools]:
    """Return a thumbnail at the pixels of a frame, and where it reaches."""
    from scipy.ndimage import affine_transform

    grey, own = thumbnail.level(um)
    to_pixel = np.diag([1 / own, 1 / own, 1.0])
    to_pixel[:2, 2] = -np.array(thumbnail.corner_um) / own - 0.5
    pixel = to_pixel @ to_world
    seen = affine_transform(
        grey, pixel[:2, :2], pixel[:2, 2], shape, order=1, mode="nearest"
    )
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    at = apply(pixel, places.reshape(-1, 2).astype(np.float64))
    reached = (at >= -0.5).all(1) & (at <= np.array(grey.shape) - 0.5).all(1)
    reached = reached.reshape(shape)
    return np.where(reached, seen, 0).astype(np.float32), reached
