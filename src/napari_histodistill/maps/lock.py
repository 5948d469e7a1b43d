"""One writer per store: a lock that the operating system drops with the process.

A lock *file* that stays behind after ``kill -9`` would have to be judged stale by
guessing. ``flock`` and ``msvcrt.locking`` need no guess; the file only says who it is.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING

from napari_histodistill.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    # Far behind the text, so that others can still read who holds the lock.
    _LOCKED_BYTE = 1 << 20

    def _try_lock(file: BinaryIO) -> None:
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(file: BinaryIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


class WriterLock:
    """An exclusive lock on a file; held until :meth:`release` or the process ends.

    Parameters
    ----------
    path : Path
        The lock file; made if missing, left in place afterwards.

    Raises
    ------
    StoreError
        If somebody else holds it, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a+b")
        except OSError as error:
            msg = f"{path.parent}: cannot be written to ({error.strerror or error})."
            raise StoreError(msg) from error
        try:
            _try_lock(self._file)
        except OSError as error:
            self._file.close()
            msg = (
                f"{path.parent}: another run is writing to it ({_holder(path)}); wait "
                "until it is done, stop it, or choose another store."
            )
            raise StoreError(msg) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}".encode())
        self._file.flush()

    def release(self) -> None:
        """Let others write; may be called twice."""
        self._file.close()


def _holder(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip() or "no name given"
    except OSError:
        return "no name given"
