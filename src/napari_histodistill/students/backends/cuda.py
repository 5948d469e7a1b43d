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
"""Bytes of a window that are copied at a time, through two pieces of pinned memory in
turn: while one of them is copied, the other is filled."""

GRAPHS = "HISTODISTILL_CUDA_GRAPHS"


def wants_graphs() -> bool:
    """Return whether forward passes are to be recorded: the environment says so."""
    return os.environ.get(GRAPHS, "") == "1"


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
        self._pixels = tuple(_Staging(self._stream) for _ in range(2))
        self._table = _Staging(self._stream)
        self._found = _pinned((0,), torch.float32)
        self._wants_graphs = wants_graphs()
        self._pool: Any = None
        self._graphs: WeakKeyDictionary[object, Recorded] = WeakKeyDictionary()

    def lay(self, window: LevelWindow) -> LaidWindow:
        if self.is_stale:
            self.forget()
        with GATE.shared():
            try:
                with torch.cuda.stream(self._stream):
                    return lay_window(window, self._uploaded, self._placed)
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
        for staging in (*self._pixels, self._table):
            staging.is_busy = False

    def _uploaded(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Copy a window, of any strides, to the card: some rows at a time."""
        found = torch.empty(pixels.shape, dtype=torch.uint8, device=self._device)
        rows = max(1, STAGED_BYTES // max(1, pixels[:1].size))
        for k, top in enumerate(range(0, len(pixels), rows)):
            band = slice(top, top + rows)
            self._pixels[k % 2].send(pixels[band], found[band])
        return found

    def _placed(self, table: npt.NDArray[Any]) -> torch.Tensor:
        """Copy a small array to the card."""
        staged = self._table.filled(table)
        return staged.to(self._device, non_blocking=True)

    def _computed(
        self,
        batch: npt.NDArray[np.uint8] | LaidTiles,
        graph: Graph | None,
        forward: Forward,
    ) -> torch.Tensor:
        """Return pinned memory into which the result is being copied."""
        if isinstance(batch, LaidTiles):
            source = batch.cut(self._placed(batch.places))
        else:
            source = self._pixels[0].filled(batch)
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


class _Staging:
    """Pinned memory for what goes to the card; filled again once it has gone there."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.is_busy = False
        self._stream, self._memory = stream, _pinned((0,), torch.uint8)
        self._gone = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def filled(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """Return a copy of an array, of any strides, in this memory."""
        if self.is_busy:
            self._gone.synchronize()
        if self._memory.numel() < array.nbytes:
            self._memory = _pinned((array.nbytes,), torch.uint8)
        dtype: torch.dtype = getattr(torch, array.dtype.name)
        staged = self._memory[: array.nbytes].view(dtype).view(array.shape)
        np.copyto(staged.numpy(), array)
        return staged

    def send(self, array: npt.NDArray[Any], target: torch.Tensor) -> None:
        """Begin to copy an array into a part of the card's memory."""
        target.copy_(self.filled(array), non_blocking=True)
        self._gone.record(self._stream)
        self.is_busy = True


def _pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)
