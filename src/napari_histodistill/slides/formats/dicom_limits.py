"""A walk over the tags of a DICOM file before OpenSlide or pydicom parse it.

OpenSlide's library descends into nested sequences until the stack is used up, which
ends the process; it opens every other file of the folder too. Both libraries allocate
what a length states, and a deflated file of two megabytes inflates to gigabytes. The
walk holds no values, does not recurse, and believes no length.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NoReturn

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.pyramid.limits import extent_problem
from napari_histodistill.slides.tiff.limits import MAX_TILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC, MAGIC_AT = b"DICM", 128

MAX_DEPTH = 32
"""Nested sequences; those of slides lie four or five deep."""

MAX_ELEMENTS = 2_000_000
"""Elements of one header: twelve for each of 150,000 frames."""

MAX_FOLDER_ELEMENTS = 3_000_000
"""Elements of all DICOM files in a folder."""

MAX_VALUE_BYTES = 2**27
"""One value other than pixels; a table of ten million frames takes 80 MB."""

MAX_HEADER_BYTES = 2**28
MAX_META_BYTES = 2**16
MAX_TILES = 10_000_000
"""More tiles than this mean a damaged header, not a slide."""

MAX_FILES = 1000
"""Files of a folder that are examined for further levels."""

UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_GROUP_LENGTH, _SYNTAX = 0x00020000, 0x00020010
_EXTENDED_TABLE = 0x7FE00001
_SOP_CLASS, _SERIES, _PIXELS = 0x00080016, 0x0020000E, 0x7FE00010

IMPLICIT = "1.2.840.10008.1.2"
_OTHER_WAYS = {
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.4.95": "deflated",
    "1.2.840.10008.1.2.4.205": "deflated",
    "1.2.840.10008.1.2.2": "big-endian",
}
"""Transfer syntaxes in which the header itself is written otherwise."""

_LONG = frozenset(
    b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
)  # their length has four bytes
_SHORT = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_NUMBERS = {
    0x00280002: (b"US", "SamplesPerPixel"),
    0x00280008: (b"IS", "NumberOfFrames"),
    0x00280010: (b"US", "Rows"),
    0x00280011: (b"US", "Columns"),
    0x00280100: (b"US", "BitsAllocated"),
    0x00480006: (b"UL", "TotalPixelMatrixColumns"),
    0x00480007: (b"UL", "TotalPixelMatrixRows"),
}
_HEAD = struct.Struct("<HHI")
_WIDE = {b"US": "<H", b"UL": "<I"}


@dataclass(frozen=True, slots=True)
class DicomOutline:
    """What a walk over a DICOM file found.

    Attributes
    ----------
    path : Path
        The file.
    sop_class, series : str
        Its kind, and the series that it belongs to; empty if it does not say.
    elements : int
        Elements of its header.
    frames_are_sound : bool
        Whether its tables of frames fit the file. OpenSlide crashes where two frames
        begin at one place; pydicom's reader finds the frames itself.
    """

    path: Path
    sop_class: str
    series: str
    elements: int
    frames_are_sound: bool


class _Element(NamedTuple):
    tag: int
    vr: bytes  # empty where it is not written
    length: int
    value_at: int


@dataclass(slots=True)
class _Level:
    """A sequence, which holds items, or a data set, which holds elements."""

    is_sequence: bool
    end: int | None  # None: a delimiter says where
    implicit: bool

    @property
    def delimiter(self) -> int:
        return _SEQUENCE_END if self.is_sequence else _ITEM_END


@dataclass(slots=True)
class _Walk:
    """The state of one walk."""

    file: BinaryIO
    name: str
    size: int
    elements: int = 0
    held_bytes: int = 0
    sound: bool = True
    texts: dict[int, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def outline(self, path: Path) -> DicomOutline:
        implicit, at = self._meta()
        self._data_set(at, implicit=implicit)
        self._check_numbers()
        return DicomOutline(
            path, self.texts.get(_SOP_CLASS, ""), self.texts.get(_SERIES, ""),
            self.elements, self.sound,
        )  # fmt: skip

    def _meta(self) -> tuple[bool, int]:
        """Return whether types are left out in what follows, and where it begins."""
        if self._bytes(MAGIC_AT, 4) != MAGIC:
            self._refuse("it does not begin as one")
        at, stated = MAGIC_AT + 4, -1
        while at < self.size and self._bytes(at, 2) == b"\x02\x00":
            found = self._meta_element(at)
            at = found.value_at + found.length
            if found.tag == _GROUP_LENGTH:
                stated = at + int.from_bytes(self._bytes(at - 4, 4), "little")
        if stated not in {-1, at}:
            # One library believes the length, the other looks at the tags.
            self._refuse("the length of its first group is wrong")
        syntax = self.texts.get(_SYNTAX, "")
        if syntax in _OTHER_WAYS:
            msg = (
                f"{self.name}: {_OTHER_WAYS[syntax]} DICOM files are not read here; "
                "convert it to “Explicit VR Little Endian”, JPEG or JPEG 2000."
            )
            raise SlideError(msg)
        if syntax == IMPLICIT and self._bytes(at + 4, 2).isalpha():
            self._refuse("its header is not written as it states")
        return syntax == IMPLICIT, at

    def _meta_element(self, at: int) -> _Element:
        found = self._element(at, self._bytes(at, 8), implicit=False)
        if found.vr == b"SQ" or found.length > MAX_META_BYTES:
            self._refuse(f"an entry of {found.length} bytes before its header")
        if found.tag == _GROUP_LENGTH and found.length != 4:
            self._refuse("the length of its first group is not a number")
        if found.tag == _SYNTAX:
            self.texts[_SYNTAX] = self._text(found)
        return found

    def _data_set(self, at: int, *, implicit: bool) -> None:
        """Walk from the first element to the pixels or the end of the file."""
        levels = [_Level(is_sequence=False, end=self.size, implicit=implicit)]
        while levels:
            level = levels[-1]
            if level.end is not None and at >= level.end:
                levels.pop()
                continue
            self.elements += 1
            if self.elements > MAX_ELEMENTS:
                self._refuse(f"more than {MAX_ELEMENTS:,} entries")
            at, inner = self._step(at, level, len(levels))
            if inner is None:
                levels.pop()
            elif inner is not level:
                self._check_inside(level, inner.end)
                levels.append(inner)
                if len(levels) > 2 * MAX_DEPTH:
                    self._refuse(f"sequences nested more than {MAX_DEPTH} deep")

    def _step(self, at: int, level: _Level, depth: int) -> tuple[int, _Level | None]:
        """Return the next place and its level: this one, an inner one, or its end."""
        head = self._bytes(at, 8)
        tag, length = _tag_of(head)
        if level.end is None and tag == level.delimiter:
            return at + 8, None
        if not level.is_sequence:
            return self._value(
                self._element(at, head, implicit=level.implicit), level, depth
            )
        if tag != _ITEM:
            self._refuse("a sequence that holds something else than items")
        end = None if length == UNDEFINED else at + 8 + length
        return at + 8, _Level(is_sequence=False, end=end, implicit=level.implicit)

    def _value(
        self, found: _Element, level: _Level, depth: int
    ) -> tuple[int, _Level | None]:
        if depth == 1 and found.tag == _PIXELS:
            self._check_pixels(found)
            return self.size, None
        if found.length == UNDEFINED:
            if found.vr not in {b"", b"SQ", b"UN"}:
                self._refuse("a value without an end")
            implicit = found.vr != b"SQ"  # of an unknown type: types are left out
            return found.value_at, _Level(is_sequence=True, end=None, implicit=implicit)
        end = found.value_at + found.length
        if self._is_sequence(found):
            return found.value_at, _Level(
                is_sequence=True, end=end, implicit=level.implicit
            )
        self._check_inside(level, end)
        self.held_bytes += found.length
        if found.length > MAX_VALUE_BYTES or self.held_bytes > MAX_HEADER_BYTES:
            self._refuse(f"a header of {self.held_bytes >> 20} MiB and more")
        if depth == 1:
            self._note(found)
        return end, level

    def _is_sequence(self, found: _Element) -> bool:
        """Whether a value of a stated length is a sequence.

        Where types are left out, each library looks in a dictionary of its own; here
        what begins like an item is taken for one.
        """
        if found.vr == b"SQ":
            return found.length > 0
        starts = not found.vr and found.length >= 8
        return starts and self._tag(found.value_at)[0] == _ITEM

    def _note(self, found: _Element) -> None:
        if found.tag in {_SOP_CLASS, _SERIES}:
            self.texts[found.tag] = self._text(found)
        elif found.tag == _EXTENDED_TABLE and found.length:
            self._check_table(found.value_at, found.length, "<u8")
        elif found.tag in _NUMBERS:
            vr, name = _NUMBERS[found.tag]
            value = self._number(found, vr)
            if value is None:
                self._refuse(f"{name} is not one number")
            # Libraries differ in which of two they take: the larger one counts.
            self.numbers[name] = max(value, self.numbers.get(name, 0))

    def _number(self, found: _Element, vr: bytes) -> int | None:
        if found.vr not in {b"", vr} or not 0 < found.length <= 16:
            return None
        content = self._bytes(found.value_at, found.length)
        try:
            if vr in _WIDE:
                return int(struct.unpack(_WIDE[vr], content)[0])
            return int(content.decode("ascii").strip(" \0"))
        except (struct.error, ValueError):
            return None

    def _check_numbers(self) -> None:
        """Refuse an image that cannot be in the file, or not be decoded."""
        given = {name: self.numbers.get(name, 1) for _, name in _NUMBERS.values()}
        bits = max(8, self.numbers.get("BitsAllocated", 8))
        height, width = given["Rows"], given["Columns"]
        rows, columns = given["TotalPixelMatrixRows"], given["TotalPixelMatrixColumns"]
        if height * width * given["SamplesPerPixel"] * bits // 8 > MAX_TILE_BYTES:
            self._refuse(f"tiles of {height} × {width} px")
        frames = given["NumberOfFrames"]
        if frames > min(MAX_TILES, max(1, self.size // 8)):
            self._refuse(f"{frames} frames in {self.size} bytes")
        problem = extent_problem(max(rows, 1), max(columns, 1))
        if problem:
            self._refuse(problem)
        tiles = math.ceil(rows / max(1, height)) * math.ceil(columns / max(1, width))
        if tiles > MAX_TILES:
            self._refuse(f"{tiles} tiles")

    def _check_pixels(self, found: _Element) -> None:
        if found.length != UNDEFINED:
            if found.value_at + found.length > self.size:
                self._refuse("its pixels reach beyond its end")
            self.sound &= self._frame_bytes() <= found.length
            return
        tag, length = self._tag(found.value_at)
        if tag != _ITEM or found.value_at + 8 + length > self.size:
            self._refuse("its pixels do not begin with a table of frames")
        if length > 4 * MAX_TILES:
            self._refuse(f"a table of frames of {length} bytes")
        if length:
            self._check_table(found.value_at + 8, length, "<u4")

    def _frame_bytes(self) -> int:
        """Return how many bytes all frames take that are not compressed."""
        names = ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel")
        samples = math.prod(self.numbers.get(name, 1) for name in names)
        bits = self.numbers.get("BitsAllocated", 8)  # 1 in a segmentation: eight a byte
        return math.ceil(samples * bits / 8)

    def _check_table(self, at: int, length: int, kind: str) -> None:
        """See whether each frame of a table begins after the one before."""
        offsets = np.frombuffer(self._bytes(at, length), kind, length // int(kind[2]))
        offsets = offsets.astype(np.float64)  # eight bytes without a sign, compared
        self.sound &= bool(
            len(offsets) == self.numbers.get("NumberOfFrames", 1)
            and offsets[0] == 0
            and (np.diff(offsets) >= 8).all()
            and offsets[-1] + 8 <= self.size
        )

    def _check_inside(self, level: _Level, end: int | None) -> None:
        most = self.size if level.end is None else level.end
        if end is not None and end > most:
            self._refuse("a length that reaches beyond its end")

    def _element(self, at: int, head: bytes, *, implicit: bool) -> _Element:
        tag, length = _tag_of(head)
        vr = head[4:6]
        if implicit:
            return _Element(tag, b"", length, at + 8)
        if vr in _SHORT:
            return _Element(tag, vr, length >> 16, at + 8)
        if vr not in _LONG:
            self._refuse(f"an entry of the type {vr!r}")
        wide = int.from_bytes(self._bytes(at + 8, 4), "little")
        return _Element(tag, vr, wide, at + 12)

    def _tag(self, at: int) -> tuple[int, int]:
        return _tag_of(self._bytes(at, 8))

    def _text(self, found: _Element) -> str:
        content = self._bytes(found.value_at, min(found.length, 256))
        return content.decode("ascii", errors="replace").strip(" \0")

    def _bytes(self, at: int, count: int) -> bytes:
        self.file.seek(at)
        content = self.file.read(count)
        if len(content) < count:
            self._refuse("it ends in the middle of its header")
        return content

    def _refuse(self, what: str) -> NoReturn:
        msg = (
            f"{self.name}: this DICOM file is damaged or made up ({what}); get it "
            "again, or convert it."
        )
        raise SlideError(msg)


def _tag_of(head: bytes) -> tuple[int, int]:
    """Return a tag, and the length where it stands without a type."""
    group, number, length = _HEAD.unpack(head)
    return group << 16 | number, length


def is_dicom(path: Path) -> bool:
    """Return whether a file begins like a DICOM file.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(MAGIC_AT + 4)[MAGIC_AT:] == MAGIC


