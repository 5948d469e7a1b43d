"""Losses towards fixed targets: cluster assignments, or the partner's own vectors.

An alternative to joint embeddings: the partner's branch is not trained. What the
student is matched to is known before the first step, so nothing can collapse, and
targets of earlier steps never grow old.

Pure functions of one :class:`Matched` batch. Confidence weighs rows; only proportions
within a batch matter. Arithmetic is float32 (float64 for float64 input).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_histodistill.distill.training.objectives import Loss, identity
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from napari_histodistill.distill.recipes.config import ObjectiveConfig
    from napari_histodistill.distill.training.objectives import Gather

    Tensor = torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """A batch of predictions and their targets, joined over processes.

    Attributes
    ----------
    predicted, targets : Tensor
        ``(N, k)``; targets have no gradient.
    shares : Tensor
        ``(N,)``, weights of the rows, of sum 1.
    rows : Tensor
        ``(N,)`` int64, which pair each row is: the same pair is no negative of itself.
    """

    predicted: Tensor
    targets: Tensor
    shares: Tensor
    rows: Tensor


def matched(
    predicted: Tensor,
    targets: Tensor,
    rows: Tensor,
    *,
    confidence: Tensor | None = None,
    gather: Gather = identity,
) -> Matched:
    """Join a batch over processes.

    Parameters
    ----------
    predicted, targets : Tensor
        ``(n, k)`` each.
    rows : Tensor
        ``(n,)`` int, below 2²⁴: which pair each row is.
    confidence : Tensor, optional
        ``(n,)``, positive.
    gather : callable
        Joins the batch over processes.

    Raises
    ------
    InputError
        If the two are not of one shape.
    """
    if predicted.shape != targets.shape or predicted.ndim != 2:
        msg = (
            f"Predictions {tuple(predicted.shape)} and targets {tuple(targets.shape)} "
            "must have one shape (pairs, width)."
        )
        raise InputError(msg)
    double = predicted.dtype == torch.float64
    exact = torch.float64 if double else torch.float32
    weights = predicted.new_ones(len(predicted)) if confidence is None else confidence
    columns = [predicted, targets.detach(), weights[:, None], rows[:, None]]
    whole = gather(torch.cat([column.to(exact) for column in columns], dim=1))
    width = predicted.shape[1]
    ours, theirs, weight, which = torch.split(whole, [width, width, 1, 1], dim=1)
    total = weight.sum().clamp_min(torch.finfo(exact).tiny)
    which = which[:, 0].detach().round().long()
    return Matched(ours, theirs.detach(), (weight[:, 0] / total).detach(), which)


class TargetQueue:
    """Targets of earlier steps, as further negatives: the newest, up to a length.

    Targets are fixed, so those of earlier steps are as good as new ones; a momentum
    encoder (He et al. 2020, MoCo) is not needed.

    Parameters
    ----------
    length : int
        Most targets that are kept.

    Attributes
    ----------
    targets, rows : Tensor or None
        ``(m, k)`` and ``(m,)``, oldest first; None as long as there are none.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self.targets: Tensor | None = None
        self.rows: Tensor | None = None

    def push(self, batch: Matched) -> None:
        """Take a batch's targets in, and let go of the oldest."""
        if not self._length:
            return
        new = [batch.targets, batch.rows]
        if self.targets is not None and self.rows is not None:
            new = [
                torch.cat([self.targets, new[0]]),
                torch.cat([self.rows, new[1]]),
            ]
        self.targets, self.rows = (kept[-self._length :].clone() for kept in new)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold."""
        if self.targets is None or self.rows is None:
            return {}
        return {"targets": self.targets, "rows": self.rows}

    def load(self, tensors: dict[str, Tensor], device: str) -> None:
        """Load what :meth:`tensors` returned."""
        if tensors:
            self.targets = tensors["targets"].to(device)
            self.rows = tensors["rows"].to(device)


def cluster_divergence(batch: Matched, *, temperature: float = 1.0) -> Loss:
    r"""Match the student's head to the partner's soft cluster assignments.

    .. math::

       \tau^2 \sum_i w_i \, \mathrm{KL}(q_i \,\|\, p_i), \quad
       q_i = \mathrm{softmax}(l_i / \tau), \quad
       p_i = \mathrm{softmax}(s_i / \tau)

    where :math:`s` are the student's logits, :math:`l` the log posteriors of a mixture
    fitted to the partner's components on the training pairs
    (:class:`~.clusters.Clusters`), and :math:`w` the shares of the rows. The
    distillation of Hinton et al. 2015, whose :math:`\tau^2` keeps gradients of one
    size, from cluster assignments of spatial transcriptomics as in Hizmi et al. 2026
    (arXiv 2604.09076); their clusters come from a network that sees neighbouring
    cells, ours from a mixture of single partners.

    Parameters
    ----------
    batch : Matched
        Logits ``(N, clusters)``, and log posteriors of the clusters.
    temperature : float
        τ > 0.

    Returns
    -------
    Loss
        With the term ``divergence``, before τ².
    """
    predicted = functional.log_softmax(batch.predicted / temperature, dim=1)
    targets = functional.log_softmax(batch.targets / temperature, dim=1)
    each = functional.kl_div(predicted, targets, reduction="none", log_target=True)
    divergence = batch.shares @ each.sum(dim=1)
    return Loss(temperature**2 * divergence, {"divergence": divergence})


def regression(
    batch: Matched,
    *,
    distance: str = "cosine",
    contrast: float = 1.0,
    temperature: float = 0.5,
    queue: TargetQueue | None = None,
) -> Loss:
    r"""Predict the partner's vector, and tell it from those of other pairs.

    The distance is :math:`1 - \cos(p_i, t_i)`, or the mean of :math:`(p_i - t_i)^2`
    over dimensions; a weighted mean over rows. To it comes, times ``contrast``, a
    cross-entropy over :math:`\cos(p_i, t_j) / \tau`: which of all targets of the batch
    and of the queue belongs to row :math:`i` (InfoNCE, van den Oord et al. 2018, from
    predictions to targets). Another row of the same pair, as an epoch's border or the
    queue may hold it, is no negative.

    Parameters
    ----------
    batch : Matched
        Predictions and targets ``(N, k)``.
    distance : {"cosine", "mean-squares"}
        Distance to the target.
    contrast : float
        Weight of the cross-entropy.
    temperature : float
        τ > 0.
    queue : TargetQueue, optional
        Targets of earlier steps; it is not changed.

    Returns
    -------
    Loss
        With terms ``distance`` and ``contrast``.
    """
    ours = functional.normalize(batch.predicted, dim=1)
    theirs = functional.normalize(batch.targets, dim=1)
    if distance == "cosine":
        apart = 1 - (ours * theirs).sum(dim=1)
    else:
        apart = (batch.predicted - batch.targets).square().mean(dim=1)
    others, rows = theirs, batch.rows
    if queue is not None and queue.targets is not None and queue.rows is not None:
        older = functional.normalize(queue.targets.to(theirs.dtype), dim=1)
        others, rows = torch.cat([theirs, older]), torch.cat([rows, queue.rows])
    own = torch.arange(len(ours), device=ours.device)
    same = batch.rows[:, None] == rows[None]
    same[own, own] = False
    logits = (ours @ others.T / temperature).masked_fill(same, -torch.inf)
    told = functional.cross_entropy(logits, own, reduction="none")
    terms = {"distance": batch.shares @ apart, "contrast": batch.shares @ told}
    return Loss(terms["distance"] + contrast * terms["contrast"], terms)


def target_loss(
    config: ObjectiveConfig, batch: Matched, queue: TargetQueue | None = None
) -> Loss:
    """Compute the loss that a recipe names: ``clusters`` or ``regression``."""
    kind = batch.predicted.device.type
    with torch.autocast(kind, enabled=False):
        if config.kind == "clusters":
            return cluster_divergence(batch, temperature=config.temperature)
        return regression(
            batch,
            distance=config.distance,
            contrast=config.contrast,
            temperature=config.temperature,
            queue=queue,
        )
