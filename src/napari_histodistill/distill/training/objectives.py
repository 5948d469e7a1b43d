"""Joint-embedding losses of two or more branches: VICReg, Barlow Twins, InfoNCE.

Pure functions of the projections of one batch. All three behave alike:

* Row ``i`` of every branch shows the same tissue. "Pairs of branches" are unordered.
* ``gather`` joins the batch over processes first, and every process computes everything
  on the joined batch: its loss and, where ``gather`` passes gradients back, its
  gradients are those of one process with the whole batch.
* ``confidence`` says how far a row's partners can be trusted to show the same tissue.
  It weighs what makes branches agree, and only that: a row with a doubtful partner is
  still an honest sample of either branch, so it counts in full for variance,
  covariance, redundancy and as a negative. Only proportions within a batch matter, and
  equal weights have the effect of none.
* Arithmetic is float32 (float64 for float64 input), with autocast or without: in
  bfloat16, the variance of a batch has two digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from napari_histodistill.distill.recipes.config import ObjectiveConfig

Gather = Callable[[Tensor], Tensor]
"""Joins ``(n, k)`` over processes to ``(N, k)``, in the same order everywhere; its
gradient reaches the processes the rows came from."""

_TARGET_STD = 1.0
_BATCH_NORM_EPS = 1e-5


def identity(values: Tensor) -> Tensor:
    """Return the batch itself: a single process."""
    return values


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and its parts.

    Attributes
    ----------
    total : Tensor
        Scalar, float32 (float64 for float64 input), to be minimised.
    terms : dict of str to Tensor
        Its scalar parts before their coefficients, with gradients.
    """

    total: Tensor
    terms: dict[str, Tensor]


def vicreg(  # noqa: PLR0913 - three coefficients, one name each
    projections: Sequence[Tensor],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    published_code: bool = False,
    confidence: Tensor | None = None,
    gather: Gather = identity,
) -> Loss:
    r"""Variance-invariance-covariance regularisation (Bardes et al. 2022).

    For branches :math:`z^a` of shape :math:`(N, d)`:

    * *invariance*: sum over pairs of branches of the mean of
      :math:`(z^a - z^b)^2` over rows and dimensions;
    * *variance*: mean over branches and dimensions of
      :math:`\max(0, 1 - \sqrt{\mathrm{Var}_{N-1} + 10^{-4}})`;
    * *covariance*: sum over branches of the squared off-diagonal entries of the
      covariance (normalised by :math:`N - 1`), divided by :math:`d`.

    With two branches this is the authors' official code, ``main_vicreg.py``.

    With ``published_code`` the sums are those of ``n_branch_loss`` in the code
    published with Farndale et al. 2023 (TriDeNT's is the same): *invariance* over
    ordered pairs, twice the above; *variance* summed over branches, of
    :math:`\mathrm{Var}_{N} + 10^{-5}`; *covariance* normalised by :math:`N`. For two
    branches and large :math:`N` that is twice the official loss at half the covariance
    coefficient. (That code differentiates the sum over a batch's rows, :math:`N` times
    these gradients: Adam's step is blind to it, a clipped gradient is not.)

    Parameters
    ----------
    projections : sequence of Tensor
        One ``(n, d)`` per branch, at least two.
    invariance, variance, covariance : float
        Coefficients of the terms.
    published_code : bool
        Sum as the published code does.
    confidence : Tensor, optional
        ``(n,)``, positive: the invariance is a weighted mean over rows,
        :math:`\sum w_i d_i / \sum w_i`.
    gather : callable
        Joins the batch over processes.

    Returns
    -------
    Loss
        With terms ``invariance``, ``variance``, ``covariance``.

    Raises
    ------
    InputError
        If branches or weights do not fit together, or the batch has one row.
    """
    with _full_precision(projections):
        branches, shares = _joined(projections, confidence, gather)
        ddof, epsilon = (0, 1e-5) if published_code else (1, 1e-4)
        spread = [
            functional.relu(
                _TARGET_STD - torch.sqrt(z.var(dim=0, correction=ddof) + epsilon)
            ).mean()
            for z in branches
        ]
        apart = _sum(
            shares @ (a - b).pow(2).mean(dim=1) for a, b in combinations(branches, 2)
        )
        terms = {
            "invariance": 2 * apart if published_code else apart,
            "variance": _sum(spread) / (1 if published_code else len(spread)),
            "covariance": _sum(_covariance(z, ddof) for z in branches),
        }
        total = (
            invariance * terms["invariance"]
            + variance * terms["variance"]
            + covariance * terms["covariance"]
        )
        return Loss(total, terms)