def check_dicom(path: Path) -> DicomOutline:
    """Walk over a DICOM file's header.

    Parameters
    ----------
    path : Path
        A plain file.

    Raises
    ------
    SlideError
        If its tags do not fit together, nest too deep, state what the file cannot
        hold, or are deflated; the message says which.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _Walk(file, path.name, size).outline(path)
    except OSError as error:
        msg = f"{path.name}: the file cannot be opened ({error.strerror})."
        raise SlideError(msg) from error


def outlines_beside(path: Path) -> Iterator[DicomOutline | SlideError]:
    """Walk over the other DICOM files in a file's folder.

    Parameters
    ----------
    path : Path
        A DICOM file.

    Yields
    ------
    DicomOutline or SlideError
        Of every file that begins like DICOM, by name; the error for one that is refused
        or is a pipe or a device, which a library would wait for.

    Raises
    ------
    SlideError
        If there are too many of them.
    """
    budget, files = MAX_FOLDER_ELEMENTS, 0
    for beside in sorted(path.parent.iterdir()):
        try:
            found = None if beside.name == path.name else _outline_of(beside)
        except SlideError as error:
            yield error
            continue
        if found is None:
            continue
        budget, files = budget - found.elements, files + 1
        if budget < 0 or files > MAX_FILES:
            msg = (
                f"{path.name}: too many DICOM files lie in its folder; put the files "
                "of this slide into a folder of their own."
            )
            raise SlideError(msg)
        yield found


def _outline_of(path: Path) -> DicomOutline | None:
    """Return the outline of a DICOM file; None for a folder or another file.

    Raises
    ------
    SlideError
        If it is refused, or a pipe or a device.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            return None
        if not stat.S_ISREG(kind):
            msg = f"{path.name} in the slide's folder is not a file."
            raise SlideError(msg)
        if not is_dicom(path):
            return None
    except OSError:
        return None  # nobody else can read it either
    return check_dicom(path)
