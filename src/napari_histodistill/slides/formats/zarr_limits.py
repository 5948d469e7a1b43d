"""Checks of a stranger's zarr: bounded in size, and holding nothing but numbers."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.files import walk

if TYPE_CHECKING:
    import os

MAX_CHUNK_BYTES = 2**28
MAX_METADATA_BYTES = 2**24
MANY_CHUNKS, SMALL_CHUNK = 2**15, 1024
"""More chunks than these, of fewer values than those, take minutes to be not there."""

METADATA = frozenset({".zattrs", ".zarray", ".zgroup", ".zmetadata", "zarr.json"})

CODECS = frozenset(
    {
        "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "delta", "shuffle",
        "fixedscaleoffset", "packbits", "astype", "crc32", "crc32c", "adler32",
        "fletcher32", "jenkins_lookup3",
    }
)  # fmt: skip
"""Codecs of zarr 2 that are read. Another one, ``pickle``, can run any program."""


def check_files(path: Path) -> None:
    """Refuse a folder with links or devices in it, and files of excessive size.

    Reading a link to ``/dev/zero`` would never end, and a small zip can unpack to
    terabytes.

    Raises
    ------
    ValueError
        If there is one; the message names it.
    """
    if not path.is_dir():
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_size(member.filename, member.file_size)
        return
    for entry, found in walk(path):
        _check_size(entry.name, found.st_size)
        if entry.name in {".zarray", "zarr.json"}:
            _check_chunks(entry)


def check_array(array: Any, what: str) -> None:
    """Refuse an array of no numbers, or with chunks that are too large or too many.

    Raises
    ------
    ValueError
        If so; the message gives the reason.
    """
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "buif":
        msg = f"{what} holds {dtype}, not pixels"
        raise ValueError(msg)
    size = math.prod(array.chunks) * dtype.itemsize
    if not 0 < size <= MAX_CHUNK_BYTES:
        msg = f"{what} has chunks of {size} bytes"
        raise ValueError(msg)
    values = math.prod(array.chunks)
    sides = zip(array.shape, array.chunks, strict=True)
    count = math.prod(-(-side // chunk) for side, chunk in sides)
    if count > MANY_CHUNKS and values < SMALL_CHUNK:
        msg = f"{what} has {count:,} chunks of {values} values"
        raise ValueError(msg)
    for codec in _codecs(array.metadata):
        if codec not in CODECS:
            msg = f"{what} is encoded with {codec!r}, which is not read"
            raise ValueError(msg)


def _codecs(metadata: Any) -> list[str]:
    """Return the codecs of a zarr 2 array; those of zarr 3 only ever encode numbers."""
    if metadata.zarr_format != 2:
        return []
    used = [*(metadata.filters or ()), metadata.compressor]
    return [codec.codec_id for codec in used if codec is not None]


def _check_chunks(entry: os.DirEntry[str]) -> None:
    """Refuse chunks of no pixels, which zarr 3.4 repairs: the slide would be black."""
    try:
        content = json.loads(Path(entry.path).read_text("utf-8"))
        grid = content.get("chunk_grid", {}).get("configuration", {})
        chunks = content.get("chunks", grid.get("chunk_shape", []))
        empty = any(isinstance(n, int) and n < 1 for n in chunks)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return  # damage of another kind, which zarr names
    if empty:
        msg = f"{entry.name} has chunks of {chunks} pixels"
        raise ValueError(msg)


def _check_size(name: str, size: int) -> None:
    short = name.rpartition("/")[2]
    if size > (MAX_METADATA_BYTES if short in METADATA else 4 * MAX_CHUNK_BYTES):
        msg = f"{short} is {size} bytes large"
        raise ValueError(msg)
