"""A painted olfactory bulb: layers of textbook geometry, and where each of them is.

No picture may be shipped of the tissue that the students ``bulb-genes`` and
``bulb-control`` learned from, so this one is drawn: two bulbs side by side, each with
its layers from the surface inwards, with about as many nuclei a square millimetre as a
mouse has there. It looks like H&E of a fresh-frozen section, and it is not tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_histodistill.samples.tissue_layout import scatter, smooth_noise

if TYPE_CHECKING:
    import numpy.typing as npt

    _Floats = npt.NDArray[np.float32]
    _Positions = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

HEIGHT_PX, WIDTH_PX = 840, 1160
MPP = 4.0
SEED = 20160701

GLASS, NERVE, GLOMERULAR, OUTER_PLEXIFORM, MITRAL, GRANULAR = range(6)
CLASS_NAMES = (
    *("glass", "olfactory nerve", "glomerular", "outer plexiform", "mitral"),
    "granular",
)

BORDERS_UM = (0.0, 95.0, 235.0, 410.0, 440.0)
"""Depth below the surface at which the layers begin, the outermost first."""

_FINE = 2
"""Painted pixels to an edge of the picture's: a nucleus is less than two of these."""

_UM = MPP / _FINE
_BLUE = np.array([0.65, 0.70, 0.29], np.float32)
_PINK = np.array([0.07, 0.99, 0.11], np.float32)
_LAMP = np.array([247, 246, 250], np.float32)

# Nuclei a square millimetre of section, and the ground's haematoxylin and eosin.
_NUCLEI = np.array([0, 4300, 6000, 850, 3600, 7200], np.float32)
_GROUND_BLUE = np.array([0, 0.19, 0.25, 0.29, 0.27, 0.25], np.float32)
_GROUND_PINK = np.array([0, 0.13, 0.09, 0.06, 0.07, 0.07], np.float32)
_IN_GLOMERULI = 800.0
_INNER_PLEXIFORM_UM, _IN_INNER_PLEXIFORM = 40.0, 1500.0
_SPACING_UM = 9.0
_LAMELLA_UM = 46.0


@dataclass(frozen=True, slots=True, eq=False)
class PaintedBulb:
    """The picture and its truth, pixel for pixel.

    Attributes
    ----------
    picture : ndarray
        ``(height, width, 3)`` uint8, H&E-like, 4 µm per pixel.
    labels : ndarray
        ``(height, width)`` uint8, an index into :data:`CLASS_NAMES`.
    """

    picture: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def paint_bulb(
    height: int = HEIGHT_PX, width: int = WIDTH_PX, *, seed: int = SEED
) -> PaintedBulb:
    """Return two painted bulbs; equal seeds and sizes give equal ones.

    Parameters
    ----------
    height, width : int
        Size in pixels of 4 µm. The bulbs keep their size; in a smaller picture they
        are cut off.
    seed : int
        Seed of everything random.
    """
    rng = np.random.default_rng(seed)
    shape = height * _FINE, width * _FINE
    depth = _depth_um(shape, rng)
    layer = np.searchsorted(BORDERS_UM, depth, side="right").astype(np.uint8)
    inside = _glomeruli(depth, rng)
    froth = _froth(depth, rng)
    blue, pink = _ground(layer, inside, rng)
    nuclei = _small_nuclei(depth, layer, inside, rng)
    np.maximum(blue, 1.5 * nuclei, out=blue)
    np.maximum(blue, 0.62 * _mitral_cells(depth, rng), out=blue)
    edge: _Floats = (np.clip(depth / 8, 0, 1) * (1 - froth)).astype(np.float32)
    labels = layer[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE].copy()
    return PaintedBulb(_seen(blue * edge, pink * edge, rng), labels)