def barlow_twins(
    projections: Sequence[Tensor],
    *,
    off_diagonal: float = 5e-3,
    confidence: Tensor | None = None,
    gather: Gather = identity,
) -> Loss:
    r"""Redundancy reduction (Zbontar et al. 2021), summed over pairs of branches.

    :math:`\sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2`, where :math:`C` is
    the cross-correlation of two branches' dimensions over the batch, standardised as
    the authors' batch normalisation does it: biased variance, plus :math:`10^{-5}`.

    With ``confidence`` the diagonal, which makes branches agree, holds *weighted*
    correlations: means, variances and products all with the weights, so that it stays
    within −1..1, equal branches still reach 1, and a row of weight 2 counts as two rows
    of weight 1. The off-diagonal stays unweighted.

    Parameters
    ----------
    projections : sequence of Tensor
        One ``(n, d)`` per branch, at least two.
    off_diagonal : float
        λ.
    confidence : Tensor, optional
        ``(n,)``, positive.
    gather : callable
        Joins the batch over processes.

    Returns
    -------
    Loss
        With terms ``on_diagonal``, ``off_diagonal``.

    Raises
    ------
    InputError
        If branches or weights do not fit together, or the batch has one row.
    """
    weighed = confidence is not None
    with _full_precision(projections):
        branches, shares = _joined(projections, confidence, gather)
        alike = torch.full_like(shares, 1 / len(shares))
        plain = [_standardised(z, alike) for z in branches]
        trusted = [_standardised(z, shares) for z in branches] if weighed else plain
        terms = {
            "on_diagonal": _sum(
                (shares @ (a * b) - 1).pow(2).sum() for a, b in combinations(trusted, 2)
            ),
            "off_diagonal": _sum(
                _squares_beside_diagonal(a, b) / len(a) ** 2
                for a, b in combinations(plain, 2)
            ),
        }
        return Loss(terms["on_diagonal"] + off_diagonal * terms["off_diagonal"], terms)


def infonce(
    projections: Sequence[Tensor],
    *,
    temperature: float | Tensor = 0.5,
    confidence: Tensor | None = None,
    gather: Gather = identity,
) -> Loss:
    r"""Contrast of every row with the other branch's rows (van den Oord et al. 2018).

    For a pair of branches: which of the other branch's :math:`N` rows belongs to this
    one, as a cross-entropy over cosine similarity / τ; mean over rows and of both
    directions (as in CLIP, Radford et al. 2021), summed over pairs of branches.
    Negatives come from the other branch only, which is TriDeNT's "SimCLR"; SimCLR
    itself (Chen et al. 2020) also takes those of the same branch. Chance is
    :math:`\log N` per pair of branches.

    Parameters
    ----------
    projections : sequence of Tensor
        One ``(n, d)`` per branch, at least two.
    temperature : float or Tensor
        τ > 0; a scalar tensor if it is learned.
    confidence : Tensor, optional
        ``(n,)``, positive: weighted mean over rows, in either direction.
    gather : callable
        Joins the batch over processes.

    Returns
    -------
    Loss
        With the term ``contrast``, equal to the total.

    Raises
    ------
    InputError
        If branches or weights do not fit together, the batch has one row, or τ is not
        positive.
    """
    if not isinstance(temperature, Tensor) and not temperature > 0:
        msg = f"The temperature is {temperature}: InfoNCE needs one above 0."
        raise InputError(msg)
    with _full_precision(projections):
        branches, shares = _joined(projections, confidence, gather)
        units = [functional.normalize(z, dim=1) for z in branches]
        own = torch.arange(len(shares), device=shares.device)
        total = _sum(
            shares @ _both_ways(a @ b.T / temperature, own)
            for a, b in combinations(units, 2)
        )
        return Loss(total, {"contrast": total})


