"""Blocks in flight: read, computed and written by threads, handed out once stored."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_histodistill.maps.embedding_plan import WorkUnit

PixelsT = TypeVar("PixelsT")
NumbersT = TypeVar("NumbersT")


class Pipeline(Generic[PixelsT, NumbersT]):
    """Three pools of threads with a bounded number of blocks between them.

    A block goes on as soon as it is ready, whatever was begun before it: one that is
    slow to read holds up no other. Use it as a context manager: however the block of
    code ends, what was computed is written, and no thread stays behind.

    Parameters
    ----------
    read : callable
        ``(unit, stop)`` → pixels; gives up early once ``stop`` is set.
    compute : callable
        ``(unit, pixels, stop)`` → numbers; likewise.
    write : callable
        ``(unit, numbers)``; called for one block at a time.
    readers, streams : int
        Threads that read, and threads that compute.
    on_stop : callable, optional
        Called when the block of code has ended, before threads are waited for: lets
        reads return that wait for something else.
    """

    def __init__(
        self,
        read: Callable[[WorkUnit, threading.Event], PixelsT],
        compute: Callable[[WorkUnit, PixelsT, threading.Event], NumbersT],
        write: Callable[[WorkUnit, NumbersT], None],
        *,
        readers: int,
        streams: int,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_stop = on_stop
        self._read, self._compute, self._write = read, compute, write
        self._depth = readers + streams
        self._stop = threading.Event()
        self._flying: dict[Future[NumbersT], WorkUnit] = {}
        self._readers = ThreadPoolExecutor(
            readers, thread_name_prefix="histodistill-read"
        )
        self._students = ThreadPoolExecutor(
            streams, thread_name_prefix="histodistill-student"
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="histodistill-write")

    def blocks(
        self, take: Callable[[], WorkUnit | None], *, poll_s: float
    ) -> Iterator[tuple[WorkUnit, NumbersT] | None]:
        """Yield units with their numbers, each when it has been written.

        Parameters
        ----------
        take : callable
            Returns the next unit, or None when there is none; called as late as
            possible, so that a view the user has just moved to is filled next.
        poll_s : float
            Where no block is ready for so long, None is yielded.

        Raises
        ------
        Exception
            What reading, computing or writing a block raised.
        """
        while True:
            while len(self._flying) < self._depth and (unit := take()) is not None:
                written: Future[NumbersT] = Future()
                self._flying[written] = unit
                self._readers.submit(self._reading, unit, written)
            if not self._flying:
                return
            done = wait(self._flying, poll_s, FIRST_COMPLETED).done
            first = next((future for future in self._flying if future in done), None)
            if first is None:
                yield None
            else:
                yield self._flying.pop(first), first.result()

    def remaining(self) -> Iterator[tuple[WorkUnit, NumbersT]]:
        """End early: yield what has been written and was not handed out yet."""
        self._end()
        written = [f for f in self._flying if f.done() and f.exception() is None]
        for future in written:
            yield self._flying.pop(future), future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        self._stop.set()
        self._on_stop()
        for pool in (self._readers, self._students):
            pool.shutdown(wait=True, cancel_futures=True)
        self._writer.shutdown(wait=True)

    def _reading(self, unit: WorkUnit, written: Future[NumbersT]) -> None:
        with _failing(written):
            pixels = self._read(unit, self._stop)
            self._students.submit(self._computing, unit, pixels, written)

    def _computing(
        self, unit: WorkUnit, pixels: PixelsT, written: Future[NumbersT]
    ) -> None:
        with _failing(written):
            numbers = self._compute(unit, pixels, self._stop)
            self._writer.submit(self._writing, unit, numbers, written)

    def _writing(
        self, unit: WorkUnit, numbers: NumbersT, written: Future[NumbersT]
    ) -> None:
        with _failing(written):
            self._write(unit, numbers)
            written.set_result(numbers)


@contextmanager
def _failing(written: Future[NumbersT]) -> Iterator[None]:
    """Hand an error on to whoever waits for the block."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - it is raised where the run is driven
        written.set_exception(error)
