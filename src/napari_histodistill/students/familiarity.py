"""Familiarity: whether tissue resembles what a student was trained on.

A student gives an answer for any pixels. Its training data are remembered as a Gaussian
in embedding space, and an embedding far out is called unfamiliar: its class may be
right, but no measurement supports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    AnyFloats = npt.NDArray[np.floating]

PERCENTILE = 99.0
"""Percentage of embeddings of unseen cases of the training data that are familiar."""

_EXPLAINED = 0.95
_MOST = 64
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """A Gaussian with few principal directions (probabilistic PCA) and a threshold.

    Attributes
    ----------
    mean : ndarray
        ``(dim,)`` float32.
    basis : ndarray
        ``(components, dim)`` float32: principal directions, each divided by the
        standard deviation along it.
    noise : float
        Variance in each direction that the components do not span.
    threshold : float
        Distances above it are unfamiliar.
    protocol : str
        How the threshold was measured.
    """

    mean: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]
    noise: float
    threshold: float
    protocol: str

    def distance(self, embeddings: AnyFloats) -> npt.NDArray[np.float32]:
        """Return how far embeddings lie from the training data.

        This is the Mahalanobis distance under probabilistic PCA (Tipping & Bishop
        1999), divided by the square root of the dimension: about 1 for the training
        data. Its use to detect unfamiliar inputs follows Lee et al. 2018, *A simple
        unified framework for detecting out-of-distribution samples*.

        Parameters
        ----------
        embeddings : ndarray
            ``(…, dim)``.

        Returns
        -------
        ndarray
            ``(…)`` float32, no unit.
        """
        centred = embeddings.astype(np.float32) - self.mean
        whitened = centred @ self.basis.T
        # The squared length of a basis row is 1 / variance, so this is the part of the
        # embedding that the components span.
        scale = 1 / np.maximum((self.basis**2).sum(axis=1), 1e-12)
        spanned = (whitened**2 * scale).sum(axis=-1)
        rest = np.maximum((centred**2).sum(axis=-1) - spanned, 0) / self.noise
        squared = (whitened**2).sum(axis=-1) + rest
        found: npt.NDArray[np.float32] = np.sqrt(squared / centred.shape[-1])
        return found

    def unfamiliar(self, embeddings: AnyFloats) -> npt.NDArray[np.bool_]:
        """Return which embeddings ``(…, dim)`` lie beyond the threshold, ``(…)``."""
        far: npt.NDArray[np.bool_] = self.distance(embeddings) > self.threshold
        return far


def fit_familiarity(
    train: AnyFloats, groups: npt.NDArray[np.generic], *, held: AnyFloats | None = None
) -> Familiarity:
    """Fit the Gaussian to training embeddings, and the threshold to unseen cases.

    Parameters
    ----------
    train : ndarray
        ``(n, dim)``, n ≥ 2.
    groups : ndarray
        ``(n,)``, the case of each embedding.
    held : ndarray or None
        ``(m, dim)``, embeddings of cases that the encoder was not trained on. Without
        them, each case is measured against the Gaussian of the others; as the encoder
        has seen all of them, the threshold then comes out low.

    Raises
    ------
    InputError
        If the embeddings are too few or all alike.
    """
    mean, basis, noise = _gaussian(train)
    if held is not None and len(held):
        model = Familiarity(mean, basis, noise, np.inf, "")
        distances = model.distance(held)
        how = f"{PERCENTILE:g} % of {len(held)} tiles of unseen cases lie within"
    else:
        distances = _between_cases(train, groups)
        how = f"{PERCENTILE:g} % of the training tiles lie within, each case left out"
    threshold = float(np.percentile(distances, PERCENTILE))
    return Familiarity(mean, basis, noise, threshold, how)


def _between_cases(train: AnyFloats, groups: npt.NDArray[np.generic]) -> AnyFloats:
    _, member = np.unique(groups, return_inverse=True)
    fold = member.reshape(-1) % _FOLDS
    distances = np.empty(len(train), np.float32)
    for k in np.unique(fold):
        others = fold != k
        if others.sum() < 2:
            others[:] = True
        model = Familiarity(*_gaussian(train[others]), np.inf, "")
        distances[fold == k] = model.distance(train[fold == k])
    return distances


def _gaussian(
    values: AnyFloats,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    count, dim = values.shape
    mean = values.mean(axis=0, dtype=np.float64)
    centred = values.astype(np.float64) - mean
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    variances = lengths**2 / max(count - 1, 1)
    total = variances.sum()
    if count < 2 or not total > 0:
        msg = (
            "familiarity: the training embeddings are too few or all alike: train on "
            "more tiles."
        )
        raise InputError(msg)
    explained = np.cumsum(variances) / total
    # Enough components to explain most of the variance, but at least one direction is
    # left to the noise.
    keep = min(
        int(np.searchsorted(explained, _EXPLAINED)) + 1, _MOST, dim - 1, count - 1
    )
    rest = max(total - variances[:keep].sum(), 1e-6 * total)
    noise = float(rest / (dim - keep))
    basis = directions[:keep] / np.sqrt(np.maximum(variances[:keep], noise))[:, None]
    return mean.astype(np.float32), basis.astype(np.float32), noise
