"""Blocks in flight: read by some threads, computed by others, handed out in order."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_histodistill.maps.embedding_plan import WorkUnit

PixelsT = TypeVar("PixelsT")
NumbersT = TypeVar("NumbersT")


class Pipeline(Generic[PixelsT, NumbersT]):
    """Two pools of threads with a bounded number of blocks between them.

    Use it as a context manager: however the block of code ends, no thread stays behind.

    Parameters
    ----------
    read : callable
        ``(unit, stop)`` → pixels; gives up early once ``stop`` is set.
    compute : callable
        ``(unit, pixels, stop)`` → numbers; likewise.
    readers, streams : int
        Threads that read, and threads that compute.
    """

    def __init__(
        self,
        read: Callable[[WorkUnit, threading.Event], PixelsT],
        compute: Callable[[WorkUnit, PixelsT, threading.Event], NumbersT],
        *,
        readers: int,
        streams: int,
    ) -> None:
        self._read, self._compute = read, compute
        self._depth = readers + streams
        self._stop = threading.Event()
        self._flying: deque[tuple[WorkUnit, Future[NumbersT]]] = deque()
        self._readers = ThreadPoolExecutor(
            readers, thread_name_prefix="histodistill-read"
        )
        self._students = ThreadPoolExecutor(
            streams, thread_name_prefix="histodistill-student"
        )

    def blocks(
        self, take: Callable[[], WorkUnit | None]
    ) -> Iterator[tuple[WorkUnit, Future[NumbersT]]]:
        """Yield units in the order in which they were taken, with their future numbers.

        Parameters
        ----------
        take : callable
            Returns the next unit, or None when there is none; called as late as
            possible, so that a view the user has just moved to is filled next.
        """
        while True:
            while len(self._flying) < self._depth and (unit := take()) is not None:
                pixels = self._readers.submit(self._read, unit, self._stop)
                numbers = self._students.submit(self._computed, unit, pixels)
                self._flying.append((unit, numbers))
            if not self._flying:
                return
            yield self._flying[0]
            self._flying.popleft()

    def finished(self) -> Iterator[tuple[WorkUnit, NumbersT]]:
        """End all work, then yield what was computed but not handed out."""
        self._end()
        for unit, future in self._flying:
            if not future.cancelled() and future.exception() is None:
                yield unit, future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _computed(self, unit: WorkUnit, pixels: Future[PixelsT]) -> NumbersT:
        return self._compute(unit, pixels.result(), self._stop)

    def _end(self) -> None:
        self._stop.set()
        for pool in (self._readers, self._students):
            pool.shutdown(wait=True, cancel_futures=True)
