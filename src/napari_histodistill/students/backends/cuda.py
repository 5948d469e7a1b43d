"""Batches to a CUDA card and back, overlapping copies and computation.

Written with care, but not yet run on a CUDA card.

The engine calls the backend from two threads (its *streams*). Each has a *lane* of its
own: pinned memory for pixels and embeddings, and a CUDA stream. While the batch of one
lane is computed, the pixels of the other are copied. That is all there is to the double
buffering; the lanes do not know of each other.

With ``HISTODISTILL_CUDA_GRAPHS=1``, a lane records its first full batch as a CUDA graph
and replays it: one launch instead of hundreds, for small students whose kernels take
less time than their launches. Smaller batches are padded and the surplus is dropped.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import numpy.typing as npt

    Forward = Callable[[torch.Tensor], torch.Tensor]

STREAMS = 2
GRAPHS = "HISTODISTILL_CUDA_GRAPHS"
_WARM_UP = 3


class Lanes:
    """One lane for each thread that calls.

    Parameters
    ----------
    device : str
        torch's name of the card.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._mine = threading.local()

    def run(
        self, batch: npt.NDArray[np.uint8], what: Hashable, forward: Forward
    ) -> npt.NDArray[np.float32]:
        """Return ``forward(batch)`` as float32.

        Parameters
        ----------
        batch : ndarray
            ``(n, h, w, 3)`` uint8.
        what : hashable
            Identifies what ``forward`` computes, to keep its graphs apart.
        forward : callable
            Takes uint8 on the card and returns any float type on the card. It is
            recorded if graphs are enabled, so it must do the same for every batch.
        """
        lane = getattr(self._mine, "lane", None)
        if lane is None:
            lane = self._mine.lane = _Lane(self._device)
        return lane.run(batch, what, forward)

    def release(self) -> None:
        """Return unused memory to the card, including this thread's graphs."""
        self._mine.lane = None
        torch.cuda.empty_cache()


class _Lane:
    """A CUDA stream with pinned memory for its input and its output."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pixels = _pinned((0,), torch.uint8)
        self._found = _pinned((0,), torch.float32)
        self._graphs: dict[tuple[object, ...], _Graph] = {}
        self._wants_graphs = os.environ.get(GRAPHS, "") == "1"

    def run(
        self, batch: npt.NDArray[np.uint8], what: Hashable, forward: Forward
    ) -> npt.NDArray[np.float32]:
        if self._pixels.numel() < batch.size:
            self._pixels = _pinned((batch.size,), torch.uint8)
        source = self._pixels[: batch.size].view(batch.shape)
        np.copyto(source.numpy(), batch)
        with torch.cuda.stream(self._stream):
            raw = source.to(self._device, non_blocking=True)
            found = self._computed(raw, what, forward).float()
            if self._found.numel() < found.numel():
                self._found = _pinned((found.numel(),), torch.float32)
            target = self._found[: found.numel()].view(found.shape)
            target.copy_(found, non_blocking=True)
        self._stream.synchronize()
        result: npt.NDArray[np.float32] = target.numpy().copy()
        return result

    def _computed(
        self, raw: torch.Tensor, what: Hashable, forward: Forward
    ) -> torch.Tensor:
        if not self._wants_graphs:
            return forward(raw)
        key = (what, *raw.shape[1:])
        graph = self._graphs.get(key)
        if graph is None or graph.room < len(raw):
            graph = self._graphs[key] = _Graph(raw, forward, self._stream)
        return graph.replay(raw)


class _Graph:
    """One forward pass of a fixed shape, recorded."""

    def __init__(
        self, raw: torch.Tensor, forward: Forward, stream: torch.cuda.Stream
    ) -> None:
        self.room = len(raw)
        self._raw = raw.clone()
        for _ in range(_WARM_UP):  # lets cuDNN choose its kernels before the recording
            forward(self._raw)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Thread-local: the other lane may allocate while this one records.
        with torch.cuda.graph(
            self._graph, stream=stream, capture_error_mode="thread_local"
        ):
            self._found = forward(self._raw)

    def replay(self, raw: torch.Tensor) -> torch.Tensor:
        self._raw[: len(raw)].copy_(raw)
        self._graph.replay()
        return self._found[: len(raw)]


def _pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)
