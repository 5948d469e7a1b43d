"""Pen, dust, folds and blur: what is stained or dark on a slide, and is not tissue.

A few rules about optical density (OD), each with a limit that real tissue was measured
to keep (H&E, IHC and haematoxylin alone, 0.5 to 16 µm per pixel):

- *Colour.* Haematoxylin, eosin and DAB (Ruifrok & Johnston 2001) absorb green light
  first, or at least not much less than red or blue. Blue, green, red and yellow pen do
  not: no mixture of these stains has their colour.
- *Grey.* Black pen, dust, the coverslip's edge and the rim of a bubble have no hue.
- *Flat.* Pen of any colour, brown and purple too, has no fine structure; nor has tissue
  out of focus. HistoQC (Janowczyk et al. 2019) finds pen by colour and blur by a
  Laplacian, GrandQC (Weng et al. 2024) both by a trained network.
- *Folded.* A fold is tissue twice over: the hue of the slide's tissue at nearly twice
  its density (Kothari et al. 2013 find folds by saturation minus intensity). Nuclei or
  keratin as dense have another hue; so have folds of a section with tissue of several
  kinds, which are therefore missed.

What is in doubt stays tissue. A stain that is itself blue or green (trichrome, Alcian
blue) covers more of a section than pen does, and is then left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Density = npt.NDArray[np.floating[Any]]
    Bools = npt.NDArray[np.bool_]

INK_DENSITY = 0.15
"""Mean OD below which no colour is called that of a pen."""

BLUE_INK = (0.25, 0.45)
"""(OD of red - OD of green light) / mean OD: what joins blue or green pen, and what is
certainly some. Of tissue, one place in ten thousand exceeds the first, one in a hundred
thousand the second."""

GREEN_INK = (0.2, 0.35)
"""The same for (the lesser OD of red and blue - OD of green) / mean OD."""

NAVY_INK = (0.4, 1.04, 0.42)
"""Navy pen is denser than this, absorbs more red than green light, and little blue:
haematoxylin as dense takes in more green than red. No tissue met all three."""

RED_INK = (0.25, 0.12, 0.84)
"""Red pen is denser than this, absorbs less red than that share of its largest OD, and
more blue than the other: eosin takes in hardly any blue, blood some red."""

YELLOW_INK = (0.2, 0.35)
"""Yellow pen's least OD of blue, and the share of it that it may absorb of green and
red; DAB absorbs 0.73 of green."""

OPAQUE = 1.0
"""Mean OD beyond which nothing can be read, whatever it is."""

MOST_INK = 1 / 3
"""Where a larger share of what is stained is blue or green, and not flat, so is the
stain."""

GREY = 0.1
"""(largest - smallest OD) / mean OD below which a thing has no hue."""

MOST_GREY = 0.5
"""Where more than this share of what is stained is grey, so is the picture."""

FINE_UM = 2.5
"""Up to this many µm per pixel, the sharpness of tissue can be seen."""

FLAT = (0.016, 0.2)
"""Fine structure (OD, relative to its mean) that tissue in focus has where it can be
seen, less than one window in ten thousand falling below 0.022; and the mean OD from
which it is asked for: mucus and serum are smooth, too."""

FLAT_COARSE = (0.007, 0.3)
"""The same on a coarser picture, where lymph nodes are smooth, and only pen is flat."""

DETAIL_UM = 1.5
"""Size of fine structure."""

WINDOW_UM = 10.0
"""Width in which structure is looked for."""

FOLD = (1.6, 0.45, 0.998)
"""A fold's density relative to the tissue's median, its least mean OD, and the least
cosine between both hues (as ODs of red, green and blue)."""

FOLD_UM = (14.0, 6000.0)
"""Width of a fold, µm, and its least area, µm²: rows of dense nuclei are narrower."""


class Artefacts(NamedTuple):
    """Where a thumbnail shows what is stained or dark, and no tissue.

    Attributes
    ----------
    found : ndarray of bool
        ``(h, w)``: all of it.
    pen : ndarray of bool
        ``(h, w)``: the part that has the colour of a pen.
    fold : ndarray of bool
        ``(h, w)``: the part that is folded tissue.
    """

    found: Bools
    pen: Bools
    fold: Bools


def artefacts(
    clean: Density, stained: Bools, *, blur_px: float, um: float | None
) -> Artefacts:
    """Find pen, dust, folds and blur on a thumbnail.

    Parameters
    ----------
    clean : ndarray
        ``(h, w, 3)`` float, > 0 to 1: the thumbnail relative to glass.
    stained : ndarray of bool
        ``(h, w)``: what is no glass, pen and all.
    blur_px : float
        Width at which nuclei blend with what is around them, in pixels.
    um : float or None
        µm per pixel of the thumbnail. Above :data:`FINE_UM`, or unknown, blur is not
        looked for; nor are folds, where they would be a few pixels wide.

    Returns
    -------
    Artefacts
    """
    density = -np.log10(clean)
    coarse = _blurred(density, blur_px)
    mean = over_channels(np.add, coarse) / 3
    flat = _flat(over_channels(np.add, density) / 3, mean, blur_px, um)
    ink, cold = _warm_ink(coarse, mean), _cold_ink(coarse, mean)
    total = stained.sum()
    if (cold & stained & ~flat).sum() <= MOST_INK * total:
        ink |= cold
    # A line of a pen is paler at its edge, where its colour is no longer certain.
    found = _widened(ink, 2 * blur_px) | flat | (mean > OPAQUE)
    grey = _grey(density, mean, blur_px) & ~found
    if (grey & stained).sum() <= MOST_GREY * total:
        found |= grey
    fold = np.zeros_like(found)
    if um is not None and um <= FOLD_UM[0]:
        fold = _folded(density, stained & ~found, um)
    return Artefacts(found | fold, ink & stained, fold)


def _cold_ink(coarse: Density, mean: Density) -> Bools:
    """Return where pen is blue or green."""
    from skimage.filters import apply_hysteresis_threshold

    r, g, b = (coarse[..., k] for k in range(3))
    scale, dense = np.maximum(mean, 1e-6), mean > INK_DENSITY
    blue = np.where(dense, (r - g) / scale, -1)
    green = np.where(dense, (np.minimum(r, b) - g) / scale, -1)
    least, over_green, below_red = NAVY_INK
    found: Bools = apply_hysteresis_threshold(blue, *BLUE_INK)
    found |= apply_hysteresis_threshold(green, *GREEN_INK)
    return found | ((mean > least) & (r > over_green * g) & (b < below_red * r))


def _warm_ink(coarse: Density, mean: Density) -> Bools:
    """Return where pen is red or yellow."""
    r, g, b = (coarse[..., k] for k in range(3))
    most = np.maximum(over_channels(np.maximum, coarse), 1e-6)
    least, few, many = RED_INK
    found: Bools = (mean > least) & (r < few * most) & (b > many * most)
    least, few = YELLOW_INK
    return found | ((b > least) & (np.maximum(g, r) < few * b))


def _grey(density: Density, mean: Density, blur_px: float) -> Bools:
    # Pixel by pixel: brown and blue side by side are grey only from afar.
    spread = over_channels(np.maximum, density) - over_channels(np.minimum, density)
    grey: Bools = _blurred(spread, blur_px) < GREY * mean
    return grey


def _flat(density: Density, mean: Density, blur_px: float, um: float | None) -> Bools:
    from scipy.ndimage import uniform_filter

    fine = um is not None and um <= FINE_UM
    limit, least = FLAT if fine else FLAT_COARSE
    window, sigma = (0.0, 0.0) if um is None else (WINDOW_UM / um, DETAIL_UM / um)
    sigma, side = max(1.5, sigma), 2 * round(max(4.0, window)) + 1
    detail = density - _blurred(density, sigma)
    structure = np.sqrt(np.maximum(uniform_filter(detail**2, side), 0))
    flat: Bools = (structure < limit * mean) & (mean > least)
    flat = without_specks(flat, side**2)
    # The edge of what is flat is structure, as far as filters reach.
    return _widened(flat, side / 2 + 4 * sigma + 2 * blur_px)


def _folded(density: Density, tissue: Bools, um: float) -> Bools:
    if not tissue.any():
        return tissue
    width, area = FOLD_UM
    ratio, least, alike = FOLD
    seen = _blurred(density, max(1.5, width / um))
    mean = over_channels(np.add, seen) / 3
    usual = np.median(seen[tissue], axis=0)
    lengths = np.sqrt(over_channels(np.add, seen**2)) * np.linalg.norm(usual)
    same_hue = over_channels(np.add, seen * usual) > alike * lengths
    dense = (mean > least) & (mean > ratio * usual.mean())
    folded: Bools = tissue & dense & same_hue
    return without_specks(folded, max(1, round(area / um**2)))


def _widened(mask: Bools, by_px: float) -> Bools:
    """Return a mask that reaches ``by_px`` further in all directions."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask
    near: Bools = distance_transform_edt(~mask) <= by_px
    return near


def _blurred(values: Density, sigma: float) -> Density:
    from skimage.filters import gaussian

    axis = 2 if values.ndim == 3 else None
    found: Density = gaussian(values, sigma=sigma, channel_axis=axis)
    return found


def over_channels(ufunc: np.ufunc, image: Density) -> Density:
    """Reduce ``(h, w, 3)`` to ``(h, w)``; numpy's own takes ten times as long."""
    found: Density = ufunc(image[..., 0], image[..., 1])
    ufunc(found, image[..., 2], out=found)
    return found


def without_specks(mask: Bools, area: int) -> Bools:
    """Return the mask without connected pieces of fewer than ``area`` pixels."""
    from skimage.measure import label

    pieces = label(mask, connectivity=1)
    keep = np.bincount(pieces.ravel()) >= area
    keep[0] = False
    kept: Bools = keep[pieces]
    return kept
