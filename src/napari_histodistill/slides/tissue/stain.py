"""Stain normalisation: the stains of a slide, and the map to those of another.

The stain vectors are found as by Macenko et al. 2009 ("A method for normalizing
histology slides for quantitative analysis", ISBI, doi 10.1109/ISBI.2009.5193250): in
optical density a pixel is a mixture of two directions, the extreme ones in the plane of
most variance. They are found *once for a slide*; every pixel then goes through the same
small formula, so a tile looks the same wherever it is cut.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.resample import read_resampled
from napari_histodistill.slides.tissue.tissue import find_tissue, glass_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.levels import LevelInfo, PixelSource, Rect
    from napari_histodistill.slides.pyramid.slide import Slide

    Float64s = npt.NDArray[np.float64]

Rgb = tuple[float, float, float]

STAINED = 0.15
"""Optical density (log10) from which a pixel counts as stained: Macenko's beta. Only
the densest channel must reach it, not all three: eosin hardly dims red, and pixels of
eosin alone are what its colour is measured on."""

EXTREME = 1.0
"""Percentile of the angles that counts as a pure stain: Macenko's alpha."""

FULL = 99.0
"""Percentile of a stain's amounts that counts as full strength."""

FEWEST_PIXELS = 2000
"""Fewer stained pixels say too little about a slide's stains."""

TYPICAL = {"haematoxylin": (0.65, 0.70, 0.29), "eosin": (0.07, 0.99, 0.11)}
"""Directions in optical density (Ruifrok and Johnston 2001), to recognise H&E."""

FARTHEST_DEG = {"haematoxylin": 28.0, "eosin": 35.0}
"""How far from the typical direction a stain may lie, in degrees. H&E of several
scanners and laboratories lay within 24 and 29; the brown of two DAB slides was 46 and
54 from eosin."""

CLOSEST_DEG = 10.0
"""Two directions closer than this, in degrees, are one stain."""

STRENGTHS = (0.2, 5.0)
"""Factors by which a stain may be weakened or strengthened: beyond them it is hardly
there."""

PLACES, PLACE_PX = 96, 64
"""Number of squares that are sampled across a slide's tissue, and their edge in px."""


@dataclass(frozen=True, slots=True)
class StainFit:
    """The look of H&E on a slide or in a set of tiles.

    Attributes
    ----------
    haematoxylin, eosin : tuple of float
        Direction in optical density, R G B, of length 1.
    strengths : tuple of float
        Amount of each stain at full strength (log10 units).
    glass : tuple of float
        R, G, B (0 to 255) where there is no stain.
    """

    haematoxylin: Rgb
    eosin: Rgb
    strengths: tuple[float, float]
    glass: Rgb

    def basis(self) -> Float64s:
        """Return ``(3, 3)``: both directions, and the one perpendicular to them.

        Whatever is neither haematoxylin nor eosin (pen, pigment, blood) has its share
        along the third, which normalisation leaves unchanged.
        """
        h, e = np.array(self.haematoxylin), np.array(self.eosin)
        rest = np.cross(h, e)
        return np.stack([h, e, rest / np.linalg.norm(rest)])


