"""Clusters of a partner's vectors: a mixture that is fitted to the training pairs.

k-means is a mixture, too: of equal weights and one variance in all directions. So both
kinds give soft assignments in the same way, as posteriors.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from napari_histodistill.distill.training.vectors import some_rows
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.training.vectors import Components

    Tensor = torch.Tensor
    Floats = npt.NDArray[np.float32]

_STARTS = 10
_LEAST_VARIANCE = 1e-6
"""Variance of a cluster whose members are all the same."""


class Clusters(nn.Module):
    """Log posteriors of the clusters, given a partner's vectors.

    Parameters
    ----------
    components : Components
        What becomes of the vectors first.
    means, variances : ndarray
        ``(clusters, k)``, of normal distributions without covariances.
    weights : ndarray
        ``(clusters,)``, of sum 1.
    """

    frozen = True

    def __init__(
        self,
        components: Components,
        means: npt.NDArray[np.floating],
        variances: npt.NDArray[np.floating],
        weights: npt.NDArray[np.floating],
    ) -> None:
        super().__init__()
        self.components = components
        self.dim = len(means)
        for name, values in (
            ("means", means),
            ("variances", variances),
            ("weights", weights),
        ):
            kept = torch.from_numpy(np.ascontiguousarray(values, np.float32))
            self.register_buffer(name, kept)
        self.means: Tensor
        self.variances: Tensor
        self.weights: Tensor

    def forward(self, vectors: Tensor) -> Tensor:
        """Return ``(n, clusters)`` float32: log p(cluster | vector)."""
        found = self.components(vectors)[:, None]  # (n, 1, k)
        squares = ((found - self.means).square() / self.variances).sum(dim=2)
        sizes = (2 * math.pi * self.variances).log().sum(dim=1)
        joint = self.weights.log() - (squares + sizes) / 2
        return torch.log_softmax(joint, dim=1)


def fit_clusters(
    vectors: Floats, components: Components, count: int, *, kind: str, seed: int
) -> Clusters:
    """Cluster the training pairs' components.

    Parameters
    ----------
    vectors : ndarray
        ``(n, d)`` float32.
    components : Components
        Fitted to them.
    count : int
        Number of clusters.
    kind : {"kmeans", "mixture"}
        k-means, or a Gaussian mixture with a variance per component and cluster.
    seed : int
        Of the starts.

    Raises
    ------
    InputError
        If there are fewer vectors than clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if len(vectors) < count:
        msg = (
            f"objective.clusters: {len(vectors):,} training vectors make no {count} "
            "clusters: choose fewer."
        )
        raise InputError(msg)
    with torch.inference_mode():
        table = components(torch.from_numpy(some_rows(vectors))).numpy()
    table = table.astype(np.float64)
    with warnings.catch_warnings():
        # Fewer different vectors than clusters, as with a blank partner: so be it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if kind == "kmeans":
            fit = KMeans(count, n_init=_STARTS, random_state=seed).fit(table)
            variance = max(fit.inertia_ / table.size, _LEAST_VARIANCE)
            means = fit.cluster_centers_
            alike = np.full(count, 1 / count)
            return Clusters(components, means, np.full_like(means, variance), alike)
        mixture = GaussianMixture(
            count,
            covariance_type="diag",
            n_init=_STARTS,
            reg_covar=_LEAST_VARIANCE,
            random_state=seed,
        ).fit(table)
    return Clusters(components, mixture.means_, mixture.covariances_, mixture.weights_)
