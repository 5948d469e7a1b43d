"""The tissue on a slide: a mask the size of a thumbnail.

Otsu's threshold alone always finds two classes, so it invents tissue on blank glass and
cuts an all-tissue image in half. Here it may only move within bounds: what is certainly
glass stays glass, what is certainly stained stays tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.geometry import Mpp, WorldTransform
from napari_histodistill.slides.tissue.artefacts import (
    artefacts,
    over_channels,
    without_specks,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]

    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Slide

DENSITY_BOUNDS = (0.04, 0.08)
"""Optical density (log10, relative to glass) below which nothing is tissue and above
which everything is. Uneven light on glass stays below 0.03; pale stroma, blurred,
measures about 0.08, eosin 0.15."""

CHROMA_BOUNDS = (0.04, 0.07)
"""The same for colourfulness: (max - min of R, G, B) / 255, relative to glass."""

TEXTURE = 0.015
"""Unevenness of optical density (standard deviation within the blur) that only tissue
has: glass, even dusty or noisy, stays below 0.005, the palest stroma above 0.02."""

FINEST_UM = 0.9
"""µm per pixel from which a level is looked at, where there is one: at half of
it, a thumbnail of 1600 px takes seven times as long. On three pieces of an H&E slide,
1 to 2 % of the pixels of both masks differ."""

BLUR_UM = 8.0
"""Width of the blur at which nuclei blend with the pale stroma around them, in µm:
the scale at which tissue is distinguished from glass."""

BLUR_PX = 1.5
"""The same in mask pixels, if µm per pixel is unknown or the mask is coarse."""

SPECK_UM2 = 2500.0
"""Smaller pieces (a square of 50 µm) are dust; smaller holes are lumina."""

SPECK_PX = 16
"""The same in mask pixels, if µm per pixel is unknown or the mask is coarse."""


BLANK = (0.03, 0.02, 0.008)
"""Optical density, colourfulness and texture, all of which glass stays below. What is
above, and below the bounds of tissue, is in doubt: neither blank nor tissue."""

STRIP_CELLS = 2**18
"""Number of cells that are looked up at once."""


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """A mask of the tissue on a slide.

    Attributes
    ----------
    mask : ndarray of bool
        ``(h, w)``, read-only; covers the whole slide evenly.
    slide_shape : tuple of int
        Height and width of level 0 in pixels.
    pen_fraction : float
        Share of the slide, 0 to 1, that has the colour of a pen; it is no tissue.

    Raises
    ------
    InputError
        If the mask is not a two-dimensional array with pixels.
    """

    mask: npt.NDArray[np.bool_]
    slide_shape: tuple[int, int]
    pen_fraction: float = 0.0

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
        """Make a mask from an array (an edited layer): anything but zero is tissue."""
        return cls(np.asarray(mask) != 0, slide_shape)

    @property
    def fraction(self) -> float:
        """Share of the slide that is tissue, 0 to 1."""
        return float(self.mask.mean())

    def world(self, mpp: Mpp | None) -> WorldTransform:
        """Return scale and translate (µm, or level-0 pixels without ``mpp``)."""
        my, mx = (mpp.y, mpp.x) if mpp else (1.0, 1.0)
        sy, sx = (s / n for s, n in zip(self.slide_shape, self.mask.shape, strict=True))
        return WorldTransform(
            scale=(my * sy, mx * sx), translate=(my * (sy - 1) / 2, mx * (sx - 1) / 2)
        )

    def at(self, places: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return whether level-0 positions ``(…, 2)``, (y, x), edge, are tissue.

        A position outside the slide gets the value of the nearest border pixel.
        """
        shape = np.array(self.mask.shape)
        pixels = np.floor(places * (shape / self.slide_shape)).astype(np.intp)
        pixels = np.clip(pixels, 0, shape - 1)
        found: npt.NDArray[np.bool_] = self.mask[pixels[..., 0], pixels[..., 1]]
        return found

    def cells(
        self, grid: TileGrid, *, min_fraction: float = 0.1
    ) -> npt.NDArray[np.bool_]:
        """Return which cells of a grid hold tissue, ``(rows, columns)``.

        Parameters
        ----------
        grid : TileGrid
            A grid over the same slide.
        min_fraction : float
            Share of the cell's square (of its part on the slide) that must be tissue;
            with 0, any tissue at all is enough.
        """
        cells = np.empty(grid.shape, bool)
        for rows, fractions in self._fraction_strips(grid):
            cells[rows] = (fractions >= min_fraction) & (fractions > 0)
        return cells

    def cell_fractions(self, grid: TileGrid) -> npt.NDArray[np.float64]:
        """Return the exact share of every cell that is tissue, ``(rows, columns)``."""
        found = np.empty(grid.shape)
        for rows, fractions in self._fraction_strips(grid):
            found[rows] = fractions
        return found

    def _fraction_strips(
        self, grid: TileGrid
    ) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
        """Yield rows of cells and the share of tissue in each, some rows at a time.

        A gigapixel slide has ten million cells: computing all their shares at once
        would take half a gigabyte.
        """
        slide = (grid.slide_height, grid.slide_width)
        if slide != tuple(self.slide_shape):
            msg = (
                f"The tissue mask is for a slide of {self.slide_shape} px, not {slide}."
            )
            raise InputError(msg)
        kind = np.int32 if self.mask.size < 2**31 else np.int64
        total = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), kind)
        inner = total[1:, 1:]
        np.cumsum(self.mask, axis=0, dtype=kind, out=inner)
        np.cumsum(inner, axis=1, dtype=kind, out=inner)
        rows, columns = (
            np.minimum(np.arange(n + 1) * cell, size) * (pixels / size)
            for n, cell, size, pixels in zip(
                grid.shape, grid.cell_size, slide, self.mask.shape, strict=True
            )
        )
        step = max(1, STRIP_CELLS // grid.shape[1])
        for start in range(0, grid.shape[0], step):
            strip = slice(start, min(start + step, grid.shape[0]))
            edges = rows[strip.start : strip.stop + 1]
            # The integral of a mask is linear between its pixel edges: interpolation at
            # a cell's fractional edges is exact.
            at = _interpolate(_interpolate(total, edges).T, columns).T
            sums = np.diff(np.diff(at, axis=0), axis=1)
            areas = np.outer(np.diff(edges), np.diff(columns))
            fractions = sums / np.where(areas > 0, areas, 1)
            # Rounded, because these are differences of large sums: a cell that is all
            # tissue must count as 1.
            yield strip, np.clip(np.round(fractions, 9), 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class TissueSurvey:
    """Where a slide shows tissue, and what it shows elsewhere.

    The four overlap nowhere; what none of them has is in doubt.

    Attributes
    ----------
    tissue : TissueMask
        Tissue that can be read.
    blank : TissueMask
        Certainly no tissue: clear glass, or what was not scanned.
    ink : TissueMask
        Pen, dust, and what is out of focus.
    fold : TissueMask
        Folded tissue.
    """

    tissue: TissueMask
    blank: TissueMask
    ink: TissueMask
    fold: TissueMask


def find_tissue(slide: Slide, *, max_side_px: int = 2048) -> TissueMask:
    """Find tissue on a slide.

    Where the level cannot be read there may be tissue, so damage counts as tissue: code
    that reads there later notices it, and reports how much is missing.

    Parameters
    ----------
    slide : Slide
        Colour slides are searched for stain. On a fluorescence image, everything
        brighter than the background counts as tissue; a single grey channel, whose
        background may be black or white, is taken to be all tissue.
    max_side_px : int
        The finest level of at most this size is used that is not finer than
        :data:`FINEST_UM`; the coarsest of those that are small enough, if all are
        finer.

    Returns
    -------
    TissueMask

    Raises
    ------
    SlideError
        If no part of the level can be read.
    """
    return survey_tissue(slide, max_side_px=max_side_px).tissue


def survey_tissue(
    slide: Slide, *, max_side_px: int = 2048, pale: bool = False
) -> TissueSurvey:
    """Find tissue, clear glass, ink and folds on a slide; see :func:`find_tissue`.

    Parameters
    ----------
    slide : Slide
        Only colour slides show anything but tissue.
    max_side_px : int
        As for :func:`find_tissue`.
    pale : bool
        Whether haematoxylin alone, a counterstain, is tissue, too: beside a strong
        marker it is nearer to glass than to the marker, and would be left out.

    Raises
    ------
    SlideError
        If no part of the level can be read.
    """
    level = _level_to_look_at(slide, max_side_px)
    info = slide.level_infos[level]
    marked = slide.read_marked(level, 0, 0, info.height, info.width)
    pixels, missing = marked.pixels, marked.bad
    if missing is not None:
        if missing.all():
            raise SlideError(marked.problem)
        pixels[missing] = 255 if slide.info.is_rgb else 0
    mpp = slide.usable_mpp
    um = mpp.mean * slide.downsamples[level] if mpp else None
    blur = BLUR_PX if um is None else max(BLUR_PX, BLUR_UM / um)
    blur = min(blur, max(mask_side / 32 for mask_side in pixels.shape[:2]))
    if slide.info.is_rgb:
        seen = _stained(pixels, blur_px=blur, um=um, pale=pale)
    elif pixels.shape[2] == 1:
        seen = _Stained.only(np.ones(pixels.shape[:2], bool))
    else:
        seen = _Stained.only(bright(pixels, blur_px=blur))
    speck = SPECK_PX if um is None else max(SPECK_PX, round(SPECK_UM2 / um**2))
    # Never more than a hundredth of the image: on a tiny crop a gland is not dust.
    speck = min(speck, max(1, seen.tissue.size // 100))
    mask = ~without_specks(~without_specks(seen.tissue, speck), speck)
    if missing is not None:
        mask |= missing
    others = (part & ~mask for part in (seen.blank, seen.ink, seen.fold))
    return TissueSurvey(
        TissueMask(mask, slide.shape, float(seen.pen.mean())),
        *(TissueMask(without_specks(part, speck), slide.shape) for part in others),
    )


def _level_to_look_at(slide: Slide, max_side_px: int) -> int:
    mpp, levels = slide.usable_mpp, list(enumerate(slide.level_infos))
    small = [k for k, info in levels if max(info.height, info.width) <= max_side_px]
    if mpp is None or not small:
        return small[0] if small else len(levels) - 1
    um = [mpp.mean * slide.downsamples[k] for k in small]
    return next(
        (k for k, n in zip(small, um, strict=True) if n >= FINEST_UM), small[-1]
    )


def stained(
    pixels: npt.NDArray[np.uint8],
    *,
    blur_px: float = BLUR_PX,
    um: float | None = None,
) -> npt.NDArray[np.bool_]:
    """Return where an ``(h, w, 3)`` uint8 thumbnail shows stained tissue, ``(h, w)``.

    Pen, dust, folds and blur are left out; ``um`` is µm per pixel, if known.
    """
    return _stained(pixels, blur_px=blur_px, um=um).tissue


class _Stained(NamedTuple):
    """Parts of a thumbnail, ``(h, w)`` each; ``pen`` has the colour of a pen."""

    tissue: Bools
    blank: Bools
    ink: Bools
    fold: Bools
    pen: Bools

    @classmethod
    def only(cls, tissue: Bools) -> _Stained:
        """Return tissue, and nothing that is known of the rest."""
        none = np.zeros_like(tissue)
        return cls(tissue, none, none, none, none)


def _stained(
    pixels: npt.NDArray[np.uint8],
    *,
    blur_px: float,
    um: float | None,
    pale: bool = False,
) -> _Stained:
    from skimage.filters import gaussian

    def blurred(values: npt.NDArray[Any], sigma: float) -> npt.NDArray[Any]:
        axis = 2 if values.ndim == 3 else None
        return np.asarray(gaussian(values, sigma=sigma, channel_axis=axis))

    fine = blurred(pixels.astype(np.float32) / 255, 1)
    clean = np.clip(fine / glass_of(fine), 1 / 255, 1)
    density = over_channels(np.add, -np.log10(clean)) / 3
    mean_density = blurred(density, blur_px)
    variance = blurred(density**2, blur_px) - mean_density**2
    texture = np.sqrt(np.maximum(variance, 0))
    coarse = blurred(clean, blur_px)
    brightest = over_channels(np.maximum, coarse)
    chroma = brightest - over_channels(np.minimum, coarse)
    mask = mean_density > _threshold(mean_density, DENSITY_BOUNDS, lowest=pale)
    mask |= chroma > _threshold(chroma, CHROMA_BOUNDS, lowest=pale)
    # Texture leaks across an edge by the width of the blur; this removes that margin.
    uneven = blurred((texture > TEXTURE).astype(np.float32), blur_px) > 0.9
    mask |= uneven
    # Scanners fill unscanned areas with black: no tissue is that dark.
    scanned = brightest > 0.08
    found: Bools = mask & scanned
    other = artefacts(clean, found, blur_px=blur_px, um=um)
    clear = (mean_density < BLANK[0]) & (chroma < BLANK[1]) & (texture < BLANK[2])
    return _Stained(
        tissue=found & ~other.found,
        blank=~found & (clear | ~scanned),
        ink=found & other.found & ~other.fold,
        fold=found & other.fold,
        pen=other.pen,
    )


def bright(
    pixels: npt.NDArray[Any], *, blur_px: float = BLUR_PX
) -> npt.NDArray[np.bool_]:
    """Return where a fluorescence image ``(h, w, channels)`` exceeds its background."""
    from skimage.filters import gaussian, threshold_otsu

    values = np.nan_to_num(pixels.astype(np.float32))
    low, high = np.percentile(values, [1, 99.5], axis=(0, 1))
    if not (high > low).any():
        return np.ones(pixels.shape[:2], bool)
    scaled = np.clip((values - low) / np.where(high > low, high - low, 1), 0, 1)
    signal = gaussian(np.sqrt(scaled.mean(axis=2)), sigma=blur_px)
    found: npt.NDArray[np.bool_] = signal > threshold_otsu(signal)
    return found


def glass_of(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return the colour of empty glass (0 to 1), white if the image shows none.

    The image is ``(h, w, 3)``, 0 to 1.

    Glass is the brightest part of a slide and nearly grey. In an all-tissue crop the
    brightest part is tissue, and dividing by that would wash the picture out.
    """
    light = over_channels(np.minimum, image)
    brightest = image[light >= np.percentile(light, 98)]
    colour: npt.NDArray[np.floating[Any]] = np.median(brightest, axis=0)
    if colour.min() < 0.78 or colour.max() - colour.min() > 0.1:
        return np.ones(3)
    return colour


def _threshold(
    values: npt.NDArray[np.floating[Any]],
    bounds: tuple[float, float],
    *,
    lowest: bool = False,
) -> float:
    from skimage.filters import threshold_otsu

    if lowest:
        return bounds[0]
    return float(np.clip(threshold_otsu(values), *bounds))


def _interpolate(
    total: npt.NDArray[Any], at: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Interpolate rows of a table linearly at fractional rows."""
    low = np.minimum(at.astype(np.int64), len(total) - 2)
    part = (at - low)[:, np.newaxis]
    rows: npt.NDArray[np.float64] = total[low] * (1 - part) + total[low + 1] * part
    return rows
