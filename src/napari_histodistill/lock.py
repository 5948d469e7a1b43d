"""One writer per store or run: a lock that ends with the process that holds it.

With a lock *file* that stays behind after ``kill -9``, the next process would have to
guess whether it is stale. The operating system drops ``flock`` and ``msvcrt.locking``
with the process; the file only names the holder.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from napari_histodistill.errors import InputError, refused_by_disk

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
        The lock file; created if missing, left in place afterwards.
    error : type
        Class of the error to raise.
    wait_s : float
        Seconds to keep trying: a test with :func:`is_held` holds the lock for an
        instant, too.

    Raises
    ------
    InputError
        If another process holds it, or the file cannot be written.
    """

    def __init__(
        self, path: Path, *, error: type[InputError] = InputError, wait_s: float = 0.0
    ) -> None:
        try:
            self._file = path.open("a+b")
        except OSError as trouble:
            why = trouble.strerror or trouble
            msg = f"{path.parent}: cannot be written to ({why})."
            raise refused_by_disk(msg, trouble, otherwise=error) from trouble
        until = time.monotonic() + wait_s
        try:
            while True:
                try:
                    _try_lock(self._file)
                    break
                except OSError:
                    if time.monotonic() >= until:
                        raise
                    time.sleep(0.02)
        except OSError as trouble:
            self._file.close()
            msg = (
                f"{path.parent}: another run is writing to it ({_holder(path)}); wait "
                "until it is done, stop it, or choose another place."
            )
            raise error(msg) from trouble
        # The name is only for messages: a full disk that has no room for it must not
        # stop the run.
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), 0)
            holder = f"process {os.getpid()} on {platform.node()}"
            os.write(self._file.fileno(), holder.encode())

    def release(self) -> None:
        """Release the lock; may be called twice."""
        self._file.close()


def is_held(path: Path) -> bool:
    """Return whether any process holds the lock on a file; a missing file is free."""
    if not path.is_file():
        return False
    try:
        with path.open("r+b") as file:
            _try_lock(file)
    except OSError:
        return True
    return False


def _holder(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip() or "no name given"
    except OSError:
        return "no name given"
