"""Vectors of a partner (genes, cached features), as principal components.

What is fitted to the training pairs becomes part of the net and of its checkpoints: a
run that continues uses what it began with, to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Tensor = torch.Tensor
    Floats = npt.NDArray[np.float32]

MOST_ROWS = 20_000
"""Vectors that something is fitted to; of more, evenly spaced ones."""

_NOTHING = 1e-9
"""Share of the largest variance below which a component holds rounding only."""


class Components(nn.Module):
    """Standardised vectors on their principal axes.

    Parameters
    ----------
    centre, scale : ndarray
        ``(d,)``: what is subtracted, and then divided by.
    axes : ndarray
        ``(d, k)``, one column per component.
    """

    def __init__(
        self,
        centre: npt.NDArray[np.floating],
        scale: npt.NDArray[np.floating],
        axes: npt.NDArray[np.floating],
    ) -> None:
        super().__init__()
        for name, values in (("centre", centre), ("scale", scale), ("axes", axes)):
            kept = torch.from_numpy(np.ascontiguousarray(values, np.float32))
            self.register_buffer(name, kept)
        self.centre: Tensor
        self.scale: Tensor
        self.axes: Tensor

    @property
    def count(self) -> int:
        """Number of components."""
        return self.axes.shape[1]

    def standardised(self, vectors: Tensor) -> Tensor:
        """Return ``(n, d)`` of mean 0 and variance 1 over the training pairs."""
        return (vectors.float() - self.centre) / self.scale

    def turned(self, standardised: Tensor) -> Tensor:
        """Return the components ``(n, k)`` of standardised vectors, in float32."""
        with torch.autocast(standardised.device.type, enabled=False):
            return standardised.float() @ self.axes

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the components ``(n, k)`` of vectors ``(n, d)``."""
        return self.turned(self.standardised(vectors))


def fit_components(vectors: Floats, count: int, *, whiten: bool) -> Components:
    """Fit principal components to the training pairs.

    Parameters
    ----------
    vectors : ndarray
        ``(n, d)`` float32. Values that never change stay 0.
    count : int
        Number of components, the largest first.
    whiten : bool
        Whether each component has variance 1 over these vectors.

    Raises
    ------
    InputError
        If there are fewer vectors, or values in each, than components.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    rows, width = vectors.shape
    if count > min(rows, width):
        msg = (
            f"dense.components: there are no {count} components of {rows:,} training "
            f"vectors of {width:,} values: at most {min(rows, width):,}."
        )
        raise InputError(msg)
    vectors = some_rows(vectors).astype(np.float64)
    scaler = StandardScaler().fit(vectors)
    with np.errstate(invalid="ignore", divide="ignore"):  # a blank partner varies by 0
        fit = PCA(count, svd_solver="covariance_eigh").fit(scaler.transform(vectors))
    axes = fit.components_.T
    if whiten:
        spread = np.maximum(fit.explained_variance_, 0)
        real = spread > _NOTHING * max(spread.max(), np.finfo(np.float64).tiny)
        axes = axes * np.where(real, 1 / np.sqrt(np.where(real, spread, 1)), 0)
    return Components(scaler.mean_, scaler.scale_, axes)


def some_rows(vectors: Floats) -> Floats:
    """Return vectors, or evenly spaced ones if there are very many."""
    if len(vectors) <= MOST_ROWS:
        return vectors
    places = np.linspace(0, len(vectors) - 1, MOST_ROWS).round().astype(np.intp)
    return vectors[places]
