"""Where compressed segments become pixels: a small thread pool and a small memory.

Neighbouring reads often need the same compressed tile (a 224 px window over 256 px
tiles needs four), and a stripped file is worse: every strip is as wide as the slide.
So what was decoded lately is kept, bounded by bytes.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    import numpy as np
    import numpy.typing as npt

T = TypeVar("T")

FEW = 3
"""Up to so many segments are decoded in the caller's own thread."""


class SegmentCache:
    """Decoded segments, the least recently used thrown away first.

    Parameters
    ----------
    max_bytes : int
        Bound. One segment larger than it is still kept while it is the latest: a file
        of a single huge strip would otherwise be decoded again for every read.
    """

    def __init__(self, max_bytes: int = 96 * 1024**2) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._segments: OrderedDict[Hashable, npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> npt.NDArray[Any] | None:
        """Return a segment that is still here, or None."""
        with self._lock:
            segment = self._segments.get(key)
            if segment is not None:
                self._segments.move_to_end(key)
            return segment

    def put(self, key: Hashable, segment: npt.NDArray[np.generic]) -> None:
        """Keep a segment, read-only from now on."""
        segment.flags.writeable = False
        with self._lock:
            if key in self._segments:
                return
            self._segments[key] = segment
            self._bytes += segment.nbytes
            while self._bytes > self._max_bytes and len(self._segments) > 1:
                _, old = self._segments.popitem(last=False)
                self._bytes -= old.nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._segments.clear()
            self._bytes = 0


class _Pool:
    """One executor per process, made on first use and never inherited by a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._pid = 0

    def get(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None or self._pid != os.getpid():
                self._executor = ThreadPoolExecutor(
                    max_workers=os.cpu_count() or 1, thread_name_prefix="decode"
                )
                self._pid = os.getpid()
            return self._executor


_POOL = _Pool()


def for_each(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Call ``work`` on every item, in the shared decoding threads if they are many.

    ``work`` must not call this function itself. The first error is raised after all
    running items ended, so nobody writes into an array that was given up.
    """
    todo = list(items)
    if len(todo) <= FEW:
        for item in todo:
            work(item)
        return
    futures = [_POOL.get().submit(work, item) for item in todo]
    errors = [error for f in futures if (error := f.exception()) is not None]
    if errors:
        raise errors[0]


def reason(error: BaseException) -> str:
    """Return the first line of somebody else's error, for use inside a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:160] if lines else type(error).__name__
