"""A process that reads windows of a slide for a run: ``python -m`` this module.

It is sent a task and then wishes (``messages.py``), and ends when nobody can send it
any. It imports neither torch nor the program that started it, and opens the slide once.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import HistodistillError, SlideError, traceback_of
from napari_histodistill.maps.block_reading import read_window
from napari_histodistill.maps.reading.messages import ReadAnswer, ReadFailure, pixels_of
from napari_histodistill.slides.codecs.decoding import decoding_threads
from napari_histodistill.slides.opening import open_again

if TYPE_CHECKING:
    from collections.abc import Callable, Sized
    from typing import BinaryIO

    from napari_histodistill.maps.reading.messages import ReadTask, ReadWish
    from napari_histodistill.slides import Slide


def main() -> None:
    """Answer what comes through stdin, on stdout, until it ends."""
    wishes: BinaryIO = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print as they like; stdout is for answers
    # Ctrl-C is the program's own, which ends this process when it has heard it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task: ReadTask = pickle.load(wishes)
    found = _tried(partial(_opened, task))
    _say(answers, found if isinstance(found, ReadFailure) else None)
    if isinstance(found, ReadFailure):
        return
    memory = _Memory()
    with decoding_threads(task.threads):
        while True:
            try:
                wish: ReadWish = pickle.load(wishes)
            except EOFError:
                return
            _say(answers, _tried(partial(_read, found, task, wish, memory)))


def _say(answers: BinaryIO, what: object) -> None:
    pickle.dump(what, answers)
    answers.flush()


def _tried(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except HistodistillError as error:
        return ReadFailure(error=error, words=str(error))
    except Exception as error:  # noqa: BLE001 - it is raised again by the program
        words = " ".join(str(error).split()) or "no message"
        sys.stderr.write(traceback_of(error) + "\n")
        return ReadFailure(error=None, words=f"{type(error).__name__}: {words}")


def _opened(task: ReadTask) -> Slide:
    slide = open_again(task.opening)
    if slide.info.digest != task.digest:
        msg = f"{slide.name}: the file has changed since it was opened; open it again."
        raise SlideError(msg)
    return slide


def _read(slide: Slide, task: ReadTask, wish: ReadWish, memory: _Memory) -> ReadAnswer:
    never = threading.Event()  # a process that is not needed any more is ended
    raster = read_window(slide, task.grid, wish.window, never, leave=task.leave)
    memory.put(wish.memory, pixels_of(raster))
    return ReadAnswer.of(raster, slide.unreadable)


class _Memory:
    """The shared memory that this process writes to: one piece at a time."""

    def __init__(self) -> None:
        self._piece: SharedMemory | None = None

    def put(self, name: str, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        if self._piece is None or self._piece.name != name:
            if self._piece is not None:
                self._piece.close()
            self._piece = _attached(name)
        np.ndarray(pixels.shape, np.uint8, buffer=self._piece.buf)[...] = pixels


def _attached(name: str) -> SharedMemory:
    """Return memory that belongs to the program, which alone removes it."""
    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    # Python up to 3.12 would remove it when this process ends.
    register = resource_tracker.register
    resource_tracker.register = _nothing
    try:
        return SharedMemory(name)
    finally:
        resource_tracker.register = register


def _nothing(name: Sized, rtype: str) -> None:
    """Take no note of a piece of memory."""


if __name__ == "__main__":
    main()
