"""Whether a stranger's zarr can be read: bounded, and nothing but numbers in it."""

from __future__ import annotations

import math
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.files import walk

if TYPE_CHECKING:
    from pathlib import Path

MAX_CHUNK_BYTES = 2**28
MAX_METADATA_BYTES = 2**24
METADATA = frozenset({".zattrs", ".zarray", ".zgroup", ".zmetadata", "zarr.json"})

CODECS = frozenset(
    {
        "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "delta", "shuffle",
        "fixedscaleoffset", "packbits", "astype", "crc32", "crc32c", "adler32",
        "fletcher32", "jenkins_lookup3",
    }
)  # fmt: skip
"""Of zarr 2, by numcodecs' names. Another of them, ``pickle``, runs any program."""


def check_files(path: Path) -> None:
    """Refuse a folder or zip in which something is no file, leads out, or is a bomb.

    Raises
    ------
    ValueError
        Naming it: reading a link to ``/dev/zero`` would never end.
    """
    if not path.is_dir():
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_size(member.filename, member.file_size)
        return
    for entry, found in walk(path):
        _check_size(entry.name, found.st_size)


def check_array(array: Any, what: str) -> None:
    """Refuse an array that is not of numbers, or whose chunks do not fit in memory.

    Raises
    ------
    ValueError
        Saying why.
    """
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "buif":
        msg = f"{what} holds {dtype}, not pixels"
        raise ValueError(msg)
    size = math.prod(array.chunks) * dtype.itemsize
    if not 0 < size <= MAX_CHUNK_BYTES:
        msg = f"{what} has chunks of {size} bytes"
        raise ValueError(msg)
    for codec in _codecs(array.metadata):
        if codec not in CODECS:
            msg = f"{what} is encoded with {codec!r}, which is not read"
            raise ValueError(msg)


def _codecs(metadata: Any) -> list[str]:
    """Return the codecs of zarr 2; those of zarr 3 are all codecs of numbers."""
    if metadata.zarr_format != 2:
        return []
    used = [*(metadata.filters or ()), metadata.compressor]
    return [codec.codec_id for codec in used if codec is not None]


def _check_size(name: str, size: int) -> None:
    short = name.rpartition("/")[2]
    if size > (MAX_METADATA_BYTES if short in METADATA else 4 * MAX_CHUNK_BYTES):
        msg = f"{short} is {size} bytes large"
        raise ValueError(msg)
