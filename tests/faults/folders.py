"""Folders as seeds: packed into one file, spoilt, unpacked where they are read.

A tar holds links and pipes as well as files. What is spoilt is a file's content, or
what lies under a name: a link out, a device, a pipe, a folder, a second name, nothing.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import mutating

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

PRECIOUS = "precious"
"""A file beside the folder that links lead to; it must never change."""

KEPT = b"mine\n"
LINKS = (
    "/dev/zero", "/dev/null", "/dev/full", f"../{PRECIOUS}", "..", ".", "gone", "/",
    "/proc/self/mem", "/proc/self/environ",
)  # fmt: skip
_TEXT = (".json", ".jsonl", ".toml", ".csv", ".md", ".zattrs", ".zarray", ".zgroup")


def packed(folder: Path) -> bytes:
    """Return a folder's files as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size = path.stat().st_size
                tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return out.getvalue()


def made(make: Callable[[Path], object]) -> bytes:
    """Return the tar of a folder that is made by a function of its path."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "made"
        make(folder)
        return packed(folder)


def mutate_folder(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Return a folder with one to three things wrong."""
    members = _members(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _spoil(rng, members, rng.choice(others))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry, data in members:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data) if data else None)
    return out.getvalue()


def mutate_hdf5(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Return an HDF5 file with one to five things wrong, mostly in its headers."""
    out = bytearray(content)
    signs = [k for sign in _SIGNS for k in _found(content, sign)]
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        if signs and rng.random() < 0.7:
            at = rng.choice(signs) + rng.randrange(64)
            wide = rng.choice((1, 2, 4, 8))
            if at + wide <= len(out):
                value = rng.choice((*mutating.NUMBERS, len(out), rng.randrange(4096)))
                _put(out, at, value, wide)
        else:
            out = bytearray(mutating.change_bytes(rng, bytes(out), others))
    return bytes(out)


def _put(out: bytearray, at: int, value: int, wide: int) -> None:
    out[at : at + wide] = (value % 2 ** (8 * wide)).to_bytes(wide, "little")


_SIGNS = (b"OHDR", b"SNOD", b"HEAP", b"TREE", b"GCOL", b"\x89HDF", b"OCHK", b"BTHD")


def mutate_dicom(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Return a DICOM file with one to five things wrong, mostly in tags and lengths."""
    out = bytearray(content)
    starts = _dicom_starts(content)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        step, at = rng.random(), rng.choice(starts)
        if step < 0.35 and at + 12 <= len(out):
            place, wide = at + rng.choice((4, 6, 8)), rng.choice((2, 4))
            value = rng.choice((*mutating.NUMBERS, 0xFFFFFFFF, len(out)))
            _put(out, place, value, wide)
        elif step < 0.5:
            out[at + 4 : at + 6] = rng.choice(_VRS)
        elif step < 0.6:
            other = rng.choice(starts)
            out[at : at + 4] = out[other : other + 4]
        elif step < 0.7:
            piece = rng.choice((b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff", _ITEM))
            out[at:at] = piece * rng.choice((1, 2, 40, 3000))
        elif step < 0.8:
            end = rng.choice(starts)
            out[at:at] = bytes(out[at:end])[:5000] * rng.choice((1, 30))
        else:
            out = bytearray(mutating.change_bytes(rng, bytes(out), others))
    return bytes(out[: 2**20])


_VRS = (b"SQ", b"UN", b"OB", b"OW", b"UT", b"US", b"UL", b"IS", b"DS", b"FD", b"AT")
_ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"


def _dicom_starts(content: bytes) -> list[int]:
    """Return where elements seem to begin: before two capital letters."""
    letters = range(65, 91)
    return [
        k
        for k in range(132, min(len(content), 3000) - 6)
        if content[k + 4] in letters and content[k + 5] in letters
    ] or [132]


def unpacked(content: bytes, folder: Path) -> Path:
    """Unpack a folder, links and pipes too; a file to be kept lies beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder.parent / PRECIOUS).write_bytes(KEPT)
    for entry, data in _members(content):
        path = folder / entry.name
        if path.is_symlink() or path.exists():
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _place(path, entry, data, folder)
        except OSError:  # under a name that became a file or a link
            continue
    return folder


def _place(path: Path, entry: tarfile.TarInfo, data: bytes, folder: Path) -> None:
    if entry.type == tarfile.FIFOTYPE:
        os.mkfifo(path)
    elif entry.type == tarfile.SYMTYPE:
        path.symlink_to(entry.linkname)
    elif entry.type == tarfile.LNKTYPE:
        os.link(folder.parent / PRECIOUS, path)
    elif entry.type == tarfile.DIRTYPE:
        path.mkdir()
    elif path.resolve().is_relative_to(folder.resolve()):
        path.write_bytes(data)


def _members(content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = []
        for entry in tar:
            data = tar.extractfile(entry) if entry.isreg() else None
            found.append((entry, data.read() if data else b""))
        return found


def _spoil(
    rng: random.Random, members: list[tuple[tarfile.TarInfo, bytes]], other: bytes
) -> None:
    k = rng.randrange(len(members))
    entry, data = members[k]
    step = rng.random()
    if step < 0.55:
        members[k] = entry, _content(rng, entry.name, data, other)
        return
    if step < 0.85:
        fresh = tarfile.TarInfo(_name(rng, entry.name))
        kinds = (tarfile.SYMTYPE,) * 3 + (tarfile.FIFOTYPE,) * 2
        fresh.type = rng.choice((*kinds, tarfile.LNKTYPE, tarfile.DIRTYPE))
        fresh.linkname = rng.choice(LINKS) if fresh.type == tarfile.SYMTYPE else ""
        if fresh.type == tarfile.LNKTYPE:
            fresh.linkname = PRECIOUS
        members[k] = fresh, b""
    elif step < 0.92:
        if len(members) > 1:
            del members[k]
    else:
        twin = rng.choice(members)
        members[k] = entry, twin[1]


def _name(rng: random.Random, name: str) -> str:
    """Return a name, sometimes of the folder that it is in."""
    parent = name.rpartition("/")[0]
    return parent if parent and rng.random() < 0.15 else name


def _content(rng: random.Random, name: str, data: bytes, other: bytes) -> bytes:
    if Path(name).suffix in _TEXT or Path(name).name in _TEXT:
        return mutating.mutate_text(rng, data, [other[:4096]])
    return mutating.change_bytes(rng, data, [other[:4096]])


def _found(content: bytes, sign: bytes) -> list[int]:
    places, at = [], content.find(sign)
    while at >= 0:
        places.append(at)
        at = content.find(sign, at + 1)
    return places
