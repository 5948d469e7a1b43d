"""From the host to a device: without a wait, and no more often than needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Rows = npt.NDArray[np.intp]
    Tensor = torch.Tensor
    Parts = dict[str, Tensor]

_ALIGNED = 16
"""Bytes that every part begins at a multiple of, as any type of numbers needs."""


def room_for_pairs(device: str) -> int:
    """Return how many bytes of pairs may stay on a device for a whole run.

    Half of what a card has free; nothing elsewhere, where a batch is picked in memory
    that the device reads anyway.
    """
    if not device.startswith("cuda"):
        return 0
    return int(torch.cuda.mem_get_info(device)[0]) // 2


def moved(values: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Return values on a device, in a copy that nobody waits for."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        # Pinned memory lets the copy run beside the arithmetic.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def sent(groups: Sequence[Parts], device: torch.device) -> list[Parts]:
    """Return small tensors on a device, in one copy that nobody waits for.

    Parameters
    ----------
    groups : sequence of dict of str to Tensor
        On the host, of any type; what belongs together has one dictionary.
    device : torch.device
        Where to.
    """
    if device.type == "cpu":
        return list(groups)
    flat = [
        part.contiguous().view(-1).view(torch.uint8)
        for group in groups
        for part in group.values()
    ]
    # As bytes: a number of a pair has more digits than a float32.
    starts = np.cumsum([0, *(-(-len(f) // _ALIGNED) * _ALIGNED for f in flat)]).tolist()
    whole = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, part in zip(starts, flat, strict=False):  # the last start is the end
        whole[start : start + len(part)] = part
    there = whole.to(device, non_blocking=True)
    found = iter(
        there[start : start + len(part)]
        for start, part in zip(starts, flat, strict=False)
    )
    return [
        {
            name: next(found).view(part.dtype).view(part.shape)
            for name, part in group.items()
        }
        for group in groups
    ]


class Values:
    """Values of all pairs: on the device for a whole run, or sent batch by batch.

    Parameters
    ----------
    values : ndarray
        ``(n, …)``, a row per pair.
    device : torch.device
        Where batches are needed.
    kind : type
        Type of the numbers there.

    Attributes
    ----------
    size : int
        Bytes that all of them take on the device.
    """

    def __init__(
        self,
        values: npt.NDArray[np.generic],
        device: torch.device,
        kind: type[np.generic] = np.uint8,
    ) -> None:
        self._values, self._device, self._kind = values, device, kind
        self._there: Tensor | None = None
        self.size = values.size * np.dtype(kind).itemsize

    def stay(self) -> None:
        """Put all of them on the device."""
        whole = np.require(self._values, self._kind, ["C", "W"])
        self._there = torch.from_numpy(whole).to(self._device)

    def take(self, rows: Rows, there: Tensor) -> Tensor:
        """Return some rows on the device, which are named on the host and there."""
        if self._there is not None:
            return self._there[there]
        picked = np.ascontiguousarray(self._values[rows], self._kind)
        return moved(picked, self._device)
