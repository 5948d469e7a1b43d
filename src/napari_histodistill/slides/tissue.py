"""Where on a slide there is tissue: a mask at thumbnail size.

Otsu's threshold alone always finds two classes, so it invents tissue on blank glass
and cuts an all-tissue image in half. Here it may only move within bounds: what is
certainly glass stays glass, what is certainly stained stays tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp, WorldTransform

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.grid import TileGrid
    from napari_histodistill.slides.slide import Slide

DENSITY_BOUNDS = (0.05, 0.15)
"""Optical density (log10, over glass) below which nothing is tissue, above which all
is. Pale eosin measures about 0.06, haematoxylin 0.3."""

CHROMA_BOUNDS = (0.05, 0.12)
"""The same for colourfulness: (max - min of R, G, B) / 255, over glass."""

SPECK_UM2 = 2500.0
"""Smaller pieces (a square of 50 µm) are dust; smaller holes are lumina."""

SPECK_PX = 16
"""The same in mask pixels, if µm per pixel is unknown or the mask is coarse."""


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Tissue on a slide.

    Attributes
    ----------
    mask : ndarray of bool
        ``(h, w)``, read-only; covers the whole slide evenly.
    slide_shape : tuple of int
        Height and width of level 0 in pixels.

    Raises
    ------
    InputError
        If the mask is not a two-dimensional array with pixels.
    """

    mask: npt.NDArray[np.bool_]
    slide_shape: tuple[int, int]

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.size == 0:
            msg = f"A tissue mask is (height, width), not {self.mask.shape}."
            raise InputError(msg)
        frozen = np.array(self.mask, bool)
        frozen.flags.writeable = False
        object.__setattr__(self, "mask", frozen)

    @classmethod
    def from_array(
        cls, mask: npt.ArrayLike, slide_shape: tuple[int, int]
    ) -> TissueMask:
        """Make a mask of an array (an edited layer): anything not zero is tissue."""
        return cls(np.asarray(mask) != 0, slide_shape)

    @property
    def fraction(self) -> float:
        """Part of the slide that is tissue, 0 to 1."""
        return float(self.mask.mean())

    def world(self, mpp: Mpp | None) -> WorldTransform:
        """Return scale and translate (µm, or level-0 pixels without ``mpp``)."""
        my, mx = (mpp.y, mpp.x) if mpp else (1.0, 1.0)
        sy, sx = (s / n for s, n in zip(self.slide_shape, self.mask.shape, strict=True))
        return WorldTransform(
            scale=(my * sy, mx * sx), translate=(my * (sy - 1) / 2, mx * (sx - 1) / 2)
        )

    def cells(
        self, grid: TileGrid, *, min_fraction: float = 0.1
    ) -> npt.NDArray[np.bool_]:
        """Return which cells of a grid hold tissue, ``(rows, columns)``.

        Parameters
        ----------
        grid : TileGrid
            Of the same slide.
        min_fraction : float
            Part of the cell's square (of what lies on the slide) that must be tissue;
            any tissue at all for 0.
        """
        fractions = self.cell_fractions(grid)
        return (fractions >= min_fraction) & (fractions > 0)

    def cell_fractions(self, grid: TileGrid) -> npt.NDArray[np.float64]:
        """Return the exact part of every cell that is tissue, ``(rows, columns)``."""
        slide = (grid.slide_height, grid.slide_width)
        if slide != tuple(self.slide_shape):
            msg = (
                f"The tissue mask is of a slide of {self.slide_shape} px, not {slide}."
            )
            raise InputError(msg)
        total = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        total[1:, 1:] = self.mask.cumsum(0).cumsum(1)
        edges = [
            np.minimum(np.arange(n + 1) * cell, size) * (pixels / size)
            for n, cell, size, pixels in zip(
                grid.shape, grid.cell_size, slide, self.mask.shape, strict=True
            )
        ]
        # The integral of a mask is linear between its pixel edges: interpolation at a
        # cell's fractional edges is exact.
        at = _interpolate(_interpolate(total, edges[0]).T, edges[1]).T
        sums = np.diff(np.diff(at, axis=0), axis=1)
        areas = np.outer(np.diff(edges[0]), np.diff(edges[1]))
        fractions = sums / np.where(areas > 0, areas, 1)
        # Differences of large sums: a whole cell of tissue must count as 1.
        return np.clip(np.round(fractions, 9), 0, 1)