def _depth_um(shape: tuple[int, int], rng: np.random.Generator) -> _Floats:
    """Return depth below the surface, µm, negative on glass; its lines are uneven."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    y, x = (y - shape[0] / 2) * _UM, (x - shape[1] / 2) * _UM
    wide, fine = (_noise(shape, um, rng) for um in (220, 45))
    inside = np.zeros(shape, bool)
    for side in (-1, 1):
        # Flatter where the two bulbs face each other.
        across = (x - side * 1120) / np.where(side * x > 1120, 980, 900)
        along = (y - side * 40) / 1360
        radius = (np.abs(across) ** 2.3 + np.abs(along) ** 2.1) ** (1 / 2.2)
        inside |= radius < 1 + 0.03 * wide + 0.006 * fine
    depth = ndimage.distance_transform_edt(inside).astype(np.float32) * _UM
    uneven = 14 * _noise(shape, 90, rng) + 4 * fine
    # None at the surface itself, so that the outline stays where it is.
    depth += uneven * np.clip(depth / 60, 0, 1)
    found: _Floats = np.where(inside, np.maximum(depth, 0.1), -1).astype(np.float32)
    return found


def _glomeruli(depth: _Floats, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return where glomeruli are: round, side by side, in their layer's middle."""
    tries = 40_000
    y, x = rng.uniform(0, depth.shape[0], tries), rng.uniform(0, depth.shape[1], tries)
    radius = np.sort(rng.uniform(34, 62, tries))[::-1] / _UM
    middle = (BORDERS_UM[1] + BORDERS_UM[2]) / 2
    fits = np.abs(depth[y.astype(int), x.astype(int)] - middle) < 24
    kept = np.zeros((0, 3))
    inside = np.zeros(depth.shape, bool)
    for place in np.stack([y, x, radius], axis=1)[fits]:
        gap = np.hypot(kept[:, 0] - place[0], kept[:, 1] - place[1]) - kept[:, 2]
        if (gap < place[2] + 12 / _UM).any():
            continue
        kept = np.vstack([kept, place])
        top, left = (max(0, int(v - 1.3 * place[2])) for v in place[:2])
        reach = int(2.6 * place[2]) + 1
        part = inside[top : top + reach, left : left + reach]
        dy, dx = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
        dy, dx = dy - place[0], dx - place[1]
        turn = np.arctan2(dy, dx)
        first, second = rng.uniform(0, 2 * np.pi, 2)
        outline = 1 + 0.1 * np.cos(2 * turn + first) + 0.06 * np.cos(3 * turn + second)
        part |= np.hypot(dy, dx) < place[2] * outline
    return inside


def _froth(depth: _Floats, rng: np.random.Generator) -> _Floats:
    """Return holes, 0 to 1, as freezing leaves them in patches of the outer layers."""
    patches = _noise(depth.shape, 110, rng)
    y, x = scatter(depth.shape, 15 / _UM, rng)
    at = y.astype(int), x.astype(int)
    torn = np.clip(patches[at] - 0.35, 0, 1) * np.clip(1.6 - depth[at] / 180, 0.04, 1)
    kept = rng.random(len(y)) < 0.75 * torn
    radius = rng.uniform(3, 8, int(kept.sum())) / _UM
    return _discs(depth.shape, (y[kept], x[kept]), radius)


