"""Processes that read windows of a slide, each with shared memory for the pixels.

Threads share one interpreter, of which decoding keeps the lock now and then; processes
do not. They are started afresh, never forked, so that nothing of this program, a card
or a window say, is in them.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from queue import LifoQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ComputeError, HistodistillError, InputError
from napari_histodistill.maps.block_reading import MOST_LEFT_BYTES
from napari_histodistill.maps.reading.messages import (
    ReadAnswer,
    ReadFailure,
    ReadTask,
    ReadWish,
)
from napari_histodistill.running import SAFE_PATH, cores, python_command
from napari_histodistill.slides.pyramid.damage import probe
from napari_histodistill.slides.pyramid.resample import bytes_read

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.maps.block_reading import PixelWindow, Raster
    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Slide

_WORKER = "napari_histodistill.maps.reading.worker"
_SHARED = Path("/dev/shm")
"""Where Linux keeps shared memory; in containers it is often small, and a process that
writes more than it holds is killed."""

_BY_THREADS = "let threads read it (--reading threads, or the menu beside Run)"
_END_S = 5.0
_LOST = (EOFError, OSError, pickle.UnpicklingError)
"""What a pipe to a process raises when that has ended."""


class ReadingPool:
    """Processes that have opened one slide; any thread may ask for a window.

    Make it, :meth:`begin`, :meth:`read` from as many threads as there are processes,
    and in any case :meth:`close`.

    Parameters
    ----------
    slide : Slide
        A slide that was opened from a file; stays open.
    grid : TileGrid
        Grid of the windows.
    count : int
        Number of processes.
    leave : bool
        As in :func:`~napari_histodistill.maps.block_reading.read_window`.

    Raises
    ------
    InputError
        If the slide cannot be opened by another process.
    """

    def __init__(
        self, slide: Slide, grid: TileGrid, *, count: int, leave: bool
    ) -> None:
        if slide.opened is None:
            msg = (
                f"{slide.name}: only a slide that was opened from a file of this "
                "machine, as it is, can be read by processes; read it by threads."
            )
            raise InputError(msg)
        self._slide, self._grid, self._count = slide, grid, count
        self._task = ReadTask(
            opening=slide.opened,
            digest=slide.info.digest,
            grid=grid,
            leave=leave,
            # Each would otherwise decode by as many threads as there are cores.
            threads=max(1, cores() // count),
        )
        self._workers: list[_Worker] = []
        self._idle: LifoQueue[_Worker] = LifoQueue()
        self._changed = threading.Condition()
        self._is_ready = False
        self._stopped = threading.Event()
        self._failure: HistodistillError | None = None
        self._starter = threading.Thread(
            target=self._start, name="histodistill-read-start", daemon=True
        )

    def begin(self) -> None:
        """Start the processes, without waiting for them."""
        self._starter.start()

    @property
    def is_ready(self) -> bool:
        """Whether all have opened the slide, or one of them could not."""
        return self._is_ready

    def read(self, window: PixelWindow) -> Raster | None:
        """Read a window as ``maps/block_reading.py`` does; None after :meth:`stop`.

        Parameters
        ----------
        window : PixelWindow
            Rectangle to read.

        Raises
        ------
        SlideError
            If the slide cannot be read anywhere any more, or was closed.
        ComputeError
            If a process ended, or there is no shared memory for it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready or self._stopped.is_set())
        if self._stopped.is_set():
            return None
        if self._failure is not None:
            raise self._failure
        probe(self._slide.source)  # it may have been closed, which they cannot know
        worker = self._idle.get()
        try:
            answer, pixels = worker.read(window, self._bytes_of(window))
        except _LOST as error:
            if self._stopped.is_set():
                return None
            raise self._ended(worker) from error
        finally:
            self._idle.put(worker)
        self._slide.note_unreadable(answer.unreadable)
        return answer.raster(window, pixels)

    def stop(self) -> None:
        """End the processes, whatever they do; reads that wait return at once."""
        with self._changed:
            self._stopped.set()
            for worker in self._workers:
                worker.process.kill()
            self._changed.notify_all()

    def close(self) -> None:
        """End the processes and free the shared memory; nobody may read any more."""
        self.stop()
        if self._starter.ident is not None:
            self._starter.join()
        for worker in self._workers:
            worker.close()

    def _start(self) -> None:
        failure: HistodistillError | None = None
        try:
            self._start_all()
        except HistodistillError as error:
            failure = error
        with self._changed:
            self._failure, self._is_ready = failure, True
            self._changed.notify_all()

    def _start_all(self) -> None:
        for _ in range(self._count):
            with self._changed:
                if self._stopped.is_set():
                    return
                self._workers.append(_Worker(self._slide.name))
        for step in (lambda one: one.send(self._task), _Worker.hear):
            for worker in self._workers:
                try:
                    step(worker)
                except _LOST as error:
                    raise self._ended(worker) from error
        for worker in self._workers:
            self._idle.put(worker)

    def _bytes_of(self, window: PixelWindow) -> int:
        """Return the bytes that a window's pixels take, at most."""
        size = {"height": window.height, "width": window.width}
        resampled = 3 * window.height * window.width
        if not self._task.leave:
            return resampled
        region = self._grid.student_region(window.y, window.x, **size)
        stored = bytes_read(self._slide, region, **size)
        return max(resampled, min(stored, MOST_LEFT_BYTES))

    def _ended(self, worker: _Worker) -> ComputeError:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(_END_S)
        return ComputeError(
            f"{self._slide.name}: a process that reads the slide ended unexpectedly "
            f"(status {worker.process.returncode}; memory may have run out). Finished "
            f"work is kept; {_BY_THREADS}."
        )


