"""DICOM files written byte by byte: what no well-meaning writer would put on a disk."""

from __future__ import annotations

import struct

WSM = "1.2.840.10008.5.1.4.1.1.77.1.6"
RAW, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
DEFLATED, JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"
LONG = {"OB", "OW", "SQ", "UC", "UN", "UT"}
UNDEFINED = 0xFFFFFFFF
PIXELS = 0x7FE00010


def element(
    tag: int,
    vr: str,
    value: bytes | str | int = b"",
    *,
    length: int | None = None,
    implicit: bool = False,
) -> bytes:
    """Return one element; a length that is given may lie."""
    if isinstance(value, int):
        value = struct.pack("<H" if vr == "US" else "<I", value)
    elif isinstance(value, str):
        value = value.encode()
        value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    stated = len(value) if length is None else length
    if implicit:
        return start + struct.pack("<I", stated) + value
    wide = "2sHI" if vr in LONG else "2sH"
    rest = (vr.encode(), 0, stated) if vr in LONG else (vr.encode(), stated)
    return start + struct.pack(f"<{wide}", *rest) + value


def item(content: bytes = b"", *, length: int | None = None) -> bytes:
    """Return an item of a sequence, or the beginning of one without an end."""
    stated = len(content) if length is None else length
    return struct.pack("<HHI", 0xFFFE, 0xE000, stated) + content


def nested(depth: int, tag: int = 0x00091001, *, implicit: bool = False) -> bytes:
    """Return sequences in sequences, none of which ends."""
    one = element(tag, "SQ", length=UNDEFINED, implicit=implicit)
    return (one + item(length=UNDEFINED)) * depth


def meta(syntax: str = RAW, *, length: int | None = None, more: bytes = b"") -> bytes:
    """Return the first group, preamble and magic before it."""
    group = (
        element(0x00020001, "OB", b"\0\1")
        + element(0x00020002, "UI", WSM)
        + element(0x00020003, "UI", "1.2.9")
        + element(0x00020010, "UI", syntax)
        + more
    )
    stated = len(group) if length is None else length
    return bytes(128) + b"DICM" + element(0x00020000, "UL", stated) + group


def header(
    *,
    implicit: bool = False,
    first: bytes = b"",
    tile: int = 64,
    rows: int = 64,
    columns: int = 128,
    frames: str = "2",
    series: str = "1.2.3",
) -> bytes:
    """Return what describes an RGB slide of two tiles; ``first`` comes before it."""
    spacing = element(0x00280030, "DS", "0.0005\\0.0005", implicit=implicit)
    measures = element(0x00289110, "SQ", item(spacing), implicit=implicit)
    parts: list[tuple[int, str, bytes | str | int]] = [
        (0x00080008, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        (0x00080016, "UI", WSM),
        (0x00080018, "UI", "1.2.9"),
        (0x0020000D, "UI", "1.2.4"),
        (0x0020000E, "UI", series),
        (0x00209311, "CS", "TILED_FULL"),
        (0x00280002, "US", 3),
        (0x00280004, "CS", "RGB"),
        (0x00280006, "US", 0),
        (0x00280008, "IS", frames),
        (0x00280010, "US", tile),
        (0x00280011, "US", tile),
        (0x00280100, "US", 8),
        (0x00280101, "US", 8),
        (0x00280102, "US", 7),
        (0x00280103, "US", 0),
        (0x00480006, "UL", columns),
        (0x00480007, "UL", rows),
        (0x52009229, "SQ", item(measures)),
    ]
    return first + b"".join(element(*p, implicit=implicit) for p in parts)


def dicom(
    *,
    syntax: str = RAW,
    before: bytes = b"",
    after: bytes = b"",
    pixels: bytes | None = None,
    **changes: object,
) -> bytes:
    """Return a DICOM slide with bytes of one's own around its header's elements."""
    implicit = syntax == IMPLICIT
    if pixels is None:
        picture = bytes(range(256)) * 96
        pixels = element(PIXELS, "OW", picture, implicit=implicit)
    described = header(implicit=implicit, **changes)  # type: ignore[arg-type]
    return meta(syntax) + before + described + after + pixels
