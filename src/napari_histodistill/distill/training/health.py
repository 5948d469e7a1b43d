"""Signs of a collapsing encoder: two numbers of its embeddings, and one sentence.

A joint-embedding loss can be low because all embeddings are the same (complete
collapse) or lie on a line (dimensional collapse): neither shows in the loss of every
objective, both show here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

LEAST_STD = 0.05
"""Feature standard deviation below which embeddings count as identical. H&E tiles get
0.57 from ImageNet's EfficientNet-Lite0, and 0.26 to 0.38 from CNNs that were never
trained (with batch statistics; without them, 0.07 to 0.09)."""

LEAST_RANK = 2.0
"""Effective rank below which embeddings count as lying on a line."""

_ROUNDING = 1e-6
"""Spread relative to the embeddings below which it is float32's rounding."""


def feature_std(embeddings: Tensor) -> float:
    """Return how far embeddings spread over the sphere.

    The standard deviation over the batch of L2-normalised embeddings, mean over
    dimensions, × √d (Chen and He 2021, SimSiam, figure 2).

    Parameters
    ----------
    embeddings : Tensor
        ``(n, d)``, any floating type, any device.

    Returns
    -------
    float
        0 if all point in the same direction, near 1 if they spread evenly; nan if one
        is not finite.

    Raises
    ------
    InputError
        If it is not a table of at least two rows.
    """
    table = _table(embeddings)
    units = functional.normalize(table, dim=1)
    spread = units.std(dim=0, correction=0).mean()
    return float(spread) * math.sqrt(table.shape[1])


def effective_rank(embeddings: Tensor) -> float:
    """Return how many dimensions the embeddings use.

    exp of the entropy of the singular values over their sum (Roy and Vetterli 2007;
    RankMe, Garrido et al. 2023). Unlike RankMe the embeddings are centred first: a
    common mean says nothing about tissue.

    Parameters
    ----------
    embeddings : Tensor
        ``(n, d)``, any floating type, any device.

    Returns
    -------
    float
        From 1 (a line) to ``min(n − 1, d)``; 0 if all embeddings are the same but for
        rounding; nan if one is not finite.

    Raises
    ------
    InputError
        If it is not a table of at least two rows.
    """
    table = _table(embeddings)
    if not bool(torch.isfinite(table).all()):
        return math.nan
    centred = table - table.mean(dim=0)
    if float(centred.norm()) <= _ROUNDING * float(table.norm()):
        return 0.0
    values = torch.linalg.svdvals(centred)
    shares = values / values.sum()
    return math.exp(float(torch.special.entr(shares).sum()))


def collapsed(std: float, rank: float, dim: int) -> str:
    """Return a sentence if embeddings have collapsed.

    Parameters
    ----------
    std, rank : float
        From :func:`feature_std` and :func:`effective_rank`, of some dozens of
        embeddings at least (n of them have no rank above n − 1).
    dim : int
        Width of the embeddings. With one or two dimensions, no rank is expected.

    Returns
    -------
    str
        Empty, or a sentence without its full stop, so that place and advice can follow:
        not finite, or ``std`` below :data:`LEAST_STD`, or ``rank`` below
        :data:`LEAST_RANK`. (A classifier of two classes may well end below that rank:
        for encoders trained on labels this is not an error.)
    """
    if not (math.isfinite(std) and math.isfinite(rank)):
        return "Embeddings are no longer finite numbers"
    if std < LEAST_STD:
        return (
            "All images get nearly the same embedding "
            f"(feature standard deviation {std:.3f}, healthy is 0.2 to 1)"
        )
    if dim > 2 and rank < LEAST_RANK:
        return (
            "Embeddings differ in nearly one direction only "
            f"(effective rank {rank:.2f} of {dim} dimensions)"
        )
    return ""


def _table(embeddings: Tensor) -> Tensor:
    """Return them as float64 on the CPU: some devices have neither it nor an SVD."""
    if embeddings.ndim != 2 or len(embeddings) < 2 or not embeddings.shape[1]:
        msg = (
            f"Embeddings have shape {tuple(embeddings.shape)}: their health needs a "
            "table (n, d) of at least two rows."
        )
        raise InputError(msg)
    return embeddings.detach().cpu().to(torch.float64)
