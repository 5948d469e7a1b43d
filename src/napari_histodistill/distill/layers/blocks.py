"""Do small blocks of two layers lie where the whole says? Each is asked on its own.

A likeness of two whole pictures is one number, and a wrong place can have a high one:
outlines fit in many ways. The detail inside does not. Every block of one layer is
searched for in the neighbourhood on the other; where two sections show the same tissue,
many blocks find themselves where they already are, where not, hardly more than chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.registration import inverse
from napari_histodistill.distill.layers.thumbnails import lay

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.layers.registration import RegistrationKind
    from napari_histodistill.distill.layers.thumbnails import GreyThumbnail, Laid

    Doubles = npt.NDArray[np.float64]
    Greys = npt.NDArray[np.float32]
    Bools = npt.NDArray[np.bool_]

BLOCK_PX = 24
"""Edge of a block."""

REACH_PX = 12
"""How far around a block is looked for, in every direction."""

NEAR_PX = 3.0
"""How far a block that agrees may lie off."""

CHANCE = 29 / (2 * REACH_PX + 1) ** 2
"""Share of blocks that agree where there is nothing to agree on: of all shifts, those
within three pixels."""

STEP_PX = 12
"""From one block to the next."""

DETAIL_PX = 6.0
"""What is coarser than this is taken away."""

FRAMES_PX = (128, 181, 256, 362)
"""Longer sides of the frames: blocks are a fifth to a fifteenth of them."""

FINER_PX = (512,)
"""Frames that do not count for the score: serial sections differ in such detail."""

LEAST_SCORE = 8.0
"""Score from which a place is believed. Strangers rarely reach 6; slides of much glass
may, in several places alike."""

FEWEST = 12
"""Blocks that can say anything."""

FEWEST_APART = 8
"""Places, a block apart, where blocks must agree: one blob may look like another."""

AGREEING = 0.25
"""Share of blocks that must find their tissue for their way to be believed."""

FINE = 0.6
"""Share of the smallest blocks from which a place is refined as finely."""

_TRIALS = 300
_ROUNDS = 40
_ROUNDING = 1 / 6
"""Variance, px², that shifts by whole pixels have of themselves."""

FLATTEST = 0.15
"""Blocks with less contrast than this share of the median's are not asked."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockShifts:
    """What the blocks said.

    Attributes
    ----------
    centres_um : ndarray
        ``(n, 2)``, where each lies, sparse world.
    off_um : ndarray
        ``(n, 2)``, how far away each found itself, sparse µm.
    likeness : ndarray
        ``(n,)``, correlation there.
    um : float
        Edge of a pixel, µm.
    """

    centres_um: Doubles
    off_um: Doubles
    likeness: Doubles
    um: float

    @property
    def near(self) -> Bools:
        """Which blocks lie where they should."""
        near: Bools = np.linalg.norm(self.off_um, axis=1) <= NEAR_PX * self.um
        return near

    @property
    def share(self) -> float:
        """Share of the blocks that lie where they should; 0 without blocks."""
        return float(self.near.mean()) if len(self.near) else 0.0

    @property
    def score(self) -> float:
        """Standard deviations by which more blocks agree than chance would have."""
        count, near = len(self.near), self.centres_um[self.near]
        # Blocks overlap: one blob on much glass is seen by many of them.
        apart = np.unique(np.floor(near / (BLOCK_PX * self.um)), axis=0)
        if count < FEWEST or len(apart) < FEWEST_APART:
            return 0.0
        deviation = np.sqrt(CHANCE * (1 - CHANCE) / count)
        return float((self.share - CHANCE) / deviation)

    def spread(self) -> tuple[float, float]:
        """Return the share of blocks that found their tissue, and their median way, µm.

        Those lie about where they should, normally; the others anywhere in reach: a
        mixture of two distributions, fitted by expectation and maximisation.
        """
        if len(self.off_um) < FEWEST:
            return 0.0, float("nan")
        squared = ((self.off_um / self.um) ** 2).sum(1)
        anywhere = 1 / (2 * REACH_PX + 1) ** 2
        share, variance = 0.5, NEAR_PX
        for _ in range(_ROUNDS):
            here = share * np.exp(-squared / 2 / variance) / (2 * np.pi * variance)
            belongs = here / (here + (1 - share) * anywhere)
            share = float(belongs.mean())
            weight = max(float(belongs.sum()), 1e-9)
            variance = max(float((belongs * squared).sum()) / 2 / weight, _ROUNDING)
        # The median of a distance whose two parts are normal.
        return share, float(np.sqrt(2 * np.log(2) * variance)) * self.um