def _ground(
    layer: npt.NDArray[np.uint8],
    inside: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[_Floats, _Floats]:
    """Return haematoxylin and eosin between the nuclei."""
    blue, pink = _GROUND_BLUE[layer], _GROUND_PINK[layer]
    blue[inside] -= 0.05
    pink[inside] += 0.06
    soft = 9 / _UM
    cloud = _noise(layer.shape, 160, rng)
    grain = smooth_noise(layer.shape, 1.2, rng)
    blue = ndimage.gaussian_filter(blue, soft) * (1 + 0.06 * cloud + 0.10 * grain)
    pink = ndimage.gaussian_filter(pink, soft) * (1 - 0.10 * cloud + 0.12 * grain)
    return blue, pink


def _small_nuclei(
    depth: _Floats,
    layer: npt.NDArray[np.uint8],
    inside: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> _Floats:
    """Return all small nuclei; granule cells stand in islets along the layers."""
    y, x = scatter(depth.shape, _SPACING_UM / _UM, rng)
    at = y.astype(int), x.astype(int)
    wanted = _NUCLEI[layer[at]]
    wanted[inside[at]] = _IN_GLOMERULI
    bent = _noise(depth.shape, 55, rng)[at]
    broken = _noise(depth.shape, 26, rng)[at]
    lamella = np.sin(2 * np.pi * depth[at] / _LAMELLA_UM + 2.2 * bent) + 0.7 * broken
    granular = layer[at] == GRANULAR
    wanted[granular] *= np.clip(1 + 0.62 * lamella[granular], 0.12, 1.8)
    below = depth[at] - BORDERS_UM[-1]
    wanted[granular & (below < _INNER_PLEXIFORM_UM)] = _IN_INNER_PLEXIFORM
    kept = rng.random(len(y)) < wanted * _SPACING_UM**2 / 1e6
    radius = rng.normal(3.5, 0.45, int(kept.sum())).clip(2.4, 4.8) / _UM
    strength = rng.normal(1, 0.14, len(radius)).clip(0.6, 1.3)
    return _discs(depth.shape, (y[kept], x[kept]), radius, strength)


def _mitral_cells(depth: _Floats, rng: np.random.Generator) -> _Floats:
    """Return the bodies of mitral cells: large, paler, one row of them."""
    y, x = scatter(depth.shape, 22 / _UM, rng)
    middle = (BORDERS_UM[3] + BORDERS_UM[4]) / 2
    off = np.abs(depth[y.astype(int), x.astype(int)] - middle)
    kept = (off < 12) & (rng.random(len(y)) < 0.9)
    radius = rng.normal(8.5, 0.9, int(kept.sum())).clip(6, 11) / _UM
    return _discs(depth.shape, (y[kept], x[kept]), radius)


def _noise(shape: tuple[int, ...], um: float, rng: np.random.Generator) -> _Floats:
    """Return smooth noise with features of about so many µm, mean 0, deviation 1.

    Made on a coarse raster: a wide filter over all pixels would take most of the time.
    """
    step = max(1, round(um / _UM / 4))
    height, width = (-(-n // step) + 2 for n in shape)
    coarse = smooth_noise((height, width), um / _UM / step, rng)
    y, x = (np.arange(n) / step for n in shape)
    top, left = y.astype(int), x.astype(int)
    down, right = ((v - np.floor(v)).astype(np.float32) for v in (y, x))
    across = coarse[:, left] * (1 - right) + coarse[:, left + 1] * right
    found: _Floats = across[top]
    found += (across[top + 1] - found) * down[:, None]
    return found


def _discs(
    shape: tuple[int, ...],
    places: _Positions,
    radius: npt.NDArray[np.float64],
    strength: npt.NDArray[np.float64] | None = None,
) -> _Floats:
    """Return soft-edged discs, the stronger one where two meet; lengths in px."""
    field = np.zeros(shape, np.float32)
    if not len(radius):
        return field
    reach = int(np.ceil(radius.max())) + 1
    steps = np.arange(-reach, reach + 1)
    dy, dx = (v.ravel() for v in np.meshgrid(steps, steps, indexing="ij"))
    y, x = places
    rows, columns = y.astype(int)[:, None] + dy, x.astype(int)[:, None] + dx
    distance = np.hypot(rows + 0.5 - y[:, None], columns + 0.5 - x[:, None])
    cover = np.clip(radius[:, None] - distance + 0.5, 0, 1)
    if strength is not None:
        cover *= strength[:, None]
    fits = (cover > 0) & (rows >= 0) & (columns >= 0)
    fits &= (rows < shape[0]) & (columns < shape[1])
    values = cover[fits].astype(np.float32)
    np.maximum.at(field, (rows[fits], columns[fits]), values)
    return field


def _seen(
    blue: _Floats, pink: _Floats, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return what a camera makes of two stains (Beer and Lambert), 4 µm a pixel."""
    light = np.exp(-blue[..., None] * _BLUE - pink[..., None] * _PINK)
    height, width = blue.shape[0] // _FINE, blue.shape[1] // _FINE
    light = light.reshape(height, _FINE, width, _FINE, 3).mean(axis=(1, 3))
    light = ndimage.gaussian_filter(light, (0.5, 0.5, 0)) * _LAMP
    light += rng.normal(0, 2, light.shape)
    picture: npt.NDArray[np.uint8] = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return picture
