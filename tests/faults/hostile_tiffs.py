"""TIFFs that lie: each a few hundred bytes that claim to be something monstrous."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np

from tests.faults import raw_tiff as raw
from tests.faults.raw_tiff import Entry, Page, number, raw_tiff, text, tiled_page

HUGE = 2**31 - 1


def hostile_tiffs() -> dict[str, bytes]:
    """Return TIFFs that must be refused: what is wrong → content."""
    good = tiled_page()
    zeros = zlib.compress(bytes(200 * 2**20), 9)  # 200 KB that inflate to 200 MB
    zstd = imagecodecs.zstd_encode(bytes(200 * 2**20), 9)
    jpeg = imagecodecs.jpeg_encode(np.zeros((64, 64, 3), np.uint8))
    jpeg2000 = imagecodecs.jpeg2k_encode(np.zeros((64, 64, 3), np.uint8))
    webp = imagecodecs.webp_encode(np.zeros((64, 64, 3), np.uint8), lossless=True)
    png = imagecodecs.png_encode(np.zeros((64, 64, 3), np.uint8))
    cut = good.with_tags(tile_counts=raw.number(raw.TILE_COUNTS, 10))
    return {
        "2^31 x 2^31 pixels": raw_tiff(good.with_tags(width=HUGE, height=HUGE)),
        "2^32 wide": raw_tiff(good.with_tags(width=2**32 - 1)),
        "2^63 wide": raw_tiff(good.with_tags(width=2**63), big=True),
        "as many tiles as atoms": raw_tiff(
            good.with_tags(width=2**22, height=2**18), big=True
        ),
        "a table of 2^40 tiles": raw_tiff(
            good.with_tags(
                tile_counts=Entry(raw.TILE_COUNTS, 16, struct.pack("<Q", 8), 2**40)
            ),
            big=True,
        ),
        "zero tiles": raw_tiff(good.with_tags(tile_width=0, tile_height=0)),
        "zero pixels": raw_tiff(good.with_tags(width=0, height=0)),
        "one tile of 65,520 px, deflate": raw_tiff(
            _bomb(65520, 8, zlib.compress(bytes(2**20)))
        ),
        "one tile of 65,520 px, zstd": raw_tiff(_bomb(65520, 50000, zstd)),
        "one tile of 65,520 px, LZW": raw_tiff(
            _bomb(65520, 5, imagecodecs.lzw_encode(bytes(2**20)))
        ),
        "a strip of 2 GB": raw_tiff(_strip(22000, 32000, zeros)),
        "cyclic directories": _cyclic(good),
        "deflate that inflates to 200 MB": raw_tiff(_bomb(64, 8, zeros)),
        "zstd that inflates to 200 MB": raw_tiff(_bomb(64, 50000, zstd)),
        "JPEG of 65,535 px": raw_tiff(
            _bomb(64, 7, jpeg.replace(b"\0\x40\0\x40", b"\xff\xff\xff\xff"))
        ),
        "JPEG of half the tile": raw_tiff(_bomb(128, 7, jpeg)),
        "JPEG 2000 of 2^30 px": raw_tiff(
            _bomb(64, 34712, _patched(jpeg2000, b"\xff\x4f\xff\x51", 8, ">II", 2**30))
        ),
        "WebP of 16,384 px": raw_tiff(
            _bomb(64, 50001, webp[:21] + struct.pack("<I", 0x0FFFFFFF) + webp[25:])
        ),
        "PNG of 2^31 px": raw_tiff(
            _bomb(64, 34933, _patched(png, b"IHDR", 4, ">II", HUGE))
        ),
        "a palette without colours": raw_tiff(
            Page(
                {
                    **tiled_page(segments=(zlib.compress(bytes(64 * 64)),)).entries,
                    raw.BITS: number(raw.BITS, 8),
                    raw.SAMPLES: number(raw.SAMPLES, 1),
                    raw.PHOTOMETRIC: number(raw.PHOTOMETRIC, 3),
                },
                zlib.compress(bytes(64 * 64)),
            )
        ),
        "offsets beyond the file": raw_tiff(
            good.with_tags(tile_offsets=number(raw.TILE_OFFSETS, 2**31))
        ),
        "offset of 2^63": raw_tiff(
            good.with_tags(tile_offsets=number(raw.TILE_OFFSETS, 2**63 + 9)), big=True
        ),
        "more bytes than the file": raw_tiff(
            good.with_tags(tile_counts=number(raw.TILE_COUNTS, 2**32 - 1))
        ),
        "fewer bytes than the tile": raw_tiff(cut),
        "too few raw bytes": raw_tiff(_bomb(64, 1, bytes(100))),
        "too few tiles": raw_tiff(good.with_tags(width=640, height=640)),
        "65,535 samples": raw_tiff(good.with_tags(samples=65535)),
        "no samples": raw_tiff(good.with_tags(samples=0)),
        "widths": raw_tiff(good.with_tags(width=number(raw.WIDTH, 64, 64))),
        "JPEG XR": raw_tiff(_bomb(64, 34934, b"II\xbc\1" + bytes(60))),
        "20,000 pages": raw_tiff(*[Page({}, b"")] * 20_000),
        "no directory": b"II*\0\0\0\0\0" + bytes(16),
        "directory beyond the file": b"II*\0\xff\xff\xff\x7f" + bytes(16),
        "directory before the file": struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**63),
        "BigTIFF of 4-byte offsets": struct.pack("<2sHHHQ", b"II", 43, 4, 0, 16)
        + bytes(32),
        "65,535 tags": b"II*\0\x08\0\0\0\xff\xff" + bytes(100),
        "10^9 channels": raw_tiff(_ome(good, channels=10**9)),
        "negative page": raw_tiff(_ome(good, at=-1, channels=10**6)),
        "a JPEG strip of 10^6 px": raw_tiff(
            _strip(32, 2**20, good.data, compression=7)
        ),
        "10^6 sub-images": raw_tiff(
            good.with_tags(
                sub_ifds=Entry(raw.SUB_IFDS, 4, struct.pack("<I", 8) * 10**6)
            )
        ),
        # Strips times a text is that text, a billion times over.
        "a word as depth": raw_tiff(_repeated(depth=text(raw.DEPTH, "x"))),
        "four bytes as depth": raw_tiff(
            _repeated(depth=Entry(raw.DEPTH, 7, b"abcd")), big=True
        ),
        "two numbers as samples": raw_tiff(
            _repeated(planar=2, samples=number(raw.SAMPLES, 3, 3)), order=">"
        ),
        "a word as depth, on a later page": raw_tiff(
            good, _repeated(depth=text(raw.DEPTH, "x"))
        ),
        "a word as depth, in a sub-image": _as_sub_image(
            good, _repeated(depth=text(raw.DEPTH, "x"))
        ),
    }


def odd_tiffs() -> dict[str, bytes]:
    """Return TIFFs that are strange but harmless: what they are → content."""
    good = tiled_page()
    itself = raw_tiff(good)
    (first,) = struct.unpack_from("<I", itself, 4)
    links = raw.directories(itself)[1]
    overlap = bytearray(itself)
    struct.pack_into("<I", overlap, links[-1], first + 12)
    return {
        "overlapping directories": bytes(overlap),
        "10^9 planes": raw_tiff(_ome(good, planes=10**9)),
        "a billion laughs": raw_tiff(
            good.with_tags(description=text(raw.DESCRIPTION, _laughs()))
        ),
        "a directory as its own sub-image": raw_tiff(
            good.with_tags(sub_ifds=Entry(raw.SUB_IFDS, 4, struct.pack("<I", first)))
        ),
        "a tile nobody wrote": raw_tiff(
            good.with_tags(tile_counts=number(raw.TILE_COUNTS, 0))
        ),
        "one tile shared by all": raw_tiff(
            good.with_tags(
                width=6400,
                height=6400,
                tile_offsets=number(raw.TILE_OFFSETS, *[8] * 10_000),
                tile_counts=number(raw.TILE_COUNTS, *[len(good.data)] * 10_000),
            )
        ),
        "big-endian BigTIFF": raw_tiff(good, big=True, order=">"),
        "a description of 5 MB": raw_tiff(
            good.with_tags(
                description=text(raw.DESCRIPTION, "Aperio " + "|MPP = 0.5" * 500_000)
            )
        ),
    }


def _cyclic(page: Page) -> bytes:
    out = bytearray(raw_tiff(page))
    (first,) = struct.unpack_from("<I", out, 4)
    struct.pack_into("<I", out, raw.directories(bytes(out))[1][-1], first)
    return bytes(out)


def _bomb(px: int, compression: int, segment: bytes) -> Page:
    return tiled_page(
        width=px, height=px, tile=(px, px), segments=(segment,), compression=compression
    )


def _strip(height: int, width: int, segment: bytes, *, compression: int = 8) -> Page:
    entries = [
        number(raw.WIDTH, width),
        number(raw.HEIGHT, height),
        number(raw.BITS, 8, 8, 8),
        number(raw.COMPRESSION, compression),
        number(raw.PHOTOMETRIC, 2),
        Entry(raw.STRIP_OFFSETS, 4, ()),
        number(raw.SAMPLES, 3),
        number(raw.ROWS_PER_STRIP, height),
        number(raw.STRIP_COUNTS, len(segment)),
    ]
    return Page({e.tag: e for e in entries}, segment)


def _repeated(**changes: Any) -> Page:
    page = _strip(2**30, 64, bytes(8)).with_tags(rows_per_strip=1)
    return page.with_tags(**changes)


def _as_sub_image(page: Page, sub: Page) -> bytes:
    """Return a file whose only page has another as its sub-image."""
    marked = page.with_tags(sub_ifds=Entry(raw.SUB_IFDS, 4, bytes(4)))
    out = bytearray(raw_tiff(marked, sub))
    link = raw.directories(bytes(out))[1][1]
    (at,) = struct.unpack_from("<I", out, link)
    struct.pack_into("<I", out, link, 0)
    entry = out.index(struct.pack("<HHI", raw.SUB_IFDS, 4, 1))
    struct.pack_into("<I", out, entry + 8, at)
    return bytes(out)


def _patched(data: bytes, after: bytes, skip: int, format_: str, value: int) -> bytes:
    out = bytearray(data)
    at = out.index(after) + skip
    struct.pack_into(format_, out, at, value, value)
    return bytes(out)


def _ome(page: Page, *, planes: int = 1, channels: int = 1, at: int = 0) -> Page:
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
        '2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="uint8" SizeX="64" SizeY="64" SizeC="{channels}" SizeZ="1" SizeT="1">'
        f'<TiffData IFD="{at}" PlaneCount="{planes}"/></Pixels></Image></OME>'
    )
    return page.with_tags(description=text(raw.DESCRIPTION, xml))


def _laughs() -> str:
    lines = ['<!ENTITY l0 "lol">']
    lines += [f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10)]
    return f"<?xml version='1.0'?><!DOCTYPE OME [{''.join(lines)}]><OME>&l9;</OME>"
