"""From pairs to the inputs of the branches at one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_histodistill.distill.pairs.batches import torch_stream
from napari_histodistill.distill.training.augment import Augment
from napari_histodistill.distill.training.networks import Inputs
from napari_histodistill.distill.training.teacher import teacher_features

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.loading import PairSet
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.running import CancelToken

    Rows = npt.NDArray[np.intp]
    Tensor = torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class StepInputs:
    """One batch on its device.

    Attributes
    ----------
    sparse : tuple of Tensor
        Views ``(n, 3, input_px, input_px)`` in 0..1; one or two.
    partners : tuple of Tensor
        A view of every partner: images, tables ``(n, genes)``, or features.
    labels : Tensor or None
        ``(n,)``.
    confidence : Tensor
        ``(n,)`` in (0, 1].
    rows : Tensor
        ``(n,)`` int64, which pair each row is.
    """

    sparse: tuple[Tensor, ...]
    partners: tuple[Tensor, ...]
    labels: Tensor | None
    confidence: Tensor
    rows: Tensor


class Views:
    """Makes a step's inputs out of pairs.

    Parameters
    ----------
    config : DistillConfig
        Recipe, for its arm, sizes and augmentation.
    pairs : PairSet
        Pairs to draw from.
    home : Path
        Folder that a frozen encoder's ``start`` is relative to.
    device : str
        Name of a torch device.
    cancel : CancelToken
        Checked while features of a frozen encoder are computed.
    """

    def __init__(
        self,
        config: DistillConfig,
        pairs: PairSet,
        *,
        home: Path,
        device: str,
        cancel: CancelToken,
    ) -> None:
        self.pairs = pairs
        self._device = device
        preset = config.augmentation
        self._sparse_views = config.sparse_views
        view_px = config.sparse.view_px or config.sparse.input_px
        self._sparse = Augment(preset, kind="image", out_px=view_px)
        self._augments: list[Augment | None] = []
        self._features: list[npt.NDArray[np.float32] | None] = []
        for dense, partner in zip(config.dense, pairs.partners, strict=True):
            features = augment = None
            if dense.frozen_views:
                features = teacher_features(
                    config, dense, partner, home=home, device=device, cancel=cancel
                )
            elif partner.kind != "expression":
                augment = Augment(preset, kind=partner.kind, out_px=dense.input_px)
            self._features.append(features)
            self._augments.append(augment)

    @property
    def inputs(self) -> tuple[Inputs, ...]:
        """The input of each partner's branch."""
        found = []
        for partner, features in zip(self.pairs.partners, self._features, strict=True):
            if features is not None:
                flat = features.reshape(-1, features.shape[2])
                found.append(Inputs("features", flat.shape[1], flat))
            elif partner.kind == "expression":
                table = partner.values
                found.append(Inputs("expression", table.shape[1], table))
            else:
                found.append(Inputs("image", partner.values.shape[3]))
        return tuple(found)

    def draw(self, rows: Rows, *seed: int) -> StepInputs:
        """Return freshly augmented views of some pairs.

        Parameters
        ----------
        rows : ndarray
            ``(n,)``, indices of the pairs.
        *seed : int
            Key of the random stream; every branch draws its own numbers from it.
        """
        pixels = self._pixels(self.pairs.sparse[rows])
        sparse = tuple(
            self._sparse(pixels, torch_stream(*seed, view))
            for view in range(self._sparse_views)
        )
        partners = tuple(
            self._partner(k, rows, (*seed, 2 + k))
            for k in range(len(self.pairs.partners))
        )
        labels = self.pairs.labels
        return StepInputs(
            sparse,
            partners,
            None if labels is None else self._moved(labels[rows].astype(np.int64)),
            self._moved(self.pairs.confidence[rows]),
            self._moved(rows.astype(np.int64)),
        )

    def _partner(self, k: int, rows: Rows, seed: tuple[int, ...]) -> Tensor:
        features, augment = self._features[k], self._augments[k]
        values = self.pairs.partners[k].values
        if features is not None:
            drawn = torch.randint(
                features.shape[1], (len(rows),), generator=torch_stream(*seed)
            )
            return self._moved(features[rows, drawn.numpy()])
        if augment is None:
            return self._moved(values[rows].astype(np.float32))
        return augment(self._pixels(values[rows]), torch_stream(*seed))

    def _pixels(self, pictures: npt.NDArray[np.uint8]) -> Tensor:
        """Return ``(n, c, h, w)`` uint8 on the device."""
        return self._moved(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)

    def _moved(self, values: npt.NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self._device.startswith("cuda"):
            # Pinned memory lets the copy run beside the arithmetic.
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)