def find_tissue(slide: Slide, *, max_side_px: int = 2048) -> TissueMask:
    """Find tissue on a slide.

    Parameters
    ----------
    slide : Slide
        Colour slides are searched for stain. On a fluorescence image, what is brighter
        than its background counts as tissue; a single grey channel, whose background
        may be black or white, is taken to be tissue all over.
    max_side_px : int
        The finest level of at most this size is looked at.

    Returns
    -------
    TissueMask

    Raises
    ------
    SlideError
        If the file cannot be read.
    """
    sizes = [max(info.height, info.width) for info in slide.level_infos]
    level = next((k for k, n in enumerate(sizes) if n <= max_side_px), len(sizes) - 1)
    info = slide.level_infos[level]
    pixels = slide.read_pixels(level, 0, 0, info.height, info.width)
    if slide.info.is_rgb:
        mask = stained(pixels)
    elif pixels.shape[2] == 1:
        mask = np.ones(pixels.shape[:2], bool)
    else:
        mask = bright(pixels)
    sy, sx = slide.scales[level]
    mpp = slide.usable_mpp
    speck = SPECK_PX
    if mpp is not None:
        speck = max(speck, round(SPECK_UM2 / (mpp.y * sy * mpp.x * sx)))
    # Never more than a hundredth of the image: on a tiny crop a gland is not dust.
    speck = min(speck, max(1, mask.size // 100))
    mask = ~without_specks(~without_specks(mask, speck), speck)
    return TissueMask(mask, slide.shape)


def stained(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return where an ``(h, w, 3)`` uint8 thumbnail is stained, ``(h, w)``."""
    from skimage.filters import gaussian

    smooth = gaussian(
        pixels.astype(np.float32), sigma=1, channel_axis=2, preserve_range=True
    )
    clean = np.clip(smooth / _glass(smooth), 1 / 255, 1)
    density = -np.log10(clean).mean(axis=2)
    chroma = clean.max(axis=2) - clean.min(axis=2)
    mask = density > _threshold(density, DENSITY_BOUNDS)
    mask |= chroma > _threshold(chroma, CHROMA_BOUNDS)
    # Scanners fill what they did not scan with black: no tissue is that dark.
    scanned = smooth.max(axis=2) > 20
    found: npt.NDArray[np.bool_] = mask & scanned
    return found


def bright(pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where ``(h, w, channels)`` of fluorescence is above its background."""
    from skimage.filters import gaussian, threshold_otsu

    values = np.nan_to_num(pixels.astype(np.float32))
    low, high = np.percentile(values, [1, 99.5], axis=(0, 1))
    if not (high > low).any():
        return np.ones(pixels.shape[:2], bool)
    scaled = np.clip((values - low) / np.where(high > low, high - low, 1), 0, 1)
    signal = gaussian(np.sqrt(scaled.mean(axis=2)), sigma=2)
    found: npt.NDArray[np.bool_] = signal > threshold_otsu(signal)
    return found


def without_specks(mask: npt.NDArray[np.bool_], area: int) -> npt.NDArray[np.bool_]:
    """Return the mask without connected pieces of fewer than ``area`` pixels."""
    from skimage.measure import label

    pieces = label(mask, connectivity=1)
    keep = np.bincount(pieces.ravel()) >= area
    keep[0] = False
    kept: npt.NDArray[np.bool_] = keep[pieces]
    return kept


def _glass(smooth: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return the colour of empty glass, white if the image shows none.

    Glass is the brightest there is and nearly grey; in an all-tissue crop the brightest
    is tissue, and dividing by it would wash the picture out.
    """
    light = smooth.min(axis=2)
    brightest = smooth[light >= np.percentile(light, 95)]
    colour: npt.NDArray[np.floating[Any]] = np.median(brightest, axis=0)
    if colour.min() < 200 or colour.max() - colour.min() > 25:
        return np.full(3, 255.0)
    return colour


def _threshold(
    values: npt.NDArray[np.floating[Any]], bounds: tuple[float, float]
) -> float:
    from skimage.filters import threshold_otsu

    return float(np.clip(threshold_otsu(values), *bounds))


def _interpolate(
    total: npt.NDArray[np.float64], at: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Interpolate rows of a table linearly at fractional rows."""
    low = np.minimum(at.astype(np.int64), len(total) - 2)
    part = (at - low)[:, np.newaxis]
    rows: npt.NDArray[np.float64] = total[low] * (1 - part) + total[low + 1] * part
    return rows
