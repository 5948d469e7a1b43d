"""TIFFs written byte by byte: what no well-meaning writer would put on a disk."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}
FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = (
    256,
    257,
    258,
    259,
    262,
    270,
)
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS = 273, 277, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
SUB_IFDS, PREDICTOR, PLANAR, SAMPLE_FORMAT, JPEG_TABLES = 330, 317, 284, 339, 347
DEPTH = 32997


@dataclass(frozen=True)
class Entry:
    """One tag: its values, or raw bytes with a count that may lie."""

    tag: int
    type: int
    values: tuple[int, ...] | bytes
    count: int | None = None


@dataclass(frozen=True)
class Page:
    """One image file directory; ``data`` is put before it, its offset into ``at``.

    Attributes
    ----------
    entries : dict of int to Entry
        By tag.
    data : bytes
        The segments, one after another.
    next_offset : int or None
        A forged pointer to the next directory; None chains them as they come.
    """

    entries: dict[int, Entry]
    data: bytes = b""
    next_offset: int | None = field(default=None)

    def with_tags(self, **changes: Any) -> Page:
        """Replace tags by name (``width=…``) or leave one out (``width=None``)."""
        entries = dict(self.entries)
        for name, entry in changes.items():
            tag = globals()[name.upper()]
            if entry is None:
                entries.pop(tag, None)
            elif isinstance(entry, Entry):
                entries[tag] = entry
            else:
                entries[tag] = number(tag, entry)
        return replace(self, entries=entries)


def number(tag: int, *values: int) -> Entry:
    """Return a tag of whole numbers, as small as they fit."""
    kind = 3 if max(values) < 2**16 else 4 if max(values) < 2**32 else 16
    return Entry(tag, kind, values)


def text(tag: int, words: str) -> Entry:
    """Return a tag of text."""
    return Entry(tag, 2, words.encode() + b"\0")


def tiled_page(
    *,
    width: int = 64,
    height: int = 64,
    tile: tuple[int, int] = (64, 64),
    segments: tuple[bytes, ...] = (zlib.compress(bytes(64 * 64 * 3)),),
    compression: int = 8,
) -> Page:
    """Return a page of RGB tiles that is good as it stands."""
    entries = [
        number(WIDTH, width),
        number(HEIGHT, height),
        number(BITS, 8, 8, 8),
        number(COMPRESSION, compression),
        number(PHOTOMETRIC, 2),
        number(SAMPLES, 3),
        number(TILE_WIDTH, tile[1]),
        number(TILE_HEIGHT, tile[0]),
        Entry(TILE_OFFSETS, 4, ()),
        number(TILE_COUNTS, *map(len, segments)),
    ]
    return Page({e.tag: e for e in entries}, b"".join(segments))


def raw_tiff(*pages: Page, big: bool = False, order: str = "<") -> bytes:
    """Return a TIFF of these pages; offsets left empty are filled in.

    Parameters
    ----------
    pages : Page
        In the order of the file.
    big : bool
        BigTIFF.
    order : {"<", ">"}
        Byte order.
    """
    mark = b"II" if order == "<" else b"MM"
    if big:
        out = bytearray(mark + struct.pack(order + "HHHQ", 43, 8, 0, 0))
        link, pointer, head = 8, "Q", "Q"
    else:
        out = bytearray(mark + struct.pack(order + "HI", 42, 0))
        link, pointer, head = 4, "I", "H"
    size = struct.calcsize(pointer)
    for page in pages:
        start = len(out)
        out += page.data
        entries = [
            _placed(entry, page, start, out, order, size)
            for entry in sorted(page.entries.values(), key=lambda e: e.tag)
        ]
        out += b"\0" * (len(out) % 2)
        here = len(out)
        struct.pack_into(order + pointer, out, link, here)
        out += struct.pack(order + head, len(entries))
        for tag, kind, count, value in entries:
            out += struct.pack(order + "HH" + pointer, tag, kind, count) + value
        link = len(out)
        out += struct.pack(order + pointer, page.next_offset or 0)
        if page.next_offset is not None:
            link = len(out) - size if page.next_offset == 0 else link
    return bytes(out)


def _placed(
    entry: Entry, page: Page, start: int, out: bytearray, order: str, size: int
) -> tuple[int, int, int, bytes]:
    values = entry.values
    if entry.tag in {TILE_OFFSETS, STRIP_OFFSETS} and values == ():
        counts = page.entries[TILE_COUNTS if entry.tag == TILE_OFFSETS else 279].values
        offsets, at = [], start
        for count in counts:
            offsets.append(at)
            at += count
        values = tuple(offsets)
    if not isinstance(values, bytes):
        kind = FORMATS[entry.type]
        length = len(values)
        values = struct.pack(f"{order}{length}{kind}", *values)
    else:
        length = len(values) // SIZES.get(entry.type, 1)
    count = length if entry.count is None else entry.count
    if len(values) <= size:
        return entry.tag, entry.type, count, values.ljust(size, b"\0")
    where = len(out)
    out += values
    pointer = "Q" if size == 8 else "I"
    return entry.tag, entry.type, count, struct.pack(order + pointer, where)


@dataclass(frozen=True)
class Field:
    """Where an entry of a directory lies in a file, for mutations."""

    at: int
    big: bool
    order: str


def directories(content: bytes, limit: int = 64) -> tuple[list[Field], list[int]]:
    """Return all entries of a TIFF and the places of its links to directories."""
    order = "<" if content[:2] == b"II" else ">"
    if len(content) < 16:
        return [], []
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    pointer, head, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    links, fields = [8 if big else 4], []
    seen: set[int] = set()
    todo = [links[0]]
    while todo and len(seen) < limit:
        link = todo.pop()
        try:
            (at,) = struct.unpack_from(order + pointer, content, link)
            if at in seen or not at:
                continue
            seen.add(at)
            (count,) = struct.unpack_from(order + head, content, at)
            at += struct.calcsize(head)
            for k in range(min(count, 200)):
                if at + (k + 1) * size > len(content):
                    break
                fields.append(Field(at + k * size, big, order))
            end = at + count * size
            struct.unpack_from(order + pointer, content, end)
        except (struct.error, OverflowError):
            continue
        links.append(end)
        todo.append(end)
    return fields, links
