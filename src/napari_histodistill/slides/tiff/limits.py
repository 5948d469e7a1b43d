"""Limits on what a TIFF page and its encoded tiles may claim.

Slides come from strangers, and the decoders are written in C. Nothing reaches them
before its size is known to be bounded: a tile of a hundred bytes can claim to be
65,535 × 65,535 pixels, and a decoder would believe it.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.pyramid.limits import extent_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PAGES = 10_000
MAX_LEVELS = 64
"""Sub-images of one page; the largest possible slide can be halved fewer times."""

MAX_TILE_BYTES = 64 * 2**20
"""Decoded size: more than 4096 × 4096 px of colour. Scanners write 256 to 2048 px."""

MAX_STRIP_BYTES = 256 * 2**20
"""Decoded size; some programs write a whole image as one compressed strip."""

COMPRESSIONS = {
    1: "none", 2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 6: "JPEG", 7: "JPEG",
    8: "deflate", 32773: "PackBits", 32946: "deflate", 33003: "JPEG 2000",
    33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34925: "LZMA",
    34926: "zstd", 50000: "zstd", 34927: "WebP", 50001: "WebP", 34933: "PNG",
}  # fmt: skip
"""Compressions that are decoded here. No slide uses the others (JPEG XR, camera raws…),
and their decoders crash on damaged data."""

JPEG_PX = 65_535
"""The longest edge that a JPEG's header can hold."""

_WHOLE = (
    "imagewidth", "imagelength", "samplesperpixel", "compression", "photometric",
    "planarconfig", "imagedepth", "rowsperstrip", "tilewidth", "tilelength",
    "predictor", "fillorder",
)  # fmt: skip
_SLACK = 4
"""Decoders pad, and so do some writers: an encoded tile may be somewhat larger than the
page says."""


def bounded_pages(pages: Iterable[Any], name: str, most: int = MAX_PAGES) -> list[Any]:
    """Return the pages of a TIFF as a list, after a check of number and fields.

    Raises
    ------
    SlideError
        If there are absurdly many, or fields of a page are not whole numbers.
    """
    found = list(islice(pages, most + 1))
    if len(found) > most:
        msg = f"{name}: more than {most} pages cannot be a slide."
        raise SlideError(msg)
    for page in found:
        for field in _WHOLE:
            if not isinstance(getattr(page, field), int):
                msg = (
                    f"{name}: the table of page {page.index} is damaged ({field} is "
                    "not one number); get the file again."
                )
                raise SlideError(msg)
    return found


def check_page(page: Any, where: str) -> None:
    """Refuse a page whose size or tiles are impossible, or its compression unknown.

    Raises
    ------
    SlideError
        If so; the message names the problem.
    """
    samples = int(page.samplesperpixel)
    problem = extent_problem(int(page.imagelength), int(page.imagewidth), samples)
    if problem:
        msg = f"{where}: {problem}; the file is damaged or made up."
        raise SlideError(msg)
    if int(page.compression) not in COMPRESSIONS:
        msg = (
            f"{where}: the compression {int(page.compression)} is not known; convert "
            "the file to a JPEG or deflate TIFF."
        )
        raise SlideError(msg)
    if page.is_tiled and min(page.tilelength, page.tilewidth) < 1:
        size = f"{page.tilelength} × {page.tilewidth}"
        msg = f"{where}: the file is damaged, its tiles are {size} px."
        raise SlideError(msg)


def check_segment_size(page: Any, height: int, width: int, where: str) -> None:
    """Refuse tiles or strips that would not fit in memory once decoded.

    Raises
    ------
    SlideError
        If so; the message gives their size.
    """
    if COMPRESSIONS[int(page.compression)] == "JPEG" and max(height, width) > JPEG_PX:
        # A file of kilobytes can claim this, and each part of an overview would try it
        # again.
        msg = (
            f"{where}: the file is damaged or made up: a JPEG cannot be "
            f"{height} × {width} px large."
        )
        raise SlideError(msg)
    samples = int(page.samplesperpixel) if page.planarconfig == 1 else 1
    size = height * width * samples * np.dtype(page.dtype).itemsize
    most = MAX_TILE_BYTES if page.is_tiled else MAX_STRIP_BYTES
    if size > most:
        what = "tiles" if page.is_tiled else "strips"
        msg = (
            f"{where}: {what} of {height} × {width} px ({size >> 20} MiB) are too "
            "large to be decoded whole; convert the file to a tiled pyramid."
        )
        raise SlideError(msg)