def joint_embedding_loss(
    config: ObjectiveConfig,
    projections: Sequence[Tensor],
    *,
    confidence: Tensor | None = None,
    temperature: Tensor | None = None,
    gather: Gather = identity,
) -> Loss:
    """Compute the loss that a recipe names.

    Parameters
    ----------
    config : ObjectiveConfig
        Kind of the loss, and its coefficients.
    projections : sequence of Tensor
        One ``(n, d)`` per branch, at least two.
    confidence : Tensor, optional
        ``(n,)``, positive.
    temperature : Tensor, optional
        Learned τ of InfoNCE; by default ``config.temperature``.
    gather : callable
        Joins the batch over processes.

    Returns
    -------
    Loss
        See :func:`vicreg`, :func:`barlow_twins`, :func:`infonce`.

    Raises
    ------
    InputError
        As these functions do.
    """
    if config.kind == "vicreg":
        return vicreg(
            projections,
            invariance=config.invariance,
            variance=config.variance,
            covariance=config.covariance,
            published_code=config.published_code,
            confidence=confidence,
            gather=gather,
        )
    if config.kind == "barlow_twins":
        return barlow_twins(
            projections,
            off_diagonal=config.off_diagonal,
            confidence=confidence,
            gather=gather,
        )
    return infonce(
        projections,
        temperature=config.temperature if temperature is None else temperature,
        confidence=confidence,
        gather=gather,
    )


def _full_precision(projections: Sequence[Tensor]) -> AbstractContextManager[object]:
    """Switch autocast off where the projections are; check that there are any."""
    if len(projections) < 2:
        msg = f"A joint-embedding loss needs two branches, not {len(projections)}."
        raise InputError(msg)
    kind = projections[0].device.type
    if not torch.amp.autocast_mode.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def _joined(
    projections: Sequence[Tensor], confidence: Tensor | None, gather: Gather
) -> tuple[list[Tensor], Tensor]:
    """Return the joined batch: branches (N, d); rows' shares (N,), of sum 1."""
    shapes = [tuple(z.shape) for z in projections]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or not shapes[0][1]:
        msg = (
            "Projections must have one shape (pairs, width) for all branches, "
            f"not {', '.join(map(str, shapes))}: give all projectors one width."
        )
        raise InputError(msg)
    n, width = shapes[0]
    if confidence is not None and tuple(confidence.shape) != (n,):
        msg = (
            f"The confidence has shape {tuple(confidence.shape)}, but the batch has "
            f"{n} pairs: give one weight per pair."
        )
        raise InputError(msg)
    double = any(z.dtype == torch.float64 for z in projections)
    exact = torch.float64 if double else torch.float32
    weights = projections[0].new_ones(n) if confidence is None else confidence
    columns = [z.to(exact) for z in projections]
    columns.append(weights.to(projections[0].device, exact)[:, None])
    # One message between processes instead of one per branch.
    whole = gather(torch.cat(columns, dim=1))
    if len(whole) < 2:
        msg = f"The batch has {len(whole)} pairs: a joint-embedding loss needs two."
        raise InputError(msg)
    *branches, last = torch.split(whole, [width] * len(projections) + [1], dim=1)
    # Divided here, so that weights that are all 0 give 0, with gradients of 0.
    shares = last[:, 0] / last.sum().clamp_min(torch.finfo(exact).tiny)
    return branches, shares


def _sum(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()


def _standardised(values: Tensor, shares: Tensor) -> Tensor:
    centred = values - shares @ values
    variance = shares @ centred.pow(2)
    return centred / torch.sqrt(variance + _BATCH_NORM_EPS)


def _covariance(values: Tensor, ddof: int) -> Tensor:
    n, width = values.shape
    centred = values - values.mean(dim=0)
    return _squares_beside_diagonal(centred, centred) / (n - ddof) ** 2 / width


def _squares_beside_diagonal(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of squares of the off-diagonal entries of aᵀb."""
    n, width = a.shape
    if n >= width:
        product = a.T @ b
        return (product - torch.diag(product.diagonal())).pow(2).sum()
    # ‖aᵀb‖² = Σ (aaᵀ) ∘ (bbᵀ): for wide projections and few rows n·n instead of
    # width·width numbers, which at width 8192 are 256 MiB per branch.
    whole = ((a @ a.T) * (b @ b.T)).sum()
    return whole - (a * b).sum(dim=0).pow(2).sum()


def _both_ways(logits: Tensor, own: Tensor) -> Tensor:
    """Return the mean cross-entropy of a row's and a column's choice, (N,)."""
    there = functional.cross_entropy(logits, own, reduction="none")
    back = functional.cross_entropy(logits.T, own, reduction="none")
    return (there + back) / 2
