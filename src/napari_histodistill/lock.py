"""One writer per store or run: a lock that ends with the process that holds it.

With a lock *file* that stays behind after ``kill -9``, the next process would have to
guess whether it is stale. The operating system drops ``flock`` and ``msvcrt.locking``
with the process; the file only names the holder.
"""

from __future__ import annotations

import errno
import os
import platform
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.errors import InputError, refused_by_disk
from napari_histodistill.files import open_own

if TYPE_CHECKING:
    from typing import BinaryIO

_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK}
"""What the lock call answers where another process has the lock."""

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
        # A file that is only read takes a shared lock, which is refused while a writer
        # has its own: NFS gives no exclusive one without the right to write.
        kind = fcntl.LOCK_EX if file.writable() else fcntl.LOCK_SH
        fcntl.flock(file.fileno(), kind | fcntl.LOCK_NB)


class WriterLock:
    """An exclusive lock on a file; held until :meth:`release` or the process ends.

    Parameters
    ----------
    path : Path
        The lock file; made if missing, left in place afterwards. A link, a pipe or a
        file with a second name is refused before anything is written.
    error : type
        Class of the error to raise.
    wait_s : float
        Seconds to keep trying: a test with :func:`is_held` holds the lock for an
        instant, too.

    Raises
    ------
    InputError
        If another process holds it, the file is no plain file or cannot be written, or
        the file system knows no locks.
    """

    def __init__(
        self, path: Path, *, error: type[InputError] = InputError, wait_s: float = 0.0
    ) -> None:
        self._path = path
        until = time.monotonic() + wait_s
        while True:
            self._file = _opened(path, error)
            try:
                while not _taken(self._file, path, error):
                    if time.monotonic() >= until:
                        msg = (
                            f"{path.parent}: another run is writing to it "
                            f"({_holder(path)}); wait until it is done, stop it, or "
                            "choose another place."
                        )
                        raise error(msg)
                    time.sleep(0.02)
            except BaseException:
                self._file.close()
                raise
            if not _was_removed(self._file, path):
                break
            self._file.close()  # its last holder removed it after we had opened it
        # The holder's name helps people; a full disk that cannot take it stops nobody.
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), 0)
            holder = f"process {os.getpid()} on {platform.node()}"
            os.write(self._file.fileno(), holder.encode())

    def release(self, *, remove: bool = False) -> None:
        """Release the lock; may be called twice.

        Parameters
        ----------
        remove : bool
            Whether to remove the file, too, from a folder of results.
        """
        if remove and not self._file.closed and sys.platform != "win32":
            # While it is held: a process that opened it meanwhile sees that it is gone.
            self._path.unlink(missing_ok=True)
        self._file.close()


def _opened(path: Path, error: type[InputError]) -> BinaryIO:
    try:
        return open_own(path, create=True)
    except FileExistsError as trouble:
        msg = (
            f"{path}: {trouble.strerror}, so nothing is written to it; remove it "
            "if you know where it came from."
        )
        raise error(msg) from trouble
    except OSError as trouble:
        why = trouble.strerror or trouble
        msg = f"{path.parent}: cannot be written to ({why})."
        raise refused_by_disk(msg, trouble, otherwise=error) from trouble


def _was_removed(file: BinaryIO, path: Path) -> bool:
    """Whether a file that was opened no longer has its name."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return True


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock on a file; a missing file is free.

    The file is only read, so that a run of somebody else can be looked at.

    Raises
    ------
    InputError
        If the file system knows no locks, or the file cannot be opened: then nobody can
        say.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        return False
    except OSError as trouble:
        msg = f"{path}: cannot be opened to see whether a run holds it ({trouble})."
        raise InputError(msg) from trouble
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        msg = f"{path}: it is no plain file, so nobody can say whether a run holds it."
        raise InputError(msg)
    with os.fdopen(handle, "rb") as file:
        return not _taken(file, path, InputError)


def _taken(file: BinaryIO, path: Path, error: type[InputError]) -> bool:
    """Take the lock, or return that another process has it.

    Any other answer is about the file system, not about another run.
    """
    try:
        _try_lock(file)
    except OSError as trouble:
        if trouble.errno in _HELD:
            return False
        msg = (
            f"{path.parent}: files cannot be locked on {_file_system(path)} "
            f"({trouble.strerror}), and two runs at once would spoil each other: "
            "choose a folder on a local disk."
        )
        raise error(msg) from trouble
    return True


def _file_system(path: Path) -> str:
    """Return what the file system is called, where the system says so."""
    best, name = "", "this file system"
    with suppress(OSError, ValueError):
        place = str(path.absolute().parent)
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace")
        for line in mounts.splitlines():
            fields = line.split(" ")
            if len(fields) > 2:
                mount = fields[1].replace("\\040", " ")
                inside = f"{place}/".startswith(mount.rstrip("/") + "/")
                if inside and len(mount) >= len(best):
                    best, name = mount, f"this file system ({fields[2]})"
    return name


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            words = file.read(200).decode("utf-8", "replace").strip()
    except OSError:
        return "no name given"
    return words or "no name given"