@dataclass(frozen=True)
class StainMap:
    """The formula for every pixel: optical density times a matrix, on another glass.

    Attributes
    ----------
    matrix : tuple of tuple of float
        ``(3, 3)``: a row of densities (R G B) times this gives the new densities.
    glass, new_glass : tuple of float
        R, G, B of glass on the slide, and after normalisation.
    """

    matrix: tuple[Rgb, Rgb, Rgb]
    glass: Rgb
    new_glass: Rgb

    @classmethod
    def between(cls, fit: StainFit, reference: StainFit) -> StainMap:
        """Return the map from a slide's look to a reference's.

        Raises
        ------
        InputError
            If a stain would have to be made far stronger or weaker than it is.
        """
        ratios = [
            r / f for r, f in zip(reference.strengths, fit.strengths, strict=True)
        ]
        low, high = STRENGTHS
        for stain, ratio in zip(TYPICAL, ratios, strict=True):
            if not low <= ratio <= high:
                how = "stronger" if ratio > 1 else "weaker"
                times = ratio if ratio > 1 else 1 / ratio
                msg = (
                    f"Its {stain} would have to be made {times:.1f} times {how} to "
                    "look like the training tiles: run without stain normalisation."
                )
                raise InputError(msg)
        unmix = np.linalg.inv(fit.basis())
        matrix = unmix @ np.diag([*ratios, 1.0]) @ reference.basis()
        # Rounded, so that the same slide gives the same digest on every machine.
        rows = [_rounded(row, 5) for row in matrix]
        return cls((rows[0], rows[1], rows[2]), fit.glass, reference.glass)

    @cached_property
    def _densities(self) -> npt.NDArray[np.float32]:
        """Optical density (natural log) of every value of every channel, (256, 3)."""
        values = np.maximum(np.arange(256), 1)[:, np.newaxis]
        found: npt.NDArray[Any] = -np.log(values / np.array(self.glass))
        return found.astype(np.float32)

    def apply(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return pixels ``(…, 3)`` uint8 as they would look on the reference."""
        densities = np.stack(
            [self._densities[pixels[..., k], k] for k in range(3)], axis=-1
        )
        mapped = densities @ np.array(self.matrix, np.float32)
        values = np.exp(-mapped) * np.array(self.new_glass, np.float32)
        found: npt.NDArray[np.floating[Any]] = np.rint(np.clip(values, 0, 255))
        return found.astype(np.uint8)

    def to_json(self) -> str:
        """Return the map as text; :meth:`from_json` reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> StainMap:
        """Return the map that :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If the text is not a stain map.
        """
        try:
            content = json.loads(text)
            parts = [*content["matrix"], content["glass"], content["new_glass"]]
            numbers = np.array(parts, np.float64)
        except (KeyError, TypeError, RecursionError) as error:
            msg = "the stain map is damaged"
            raise ValueError(msg) from error
        if numbers.shape != (5, 3) or not np.isfinite(numbers).all():
            msg = "the stain map is damaged"
            raise ValueError(msg)
        rows = [tuple(map(float, row)) for row in numbers]
        return cls((rows[0], rows[1], rows[2]), rows[3], rows[4])  # type: ignore[arg-type]

    @property
    def digest(self) -> str:
        """SHA-256 of the map, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def fit_stains(pixels: npt.NDArray[np.uint8], *, glass: Rgb | None = None) -> StainFit:
    """Find the stains of H&E in pixels.

    Parameters
    ----------
    pixels : ndarray
        ``(…, 3)`` uint8, R G B, of tissue; some glass among it does no harm.
    glass : tuple of float, optional
        R, G, B where there is no stain; by default taken from the brightest, nearly
        grey pixels.

    Raises
    ------
    InputError
        If there are not two stains, or not those of H&E; the message says what was
        found.
    """
    haematoxylin, eosin, density, glass = two_stains(pixels, glass=glass)
    _check_directions(haematoxylin, eosin)
    found = StainFit(
        _rounded(haematoxylin, 4), _rounded(eosin, 4), (1.0, 1.0), _rounded(glass, 1)
    )
    amounts = density @ np.linalg.inv(found.basis())
    h, e = np.percentile(amounts[:, :2], FULL, axis=0)
    if min(h, e) < STAINED:
        weak = "haematoxylin" if h < e else "eosin"
        msg = f"There is next to no {weak}: this is not H&E, or it has faded."
        raise InputError(msg)
    strengths = (round(float(h), 4), round(float(e), 4))
    return StainFit(found.haematoxylin, found.eosin, strengths, found.glass)


def two_stains(
    pixels: npt.NDArray[np.uint8], *, glass: Rgb | None = None
) -> tuple[Float64s, Float64s, Float64s, Rgb]:
    """Find the two directions in optical density that pixels are mixtures of.

    Parameters
    ----------
    pixels : ndarray
        ``(…, 3)`` uint8, R G B, of tissue.
    glass : tuple of float, optional
        R, G, B where there is no stain; by default from the brightest pixels.

    Returns
    -------
    first, second : ndarray
        ``(3,)`` each, of any length; the first dims red the more, as haematoxylin does.
    density : ndarray
        ``(n, 3)``: optical density (log10) of the stained pixels.
    glass : tuple of float
        R, G, B where there is no stain.

    Raises
    ------
    InputError
        If there are too few stained pixels.
    """
    flat = pixels.reshape(-1, 3)
    if glass is None:
        red, green, blue = glass_of(flat.reshape(1, -1, 3) / 255) * 255
        glass = (float(red), float(green), float(blue))
    density = -np.log10(np.maximum(flat, 1) / np.array(glass))
    density = density[density.max(axis=1) > STAINED]
    if len(density) < FEWEST_PIXELS:
        msg = (
            f"Only {len(density)} stained pixels were found: too few to separate the "
            "stains."
        )
        raise InputError(msg)
    _, axes = np.linalg.eigh(np.cov(density.T))
    plane = axes[:, 1:] * np.sign(axes[:, 1:].sum(axis=0) + 1e-12)
    angles = np.arctan2(*(density @ plane).T)
    ends = np.percentile(angles, [EXTREME, 100 - EXTREME])
    pair = [plane @ (math.sin(end), math.cos(end)) for end in ends]
    # Haematoxylin is the one that dims red.
    first, second = sorted(pair, key=lambda v: -v[0] / np.linalg.norm(v))
    return first, second, density, glass


def fit_slide(slide: Slide, *, mpp: float) -> StainFit:
    """Find the stains of a slide's tissue.

    Squares spread evenly over the tissue are read at the µm per pixel at which the
    result will be used: in an overview, nuclei blend with their surroundings.

    Parameters
    ----------
    slide : Slide
        A colour slide with a known µm per pixel.
    mpp : float
        µm per pixel at which to sample: the student's.

    Raises
    ------
    InputError
        If there is no tissue, or it does not look like H&E.
    SlideError
        If the file cannot be read.
    """
    squares = tissue_squares(slide, mpp=mpp)
    try:
        return fit_stains(squares, glass=glass_of_slide(slide))
    except InputError as error:
        msg = f"{slide.name}: the stain cannot be normalised. {error}"
        raise InputError(msg) from error


def tissue_squares(slide: Slide, *, mpp: float) -> npt.NDArray[np.uint8]:
    """Return squares spread evenly over a slide's tissue.

    Parameters
    ----------
    slide : Slide
        A colour slide with a known µm per pixel.
    mpp : float
        µm per pixel to read them at.

    Returns
    -------
    ndarray
        ``(n, PLACE_PX, PLACE_PX, 3)`` uint8; ``n`` is at most :data:`PLACES`.

    Raises
    ------
    InputError
        If no tissue is found.
    """
    step = mpp / slide.require_mpp().mean * PLACE_PX
    mask = find_tissue(slide)
    where = np.argwhere(mask.mask)
    if not len(where):
        msg = f"{slide.name}: no tissue was found, so its stains cannot be measured."
        raise InputError(msg)
    chosen = where[np.linspace(0, len(where) - 1, PLACES).astype(np.intp)]
    pixel = np.array(slide.shape) / mask.mask.shape
    return np.stack(
        [
            read_resampled(
                slide, _square(center, step), height=PLACE_PX, width=PLACE_PX
            )
            for center in (np.unique(chosen, axis=0) + 0.5) * pixel
        ]
    )


def recoloured(slide: Slide, stains: StainMap) -> Slide:
    """Return the slide seen through a stain map: the same open files, read lazily."""
    return slide.seen_through(lambda source: _Recoloured(source, stains))


class _Recoloured:
    """A source whose pixels go through a stain map."""

    def __init__(self, source: PixelSource, stains: StainMap) -> None:
        self._source, self._stains = source, stains
        self.levels: Sequence[LevelInfo] = source.levels

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, 3)``; see :class:`PixelSource`."""
        return self._stains.apply(self._source.read_level(level, rect))

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _square(center: Float64s, side: float) -> Region:
    y, x = (float(v) - side / 2 for v in center)
    return Region(y=y, x=x, height=side, width=side)


def glass_of_slide(slide: Slide) -> Rgb:
    """Return R, G, B (0 to 255) where a colour slide has no stain."""
    last = slide.level_infos[-1]
    overview = slide.read_pixels(
        len(slide.level_infos) - 1, 0, 0, last.height, last.width
    )
    red, green, blue = glass_of(overview / 255) * 255
    return float(red), float(green), float(blue)


def _check_directions(haematoxylin: Float64s, eosin: Float64s) -> None:
    apart = degrees_between(haematoxylin, eosin)
    if apart < CLOSEST_DEG:
        msg = (
            f"Only one stain was found (two directions {apart:.0f}° apart): this is "
            "not H&E."
        )
        raise InputError(msg)
    for (stain, typical), found in zip(
        TYPICAL.items(), (haematoxylin, eosin), strict=True
    ):
        off = degrees_between(found, np.array(typical))
        if off > FARTHEST_DEG[stain] or found.min() < -0.2:
            msg = (
                f"What should be {stain} has another colour ({off:.0f}° off): this is "
                "not H&E, or pen and pigment outweigh the stains."
            )
            raise InputError(msg)


def degrees_between(a: Float64s, b: Float64s) -> float:
    """Return the angle between two directions."""
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def _rounded(vector: Sequence[float] | Float64s, digits: int) -> Rgb:
    x, y, z = (round(float(v), digits) + 0.0 for v in vector)
    return x, y, z
