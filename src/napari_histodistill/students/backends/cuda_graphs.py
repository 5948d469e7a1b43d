"""Forward passes recorded as CUDA graphs: one launch instead of hundreds.

While any stream is recorded, nobody may wait for the whole card, and beginning to
record does wait for it. So one recording at a time, and no batch of another lane
meanwhile: :data:`GATE`. Another part of the program that waits for the card at that
moment (a training in the same process, say) makes the recording fail; the lane then
computes without a graph.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Forward = Callable[[torch.Tensor], torch.Tensor]

SIZES = (1, 8, 32, 64, 128, 256)
"""Batches that are recorded; others are padded to the next, and the surplus dropped.
One is for windows of tokens."""

_WARM_UP = 3


def recorded_size(count: int) -> int | None:
    """Return the size of the graph for a batch; None if it is larger than any."""
    return next((size for size in SIZES if size >= count), None)


class Gate:
    """Lets many threads compute, or one alone record."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._waiting, self._alone = 0, 0, False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be inside together with others, while nobody records or wants to."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be inside alone."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._alone and not self._inside)
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


GATE = Gate()
"""The process's only one: a card knows processes, not lanes."""


class Graph:
    """One forward pass of a fixed shape, recorded. Make it inside ``GATE.alone()``.

    Parameters
    ----------
    shape : tuple of int
        ``(n, h, w, 3)`` of the uint8 batch.
    device : str
        torch's name of the card.
    forward : callable
        Takes uint8 on the card and returns any float type on the card; must do the
        same for every batch.
    stream : torch.cuda.Stream
        The lane's stream, on which it is recorded and replayed.
    pool : object
        Handle of the lane's memory for graphs. Its graphs share that memory, so a
        result must be copied, in the same stream, before another graph is replayed.

    Raises
    ------
    RuntimeError
        If it cannot be recorded, or memory runs out.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        device: str,
        forward: Forward,
        stream: torch.cuda.Stream,
        pool: Any,
    ) -> None:
        with torch.cuda.stream(stream):
            self._raw = torch.zeros(shape, dtype=torch.uint8, device=device)
            for _ in range(_WARM_UP):  # cuDNN chooses its kernels before the recording
                forward(self._raw)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Thread-local: threads that know nothing of this may go on allocating.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self._found = forward(self._raw)

    def replay(self, source: torch.Tensor) -> torch.Tensor:
        """Return the result for a batch in pinned memory, on the current stream."""
        self._raw[: len(source)].copy_(source, non_blocking=True)
        self._graph.replay()
        return self._found[: len(source)]
