"""The bytes of one open file for many threads, and fingerprints of slides."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

from napari_histodistill.errors import ClosedSlideError, SlideError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 64 * 1024
"""Size in bytes of one sample of the fingerprint."""


class FileBytes:
    """One file descriptor that any number of threads can read from at once.

    ``close`` waits for reads in progress: a descriptor that is closed under a reader
    may be reused for another file, whose bytes would then be taken for pixels.

    Raises
    ------
    SlideError
        From :meth:`read` if the file is closed, shorter than it should be, or the disk
        fails; from the constructor if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # O_BINARY exists on Windows only; without it line ends would be changed.
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            msg = f"{path.name}: the file cannot be opened ({error.strerror})."
            raise SlideError(msg) from error
        self.size = os.fstat(self._fd).st_size
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._readers = 0
        self._closed = False
        self._seek_lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``."""
        with self._lock:  # called thousands of times a second: cheaper than _idle
            if self._closed:
                msg = f"{self.path.name}: the slide was closed; open it again."
                raise ClosedSlideError(msg)
            self._readers += 1
        try:
            data = self._pread(offset, count)
        except (OSError, OverflowError) as error:
            msg = f"{self.path.name}: reading at byte {offset} failed ({error})."
            raise SlideError(msg) from error
        finally:
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    self._idle.notify_all()
        if len(data) != count:
            msg = (
                f"{self.path.name}: the file ends before byte {offset + count}; it is "
                "truncated, copy or download it again."
            )
            raise SlideError(msg)
        return data

    def close(self) -> None:
        """Close the descriptor once no read is in progress; may be called twice."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: self._readers == 0)
            os.close(self._fd)

    def __del__(self) -> None:
        # No one can still be reading. A failed constructor has nothing to close.
        if hasattr(self, "_closed"):
            self.close()

    def _pread(self, offset: int, count: int) -> bytes:
        # A damaged table may claim more bytes than the file has: never allocate those.
        count = max(0, min(count, self.size - offset))
        if hasattr(os, "pread"):
            return os.pread(self._fd, count, offset)
        with self._seek_lock:  # Windows has no pread
            os.lseek(self._fd, offset, os.SEEK_SET)
            return os.read(self._fd, count)


def digest_file(file: FileBytes) -> str:
    """Return the fingerprint of a file, hex.

    SHA-256 over its size, its first and last 64 KiB and sixteen evenly spaced blocks of
    64 KiB: instant for a slide of any size, and two different slides do not share it.
    """
    sha = hashlib.sha256(str(file.size).encode())
    for offset in _sample_offsets(file.size):
        sha.update(file.read(offset, min(BLOCK, file.size - offset)))
    return sha.hexdigest()


def digest_path(path: Path) -> str:
    """Return the fingerprint of a file, or of a folder: its listing and samples.

    Of a folder, the first 64 KiB of at most 191 files are read: 12 MB of a slide that
    may have many gigabytes.
    """
    if path.is_file():
        file = FileBytes(path)
        try:
            return digest_file(file)
        finally:
            file.close()
    sha = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file())
    for p in files:
        sha.update(f"{p.relative_to(path).as_posix()}\0{p.stat().st_size}\n".encode())
    step = max(1, len(files) // 64)
    small = [p for p in files if p.name in _ZARR_METADATA]
    for p in sorted({*files[::step], *small[:64]}):
        with p.open("rb") as sampled:
            sha.update(hashlib.sha256(sampled.read(BLOCK)).digest())
    return sha.hexdigest()


_ZARR_METADATA = {".zattrs", ".zarray", ".zgroup", "zarr.json"}


def _sample_offsets(size: int) -> Iterator[int]:
    last = max(0, size - BLOCK)
    yield 0
    for k in range(1, 17):
        yield last * k // 17
    yield last
