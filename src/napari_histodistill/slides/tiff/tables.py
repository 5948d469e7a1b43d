"""Checks of a TIFF's tables before tifffile or OpenSlide reads them.

tifffile multiplies the number of strips by the samples and the depth that a table
states, before the page can be inspected. If one of these is a text or a list of
numbers, Python takes the product for a repetition, and four bytes become gigabytes.

OpenSlide allocates images and tiles of the size that a table states. If the memory is
not to be had, its library does not report an error but ends the process.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NoReturn

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.pyramid.limits import extent_problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MULTIPLIED = {277: "samples per pixel", 32997: "image depth", 32998: "tile depth"}
TELLING = {270: "description", 271: "maker", 305: "software", 700: "metadata"}
"""What of the first page tells the format. tifffile leaves out an entry that lies
outside the file, and a slide of overlapping tiles or several scans then looks plain."""

SUB_TABLES = 330
WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT = 256, 257, 322, 323
WHOLE_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I",
               16: "Q", 17: "q", 18: "Q"}  # fmt: skip
"""TIFF types of whole numbers, and their codes for ``struct``."""

BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
         13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
"""Size of a value of each TIFF type."""

MAX_TABLES = 10_000
MAX_TILE_PX = 2**26
"""OpenSlide holds a tile of this size in 256 MiB; scanners write up to 2048 × 2048."""

MAX_ENTRIES = 4096
"""Entries of one table; tifffile stops at more, as suspicious."""

MAX_WORK = 10**6
"""Tables and entries in total; the largest slides have some thousands."""


class _Entry(NamedTuple):
    """An entry of a table."""

    table: int  # where in the file its table is
    tag: int
    kind: int
    values: int
    value: int | None  # a single number that stands in the entry


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

    Nor is one read of which what tells its format is longer than the file. Everything
    else that may be wrong with them is left to tifffile.

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
        length, first = file.seek(0, 2), None
        file.seek(0)
        for entry in _entries(file, path):
            first = entry.table if first is None else first
            too_long = entry.values * BYTES.get(entry.kind, 1) > length
            if entry.table == first and entry.tag in TELLING and too_long:
                _refuse(path, f"{TELLING[entry.tag]} of {entry.values} characters")
            one = entry.kind in WHOLE_TYPES and entry.values == 1
            if entry.tag in MULTIPLIED and not one:
                _refuse(path, f"{MULTIPLIED[entry.tag]} is not one number")


def check_for_openslide(path: Path) -> None:
    """Refuse a TIFF whose tables state what its file cannot hold, or no scanner writes.

    Parameters
    ----------
    path : Path
        Classic TIFF, BigTIFF or NDPI.

    Raises
    ------
    SlideError
        If values lie beyond the file, or an image or its tiles are too large.
    OSError
        If the file cannot be read.
    """
    check_tables(path)
    sizes = _sizes(path)
    if len(sizes) > MAX_TABLES:
        _refuse(path, f"{len(sizes)} pages")
    for known in sizes.values():
        problem = extent_problem(known.get(HEIGHT, 1), known.get(WIDTH, 1))
        if problem:
            _refuse(path, problem)
        across, down = known.get(TILE_WIDTH, 1), known.get(TILE_HEIGHT, 1)
        if across * down > MAX_TILE_PX:
            _refuse(path, f"tiles of {down} × {across} px")


def _sizes(path: Path) -> dict[int, dict[int, int]]:
    """Return the sizes that each table states, by entry; all must be in the file."""
    sizes: dict[int, dict[int, int]] = {}
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(0)
        for entry in _entries(file, path):
            if entry.values * BYTES.get(entry.kind, 1) > length:
                _refuse(path, f"entry {entry.tag} has {entry.values} values")
            if entry.tag in {WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT}:
                if entry.value is None:
                    _refuse(path, f"entry {entry.tag} is not one number")
                # Of an entry that is there twice, libraries take one or the other.
                known = sizes.setdefault(entry.table, {})
                known[entry.tag] = max(entry.value, known.get(entry.tag, 0))
    return sizes


def _refuse(path: Path, what: str) -> NoReturn:
    msg = f"{path.name}: the table of pages is damaged ({what}); get the file again."
    raise SlideError(msg)


def _entries(file: BinaryIO, path: Path) -> Iterator[_Entry]:
    """Yield every entry of every table."""
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
                yield _Entry(at, tag, kind, count, _single(form, kind, count, entry))
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


def _single(form: _Format, kind: int, count: int, entry: bytes) -> int | None:
    """Return the number in an entry; None if it is none, or not one."""
    if kind not in WHOLE_TYPES or count != 1:
        return None
    code = f"{form.order}{WHOLE_TYPES[kind]}"
    inline = struct.calcsize(form.entry)
    if inline + struct.calcsize(code) > len(entry):
        return None  # cut short, or eight bytes where four fit
    return int(struct.unpack_from(code, entry, inline)[0])


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
