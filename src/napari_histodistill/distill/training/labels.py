"""What a label says in the cross-entropy: grades next to it, and how often it comes.

Two corrections for classes that are rare, or that people tell apart by degree. Both
act in training alone: a student's head needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.recipes.config import LabelsConfig

    Tensor = torch.Tensor


def soft_labels(config: LabelsConfig, classes: Sequence[str]) -> Tensor:
    """Return what each label says of every class, as a distribution.

    A share of a label is given to the classes next to it in its order of grades: half
    to either, or all of it to the only one. A class that several orders hold gives each
    of them an equal part.

    Parameters
    ----------
    config : LabelsConfig
        Orders of grades, and the share.
    classes : sequence of str
        Names of the classes.

    Returns
    -------
    Tensor
        ``(classes, classes)`` float32; row k is the target of label k, and sums to 1.
    """
    places = {name: k for k, name in enumerate(classes)}
    given = torch.zeros(len(classes), len(classes))
    orders = torch.zeros(len(classes), 1)
    for order in config.grades:
        ranks = [places[name] for name in order]
        for at, label in enumerate(ranks):
            beside = [ranks[k] for k in (at - 1, at + 1) if 0 <= k < len(ranks)]
            given[label, beside] += 1 / len(beside)
            orders[label] += 1
    share = config.to_neighbours * (orders > 0)
    return (1 - share) * torch.eye(len(classes)) + share * given / orders.clamp(min=1)


def log_prior(
    labels: npt.NDArray[np.integer], classes: int, *, balance: float
) -> Tensor:
    """Return the logarithm of how often each class is drawn in training.

    Added to the logits of a cross-entropy, it makes a head learn as if all classes came
    equally often: logit adjustment (Menon et al. 2021, *Long-tail learning via logit
    adjustment*, equation 10).

    Parameters
    ----------
    labels : ndarray
        ``(pairs,)`` int, of the training pairs. A class without any counts as one of a
        single pair.
    classes : int
        Number of classes.
    balance : float
        As in the schedule: a class of share p is drawn in proportion to
        p^(1 − balance).

    Returns
    -------
    Tensor
        ``(classes,)`` float32, natural logarithms.
    """
    counts = np.bincount(labels, minlength=classes).clip(min=1)
    drawn = counts ** (1.0 - balance)
    return torch.from_numpy(np.log(drawn / drawn.sum())).float()
