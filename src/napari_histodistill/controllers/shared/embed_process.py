"""Embed tiles in a process of its own, so that a window never waits for torch.

Importing torch in a thread holds the interpreter's lock: with a training beside it the
window froze for a second. A process costs memory (about a third of a gigabyte) and two
seconds at its first start.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import ComputeError
from napari_histodistill.running import SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
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


class EmbedProcess:
    """A process beside the window's that embeds with one CPU thread at a low rank.

    It is there between :meth:`begin` and :meth:`close`, which the window calls;
    :meth:`embed`, which a thread calls, never starts one that would not be ended.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        self._wanted = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start the process unless that was done, without waiting for it."""
        if self._wanted:
            return
        self._wanted = True

        def start() -> None:
            with contextlib.suppress(ComputeError):  # closed meanwhile
                self._start()

        threading.Thread(target=start, daemon=True).start()

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
            If it cannot run, or the process ended or was not begun.
        Cancelled
            If asked to stop.
        """
        try:
            future = self._start().submit(_embed, bundle, tiles)
            while not future.done():
                cancel.check()
                wait([future], timeout=_LOOK_S)
            found: Floats = future.result()
        except RuntimeError as error:  # loky's: the process ended, or was ended
            cancel.check()
            self.close()
            msg = (
                "The process that computes previews ended unexpectedly (memory may "
                "have run out); the next preview starts another one."
            )
            raise ComputeError(msg) from error
        return found

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            pool, self._pool, self._wanted = self._pool, None, False
        if pool is not None:
            pool.shutdown(wait=False, kill_workers=True)

    def _start(self) -> Any:
        from joblib.externals import loky

        with self._lock:
            if self._pool is None:
                if not self._wanted:
                    msg = "The process that computes previews was ended."
                    raise ComputeError(msg)
                # loky's processes import nothing of the program that starts them.
                with _safe_path():
                    self._pool = loky.ProcessPoolExecutor(
                        max_workers=1, initializer=_begin, env=SAFE_PATH
                    )
                    self._pool.submit(_nothing)
            return self._pool


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Keep the working folder off the import path of what loky starts meanwhile.

    Besides the process that computes there is one that tidies up after it, which takes
    its environment from this process.
    """
    before = {name: os.environ.get(name) for name in SAFE_PATH}
    os.environ.update(SAFE_PATH)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
