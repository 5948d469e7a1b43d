"""A painted section with spots: a known gene programme in known zones.

The H&E-like picture and its zones are those of :mod:`.paired`: inside a zone, nuclei
are longer than wide. Each spot counts the genes of the tissue under it: those of the
programme rise with the share of a zone that it covers, some others fall, most follow
only how much was captured. The truth comes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.samples.paired import MPP, SEED, SIDE_PX, paint_pair

if TYPE_CHECKING:
    import numpy.typing as npt

PITCH_UM = 40.0
"""Distance of neighbours in the hexagonal lattice."""

SPOT_UM = 30.0
"""Diameter of a spot."""

RISING, FALLING, EVEN = 20, 10, 50
FOLD = 4.0
"""How much more (or less) of a programme's gene is counted inside a zone."""

_CAPTURED = 3000.0
_SHAPE = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class PaintedSpots:
    """Picture, spots and truth.

    Attributes
    ----------
    sparse : ndarray
        ``(side, side, 3)`` uint8, H&E-like, 0.5 µm per pixel.
    positions_um : ndarray
        ``(n, 2)`` float64, (y, x), pixel centres × µm per pixel.
    counts : ndarray
        ``(n, genes)`` int64.
    genes : tuple of str
        ``UP01`` …, ``DOWN01`` …, ``EVEN01`` ….
    zone_share : ndarray
        ``(n,)``: the share of every spot that lies in a zone (the truth).
    positive : ndarray
        ``(side, side)`` bool: the zones.
    """

    sparse: npt.NDArray[np.uint8]
    positions_um: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    genes: tuple[str, ...]
    zone_share: npt.NDArray[np.float64]
    positive: npt.NDArray[np.bool_]


def paint_spots(side: int = SIDE_PX, *, seed: int = SEED) -> PaintedSpots:
    """Return a section with spots; equal seeds and sides give equal ones.

    Parameters
    ----------
    side : int
        Edge in pixels of 0.5 µm; 2048 px take some seconds.
    seed : int
        Seed of everything random.
    """
    pair = paint_pair(side, seed=seed)
    rng = np.random.default_rng([seed, 1])
    places = _lattice(side * MPP)
    share = _shares(pair.positive, places)
    names = [
        f"{kind}{k + 1:02d}"
        for kind, count in (("UP", RISING), ("DOWN", FALLING), ("EVEN", EVEN))
        for k in range(count)
    ]
    direction = np.repeat([1.0, -1.0, 0.0], [RISING, FALLING, EVEN])
    level = rng.lognormal(0, 0.8, len(names))
    expected = level * FOLD ** (direction * share[:, None])
    # How much a spot captures varies, independently of its tissue.
    captured = _CAPTURED * rng.lognormal(0, 0.35, len(places))
    expected *= (captured / expected.sum(axis=1))[:, None]
    counts = rng.poisson(expected * rng.gamma(_SHAPE, 1 / _SHAPE, expected.shape))
    # Shuffled, so that a column's position gives nothing away.
    order = rng.permutation(len(names))
    return PaintedSpots(
        pair.sparse,
        places,
        counts[:, order].astype(np.int64),
        tuple(names[k] for k in order),
        share,
        pair.positive,
    )


def _lattice(edge_um: float) -> npt.NDArray[np.float64]:
    down = PITCH_UM * np.sqrt(3) / 2
    rows = np.arange(PITCH_UM, edge_um - PITCH_UM, down)
    places = [
        (y, x)
        for k, y in enumerate(rows)
        for x in np.arange(PITCH_UM * (1 + 0.5 * (k % 2)), edge_um - PITCH_UM, PITCH_UM)
    ]
    return np.array(places)


def _shares(
    positive: npt.NDArray[np.bool_], places: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    reach = np.arange(-round(SPOT_UM / 2 / MPP), round(SPOT_UM / 2 / MPP) + 1)
    y, x = np.meshgrid(reach, reach, indexing="ij")
    disc = np.stack([y, x], axis=-1)[np.hypot(y, x) * MPP <= SPOT_UM / 2]
    pixels = np.rint(places / MPP).astype(int)[:, None] + disc
    shares: npt.NDArray[np.float64] = positive[pixels[..., 0], pixels[..., 1]].mean(1)
    return shares
