"""A check of a TIFF's tables before tifffile reads them.

tifffile multiplies the number of strips by the samples and the depth that a table
states, before the page can be inspected. If one of these is a text or a list of
numbers, Python takes the product for a repetition, and four bytes become gigabytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from napari_histodistill.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MULTIPLIED = {277: "samples per pixel", 32997: "image depth", 32998: "tile depth"}
SUB_TABLES = 330
WHOLE_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I",
               16: "Q", 17: "q", 18: "Q"}  # fmt: skip
"""TIFF types of whole numbers, and their codes for ``struct``."""

MAX_ENTRIES = 4096
"""Entries of one table; tifffile stops at more, as suspicious."""

MAX_WORK = 10**6
"""Tables and entries in total; the largest slides have some thousands."""


class _Format(NamedTuple):
    """How tables are written, as ``struct`` codes."""

    order: str
    number: str  # how many entries follow
    counts: str  # how many values an entry has; values of up to this size are inline
    offset: str  # where the next table is

    @property
    def entry(self) -> str:
        """Tag, type and count; the value, or its offset, comes after them."""
        return f"{self.order}HH{self.counts}"

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize(self.entry) + struct.calcsize(self.order + self.counts)


def check_tables(path: Path) -> None:
    """Refuse a TIFF if a factor that tifffile multiplies by is not a single number.

    Everything else that may be wrong with them is left to tifffile.

    Parameters
    ----------
    path : Path
        Classic TIFF, BigTIFF or NDPI.

    Raises
    ------
    SlideError
        If so; the message names the field.
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        for tag, kind, count in _entries(file, path):
            if tag in MULTIPLIED and (kind not in WHOLE_TYPES or count != 1):
                msg = (
                    f"{path.name}: the table of pages is damaged "
                    f"({MULTIPLIED[tag]} is not one number); get the file again."
                )
                raise SlideError(msg)


def _entries(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield tag, type and count of every entry of every table."""
    form, waiting = _start(file.read(16), is_ndpi=path.suffix.lower() == ".ndpi")
    seen: set[int] = set()
    work = 0
    while waiting:
        at = waiting.pop()
        if at <= 0 or at in seen:
            continue
        seen.add(at)
        try:
            file.seek(at)
            (entries,) = _read(file, form.order + form.number)
            entries = min(entries, MAX_ENTRIES)
            work += 1 + entries
            if work > MAX_WORK:
                msg = f"{path.name}: the file is made up: its tables have no end."
                raise SlideError(msg)
            table = file.read(entries * form.entry_bytes)
            after = file.tell()
            for place in range(0, len(table), form.entry_bytes):
                entry = table[place : place + form.entry_bytes]
                tag, kind, count = struct.unpack_from(form.entry, entry)
                yield tag, kind, count
                if tag == SUB_TABLES and kind in WHOLE_TYPES:
                    waiting += _values(file, form, kind, min(count, MAX_ENTRIES), entry)
            file.seek(after)
            waiting += _read(file, form.order + form.offset)
        except (struct.error, OverflowError, ValueError):
            continue  # ends too early, or lies outside the file: tifffile reports that


def _start(header: bytes, *, is_ndpi: bool) -> tuple[_Format, list[int]]:
    """Return how a file writes its tables, and the offset of the first one."""
    order = {b"II": "<", b"EP": "<", b"MM": ">"}.get(header[:2], "<")
    if header[2:4] == struct.pack(f"{order}H", 43):
        form, at = _Format(order, "Q", "Q", "Q"), 8
    else:
        # Hamamatsu's tables are classic, but with offsets beyond 4 GiB.
        wide = is_ndpi and order == "<"
        form, at = _Format(order, "H", "I", "Q" if wide else "I"), 4
    if len(header) < 16:
        return form, []
    return form, list(struct.unpack_from(order + form.offset, header, at))


def _values(
    file: BinaryIO, form: _Format, kind: int, count: int, entry: bytes
) -> tuple[int, ...]:
    """Return an entry's numbers; those that do not fit in it are stored elsewhere."""
    code = f"{form.order}{count}{WHOLE_TYPES[kind]}"
    inline = struct.calcsize(form.entry)
    if struct.calcsize(code) <= form.entry_bytes - inline:
        return struct.unpack_from(code, entry, inline)
    file.seek(*struct.unpack_from(form.order + form.counts, entry, inline))
    return _read(file, code)


def _read(file: BinaryIO, code: str) -> tuple[int, ...]:
    return struct.unpack(code, file.read(struct.calcsize(code)))
