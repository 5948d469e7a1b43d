"""Embed tiles in a process of its own, so that a window never waits for torch.

Importing torch in a thread holds the interpreter's lock: with a training beside it the
window froze for a second. A process costs memory (about a third of a gigabyte) and two
seconds at its first start.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import ComputeError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.running import CancelToken
    from napari_histodistill.students.student import Student

    Floats = npt.NDArray[np.float32]
    Pixels = npt.NDArray[np.uint8]

_LOOK_S = 0.05
_RANK = 10
_loaded: dict[Path, Student] = {}


class Elsewhere:
    """One process that embeds with one CPU thread at a low rank, until closed."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._starting: threading.Thread | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start the process unless that was done, without waiting for it."""
        if self._starting is None:
            self._starting = threading.Thread(
                target=lambda: self._at_hand().submit(_nothing), daemon=True
            )
            self._starting.start()

    def embed(self, bundle: Path, tiles: Pixels, cancel: CancelToken) -> Floats:
        """Return the embeddings of tiles; call it in a thread.

        Parameters
        ----------
        bundle : Path
            Of the student. The last one is kept loaded.
        tiles : ndarray
            ``(n, tile_px, tile_px, 3)`` uint8.
        cancel : CancelToken
            Waiting ends when it asks; the process finishes its batch by itself.

        Returns
        -------
        ndarray
            ``(n, dim)`` float32.

        Raises
        ------
        BundleError
            If there is no such student, or it is damaged.
        ComputeError
            If it cannot run, or the process ended.
        Cancelled
            If asked to stop.
        """
        future = self._at_hand().submit(_embed, bundle, tiles)
        while True:
            cancel.check()
            try:
                found: Floats = future.result(timeout=_LOOK_S)
            except NotYet:
                continue
            except BrokenProcessPool as error:
                self.close()
                msg = (
                    "The process that computes previews ended unexpectedly (memory may "
                    "have run out); the next preview starts another one."
                )
                raise ComputeError(msg) from error
            return found

    def close(self) -> None:
        """End the process, whatever it does; the next tiles start another one."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.join()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, kill_workers=True)

    def _at_hand(self) -> Any:
        from joblib.externals import loky

        with self._lock:
            if self._pool is None:
                # loky's processes import nothing of the program that starts them.
                self._pool = loky.ProcessPoolExecutor(max_workers=1, initializer=_begin)
            return self._pool


def _begin() -> None:
    with contextlib.suppress(AttributeError, OSError):
        os.nice(_RANK)
    # Now, not with the first student: the run soon replaces that by its next, and loky
    # would take what torch needs for a leak.
    import timm  # noqa: F401


def _nothing() -> None:
    """Give a process something to start for."""


def _embed(bundle: Path, tiles: Pixels) -> Floats:
    """Return embeddings; runs in the other process."""
    if bundle not in _loaded:
        from napari_histodistill.students import load_student

        _loaded.clear()
        # torch itself: a student that is looked at once is not worth a self-test.
        _loaded[bundle] = load_student(bundle, device="cpu:torch", threads=1)
    return _loaded[bundle].embed(tiles)
