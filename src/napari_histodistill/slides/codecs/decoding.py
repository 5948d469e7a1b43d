"""Where compressed segments become pixels: a few threads and a bounded memory.

Neighbouring reads often need the same compressed tile (a 224 px window over 256 px
tiles needs four), and a stripped file is worse: every strip is as wide as the slide.
So what was decoded lately is kept, bounded by bytes.

Fresh memory is not free: a first touch costs a page fault every 4 KiB, which for a
256 px tile is a third of the time of decoding it. So decoders write into buffers that
are used again and again, here and in the memory of decoded segments.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    import numpy.typing as npt

T = TypeVar("T")

FEW = 2
"""Up to so many segments are decoded in the caller's own thread."""

SLAB_BYTES = 8 * 1024**2
"""Buffers are cut from pieces of this size: numpy asks for huge pages above 4 MiB."""

IDLE_BYTES = 96 * 1024**2
"""Unused buffers kept for the next slide."""


class _Buffers:
    """Memory of decoded segments, handed out again instead of being freed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)
        self._idle = 0

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return ``size`` bytes of anything."""
        with self._lock:
            free = self._free[size]
            if not free:
                count = max(1, SLAB_BYTES // size)
                slab = np.empty(count * size, np.uint8)
                free.extend(slab[k * size : (k + 1) * size] for k in range(count))
                self._idle += slab.nbytes
            self._idle -= size
            return free.pop()

    def give(self, buffer: npt.NDArray[np.uint8]) -> None:
        """Take back a buffer that nobody looks at any more."""
        with self._lock:
            if self._idle + buffer.nbytes > IDLE_BYTES:
                return
            self._free[buffer.nbytes].append(buffer)
            self._idle += buffer.nbytes


_BUFFERS = _Buffers()


@contextmanager
def lent_pixels(shape: tuple[int, int, int]) -> Iterator[npt.NDArray[np.uint8]]:
    """Lend an array of uint8 with any content for as long as the block runs."""
    buffer = _BUFFERS.take(shape[0] * shape[1] * shape[2])
    try:
        yield buffer.reshape(shape)
    finally:
        _BUFFERS.give(buffer)


@dataclass(slots=True, eq=False)
class _Entry:
    """One decoded segment; its buffer goes back when it is dropped and unused."""

    pixels: npt.NDArray[Any]
    buffer: npt.NDArray[np.uint8] | None
    users: int = 1
    dropped: bool = False

    def give_back(self) -> None:
        if self.buffer is not None and self.dropped and not self.users:
            _BUFFERS.give(self.buffer)
            self.buffer = None


class SegmentCache:
    """Decoded segments, the least recently used thrown away first.

    Parameters
    ----------
    max_bytes : int
        Bound. One segment larger than it is still kept while it is the latest: a file
        of a single huge strip would otherwise be decoded again for every read.
    """

    def __init__(self, max_bytes: int = 96 * 1024**2) -> None:
        self.max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    @contextmanager
    def using(
        self,
        key: Hashable,
        decode: Callable[[npt.NDArray[np.uint8] | None], npt.NDArray[Any]],
        shape: tuple[int, int, int] | None = None,
    ) -> Iterator[npt.NDArray[Any]]:
        """Lend a segment's pixels, decoded if they are not here, for one block.

        Parameters
        ----------
        key : hashable
            Of the segment.
        decode : callable
            Given an array to decode into, or None; returns the pixels.
        shape : tuple of int, optional
            Of the uint8 array that ``decode`` wants; None if it brings its own.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                entry.users += 1
        if entry is None:
            entry = self._kept(key, decode, shape)
        try:
            yield entry.pixels
        finally:
            with self._lock:
                entry.users -= 1
                entry.give_back()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            while self._entries:
                self._drop_oldest()

    def _kept(
        self,
        key: Hashable,
        decode: Callable[[npt.NDArray[np.uint8] | None], npt.NDArray[Any]],
        shape: tuple[int, int, int] | None,
    ) -> _Entry:
        buffer = None
        if shape is not None:
            buffer = _BUFFERS.take(shape[0] * shape[1] * shape[2])
        try:
            pixels = decode(None if buffer is None else buffer.reshape(shape or (-1,)))
        except BaseException:
            if buffer is not None:
                _BUFFERS.give(buffer)
            raise
        if not pixels.flags.owndata and buffer is None:
            # A view of something larger would keep all of it in memory.
            pixels = pixels.copy()
        entry = _Entry(pixels, buffer)
        with self._lock:
            if key in self._entries:  # another thread was quicker
                entry.dropped = True
                return entry
            self._entries[key] = entry
            self._bytes += pixels.nbytes
            while self._bytes > self.max_bytes and len(self._entries) > 1:
                self._drop_oldest()
        return entry

    def _drop_oldest(self) -> None:
        _, old = self._entries.popitem(last=False)
        self._bytes -= old.pixels.nbytes
        old.dropped = True
        old.give_back()


class _Pool:
    """One executor per process, made on first use and never inherited by a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._pid = 0
        self.threads = _cores()

    def get(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None or self._pid != os.getpid():
                self._executor = ThreadPoolExecutor(
                    max_workers=_cores(), thread_name_prefix="decode"
                )
                self._pid = os.getpid()
            return self._executor


def _cores() -> int:
    """How many cores this process may use, which in a container is not all."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


_POOL = _Pool()


@contextmanager
def decoding_threads(count: int) -> Iterator[None]:
    """Let one read use at most ``count`` threads (its own included) meanwhile.

    By default it uses as many as there are cores.
    """
    before = _POOL.threads
    _POOL.threads = max(1, min(count, _cores()))
    try:
        yield
    finally:
        _POOL.threads = before


def for_each(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Call ``work`` on every item, in the shared decoding threads if they are many.

    The caller's own thread takes its share, so a busy pool delays nobody. ``work`` must
    not call this function itself. After an error no new item is begun, and the first
    error is raised when all running items ended, so nobody writes into an array that
    was given up.
    """
    todo = deque(items)
    helpers = min(_POOL.threads, len(todo)) - 1
    if len(todo) <= FEW or helpers < 1:
        for item in todo:
            work(item)
        return

    def drain() -> None:
        while True:
            try:
                item = todo.popleft()
            except IndexError:
                return
            try:
                work(item)
            except BaseException:
                todo.clear()
                raise

    pool = _POOL.get()
    helping = [pool.submit(drain) for _ in range(helpers)]
    try:
        drain()
    finally:
        # What has not started by now has nothing left to do.
        running = [future for future in helping if not future.cancel()]
        errors = [error for f in running if (error := f.exception()) is not None]
    if errors:
        raise errors[0]


def reason(error: BaseException) -> str:
    """Return the first line of somebody else's error, for use inside a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:160] if lines else type(error).__name__
