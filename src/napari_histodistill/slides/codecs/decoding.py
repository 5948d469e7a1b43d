"""Decoding of compressed segments (tiles, strips): shared threads, a bounded cache.

Neighbouring reads often need the same compressed tile (a 224 px window over 256 px
tiles needs four of them); with strips, each as wide as the slide, it is worse. So
recently decoded segments are kept, up to a number of bytes.

Fresh memory is not free: its first use costs a page fault every 4 KiB, which for a 256
px tile takes a third of the time of decoding it. So decoders write into buffers that
are used again and again, also those in the cache.
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

from napari_histodistill.running import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    import numpy.typing as npt

T = TypeVar("T")

FEW = 2
"""Up to this many segments are decoded in the caller's own thread."""

SLAB_BYTES = 8 * 1024**2
"""Buffers are cut from pieces of this size: numpy requests huge pages above 4 MiB."""

IDLE_BYTES = 96 * 1024**2
"""Size of unused buffers that are kept for the next slide."""


class _Buffers:
    """Memory of decoded segments, handed out again instead of being freed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)
        self._idle = 0

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return ``size`` bytes of arbitrary content."""
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
        """Take back a buffer that is no longer in use."""
        with self._lock:
            if self._idle + buffer.nbytes > IDLE_BYTES:
                return
            self._free[buffer.nbytes].append(buffer)
            self._idle += buffer.nbytes


_BUFFERS = _Buffers()


@contextmanager
def lent_pixels(shape: tuple[int, int, int]) -> Iterator[npt.NDArray[np.uint8]]:
    """Lend a uint8 array of arbitrary content for the duration of the block."""
    buffer = _BUFFERS.take(shape[0] * shape[1] * shape[2])
    try:
        yield buffer.reshape(shape)
    finally:
        _BUFFERS.give(buffer)


@dataclass(slots=True, eq=False)
class _Entry:
    """One decoded segment; its buffer is given back once it is dropped and unused."""

    pixels: npt.NDArray[Any]
    buffer: npt.NDArray[np.uint8] | None
    users: int = 1
    dropped: bool = False

    def give_back(self) -> None:
        if self.buffer is not None and self.dropped and not self.users:
            _BUFFERS.give(self.buffer)
            self.buffer = None


class SegmentCache:
    """A cache of decoded segments; the least recently used are dropped first.

    Parameters
    ----------
    max_bytes : int
        Limit of the cache. A single segment larger than this is still kept while it is
        the latest: a file of one huge strip would otherwise be decoded at every read.
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
        """Lend a segment's pixels for the duration of a block, decoding it if need be.

        Parameters
        ----------
        key : hashable
            Identifies the segment.
        decode : callable
            Takes an array to decode into, or None; returns the pixels.
        shape : tuple of int, optional
            Shape of the uint8 array to decode into; None if ``decode`` allocates.
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
            # A view would keep the whole array behind it in memory.
            pixels = pixels.copy()
        entry = _Entry(pixels, buffer)
        with self._lock:
            if key in self._entries:  # another thread was faster
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
        self._callers = 0
        self.threads = cores()

    @contextmanager
    def caller(self, items: int) -> Iterator[int]:
        """Count the calling thread in; yield how many others may help it.

        Threads that read at the same time fill the cores by themselves; helpers would
        only take turns with them.
        """
        with self._lock:
            self._callers += 1
            spare = self.threads - self._callers
        try:
            yield max(0, min(spare, items - 1)) if items > FEW else 0
        finally:
            with self._lock:
                self._callers -= 1

    def get(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None or self._pid != os.getpid():
                self._executor = ThreadPoolExecutor(
                    max_workers=cores(), thread_name_prefix="decode"
                )
                self._pid = os.getpid()
            return self._executor


_POOL = _Pool()


@contextmanager
def decoding_threads(count: int) -> Iterator[None]:
    """Limit reads to ``count`` threads (the callers' included) within the block.

    The default is as many as there are cores.
    """
    before = _POOL.threads
    _POOL.threads = max(1, min(count, cores()))
    try:
        yield
    finally:
        _POOL.threads = before


def for_each(
    work: Callable[[T], None],
    items: Iterable[T],
    *,
    is_quick: Callable[[T], bool] = lambda _: False,
) -> None:
    """Call ``work`` on every item, using the shared decoding threads if there are many.

    The caller's own thread takes its share, so a busy pool delays no one, and threads
    that call this at the same time are helped only as far as cores are left. ``work``
    must not call this function itself. Quick items, with which only Python is busy,
    stay with the caller: threads would wait for each other. After an error no further
    item is begun, and the first error is raised once all running items have ended, so
    no thread still writes into an array that the caller has given up.
    """
    todo: deque[T] = deque()
    quick: list[T] = []
    for item in items:
        (quick if is_quick(item) else todo).append(item)
    with _POOL.caller(len(todo)) as helpers:
        if helpers:
            _shared_out(work, todo, helpers)
            todo.clear()
        for item in (*todo, *quick):
            work(item)


def _shared_out(work: Callable[[T], None], todo: deque[T], helpers: int) -> None:
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
        # Helpers that have not started by now have nothing left to do.
        running = [future for future in helping if not future.cancel()]
        errors = [error for f in running if (error := f.exception()) is not None]
    if errors:
        raise errors[0]


def reason(error: BaseException) -> str:
    """Return the first line of a library's error, for use inside a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:160] if lines else type(error).__name__
