"""A painted pair with a known secret: H&E only hints at what the partner shows.

Nuclei lie in zones of a made-up marker. In the dense layer (two fluorescence channels)
nuclei inside a zone shine. In the sparse, H&E-like layer the same nuclei are merely
longer than wide, under differences of crowding, stain and background that are far
stronger and have nothing to do with the marker. A student that learns from the sparse
layer alone learns those differences; with the partner it can learn to see the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

if TYPE_CHECKING:
    import numpy.typing as npt

    _Floats = npt.NDArray[np.float32]

MPP = 0.5
SIDE_PX = 2048
SEED = 20231008
CHANNELS = ("nuclei", "marker")

ZONE_PX = 96.0
"""Scale of the marker's zones: several tiles wide, and many of them on the slide."""

NUISANCE_PX = 60.0
"""Scale of crowding and stain, about the same, so that scale gives nothing away."""

SPACING_PX = 11
RADIUS_PX = 3.6
STRETCH = 1.75
"""Length to width of a nucleus inside a zone; outside, nuclei are round."""

_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
_EOSIN = np.array([0.07, 0.99, 0.11], np.float32)
_REACH = 9


@dataclass(frozen=True, slots=True, eq=False)
class PaintedPair:
    """Both layers and the truth, pixel for pixel in register.

    Attributes
    ----------
    sparse : ndarray
        ``(side, side, 3)`` uint8, H&E-like.
    dense : ndarray
        ``(side, side, 2)`` uint16: :data:`CHANNELS`.
    positive : ndarray
        ``(side, side)`` bool: inside a zone of the marker.
    """

    sparse: npt.NDArray[np.uint8]
    dense: npt.NDArray[np.uint16]
    positive: npt.NDArray[np.bool_]


def paint_pair(side: int = SIDE_PX, *, seed: int = SEED) -> PaintedPair:
    """Return a pair at 0.5 µm per pixel; equal seeds and sides give equal pixels.

    Parameters
    ----------
    side : int
        Edge in pixels; 2048 px take some seconds.
    seed : int
        Seed of everything random.
    """
    rng = np.random.default_rng(seed)
    positive = _field(side, ZONE_PX, rng) > 0
    crowding = _field(side, NUISANCE_PX, rng)
    stain = _field(side, NUISANCE_PX, rng)
    ground = _field(side, NUISANCE_PX, rng)
    y, x = _places(side, crowding, rng)
    inside = positive[y.astype(int), x.astype(int)]
    radius = RADIUS_PX * rng.uniform(0.85, 1.2, len(y))
    turn = rng.uniform(0, np.pi, len(y))
    # The same area, longer or not: size must not give the marker away.
    longer = np.where(inside, STRETCH, 1.0) * rng.uniform(0.92, 1.08, len(y))
    nuclei = np.zeros((side, side), np.float32)
    marked = np.zeros((side, side), np.float32)
    grid = np.arange(-_REACH, _REACH + 1)
    for k in range(len(y)):
        top, left = int(y[k]) - _REACH, int(x[k]) - _REACH
        dy = grid[:, None] - (y[k] - int(y[k]))
        dx = grid[None, :] - (x[k] - int(x[k]))
        along = dy * np.sin(turn[k]) + dx * np.cos(turn[k])
        across = dy * np.cos(turn[k]) - dx * np.sin(turn[k])
        distance = np.sqrt(along**2 / longer[k] + across**2 * longer[k])
        disc = 1 / (1 + np.exp((distance - radius[k]) * 2.5))
        place = slice(top, top + len(grid)), slice(left, left + len(grid))
        np.maximum(nuclei[place], disc, out=nuclei[place])
        if inside[k]:
            np.maximum(marked[place], disc, out=marked[place])
    haematoxylin = nuclei * (0.75 + 0.22 * stain) + 0.06
    eosin = 0.32 + 0.10 * ground + 0.06 * _field(side, 5.0, rng)
    density = (
        haematoxylin[..., None] * _HAEMATOXYLIN
        + np.clip(eosin, 0.05, None)[..., None] * _EOSIN
    )
    light = np.exp(-density) * 246 + rng.normal(0, 3, (side, side, 1))
    return PaintedPair(
        np.clip(np.rint(light), 0, 255).astype(np.uint8),
        np.stack([_glow(nuclei, rng), _glow(marked, rng)], axis=-1),
        positive,
    )


def _field(side: int, scale: float, rng: np.random.Generator) -> _Floats:
    """Return smooth noise ``(side, side)`` of mean 0 and standard deviation 1."""
    step = max(1, round(scale / 4))
    coarse = side // step + 3
    noise = gaussian_filter(
        rng.normal(size=(coarse, coarse)), scale / step, mode="wrap"
    )
    field = zoom(noise, step, order=1)[:side, :side].astype(np.float32)
    normal: _Floats = (field - field.mean()) / field.std()
    return normal


def _places(
    side: int, crowding: _Floats, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return centres of nuclei: a shaken lattice, thinned where it is not crowded."""
    steps = np.arange(_REACH + 1, side - _REACH - 2, SPACING_PX, dtype=np.float64)
    y, x = (a.ravel() for a in np.meshgrid(steps, steps, indexing="ij"))
    y, x = (
        np.clip(a + rng.uniform(-2.6, 2.6, len(a)), _REACH, side - _REACH - 1)
        for a in (y, x)
    )
    chance = np.clip(0.72 + 0.2 * crowding[y.astype(int), x.astype(int)], 0.25, 1)
    kept = rng.random(len(y)) < chance
    return y[kept], x[kept]


def _glow(shape: _Floats, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Return a camera's picture of shapes: blur, dark current, shot noise."""
    light = gaussian_filter(shape, 1.0) * 6000 + 300
    seen = light + rng.normal(size=shape.shape) * np.sqrt(light) * 2
    camera: npt.NDArray[np.uint16] = np.clip(np.rint(seen), 0, 65535).astype(np.uint16)
    return camera
