"""Areas under the ROC curve (AUROC) that can be resampled by case in one product.

The area is the share of pairs of tiles, one of the class and one of another, in which
the first has the higher probability; ties count half. Pairs are counted for every two
cases once; a resample of cases then weighs these counts, and sorts nothing again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Counts = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.intp]


def pairs_won(
    scores: npt.NDArray[np.floating],
    positive: npt.NDArray[np.bool_],
    case: Ints,
    n: int,
) -> tuple[Counts, Counts]:
    """Count the pairs of a positive and a negative tile by their cases.

    Parameters
    ----------
    scores : ndarray
        ``(tiles,)``, higher for tiles that are more surely positive.
    positive : ndarray
        ``(tiles,)`` bool.
    case : ndarray
        ``(tiles,)`` int, ``0 … n - 1``.
    n : int
        Number of cases.

    Returns
    -------
    won, all : ndarray
        ``(n, n)``: pairs in which the positive tile (rows) scored higher than the
        negative one (columns), ties half; and all pairs.
    """
    won, every = np.zeros((n, n)), np.zeros((n, n))
    rows = case[positive]
    for other in np.unique(case[~positive]):
        below = np.sort(scores[~positive & (case == other)])
        lower = np.searchsorted(below, scores[positive], side="left")
        upper = np.searchsorted(below, scores[positive], side="right")
        won[:, other] = np.bincount(rows, weights=(lower + upper) / 2, minlength=n)
        every[:, other] = np.bincount(rows, minlength=n) * float(len(below))
    return won, every


def areas(won: Counts, every: Counts, draws: Counts) -> Counts:
    """Return the area of every resample.

    Parameters
    ----------
    won, every : ndarray
        ``(cases, cases)`` from :func:`pairs_won`; sums over folds are fine: then only
        tiles that the same probe judged are compared.
    draws : ndarray
        ``(resamples, cases)``: how often each case was drawn.

    Returns
    -------
    ndarray
        ``(resamples,)``; NaN where a resample holds no pair.
    """
    better = np.einsum("rc,rc->r", draws @ won, draws)
    total = np.einsum("rc,rc->r", draws @ every, draws)
    found: Counts = np.divide(
        better, total, out=np.full(len(draws), np.nan), where=total > 0
    )
    return found
