"""Honest files made dishonest: bytes, numbers of directories, words of text."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

from tests.faults.raw_tiff import FORMATS, SIZES, directories

Mutator = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

NUMBERS = (
    0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 65, 255, 256, 257, 4095, 32767, 32768, 65535,
    65536, 2**20, 2**24 + 1, 2**27, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1,
    2**63, 2**64 - 1,
)  # fmt: skip
COMPRESSIONS = (
    1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946, 33003, 33005, 34712, 34887, 34892,
    34925, 34926, 34927, 34933, 34934, 48124, 50000, 50001, 50002, 52546, 65000, 65002,
)  # fmt: skip
TAGS = (
    254, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 282, 284, 296,
    305, 317, 320, 322, 323, 324, 325, 330, 338, 339, 347, 530, 532, 32997, 33628,
    34118, 34361, 34412, 50838, 50839, 51023, 65420, 65421, 65449, 34665, 34853,
)  # fmt: skip
WORDS = (
    "-1", "0", "1e400", "nan", "inf", "999999999999", "1000000000", "2147483648",
    "0x10", "", "\0", "<", ">", "&lol;", '"', "'", "{", "}", "[", "]", ",", "\n",
    "true", "null", "None", "../../etc/passwd", "/dev/zero", "é", "\ud83d\ude00",
    "OME", "SizeC", "PlaneCount", "MPP = 1e-320", "SCANNER", "Aperio ", "=",
)  # fmt: skip


def mutate_tiff(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Return a TIFF with one to five things wrong, mostly in its directories."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        fields, links = directories(bytes(out))
        step = rng.random()
        if fields and step < 0.62:
            field = rng.choice(fields)
            _change_entry(rng, out, field.at, big=field.big, order=field.order)
        elif links and step < 0.70:
            _change_link(rng, out, rng.choice(links))
        elif step < 0.74:
            _change_text(rng, out)
        elif step < 0.78 and len(out) > 8:
            del out[rng.randrange(8, len(out)) :]
        else:
            _change_bytes(rng, out, others)
    return bytes(out)


def mutate_text(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Return a text (JSON, TOML, CSV) with one to eight things wrong."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        step = rng.random()
        if step < 0.5:
            _change_text(rng, out)
        elif step < 0.6 and out:
            a, b = sorted(rng.randrange(len(out) + 1) for _ in range(2))
            piece = bytes(out[a:b])[:2000]
            where = rng.randrange(len(out) + 1)
            out[where:where] = piece * rng.choice((1, 2, 50))
        elif step < 0.65:
            word = rng.choice((b"[", b'{"a":', b"a.", b"(", b'"', b"[["))
            where = rng.randrange(len(out) + 1)
            out[where:where] = word * rng.choice((3, 300, 20000))
        else:
            _change_bytes(rng, out, others)
    return bytes(out[:200_000])


def change_bytes(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Return bytes of which some were changed, left out or taken from elsewhere."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.05:
            del out[rng.randrange(len(out) + 1) :]
        else:
            _change_bytes(rng, out, others)
    return bytes(out)


def _change_entry(
    rng: random.Random, out: bytearray, at: int, *, big: bool, order: str
) -> None:
    pointer = "Q" if big else "I"
    tag, kind = struct.unpack_from(order + "HH", out, at)
    (count,) = struct.unpack_from(order + pointer, out, at + 4)
    size = struct.calcsize(pointer)
    value_at = at + 4 + size
    choice = rng.random()
    if choice < 0.1:
        struct.pack_into(order + "H", out, at, rng.choice(TAGS))
    elif choice < 0.2:
        struct.pack_into(order + "H", out, at + 2, rng.choice((*SIZES, 0, 99)))
    elif choice < 0.35:
        _pack(out, order + pointer, at + 4, rng.choice((*NUMBERS, count + 1)))
    elif tag == 259 and choice < 0.8:
        _pack(out, order + "H", value_at, rng.choice(COMPRESSIONS))
    else:
        format_ = FORMATS.get(kind, pointer)
        wide = struct.calcsize(format_)
        if wide * min(count, 2**40) > size:  # the value is elsewhere in the file
            (where,) = struct.unpack_from(order + pointer, out, value_at)
            if rng.random() < 0.3 or where + wide > len(out):
                _pack(out, order + pointer, value_at, _place(rng, out))
                return
            most = min(count, (len(out) - where) // wide)
            value_at = where + wide * rng.randrange(max(1, most))
        fresh = _place(rng, out) if rng.random() < 0.3 else rng.choice(NUMBERS)
        _pack(out, order + format_, value_at, fresh)


def _change_link(rng: random.Random, out: bytearray, at: int) -> None:
    order = "<" if out[:2] == b"II" else ">"
    _pack(out, order + "I", at, _place(rng, out))


def _change_text(rng: random.Random, out: bytearray) -> None:
    """Replace a run of digits, or put a word somewhere."""
    word = rng.choice(WORDS).encode("utf-8", "surrogatepass")
    digits = [k for k, c in enumerate(out) if 48 <= c <= 57]
    if digits and rng.random() < 0.6:
        start = end = rng.choice(digits)
        while end < len(out) and 48 <= out[end] <= 57:
            end += 1
        out[start:end] = str(rng.choice(NUMBERS)).encode()
        return
    where = rng.randrange(len(out) + 1)
    out[where : where + rng.choice((0, 0, len(word)))] = word


def _change_bytes(rng: random.Random, out: bytearray, others: Sequence[bytes]) -> None:
    if not out:
        return
    choice, where = rng.random(), rng.randrange(len(out))
    if choice < 0.4:
        out[where] ^= 1 << rng.randrange(8)
    elif choice < 0.6:
        out[where] = rng.choice((0, 1, 127, 128, 255))
    elif choice < 0.75:
        length = rng.choice((1, 2, 4, 16, 300))
        out[where : where + length] = rng.randbytes(length)
    elif choice < 0.85:
        del out[where : where + rng.choice((1, 2, 12, 100))]
    elif others:
        other = rng.choice(others)
        start = rng.randrange(max(1, len(other)))
        length = rng.choice((4, 12, 64, 400))
        piece = other[start : start + length]
        out[where : where + len(piece)] = piece


def _place(rng: random.Random, out: bytearray) -> int:
    near = (0, 4, 8, len(out) - 1, len(out), len(out) + 7, rng.randrange(len(out) + 1))
    return rng.choice((*near, rng.choice(NUMBERS)))


def _pack(out: bytearray, format_: str, at: int, value: int) -> None:
    wide = 8 * struct.calcsize(format_)
    if at + wide // 8 <= len(out):
        struct.pack_into(format_, out, at, value % 2**wide)