def check_encoded(
    compression: int, data: bytes, height: int, width: int, samples: int
) -> None:
    """Refuse an encoded tile that claims to be far larger than the page says.

    Raises
    ------
    ValueError
        If a decoder would need far more memory than the tile has pixels.
    """
    check_encoded_as(COMPRESSIONS.get(compression, ""), data, height, width, samples)


def check_encoded_as(
    name: str, data: bytes, height: int, width: int, samples: int
) -> None:
    """Refuse data of a compression by name; see :func:`check_encoded`.

    Raises
    ------
    ValueError
        If a decoder would need far more memory than the tile has pixels.
    """
    read = _SIZES.get(name)
    if read is None:
        return  # no header of its own: it is decoded into a buffer of the tile's size
    try:
        size = read(data)
    except (struct.error, IndexError) as error:
        msg = f"its {name} header ends too early"
        raise ValueError(msg) from error
    if size is None:
        msg = f"it is not {name} data"
        raise ValueError(msg)
    most = _SLACK * max(height * width, 64 * 64) * max(samples, 4)
    if size[0] * size[1] * size[2] > most:
        msg = f"its {name} data are {size[0]} × {size[1]} px, not {height} × {width}"
        raise ValueError(msg)


_SIZE_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Of JPEG, and of JPEG-LS."""

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Widths to heights that JPEG XL writes as one number."""

Size = tuple[int, int, int]
"""Height, width, components."""


def _jpeg_size(data: bytes) -> Size | None:
    at, end = 0, len(data)
    while at < end - 1:
        if data[at] != 0xFF or data[at + 1] in {0x00, 0xFF}:
            at += 1
            continue
        marker = data[at + 1]
        at += 2
        if marker in {0x01, *range(0xD0, 0xDA)}:  # no length; 0xD9 is the end
            if marker == 0xD9:
                return None
            continue
        if marker in _SIZE_MARKERS:
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            return height, width, components
        if marker == 0xDA:  # pixels before any size: libjpeg refuses that itself
            return None
        (length,) = struct.unpack_from(">H", data, at)
        at += length
    return None


def _jpeg2000_size(data: bytes) -> Size | None:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return None
    x1, y1, x0, y0 = struct.unpack_from(">IIII", data, at + 8)
    tile_x, tile_y = struct.unpack_from(">II", data, at + 24)
    (components,) = struct.unpack_from(">H", data, at + 40)
    if not (x0 < x1 and y0 < y1 and tile_x and tile_y):
        return None
    return y1 - y0, x1 - x0, components


def _webp_size(data: bytes) -> Size | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        return int.from_bytes(data[27:30], "little") + 1, width, 4
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 4
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF, 3
    return None


def _png_size(data: bytes) -> Size | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return height, width, 4


def _jpegxl_size(data: bytes) -> Size | None:
    """Read the size at the start of a codestream, which may stand in a box."""
    at = 0
    while data[at : at + 2] != b"\xff\x0a":
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in {b"jxlc", b"jxlp"}:
            at += 8 if kind == b"jxlc" else 12
        elif length >= 8:
            at += length
        else:
            return None
    bits = int.from_bytes(data[at + 2 : at + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & (1 << count) - 1, bits >> count
        return value

    is_small = take(1)

    def side() -> int:
        if is_small:
            return 8 * (take(5) + 1)
        return take((9, 13, 18, 30)[take(2)]) + 1

    height, ratio = side(), take(3)
    if not ratio:
        return height, side(), 4
    across, down = _RATIOS[ratio - 1]
    return height, height * across // down, 4


_SIZES = {
    "JPEG": _jpeg_size,
    "JPEG-LS": _jpeg_size,
    "JPEG XL": _jpegxl_size,
    "JPEG 2000": _jpeg2000_size,
    "WebP": _webp_size,
    "PNG": _png_size,
}
