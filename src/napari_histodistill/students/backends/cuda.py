"""Batches to a CUDA card and back, overlapping copies and computation.

Written with care and tested on an imitated card, but not yet run on a real one.

The engine calls the backend from two threads. The backend has two *lanes*, and a call
takes the one that is free: a CUDA stream with pinned memory for pixels and embeddings.
While the batch of one lane is computed, the pixels of the other are copied. That is all
there is to the double buffering. The lanes belong to the backend, not to the threads:
torch keeps memory per stream, so lanes that came and went with the threads of each run
would hold more of the card after every run.

With ``HISTODISTILL_CUDA_GRAPHS=1``, a lane records the forward pass once for each of a
few sizes of batch (:data:`.cuda_graphs.SIZES`) and replays it, for small students whose
kernels take less time than their launches.
"""

from __future__ import annotations

import os
from queue import Empty, LifoQueue
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from napari_histodistill.students.backends.cuda_graphs import (
    GATE,
    Graph,
    recorded_size,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy.typing as npt

    from napari_histodistill.students.backends.cuda_graphs import Forward

    Recorded = dict[tuple[Hashable, ...], Graph | None]

STREAMS = 2
GRAPHS = "HISTODISTILL_CUDA_GRAPHS"


class Lanes:
    """Two lanes to one card, for all threads.

    Parameters
    ----------
    device : str
        torch's name of the card.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._lanes = tuple(_Lane(device) for _ in range(STREAMS))
        self._idle: LifoQueue[_Lane] = LifoQueue()
        for lane in self._lanes:
            self._idle.put(lane)

    def settle(self) -> None:
        """Wait until all that was laid on the card can be seen by the lanes.

        Weights are laid out on the default stream, for which no lane waits.
        """
        with GATE.shared():
            torch.cuda.synchronize(self._device)

    def run(
        self,
        batch: npt.NDArray[np.uint8],
        owner: object,
        what: Hashable,
        forward: Forward,
    ) -> npt.NDArray[np.float32]:
        """Return ``forward(batch)`` as float32.

        Parameters
        ----------
        batch : ndarray
            ``(n, h, w, 3)`` uint8.
        owner : object
            Its graphs are freed with it.
        what : hashable
            Identifies what ``forward`` computes for the owner; None if it is not worth
            a graph.
        forward : callable
            Takes uint8 on the card and returns any float type on the card. It is
            recorded if graphs are enabled, so it must do the same for every batch.

        Raises
        ------
        RuntimeError
            Of torch, also if memory runs out; the lane can be used again.
        """
        lane = self._idle.get()
        try:
            return lane.run(batch, owner, what, forward)
        finally:
            self._idle.put(lane)

    def release(self) -> None:
        """Return unused memory to the card, including recorded graphs."""
        for lane in self._lanes:
            lane.is_stale = True
        idle = []
        try:
            while True:
                idle.append(self._idle.get_nowait())
        except Empty:  # the others see that they are stale before their next batch
            for lane in idle:
                lane.forget()
                self._idle.put(lane)
        with GATE.shared():
            torch.cuda.empty_cache()

    def take_note(self) -> str:
        """Return, once, why there is no graph where one was wanted."""
        notes = [lane.note for lane in self._lanes if lane.note]
        for lane in self._lanes:
            lane.note = ""
        return notes[0] if notes else ""


class _Lane:
    """A CUDA stream with pinned memory for its input and its output."""

    def __init__(self, device: str) -> None:
        self.note, self.is_stale = "", False
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # Blocking: a thread that waits sleeps instead of spinning on a core.
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._pixels = _pinned((0,), torch.uint8)
        self._found = _pinned((0,), torch.float32)
        self._wants_graphs = os.environ.get(GRAPHS, "") == "1"
        self._pool: Any = None
        self._graphs: WeakKeyDictionary[object, Recorded] = WeakKeyDictionary()

    def run(
        self,
        batch: npt.NDArray[np.uint8],
        owner: object,
        what: Hashable,
        forward: Forward,
    ) -> npt.NDArray[np.float32]:
        if self.is_stale:
            self.forget()
        graph = self._graph(batch.shape, owner, what, forward)
        with GATE.shared():
            try:
                with torch.cuda.stream(self._stream):
                    target = self._computed(batch, graph, forward)
            finally:
                # After an error, too: the copy of the pixels may be on its way, and
                # the next batch is written to the same memory.
                self._done.record(self._stream)
                self._done.synchronize()
        result: npt.NDArray[np.float32] = target.numpy().copy()
        return result

    def forget(self) -> None:
        """Free the graphs."""
        self._graphs.clear()
        self.is_stale = False

    def _computed(
        self, batch: npt.NDArray[np.uint8], graph: Graph | None, forward: Forward
    ) -> torch.Tensor:
        """Return pinned memory into which the result is being copied."""
        if self._pixels.numel() < batch.size:
            self._pixels = _pinned((batch.size,), torch.uint8)
        source = self._pixels[: batch.size].view(batch.shape)
        np.copyto(source.numpy(), batch)
        if graph is None:
            found = forward(source.to(self._device, non_blocking=True))
        else:
            found = graph.replay(source)
        if self._found.numel() < found.numel():
            self._found = _pinned((found.numel(),), torch.float32)
        target = self._found[: found.numel()].view(found.shape)
        return target.copy_(found.float(), non_blocking=True)

    def _graph(
        self, shape: tuple[int, ...], owner: object, what: Hashable, forward: Forward
    ) -> Graph | None:
        """Return the graph to replay, recorded now if need be; None for none."""
        size = recorded_size(shape[0])
        if not self._wants_graphs or what is None or size is None:
            return None
        mine = self._graphs.setdefault(owner, {})
        key = (what, size, *shape[1:])
        if key not in mine:
            mine[key] = self._recorded((size, *shape[1:]), forward)
        return mine[key]

    def _recorded(self, shape: tuple[int, ...], forward: Forward) -> Graph | None:
        with GATE.alone():
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            try:
                return Graph(shape, self._device, forward, self._stream, self._pool)
            except RuntimeError as error:
                words = (str(error).strip().splitlines() or ["no message"])[0]
        self.note = f"computing without a CUDA graph, which failed: {words}"
        return None


def _pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)
