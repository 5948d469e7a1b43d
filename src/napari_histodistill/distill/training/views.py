"""From pairs to the inputs of the branches at one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_histodistill.distill.pairs.batches import torch_stream
from napari_histodistill.distill.training.augment import Augment
from napari_histodistill.distill.training.moving import Values, sent
from napari_histodistill.distill.training.networks import Inputs
from napari_histodistill.distill.training.teacher import teacher_features

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.loading import PairSet
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.training.moving import Parts
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


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """A partner's values, and what becomes of them.

    Attributes
    ----------
    values : Values
        Images, vectors, or features of every view in turn.
    views : int
        Stored views of every pair, of which one is drawn; 1 if nothing is drawn.
    augment : Augment or None
        For images.
    channels : int
        Of its images.
    """

    values: Values
    views: int = 1
    augment: Augment | None = None
    channels: int = 0

    def draw(self, rows: Rows, generator: torch.Generator) -> Parts:
        """Return which values are needed, as ``at``, and what is drawn for them."""
        at = torch.from_numpy(rows.astype(np.int64))
        if self.views > 1:
            which = torch.randint(self.views, (len(rows),), generator=generator)
            at = at * self.views + which
        if self.augment is None:
            return {"at": at}
        drawn = self.augment.draw(len(rows), self.channels, generator)
        return {"at": at, **drawn}

    def view(self, here: Parts, there: Parts) -> Tensor:
        """Return the view that was drawn: on the host, and on the device."""
        values = self.values.take(here["at"].numpy(), there["at"])
        if self.augment is None:
            return values
        return self.augment.apply(values.permute(0, 3, 1, 2), there)


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
    room : int
        Bytes of pairs that may stay on the device; of more, every batch is sent there.

    Attributes
    ----------
    size : int
        Bytes that all pairs take on the device.
    stays : bool
        Whether they are there.
    """

    def __init__(
        self,
        config: DistillConfig,
        pairs: PairSet,
        *,
        home: Path,
        device: str,
        cancel: CancelToken,
        room: int = 0,
    ) -> None:
        self.pairs = pairs
        self._device = torch.device(device)
        preset = config.augmentation
        self._sparse_views = config.sparse_views
        view_px = config.sparse.view_px or config.sparse.input_px
        self._sparse = Augment(preset, kind="image", out_px=view_px)
        self._pixels = Values(pairs.sparse, self._device)
        self._branches: list[_Branch] = []
        self._features: list[npt.NDArray[np.float32] | None] = []
        for dense, partner in zip(config.dense, pairs.partners, strict=True):
            features = None
            if dense.frozen_views:
                features = teacher_features(
                    config, dense, partner, home=home, device=device, cancel=cancel
                )
                features = features.reshape(-1, features.shape[2])
                branch = _Branch(self._vectors(features), dense.frozen_views)
            elif partner.kind == "expression":
                branch = _Branch(self._vectors(partner.values))
            else:
                augment = Augment(preset, kind=partner.kind, out_px=dense.input_px)
                images = Values(partner.values, self._device)
                channels = partner.values.shape[3]
                branch = _Branch(images, augment=augment, channels=channels)
            self._features.append(features)
            self._branches.append(branch)
        # A few bytes a pair: these are on the device in any case.
        labels = pairs.labels
        self._labels = None if labels is None else self._whole(labels, np.int64)
        self._confidence = self._whole(pairs.confidence, np.float32)
        held = [self._pixels, *(branch.values for branch in self._branches)]
        self.size = sum(values.size for values in held)
        self.stays = self.size <= room
        if self.stays:
            for values in held:
                values.stay()

    @property
    def inputs(self) -> tuple[Inputs, ...]:
        """The input of each partner's branch."""
        found = []
        for partner, features in zip(self.pairs.partners, self._features, strict=True):
            if features is not None:
                found.append(Inputs("features", features.shape[1], features))
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
        sparse = [
            self._sparse.draw(len(rows), 3, torch_stream(*seed, view))
            for view in range(self._sparse_views)
        ]
        partners = [
            branch.draw(rows, torch_stream(*seed, 2 + k))
            for k, branch in enumerate(self._branches)
        ]
        # All that is drawn goes to the device together.
        which = {"rows": torch.from_numpy(rows.astype(np.int64))}
        (chosen, *there) = sent([which, *sparse, *partners], self._device)
        places = chosen["rows"]
        pixels = self._pixels.take(rows, places).permute(0, 3, 1, 2)
        first = self._sparse_views
        return StepInputs(
            tuple(self._sparse.apply(pixels, parts) for parts in there[:first]),
            tuple(
                branch.view(here, parts)
                for branch, here, parts in zip(
                    self._branches, partners, there[first:], strict=True
                )
            ),
            None if self._labels is None else self._labels[places],
            self._confidence[places],
            places,
        )

    def _vectors(self, values: npt.NDArray[np.floating]) -> Values:
        return Values(values, self._device, np.float32)

    def _whole(self, values: npt.NDArray[np.generic], kind: type[np.generic]) -> Tensor:
        return torch.from_numpy(values.astype(kind)).to(self._device)