@dataclass(frozen=True, slots=True, eq=False)
class BlockVerdict:
    """What blocks of several sizes said of one place.

    Attributes
    ----------
    score : float
        By how many standard deviations more blocks agree than by chance, at the size
        where most do.
    error_um : float
        How far off the place is, as those that agree say: median, µm of the dense
        world. NaN if none do.
    fine : bool
        Whether the smallest blocks agree, too.
    """

    score: float
    error_um: float
    fine: bool


def ask_at_sizes(
    sparse: GreyThumbnail,
    dense: GreyThumbnail,
    matrix: Doubles,
    *,
    either_sign: bool,
    frames_px: tuple[int, ...] = FRAMES_PX,
) -> BlockVerdict:
    """Ask blocks of several sizes.

    Parameters
    ----------
    sparse, dense : GreyThumbnail
        Of both layers.
    matrix : ndarray
        ``(3, 3)``, sparse world to dense world, µm: the place.
    either_sign : bool
        Whether dark may also mean bright.
    frames_px : tuple of int
        Longer sides of the frames, ascending. Fewer are enough for a first look.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    score, error, fine = 0.0, float("nan"), False
    blocks, um = None, 0.0
    for px in (*frames_px, *FINER_PX):
        if px in FINER_PX and (frames_px is not FRAMES_PX or not error > 0):
            break
        laid = lay(sparse, dense, matrix, px)
        if laid is None:
            break
        # A small picture has no finer frames: its blocks are asked once.
        if blocks is None or laid.um != um:
            blocks, um = ask_blocks(laid, either_sign=either_sign), laid.um
        score = max(score, blocks.score) if px in frames_px else score
        agreeing, off_um = blocks.spread()
        if agreeing >= AGREEING:
            error = off_um * scale
        fine = px in FINER_PX and agreeing >= FINE
    return BlockVerdict(score, error, fine)


def guided_by_blocks(
    laid: Laid, kind: RegistrationKind, *, either_sign: bool
) -> Doubles | None:
    """Return the place that the largest set of blocks agrees on.

    Block matching with consensus, as by Ourselin et al. 2001 ("Reconstructing a 3D
    structure from serial histological sections"): where sections differ in much, a few
    good blocks tell more than the likeness of everything.

    Parameters
    ----------
    laid : Laid
        Both layers, about right.
    kind : {"rigid", "similarity", "affine"}
        What may be mended.
    either_sign : bool
        Whether dark may also mean bright.

    Returns
    -------
    ndarray or None
        ``(3, 3)``, sparse world to dense world, µm; None where too few agree.
    """
    from skimage import transform
    from skimage.measure import ransac

    asked = ask_blocks(laid, either_sign=either_sign)
    known = np.linalg.norm(asked.off_um, axis=1) < 0.9 * REACH_PX * laid.um
    if known.sum() < FEWEST:
        return None
    # About the middle and in pixels: the fit is better conditioned.
    middle = asked.centres_um.mean(0)
    found, centres = (
        (places[known] - middle) / laid.um
        for places in (asked.centres_um + asked.off_um, asked.centres_um)
    )
    step, _ = ransac(
        (found, centres),
        {
            "rigid": transform.EuclideanTransform,
            "similarity": transform.SimilarityTransform,
            "affine": transform.AffineTransform,
        }[kind],
        min_samples=4,
        residual_threshold=NEAR_PX / 2,
        max_trials=_TRIALS,
        rng=0,
    )
    if step is None or not np.isfinite(step.params).all():
        return None
    frame = np.diag([laid.um, laid.um, 1.0])
    frame[:2, 2] = middle
    return laid.matrix @ frame @ np.asarray(step.params, np.float64) @ inverse(frame)


def ask_blocks(laid: Laid, *, either_sign: bool) -> BlockShifts:
    """Search every block of the dense layer in the sparse one.

    Parameters
    ----------
    laid : Laid
        Both in one frame.
    either_sign : bool
        Whether dark may also mean bright.
    """
    from scipy.fft import irfft2, next_fast_len, rfft2

    here, there = (_detail(grey, laid.inside) for grey in (laid.sparse, laid.dense))
    wide = BLOCK_PX + 2 * REACH_PX
    windows, blocks, tops = _cut(here, there, laid.inside, wide)
    if not len(tops):
        none = np.empty((0, 2))
        return BlockShifts(none, none, np.empty(0), laid.um)
    size = next_fast_len(wide, real=True)
    blocks = blocks - blocks.mean((1, 2), keepdims=True)
    pattern = np.conj(rfft2(blocks, (size, size)))
    ones = np.conj(rfft2(np.ones((BLOCK_PX, BLOCK_PX), np.float32), (size, size)))
    span = 2 * REACH_PX + 1

    def slid(values: Greys, by: npt.NDArray[np.complexfloating]) -> Greys:
        found: Greys = irfft2(rfft2(values, (size, size)) * by, (size, size))
        return found[:, :span, :span]

    count = BLOCK_PX**2
    spread = slid(windows**2, ones) - slid(windows, ones) ** 2 / count
    own = (blocks**2).sum((1, 2))[:, None, None]
    r = slid(windows, pattern) / np.sqrt(np.maximum(spread, 1e-6) * own)
    r = np.abs(r) if either_sign else r
    flat = r.reshape(len(r), -1)
    best = flat.argmax(1)
    off = np.stack(np.unravel_index(best, (span, span)), axis=1) - float(REACH_PX)
    middle = tops + REACH_PX + (BLOCK_PX - 1) / 2
    centres = middle * laid.um + np.array(laid.origin_um)
    likeness = np.take_along_axis(flat, best[:, None], 1)[:, 0].astype(np.float64)
    return BlockShifts(centres, off * laid.um, likeness, laid.um)


def _detail(grey: Greys, inside: Bools) -> Greys:
    from scipy.ndimage import gaussian_filter

    weight = inside.astype(np.float32)
    soft = gaussian_filter(grey * weight, DETAIL_PX)
    soft /= np.maximum(gaussian_filter(weight, DETAIL_PX), 1e-3)
    detail: Greys = (gaussian_filter(grey, 1.0) - soft) * weight
    return detail


def _cut(
    here: Greys, there: Greys, inside: Bools, wide: int
) -> tuple[Greys, Greys, Doubles]:
    """Return windows of one, blocks of the other, and the windows' upper left."""
    height, width = here.shape
    found = [
        (top, left)
        for top in range(0, height - wide + 1, STEP_PX)
        for left in range(0, width - wide + 1, STEP_PX)
        if inside[top : top + wide, left : left + wide].mean() > 0.97
    ]
    if not found:
        empty = np.empty((0, wide, wide), np.float32)
        return empty, empty, np.empty((0, 2))
    inner = slice(REACH_PX, REACH_PX + BLOCK_PX)
    windows, others = (
        np.stack([grey[t : t + wide, k : k + wide] for t, k in found])
        for grey in (here, there)
    )
    blocks = others[:, inner, inner]
    spreads = np.stack([windows[:, inner, inner].std((1, 2)), blocks.std((1, 2))])
    usual = np.maximum(np.quantile(spreads, 0.8, axis=1, keepdims=True), 1e-4)
    rich = (spreads > FLATTEST * usual).all(0)
    return windows[rich], blocks[rich], np.array(found, np.float64)[rich]
