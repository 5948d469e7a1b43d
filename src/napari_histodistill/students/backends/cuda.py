"""Batches to a CUDA card and back, overlapping copies and computation.

Written with care and tested on an imitated card, but not yet run on a real one.

Pixels come as tiles, or as a window of a level of the slide, which is resampled on the
card and from which tiles are cut there.

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
from napari_histodistill.students.backends.resampling import LaidTiles, lay_window

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.resample import LevelWindow
    from napari_histodistill.students.backends.cuda_graphs import Forward
    from napari_histodistill.students.backends.resampling import LaidWindow

    Recorded = dict[tuple[Hashable, ...], Graph | None]

STREAMS = 2
STAGED_BYTES = 2**25
"""Bytes of a window that are copied at a time, through pinned memory of each lane."""

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

    def lay(self, window: LevelWindow) -> LaidWindow:
        """Resample a window on the card.

        It may be used by either lane: it is finished when this returns, and every
        batch that is cut from it is finished when :meth:`run` does.

        Parameters
        ----------
        window : LevelWindow
            Pixels of a level, and which rectangle of them is wanted at what size.

        Raises
        ------
        RuntimeError
            Of torch, also if memory runs out; the lane can be used again.
        """
        lane = self._idle.get()
        try:
            return lane.lay(window)
        finally:
            self._idle.put(lane)

    def run(
        self,
        batch: npt.NDArray[np.uint8] | LaidTiles,
        owner: object,
        what: Hashable,
        forward: Forward,
    ) -> npt.NDArray[np.float32]:
        """Return ``forward(batch)`` as float32.

        Parameters
        ----------
        batch : ndarray or LaidTiles
            ``(n, h, w, 3)`` uint8, or tiles of a window on the card.
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
        self._places = _pinned((0,), torch.int64)
        self._wants_graphs = os.environ.get(GRAPHS, "") == "1"
        self._pool: Any = None
        self._graphs: WeakKeyDictionary[object, Recorded] = WeakKeyDictionary()

    def lay(self, window: LevelWindow) -> LaidWindow:
        if self.is_stale:
            self.forget()
        with GATE.shared():
            try:
                with torch.cuda.stream(self._stream):
                    return lay_window(window, self._device, self._uploaded)
            finally:
                self._wait()

    def run(
        self,
        batch: npt.NDArray[np.uint8] | LaidTiles,
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
                self._wait()
        result: npt.NDArray[np.float32] = target.numpy().copy()
        return result

    def forget(self) -> None:
        """Free the graphs."""
        self._graphs.clear()
        self.is_stale = False

    def _wait(self) -> None:
        """Wait until all that this lane has begun is done."""
        self._done.record(self._stream)
        self._done.synchronize()

    def _uploaded(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Copy a window, of any strides, to the card: some rows at a time."""
        found = torch.empty(pixels.shape, dtype=torch.uint8, device=self._device)
        rows = max(1, STAGED_BYTES // max(1, pixels[:1].size))
        for top in range(0, len(pixels), rows):
            staged = self._staged(pixels[top : top + rows])
            found[top : top + rows].copy_(staged, non_blocking=True)
            self._wait()  # before its pinned memory is written again
        return found

    def _staged(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return a copy of pixels in this lane's pinned memory."""
        if self._pixels.numel() < pixels.size:
            self._pixels = _pinned((pixels.size,), torch.uint8)
        staged = self._pixels[: pixels.size].view(pixels.shape)
        np.copyto(staged.numpy(), pixels)
        return staged

    def _cut(self, tiles: LaidTiles) -> torch.Tensor:
        """Return tiles of a window on the card, cut there."""
        if self._places.numel() < len(tiles):
            self._places = _pinned((len(tiles),), torch.int64)
        places = self._places[: len(tiles)]
        np.copyto(places.numpy(), tiles.places)
        return tiles.cut(places.to(self._device, non_blocking=True))

    def _computed(
        self,
        batch: npt.NDArray[np.uint8] | LaidTiles,
        graph: Graph | None,
        forward: Forward,
    ) -> torch.Tensor:
        """Return pinned memory into which the result is being copied."""
        if isinstance(batch, LaidTiles):
            source = self._cut(batch)
        else:
            source = self._staged(batch)
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
