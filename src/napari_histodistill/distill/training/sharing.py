"""Sharing of a batch among processes: the interface, and the case of one process.

The case with several processes is in ``parallel.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from numpy import intp

    from napari_histodistill.distill.training.networks import DistillNet

    Rows = npt.NDArray[intp]


class Processes(Protocol):
    """One member of a group of processes that train one net together."""

    rank: int
    world: int

    def wrap(
        self, net: DistillNet, optimiser: torch.optim.Optimizer
    ) -> torch.nn.Module:
        """Return the net to call: it joins gradients over all processes."""
        ...

    def share(self, rows: Rows) -> Rows:
        """Return this process's part of a batch."""
        ...

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the joined batch ``(N, d)`` of ``(n, d)``, with gradients."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients."""
        ...

    def agree(self, value: int) -> int:
        """Return the first process's value; all must call this at the same step."""
        ...


class Alone:
    """A single process."""

    rank = 0
    world = 1

    def wrap(
        self,
        net: DistillNet,
        optimiser: torch.optim.Optimizer,  # noqa: ARG002 - others need it
    ) -> torch.nn.Module:
        """Return the net itself."""
        return net

    def share(self, rows: Rows) -> Rows:
        """Return all."""
        return rows

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the batch itself."""
        return values

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def agree(self, value: int) -> int:
        """Return the value."""
        return value
