"""The head: a linear classifier on embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Head:
    """Multinomial logistic regression: ``softmax((x @ weight.T + bias) / T)``.

    Attributes
    ----------
    weight : ndarray
        ``(classes, dim)`` float32.
    bias : ndarray
        ``(classes,)`` float32.
    temperature : float
        Divides the logits for calibration (Guo et al. 2017, *On Calibration of Modern
        Neural Networks*).
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        classes, _dim = self.weight.shape
        if self.bias.shape != (classes,):
            msg = f"head: {classes} classes need as many biases, not {self.bias.shape}."
            raise InputError(msg)
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            msg = "head: weights that are not finite"
            raise InputError(msg)

    def probabilities(
        self, embeddings: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.float32]:
        """Return class probabilities ``(…, classes)`` for embeddings ``(…, dim)``."""
        logits = embeddings.astype(np.float32, copy=False) @ self.weight.T + self.bias
        logits /= self.temperature
        logits -= logits.max(axis=-1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=-1, keepdims=True)
        return logits
