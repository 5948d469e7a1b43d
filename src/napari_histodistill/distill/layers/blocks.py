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

from napari_histodistill.distill.layers.thumbnails import lay

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.layers.thumbnails import Laid, Thumbnail

    Doubles = npt.NDArray[np.float64]
    Greys = npt.NDArray[np.float32]
    Bools = npt.NDArray[np.bool_]

BLOCK_PX = 32
"""Edge of a block."""

REACH_PX = 12
"""How far around a block is looked for, in every direction."""

NEAR_PX = 3.0
"""How far a block that agrees may lie off."""

CHANCE = 29 / (2 * REACH_PX + 1) ** 2
"""Share of blocks that agree where there is nothing to agree on: of all shifts, those
within three pixels."""

STEP_PX = 16
"""From one block to the next."""

DETAIL_PX = 6.0
"""What is coarser than this is taken away."""

FLATTEST = 0.15
"""Blocks with less contrast than this share of the median's are not asked."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
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
        count = len(self.near)
        if count < FEWEST:
            return 0.0
        return (self.share - CHANCE) * np.sqrt(count / (CHANCE * (1 - CHANCE)))


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """What blocks of several sizes said of one place.

    Attributes
    ----------
    score : float
        By how many standard deviations more blocks agree than by chance, at the size
        where most do.
    error_um : float
        How far off the place is, as those that agree say: median, dense µm. NaN if too
        few do.
    """

    score: float
    error_um: float


FRAMES_PX = (128, 181, 256, 362)
"""Longer sides of the frames: blocks are a fourth to a twelfth of them."""

FINER_PX = (512, 724)
"""Frames in which the error may also be read."""

FEWEST = 12
"""Blocks that can say anything."""


def agreement_of(
    sparse: Thumbnail, dense: Thumbnail, matrix: Doubles, *, either_sign: bool
) -> Agreement:
    """Ask blocks of several sizes.

    Parameters
    ----------
    sparse, dense : Thumbnail
        Of both layers.
    matrix : ndarray
        ``(3, 3)``, sparse world to dense world, µm: the place.
    either_sign : bool
        Whether dark may also mean bright.
    """
    asked = [
        ask_blocks(laid, either_sign=either_sign)
        for px in FRAMES_PX
        if (laid := lay(sparse, dense, matrix, px)) is not None
    ]
    scores = [blocks.score for blocks in asked]
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    best = int(np.argmax(scores)) if scores else 0
    return Agreement(
        max(scores, default=0.0),
        _error_um(asked[best]) * scale if asked else float("nan"),
    )


def _error_um(blocks: Blocks) -> float:
    near = np.linalg.norm(blocks.off_um[blocks.near], axis=1)
    return float(np.median(near)) if len(near) else float("nan")


def ask_blocks(laid: Laid, *, either_sign: bool) -> Blocks:
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
        return Blocks(none, none, np.empty(0), laid.um)
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
    return Blocks(centres, off * laid.um, likeness, laid.um)


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
    windows, blocks = [], []
    inner = slice(REACH_PX, REACH_PX + BLOCK_PX)
    for top, left in found:
        window = np.s_[top : top + wide, left : left + wide]
        windows.append(here[window])
        blocks.append(there[window][inner, inner])
    if not found:
        empty = np.empty((0, wide, wide), np.float32)
        return empty, empty, np.empty((0, 2))
    spreads = np.array(
        [(w[inner, inner].std(), b.std()) for w, b in zip(windows, blocks)]
    )
    usual = np.maximum(np.quantile(spreads, 0.8, axis=0), 1e-4)
    rich = (spreads > FLATTEST * usual).all(1)
    return (
        np.stack(windows)[rich]
        if rich.any()
        else np.empty((0, wide, wide), np.float32),
        np.stack(blocks)[rich] if rich.any() else np.empty((0, wide, wide), np.float32),
        np.array(found, np.float64)[rich],
    )
