"""Threads or processes for reading: as asked, or as measured on a run's own blocks."""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING

from napari_histodistill.errors import HistodistillError
from napari_histodistill.maps.block_reading import read_window
from napari_histodistill.maps.reading.processes import ReadingPool, shared_room
from napari_histodistill.running import cores

if TYPE_CHECKING:
    from napari_histodistill.maps.block_reading import PixelWindow, Raster
    from napari_histodistill.maps.progress import Reading
    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Slide

MARGIN = 1.2
"""Threads, which need neither memory nor time to start, are kept unless processes are
faster by this factor."""

FEWEST_CORES = 5
"""On fewer cores processes are not tried: threads keep those busy."""

WORTH_IT = 4
"""Blocks for each reader that a run must have for processes to be tried."""

_SHARED_BYTES = 2**29
"""Shared memory that must be free for each process to be tried: twice what a window
takes, at most, where a device resamples."""


def usual_readers(*, on_cpu: bool) -> int:
    """Return how many threads, or processes, read for a run that does not say so.

    Parameters
    ----------
    on_cpu : bool
        Whether the student computes on the CPU, which then has no core to spare.
    """
    return 1 if on_cpu else min(16, max(2, cores() // 2))


def why_not_processes(readers: int) -> str:
    """Return why processes are not tried on this machine, in words; "" if they are.

    Parameters
    ----------
    readers : int
        Processes that would read.
    """
    if cores() < FEWEST_CORES:
        return f"on {cores()} CPUs they would only be in the way"
    if shared_room() < _SHARED_BYTES * readers:
        needed = _SHARED_BYTES * readers / 2**30
        return f"{readers} of them need {needed:.1f} GiB of free shared memory"
    return ""


class BlockReader:
    """Reads a run's windows by threads, or lets processes do it; see :meth:`read`.

    With ``"auto"``, processes are started beside the first blocks. When they have
    opened the slide, threads and they read as many blocks as there are readers, and
    what took a block's pixels less time is kept; where processes fail, threads are.
    That is tried only where ``is_fast`` is true, more than four cores may be used, the
    run has several blocks for each reader, and the slide was opened from a file.

    Parameters
    ----------
    slide : Slide
        Stays open.
    grid : TileGrid
        Grid of the windows.
    reading : {"auto", "threads", "processes"}
        Who reads.
    readers : int
        Threads that call :meth:`read`, and processes.
    leave : bool
        As in :func:`~napari_histodistill.maps.block_reading.read_window`.
    blocks : int
        Blocks that the run will read.
    is_fast : bool
        Whether the student's device is so fast that reading may hold it up.

    Attributes
    ----------
    used : {"threads", "processes"}
        Who reads now.

    Raises
    ------
    InputError
        If processes are asked for, and the slide cannot be opened by another one.
    """

    def __init__(  # noqa: PLR0913 - what a run knows of its reading, named
        self,
        slide: Slide,
        grid: TileGrid,
        *,
        reading: Reading,
        readers: int,
        leave: bool,
        blocks: int,
        is_fast: bool,
    ) -> None:
        self._slide, self._grid, self._leave = slide, grid, leave
        self._readers = readers
        self._lock = threading.Lock()
        self._took: dict[Reading, list[float]] = {"threads": [], "processes": []}
        self._begun, self._note = 0, ""
        self._pool: ReadingPool | None = None
        self.used: Reading = "processes" if reading == "processes" else "threads"
        may_try = (
            reading == "auto"
            and is_fast
            and blocks >= WORTH_IT * readers
            and slide.opened is not None
            and not why_not_processes(readers)
        )
        self._is_trial = may_try
        if may_try or (reading == "processes" and blocks):
            self._pool = ReadingPool(slide, grid, count=readers, leave=leave)
            self._pool.begin()

    def read(self, window: PixelWindow, stop: threading.Event) -> Raster:
        """Read a window (in a reader thread).

        Parameters
        ----------
        window : PixelWindow
            Rectangle to read.
        stop : threading.Event
            Once it is set, reading ends early with an incomplete raster, which is not
            used.

        Raises
        ------
        SlideError
            If the slide cannot be read anywhere any more: closed, or its disk is gone.
        ComputeError
            If a process that reads ended.
        """
        way, pool = self._way(), self._pool
        # Processes that are starting take the cores from threads that read.
        is_fair = pool is not None and pool.is_ready
        began = time.perf_counter()
        raster = None
        if pool is not None and way == "processes":
            try:
                raster = pool.read(window)
            except HistodistillError as error:
                if not self._give_up(error):
                    raise
        if raster is None:  # by threads, or the processes were ended meanwhile
            way = "threads"
            raster = read_window(
                self._slide, self._grid, window, stop, leave=self._leave
            )
        if self._is_trial and is_fair and not stop.is_set():
            pixels = window.height * window.width
            self._count(way, (time.perf_counter() - began) / pixels)
        return raster

    def take_note(self) -> str:
        """Return, once, what was measured; empty if nothing was."""
        with self._lock:
            note, self._note = self._note, ""
        return note

    def stop(self) -> None:
        """Let reads that wait for a process return."""
        if self._pool is not None:
            self._pool.stop()

    def close(self) -> None:
        """End the processes; nobody may read any more."""
        if self._pool is not None:
            self._pool.close()

    def _way(self) -> Reading:
        """Return who reads the next window."""
        with self._lock:
            if not self._is_trial or self._pool is None:
                return self.used
            # No more by processes than are needed, while the others go on as before.
            is_time = len(self._took["threads"]) >= self._readers > self._begun
            if not (is_time and self._pool.is_ready):
                return "threads"
            self._begun += 1
            return "processes"

    def _give_up(self, error: HistodistillError) -> bool:
        """Stay with threads where processes fail while they are tried; say so."""
        with self._lock:
            if not self._is_trial:
                return self.used == "threads"  # another one failed before
            self._is_trial = False
            self._note = f"read by threads; processes could not do it: {error}"
        self.stop()
        return True

    def _count(self, way: Reading, seconds: float) -> None:
        with self._lock:
            self._took[way].append(seconds)
            if not self._is_trial or len(self._took["processes"]) < self._readers:
                return
            self._is_trial = False
            slow, fast = (statistics.median(taken) for taken in self._took.values())
            gain = slow / fast
            if gain >= MARGIN:
                self.used = "processes"
                self._note = (
                    f"read by {self._readers} processes, which were {gain:.1f} × as "
                    "fast as threads"
                )
                return
            self._note = f"read by threads; processes were {gain:.1f} × as fast"
        # None of them is at work: all that they were given has come back.
        self.stop()
