"""The pairs of a step and all its random numbers: functions of seed and step.

Nothing random is carried from step to step, so a run that continues after a stop needs
no saved states of generators to end as if it had never stopped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt

    Rows = npt.NDArray[np.intp]

# These numbers are part of every seed: add a new purpose at the end, or runs that were
# stopped cannot be continued to the same bytes.
(
    *(ORDER, WEIGHTS, AUGMENT, VALIDATE, TORCH, START, TEACHER, MIX, PARTNERS, SPLIT),
    SURROUND,
    CLUSTERS,
) = range(12)
"""Purposes of random streams; the second part of every seed."""


def stream(*parts: int) -> np.random.Generator:
    """Return numpy's generator of one stream: ``stream(seed, purpose, …)``."""
    return np.random.default_rng(parts)


def torch_seed(*parts: int) -> int:
    """Return a seed for torch that belongs to one stream."""
    # torch takes seeds below 2**63.
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def torch_stream(*parts: int) -> torch.Generator:
    """Return torch's CPU generator of one stream."""
    return torch.Generator().manual_seed(torch_seed(*parts))


def batch_rows(pairs: int, batch: int, step: int, seed: int) -> Rows:
    """Return the pairs of a step, each pair once per epoch.

    Parameters
    ----------
    pairs : int
        Number of pairs.
    batch : int
        Pairs per step, at most ``pairs``.
    step : int
        Counted from 0.
    seed : int
        Seed of the run.

    Returns
    -------
    ndarray
        ``(batch,)``; a batch may reach from one epoch into the next.
    """
    places = np.arange(step * batch, (step + 1) * batch)
    epochs, within = np.divmod(places, pairs)
    rows = np.empty(batch, np.intp)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = _order(pairs, seed, int(epoch))[within[here]]
    return rows


@lru_cache(maxsize=2)  # a step belongs to one epoch, or to two
def _order(pairs: int, seed: int, epoch: int) -> Rows:
    """Return the order of the pairs in an epoch, which all its steps share."""
    order = stream(seed, ORDER, epoch).permutation(pairs)
    order.flags.writeable = False
    return order


def balanced_rows(
    labels: npt.NDArray[np.integer], batch: int, step: int, seed: int, *, balance: float
) -> Rows:
    """Return the pairs of a step, drawn so that rare classes come more often.

    Parameters
    ----------
    labels : ndarray
        ``(pairs,)`` int.
    batch, step, seed : int
        As for :func:`batch_rows`.
    balance : float
        A class of share p comes with a frequency in proportion to p^(1 − balance).

    Returns
    -------
    ndarray
        ``(batch,)``, drawn with replacement.
    """
    counts = np.bincount(labels).astype(np.float64)
    weights = counts[labels] ** -balance
    drawn = stream(seed, WEIGHTS, step).choice(
        len(labels), batch, p=weights / weights.sum()
    )
    return drawn.astype(np.intp)
