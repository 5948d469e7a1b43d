"""Distances of embeddings from training data: what was tried for `trust.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.cluster import KMeans

from napari_histodistill.students.references.case_limits import PrincipalGaussian
from napari_histodistill.students.references.fitting import directions_for

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Distance = Callable[[Floats], Floats]

SEED = 0


def mahalanobis(
    values: Floats,
    labels: npt.NDArray[np.intp],
    *,
    by_class: bool,
    most: int | None = None,
    scaled: bool = True,
) -> Distance:
    """Return the distance to the nearest mean (Lee et al. 2018), shared covariance.

    Own directions: 95 % of the variance, at most ``most``; by default one for every
    20 rows and at most 64. More of them follow few cases so closely that unseen ones
    lie as far out as foreign tissue.
    """
    most = directions_for(len(values)) if most is None else most
    middle = values.mean(0)
    scale = np.maximum(values.std(0), 1e-9) if scaled else np.ones(values.shape[1])
    rows = (values - middle) / scale
    groups = labels if by_class else np.zeros_like(labels)
    present, member = np.unique(groups, return_inverse=True)
    means = np.array([rows[groups == k].mean(0) for k in present])
    shape = PrincipalGaussian.of(rows - means[member.reshape(-1)], most)

    def distance(others: Floats) -> Floats:
        placed = (others - middle) / scale
        squared = [shape.squared(placed - mean) for mean in means]
        found: Floats = np.sqrt(np.min(squared, axis=0) / values.shape[1])
        return found

    return distance


def relative(values: Floats, labels: npt.NDArray[np.intp]) -> Distance:
    """Return exp of class-wise less pooled squared distance (Ren et al. 2021)."""
    near = mahalanobis(values, labels, by_class=True)
    far = mahalanobis(values, labels, by_class=False)
    return lambda others: np.exp(np.clip(near(others) ** 2 - far(others) ** 2, -50, 50))


def neighbours(
    values: Floats, _labels: npt.NDArray[np.intp], *, prototypes: int
) -> Distance:
    """Return the mean distance to the five nearest prototypes, in 64 whitened axes."""
    middle, scale = values.mean(0), np.maximum(values.std(0), 1e-9)
    rows = (values - middle) / scale
    variances, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    axes = directions[:, -64:] / np.sqrt(np.maximum(variances[-64:], 1e-12))
    kept = KMeans(prototypes, n_init=1, random_state=SEED).fit(rows @ axes)
    centres = kept.cluster_centers_

    def distance(others: Floats) -> Floats:
        placed = (others - middle) / scale @ axes
        squared = (placed**2).sum(1)[:, None] + (centres**2).sum(1)
        squared = np.maximum(squared - 2 * placed @ centres.T, 0)
        found: Floats = np.sqrt(np.partition(squared, 5, axis=1)[:, :5].mean(1))
        return found

    return distance
