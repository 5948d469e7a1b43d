"""DICOM files that lie; each is small, and was honest before one thing was changed."""

from __future__ import annotations

import zlib
from functools import cache

from tests.faults.raw_dicom import (
    DEFLATED,
    IMPLICIT,
    JPEG,
    PIXELS,
    UNDEFINED,
    dicom,
    element,
    header,
    item,
    meta,
    nested,
)

DEEP = 20_000
BEFORE = 0x00080005  # an element that may come first


def hostile_dicoms() -> dict[str, bytes]:
    """Return files that must be refused: what is wrong → content."""
    private = 0x00091001
    inner = b""
    for _ in range(100):
        inner = element(0x00081140, "SQ", item(inner))
    return {
        "sequences nested 20,000 deep": dicom(before=nested(DEEP, 0x00081140)),
        "… of a private tag": dicom(before=nested(DEEP)),
        "… of stated lengths": dicom(before=inner),
        "… after the header": dicom(after=nested(DEEP, 0x52009230)),
        "… of an unknown type": dicom(
            before=element(private, "UN", length=UNDEFINED)
            + item(length=UNDEFINED)
            + nested(DEEP, implicit=True)
        ),
        "… without types": dicom(
            syntax=IMPLICIT, before=nested(DEEP, 0x00081140, implicit=True)
        ),
        "… in the first group": meta(more=nested(DEEP, 0x00020011)) + header(),
        "deflated, 1 GB": meta(DEFLATED) + _deflated_gigabyte(),
        "deflated for JPIP": meta("1.2.840.10008.1.2.4.95") + _deflated_gigabyte(),
        "big-endian": dicom(syntax="1.2.840.10008.1.2.2"),
        "a value of 4 GB": dicom(
            before=element(private, "OB", b"ab", length=2**32 - 16)
        ),
        "a text of 2 GB": dicom(before=element(private, "UT", b"ab", length=2**31)),
        "a value without an end": dicom(
            before=element(private, "OB", b"ab", length=UNDEFINED)
        ),
        "a sequence beyond the file": dicom(
            before=element(private, "SQ", item(), length=2**31)
        ),
        "an item beyond its sequence": dicom(
            before=element(private, "SQ", item(length=64))
        ),
        "an item beyond the file": dicom(
            before=element(private, "SQ", item(length=2**31), length=UNDEFINED)
        ),
        "a sequence of something else": dicom(
            before=element(private, "SQ", element(private, "LO", "no item"))
        ),
        "a first group of 4 GB": meta(length=2**32 - 16) + header(),
        "a first group that ends early": meta(length=30) + header(),
        "an entry of 4 GB in the first group": meta(
            more=element(0x00020102, "OB", b"ab", length=2**32 - 16)
        ),
        "types where it says there are none": meta(IMPLICIT) + header(),
        "no types where it says there are": meta() + header(implicit=True),
        "a type that does not exist": dicom(before=element(BEFORE, "??", "a")),
        "a header that is cut": dicom()[:400],
        "2^31 frames": dicom(frames="2147483647"),
        "frames that are a word": dicom(frames="many"),
        "more frames than bytes": dicom(frames="900000"),
        "tiles of 65,535 px": dicom(tile=65535, rows=65535, columns=65535, frames="1"),
        "2^31 × 2^31 px": dicom(rows=2**31, columns=2**31),
        "ten million tiles": dicom(rows=2**22, columns=2**22, tile=16),
        "rows twice": dicom(after=element(0x00280010, "US", 65535)),
        "pixels beyond the file": dicom(
            pixels=element(PIXELS, "OW", bytes(64), length=2**31)
        ),
        "a table of frames beyond the file": dicom(
            syntax=JPEG,
            pixels=element(PIXELS, "OB", length=UNDEFINED) + item(length=2**31),
        ),
        "frames without a table": dicom(
            syntax=JPEG, pixels=element(PIXELS, "OB", bytes(8), length=UNDEFINED)
        ),
    }


@cache
def _deflated_gigabyte() -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    start = packer.compress(element(0x00091001, "OB", length=2**30))
    start += packer.flush(zlib.Z_FULL_FLUSH)
    # What follows such a flush leans on nothing before it: it may be said again.
    mib = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + 1024 * mib + packer.flush()