class _Worker:
    """One process, and the shared memory that it writes to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._memory: SharedMemory | None = None
        words: dict[str, Any] = {"creationflags": 0}
        if sys.platform == "win32":
            words["creationflags"] = (
                subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
            )
        else:
            words["start_new_session"] = True  # Ctrl-C in a terminal is not for it
        try:
            self.process = subprocess.Popen(
                python_command(_WORKER),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if sys.stderr is not None else subprocess.DEVNULL,
                env=os.environ | SAFE_PATH,
                **words,
            )
        except OSError as error:
            msg = (
                f"{name}: no process could be started to read it ({error.strerror}); "
                f"{_BY_THREADS}."
            )
            raise ComputeError(msg) from error

    def send(self, what: ReadTask | ReadWish) -> None:
        """Send something; raises OSError if the process has ended."""
        assert self.process.stdin is not None
        pickle.dump(what, self.process.stdin)
        self.process.stdin.flush()

    def hear(self) -> ReadAnswer | None:
        """Return what it answers; raises one of ``_LOST`` if it has ended."""
        assert self.process.stdout is not None
        # From our own process: nobody else writes to this pipe.
        found: ReadAnswer | ReadFailure | None = pickle.load(self.process.stdout)
        if not isinstance(found, ReadFailure):
            return found
        if found.error is not None:
            raise found.error
        msg = f"{self._name}: reading failed in a process of its own ({found.words})."
        raise ComputeError(msg)

    def read(
        self, window: PixelWindow, size: int
    ) -> tuple[ReadAnswer, npt.NDArray[np.uint8]]:
        """Return an answer and its pixels, of ``size`` bytes at most."""
        memory = self._of(size)
        self.send(ReadWish(window=window, memory=memory.name))
        answer = self.hear()
        assert answer is not None
        pixels = np.ndarray(answer.shape, np.uint8, buffer=memory.buf).copy()
        return answer, pixels

    def _of(self, size: int) -> SharedMemory:
        """Return shared memory that holds so many bytes."""
        if self._memory is not None and self._memory.size >= size:
            return self._memory
        self._free()
        if shared_room() < size:
            raise _no_memory(self._name, size)
        try:
            self._memory = SharedMemory(create=True, size=size)
        except OSError as error:
            raise _no_memory(self._name, size) from error
        return self._memory

    def _free(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
            memory.unlink()

    def close(self) -> None:
        """Wait for the end of the process, which was asked for, and tidy up."""
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not sent is not needed
                    pipe.close()
        self._free()


def shared_room() -> float:
    """Return the bytes of shared memory that are free; infinite where no one says."""
    try:
        return float(shutil.disk_usage(_SHARED).free)
    except OSError:
        return float("inf")


def _no_memory(name: str, size: int) -> ComputeError:
    return ComputeError(
        f"{name}: processes that read it need {size / 2**20:.0f} MiB more of shared "
        f"memory than there is (a container's is set by --shm-size); {_BY_THREADS}."
    )
