"""Blocks vote where a layer lies: every two of them propose, and all are counted.

A place of the first look is off by some degrees and hundredths of scale: too far for an
optimiser to be run from hundreds of them. Blocks find themselves within their reach,
and any two that are right tell the turn, scale and shift of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.blocks import (
    BLOCK_PX,
    FEWEST,
    REACH_PX,
    ask_blocks,
)
from napari_histodistill.distill.layers.registration import inverse

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.layers.thumbnails import Laid

    Doubles = npt.NDArray[np.float64]
    Complexes = npt.NDArray[np.complex128]

AGREE_PX = 2.5
"""How far off a block may lie of where two others put it."""

MOST_CHANGE = 0.2
"""How much scale may change, as a share, and turn, in radians."""

_CHANCE = float(np.pi) * AGREE_PX**2 / (2 * REACH_PX + 1) ** 2
_MOST = 120
_FEWEST_APART = 5
_LEAST_APART_PX = 1.5 * BLOCK_PX


@dataclass(frozen=True, slots=True, eq=False)
class Vote:
    """Where blocks put a layer.

    Attributes
    ----------
    matrix : ndarray
        ``(3, 3)``, sparse world to dense world, µm.
    score : float
        By how many standard deviations more blocks agree than by chance. Two can always
        be found that some agree with: strangers reach several.
    """

    matrix: Doubles
    score: float


def vote(laid: Laid, *, either_sign: bool, rigid: bool) -> Vote | None:
    """Return where most blocks would have the dense layer.

    Parameters
    ----------
    laid : Laid
        Both layers, not far off.
    either_sign : bool
        Whether dark may also mean bright.
    rigid : bool
        Whether the scale is kept.

    Returns
    -------
    Vote or None
        None where too few blocks agree on anything.
    """
    asked = ask_blocks(laid, either_sign=either_sign)
    if len(asked.off_um) < FEWEST:
        return None
    middle = asked.centres_um.mean(0)
    # As complex numbers (y + xi), a turn, scale and shift are one product and sum.
    dense = _complex((asked.centres_um - middle) / laid.um)
    sparse = dense + _complex(asked.off_um / laid.um)
    found = np.abs(asked.off_um).max(1) < (REACH_PX - 0.5) * laid.um
    rows = np.flatnonzero(found)
    rows = rows[:: max(1, len(rows) // _MOST)]
    one, two = (rows[pair] for pair in np.triu_indices(len(rows), 1))
    apart = np.abs(sparse[one] - sparse[two]) > _LEAST_APART_PX
    one, two = one[apart], two[apart]
    turn = (dense[one] - dense[two]) / (sparse[one] - sparse[two])
    likely = (np.abs(np.abs(turn) - 1) < MOST_CHANGE) & (
        np.abs(np.angle(turn)) < MOST_CHANGE
    )
    if not likely.any():
        return None
    turn = turn[likely]
    shift = dense[one[likely]] - turn * sparse[one[likely]]
    off = np.abs(turn[:, None] * sparse + shift[:, None] - dense)
    agree = (off < AGREE_PX) & found
    most = agree[agree.sum(1).argmax()]
    for _ in range(2):
        turned, shifted = _fitted(sparse[most], dense[most], rigid=rigid)
        now = (np.abs(turned * sparse + shifted - dense) < AGREE_PX) & found
        if now.sum() < max(most.sum(), 3):
            break
        most = now
    squares = np.floor(asked.centres_um[most] / (BLOCK_PX * laid.um))
    if len(np.unique(squares, axis=0)) < _FEWEST_APART:
        return None
    turned, shifted = _fitted(sparse[most], dense[most], rigid=rigid)
    step = np.eye(3)
    step[:2] = [
        [turned.real, -turned.imag, shifted.real],
        [turned.imag, turned.real, shifted.imag],
    ]
    frame = np.diag([laid.um, laid.um, 1.0])
    frame[:2, 2] = middle
    count = len(found)
    deviation = np.sqrt(_CHANCE * (1 - _CHANCE) / count)
    return Vote(
        laid.matrix @ frame @ step @ inverse(frame),
        float((most.sum() / count - _CHANCE) / deviation),
    )


def _complex(places: Doubles) -> Complexes:
    numbers: Complexes = places[:, 0] + 1j * places[:, 1]
    return numbers


def _fitted(
    sparse: Complexes, dense: Complexes, *, rigid: bool
) -> tuple[complex, complex]:
    """Return the turn and scale, and the shift, of least squares."""
    here, there = sparse - sparse.mean(), dense - dense.mean()
    turn = complex((np.conj(here) * there).sum() / max((np.abs(here) ** 2).sum(), 1e-9))
    if rigid:
        turn /= max(abs(turn), 1e-9)
    return turn, complex(dense.mean() - turn * sparse.mean())
