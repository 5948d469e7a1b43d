"""Layout of the synthetic slide: outline, layers, glands, cells.

Everything here is geometry on a coarse raster (:data:`COARSE_PX` pixels an element)
or lists of positions; :mod:`napari_histodistill.samples.tissue_painting` colours it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

COARSE_PX = 16
"""Level-0 pixels per element of the coarse fields: 8 µm at 0.5 µm per pixel."""

GLASS, STROMA, GLAND, CROWDED_GLAND, LYMPHOID = range(5)
CLASS_NAMES = ("glass", "stroma", "gland", "crowded gland", "lymphoid tissue")

CRYPT_SPACING_PX = 206
CRYPT_RADIUS_PX = 84


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Layout:
    """The plan of the tissue on the coarse raster.

    Attributes
    ----------
    height, width : int
        Size of the slide, level-0 px.
    edge : ndarray
        Signed distance to the tissue's outline in level-0 px, positive inside.
    depth : ndarray
        Signed distance below the lower border of the mucosa, level-0 px.
    crowded, lymphoid : ndarray
        Signed fields, positive inside the region of crowded glands and the aggregates.
    """

    height: int
    width: int
    edge: npt.NDArray[np.float32]
    depth: npt.NDArray[np.float32]
    crowded: npt.NDArray[np.float32]
    lymphoid: npt.NDArray[np.float32]

    def at(
        self,
        field: npt.NDArray[np.float32],
        y: npt.NDArray[np.float64],
        x: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float32]:
        """Return a field's values at level-0 positions."""
        rows, columns = field.shape
        r = np.clip((y / COARSE_PX).astype(int), 0, rows - 1)
        c = np.clip((x / COARSE_PX).astype(int), 0, columns - 1)
        values: npt.NDArray[np.float32] = field[r, c]
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Gland:
    """One gland cut across: an ellipse with a wavy outline.

    ``waves`` are (order, amplitude, phase) of the outline; lengths in level-0 px.
    """

    y: float
    x: float
    radius: float
    stretch: float
    angle: float
    waves: tuple[tuple[int, float, float], ...]
    crowded: bool

    @property
    def reach(self) -> float:
        """The farthest that the outline can be from the centre."""
        return self.radius * self.stretch * (1 + sum(a for _, a, _ in self.waves))

    def outline(self, theta: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the outline's distance from the centre along each angle."""
        local = theta - self.angle
        long, short = self.radius * self.stretch, self.radius / self.stretch
        ellipse = 1 / np.hypot(np.cos(local) / long, np.sin(local) / short)
        reach = np.ones_like(local)
        for order, amplitude, phase in self.waves:
            reach += amplitude * np.cos(order * local + phase)
        distance: npt.NDArray[np.floating] = ellipse * reach
        return distance


def smooth_noise(
    shape: tuple[int, int], sigma: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return noise with features of about ``sigma`` elements, mean 0, deviation 1."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap"
    )
    noise -= noise.mean()
    scaled: npt.NDArray[np.float32] = noise / noise.std()
    return scaled


def plan(height: int, width: int, rng: np.random.Generator) -> Layout:
    """Lay out outline, mucosa above submucosa, crowded region, lymphoid aggregates."""
    shape = -(-height // COARSE_PX), -(-width // COARSE_PX)
    y, x = np.meshgrid(
        np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij"
    )
    unit = shape[0] / 10
    wobble = smooth_noise(shape, unit, rng), smooth_noise(shape, unit / 4, rng)
    rho = (np.abs(x / 0.88) ** 3 + np.abs((y - 0.02) / 0.84) ** 3) ** (1 / 3)
    inside = 1 - rho + 0.045 * wobble[0] + 0.012 * wobble[1] > 0
    names, _count = ndimage.label(inside)
    inside = ndimage.binary_fill_holes(names == names[shape[0] // 2, shape[1] // 2])
    edge = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(
        ~inside
    )
    edge = ndimage.gaussian_filter(edge, 1.5)  # the raster's stairs
    half = height / 2
    wave = 0.05 * np.sin(2.6 * x + 0.7) + 0.03 * np.sin(6.1 * x)
    depth = (y - 0.30 - wave - 0.02 * wobble[0]) * half
    blob = np.hypot((x - 0.48) / 0.36, (y + 0.22) / 0.46)
    crowded = 1 - blob + 0.10 * wobble[0]
    lymphoid = np.full(shape, -1.0)
    for cy, cx, ry, rx in ((0.25, -0.30, 0.13, 0.10), (-0.12, -0.62, 0.07, 0.055)):
        spot = 1 - np.hypot((x - cx) / rx, (y - cy) / ry) + 0.12 * wobble[1]
        lymphoid = np.maximum(lymphoid, spot)
    return Layout(
        height=height,
        width=width,
        edge=(edge * COARSE_PX).astype(np.float32),
        depth=depth.astype(np.float32),
        crowded=crowded.astype(np.float32),
        lymphoid=lymphoid.astype(np.float32),
    )


def place_glands(layout: Layout, rng: np.random.Generator) -> list[Gland]:
    """Return regular crypts for the mucosa and crowded, irregular ones for its right.

    Normal colon cut across looks like test tubes in a rack, so crypts stand on a
    jittered hexagonal lattice; crowded glands are thrown in at random sizes until they
    stand back to back.
    """
    return _regular(layout, rng) + _crowded(layout, rng)


def _regular(layout: Layout, rng: np.random.Generator) -> list[Gland]:
    step_y = CRYPT_SPACING_PX * np.sqrt(3) / 2
    rows = np.arange(0, layout.height, step_y)
    columns = np.arange(0.0, layout.width, CRYPT_SPACING_PX)
    y, x = (a.ravel().copy() for a in np.meshgrid(rows, columns, indexing="ij"))
    x += np.repeat(np.arange(len(rows)) % 2, len(columns)) * CRYPT_SPACING_PX / 2
    y += rng.normal(0, 17, len(y)) + 40 * np.sin(x / 900)
    x += rng.normal(0, 17, len(x))
    fits = layout.at(layout.edge, y, x) > CRYPT_RADIUS_PX + 62
    fits &= layout.at(layout.depth, y, x) < -CRYPT_RADIUS_PX - 10
    fits &= layout.at(layout.crowded, y, x) < -0.10
    fits &= layout.at(layout.lymphoid, y, x) < -0.75
    glands = []
    for gy, gx in zip(y[fits], x[fits], strict=True):
        waves = ((2, 0.04, rng.uniform(0, 6)), (3, 0.04, rng.uniform(0, 6)))
        glands.append(
            Gland(
                y=float(gy),
                x=float(gx),
                radius=float(rng.normal(CRYPT_RADIUS_PX, 6)),
                stretch=float(1 + abs(rng.normal(0, 0.06))),
                angle=float(rng.normal(1.2, 0.5)),
                waves=waves,
                crowded=False,
            )
        )
    return glands


def _crowded(layout: Layout, rng: np.random.Generator) -> list[Gland]:
    tries = 40_000
    y = rng.uniform(0, layout.height, tries)
    x = rng.uniform(0, layout.width, tries)
    radius = np.sort(rng.lognormal(np.log(88), 0.38, tries).clip(46, 175))[::-1]
    fits = layout.at(layout.crowded, y, x) > 0
    fits &= layout.at(layout.edge, y, x) > radius * 1.05 + 30
    fits &= layout.at(layout.depth, y, x) < -radius * 0.3
    kept = np.zeros((0, 3))
    glands: list[Gland] = []
    for gy, gx, r in zip(y[fits], x[fits], radius[fits], strict=True):
        gap = np.hypot(kept[:, 0] - gy, kept[:, 1] - gx) - kept[:, 2] - r
        if (gap < 7).any():
            continue
        kept = np.vstack([kept, (gy, gx, r)])
        waves = tuple(
            (k, float(rng.uniform(0.02, 0.17 / k**0.5)), float(rng.uniform(0, 6.3)))
            for k in (2, 3, 5)
        )
        glands.append(
            Gland(
                y=float(gy),
                x=float(gx),
                radius=float(r),
                stretch=float(rng.uniform(1.0, 1.28)),
                angle=float(rng.uniform(0, 3.14)),
                waves=waves,
                crowded=True,
            )
        )
    return glands


def scatter(
    shape: tuple[int, int], spacing_px: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return positions on a jittered grid: random, yet cells keep their distance."""
    rows = np.arange(0, shape[0], spacing_px)
    columns = np.arange(0, shape[1], spacing_px)
    y, x = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    y = y + rng.uniform(0, 0.8, len(y)) * spacing_px
    x = x + rng.uniform(0, 0.8, len(x)) * spacing_px
    inside = (y < shape[0]) & (x < shape[1])
    return y[inside], x[inside]
