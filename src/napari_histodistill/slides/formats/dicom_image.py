"""One tiled DICOM file: where its tiles are stored and how they are decoded.

pydicom reads the header; frames are fetched by their offsets and decoded with
imagecodecs in the shared threads, as the tiles of a TIFF are.
"""

from __future__ import annotations

import math
import struct
import warnings
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.codecs.decoding import for_each, reason
from napari_histodistill.slides.codecs.filebytes import FileBytes
from napari_histodistill.slides.formats.dicom_limits import (
    IMPLICIT,
    MAX_TILES,
    UNDEFINED,
)
from napari_histodistill.slides.pyramid.limits import extent_problem
from napari_histodistill.slides.tiff.limits import MAX_TILE_BYTES, check_encoded_as
from napari_histodistill.slides.tiff.page import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slides.codecs.decoding import SegmentCache
    from napari_histodistill.slides.pyramid.damage import Damage
    from napari_histodistill.slides.pyramid.levels import Rect

PIXEL_DATA = 0x7FE00010
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
RAW = {IMPLICIT, "1.2.840.10008.1.2.1"}
CODECS = {
    "1.2.840.10008.1.2.4.50": "jpeg8_decode",
    "1.2.840.10008.1.2.4.51": "jpeg8_decode",
    "1.2.840.10008.1.2.4.80": "jpegls_decode",
    "1.2.840.10008.1.2.4.81": "jpegls_decode",
    "1.2.840.10008.1.2.4.90": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.91": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.110": "jpegxl_decode",
    "1.2.840.10008.1.2.4.111": "jpegxl_decode",
    "1.2.840.10008.1.2.4.112": "jpegxl_decode",
    "1.2.840.10008.1.2.4.201": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.202": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.203": "jpeg2k_decode",
}
"""imagecodecs' decoder of each compressed transfer syntax."""

MISSING = -1
"""A tile that no frame is stored for."""

_WRITTEN_AS = {
    "jpeg8_decode": "JPEG",
    "jpegls_decode": "JPEG-LS",
    "jpeg2k_decode": "JPEG 2000",
    "jpegxl_decode": "JPEG XL",
}


class DicomImage:
    """The tiles of one file; reads rectangles of it.

    Parameters
    ----------
    path : Path
        The file.
    cache : SegmentCache
        Shared by the files of a slide.
    level : int
        The file's level in the slide, for reporting damage.

    Raises
    ------
    SlideError
        If it is not a whole-slide image, is damaged, or has an unknown compression.
    """

    def __init__(self, path: Path, cache: SegmentCache, *, level: int = 0) -> None:
        self.path, self._cache, self.level = path, cache, level
        self.header, start = read_header(path)
        header = self.header
        try:
            self.height = int(header.TotalPixelMatrixRows)
            self.width = int(header.TotalPixelMatrixColumns)
            self.tile_height, self.tile_width = int(header.Rows), int(header.Columns)
            self.samples = int(header.SamplesPerPixel)
            self.dtype = _pixel_type(header)
            frames = int(header.get("NumberOfFrames", 1))
            self._syntax = str(header.file_meta.TransferSyntaxUID)
        except (AttributeError, ValueError, TypeError) as error:
            msg = f"{path.name}: the DICOM header is incomplete ({reason(error)})."
            raise SlideError(msg) from error
        self._refuse_unreadable(frames)
        self._rows = math.ceil(self.height / self.tile_height)
        self._columns = math.ceil(self.width / self.tile_width)
        self._frame_of = _frame_numbers(header, self._rows * self._columns, frames)
        self._file = FileBytes(path)
        try:
            self._offsets, self._counts = self._find_frames(start, frames)
        except (struct.error, ValueError, TypeError, MemoryError) as error:
            self._file.close()
            msg = f"{path.name}: the table of frames is damaged ({reason(error)})."
            raise SlideError(msg) from error
        except BaseException:
            self._file.close()
            raise
        self.notes: tuple[str, ...] = ()
        if not self._states_order() and min(self._rows, self._columns) > 1:
            self._guess_order()

    def read(
        self,
        rect: Rect,
        *,
        background: float,
        damage: Damage | None = None,
    ) -> npt.NDArray[Any]:
        """Return ``(height, width, samples)``; missing tiles are background.

        Raises
        ------
        SlideError
            If a frame is damaged and there is no ``damage`` to note it.
        """
        shape = (rect.height, rect.width, self.samples)
        out = np.full(shape, background, self.dtype)
        th, tw = self.tile_height, self.tile_width
        wanted = [
            (row, column)
            for row in range(rect.y // th, (rect.bottom - 1) // th + 1)
            for column in range(rect.x // tw, (rect.right - 1) // tw + 1)
        ]

        def paste(place: tuple[int, int]) -> None:
            top, left = place[0] * th, place[1] * tw
            rows, columns, own_rows, own_columns = rect.overlap(top, left, th, tw)
            frame = self._frame_at(place)
            if frame == MISSING:
                return
            key, decode = (self.path, frame), self._decoder(frame)
            try:
                with self._cache.using(key, decode) as pixels:
                    out[rows, columns] = pixels[own_rows, own_columns]
            except ClosedSlideError:
                raise
            except SlideError as error:
                if damage is None:
                    raise
                damage.add(rows, columns, str(error), (self.level, top, left))

        def is_decoded(place: tuple[int, int]) -> bool:
            return (self.path, self._frame_at(place)) in self._cache

        for_each(paste, wanted, is_quick=is_decoded)
        return out

    def _frame_at(self, place: tuple[int, int]) -> int:
        return int(self._frame_of[place[0] * self._columns + place[1]])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _states_order(self) -> bool:
        full = self.header.get("DimensionOrganizationType") == "TILED_FULL"
        return full or bool(self.header.get("PerFrameFunctionalGroupsSequence"))

    def _guess_order(self) -> None:
        """Find out whether tiles are stored row by row or column by column.

        Files of converters that leave the order out use either, and the wrong one would
        scramble the picture. In the right one, the edges of neighbours look alike.
        """
        by_rows = np.arange(self._rows * self._columns, dtype=np.int32)
        tiles = by_rows.reshape(self._columns, self._rows)
        by_columns = np.ascontiguousarray(tiles.T).ravel()
        seams = [self._seam(order) for order in (by_rows, by_columns)]
        order = by_rows if seams[0] <= seams[1] else by_columns
        self._frame_of = np.where(order < len(self._counts), order, MISSING)
        how = "row by row" if seams[0] <= seams[1] else "column by column"
        self.notes = (f"the file does not order its tiles; they fit {how}",)

    def _seam(self, order: npt.NDArray[np.int32]) -> float:
        """Return the mean difference of facing edges, for some neighbouring tiles."""
        tiles = np.arange(self._rows * self._columns, dtype=np.int32)
        lefts = tiles.reshape(self._rows, self._columns)[:-1, :-1].ravel()
        differences = []
        for left in lefts[:: max(1, len(lefts) // 12)]:
            frames = int(order[left]), int(order[left + 1])
            if any(k >= len(self._counts) for k in frames):
                continue
            try:
                pair = [self._decoder(k)(None).astype(float) for k in frames]
            except SlideError:
                continue
            differences.append(np.abs(pair[0][:, -1] - pair[1][:, 0]).mean())
        return float(np.mean(differences)) if differences else 0.0

    def _decoder(self, frame: int) -> Callable[[Any], npt.NDArray[Any]]:
        def decode(_: Any) -> npt.NDArray[Any]:
            data = self._file.read(int(self._offsets[frame]), int(self._counts[frame]))
            try:
                pixels = self._pixels(data)
            except DECODE_ERRORS as error:
                msg = (
                    f"{self.path.name}: frame {frame + 1} is damaged and cannot be "
                    f"decoded ({reason(error)})."
                )
                raise SlideError(msg) from error
            return pixels

        return decode

    def _pixels(self, data: bytes) -> npt.NDArray[Any]:
        import imagecodecs

        shape = self.tile_height, self.tile_width, self.samples
        if self._syntax in RAW:
            little = self.dtype.newbyteorder("<")
            flat = np.frombuffer(data, little, count=math.prod(shape)).astype(
                self.dtype
            )
            if self.samples > 1 and self.header.get("PlanarConfiguration", 0) == 1:
                planes = flat.reshape(self.samples, *shape[:2])
                return np.ascontiguousarray(planes.transpose(1, 2, 0))
            return flat.reshape(shape)
        data = _single(data)
        options: dict[str, Any] = {}
        codec = CODECS[self._syntax]
        check_encoded_as(_WRITTEN_AS[codec], data, *shape)
        if codec == "jpeg8_decode" and self.samples == 3:
            states_colours = b"JFIF" in data[:64] or b"Adobe" in data[:1024]
            if not states_colours and self.header.PhotometricInterpretation == "RGB":
                options = {"colorspace": "RGB", "outcolorspace": "RGB"}
        pixels = np.asarray(getattr(imagecodecs, codec)(data, **options))
        return pixels.reshape(shape).astype(self.dtype, copy=False)

    def _refuse_unreadable(self, frames: int) -> None:
        name = self.path.name
        sizes = (self.height, self.width, self.tile_height, self.tile_width, frames)
        if min(*sizes, self.samples) < 1 or self.samples > 4:
            msg = f"{name}: the DICOM image is empty or of an impossible size."
            raise SlideError(msg)
        # The walk over the tags has looked too; but pydicom may read them otherwise.
        problem = extent_problem(self.height, self.width)
        size = math.prod((*sizes[2:4], self.samples, self.dtype.itemsize))
        if problem or size > MAX_TILE_BYTES:
            what = problem or f"tiles of {self.tile_height} × {self.tile_width} px"
            msg = f"{name}: {what}; the file is damaged or made up."
            raise SlideError(msg)
        tiles = math.ceil(sizes[0] / sizes[2]) * math.ceil(sizes[1] / sizes[3])
        if max(tiles, frames) > MAX_TILES:
            count = max(tiles, frames)
            msg = f"{name}: {count} tiles are impossible; the file is damaged."
            raise SlideError(msg)
        if self._syntax not in RAW and self._syntax not in CODECS:
            msg = (
                f"{name}: frames of transfer syntax {self._syntax} are not read here; "
                "convert it to JPEG or JPEG 2000."
            )
            raise SlideError(msg)

    def _find_frames(
        self, start: int, frames: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return offset and byte count of every frame in the file."""
        implicit = self._syntax == IMPLICIT
        start += 8 if implicit else 12
        if self._syntax in RAW:
            size = (
                self.tile_height * self.tile_width * self.samples * self.dtype.itemsize
            )
            return start + size * np.arange(frames), np.full(frames, size, np.int64)
        tag, length = struct.unpack("<4sI", self._file.read(start, 8))
        if tag != ITEM:
            msg = "it does not begin with a table"
            raise ValueError(msg)
        first = start + 8 + length
        table = np.frombuffer(self._file.read(start + 8, length), "<u4")
        extended = self.header.get("ExtendedOffsetTable")
        if extended is not None:
            table = np.frombuffer(extended, "<u8")
        if len(table) >= frames > 0:
            offsets = first + table[:frames].astype(np.int64)
            ends = np.append(offsets[1:], self._file.size)
            if (offsets >= 0).all() and (np.diff(offsets) > 0).all():
                # A frame begins with the header of its first fragment.
                return offsets, np.minimum(ends, self._file.size) - offsets
        return self._walk(first, frames)

    def _walk(
        self, at: int, frames: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Find the frames without a table: walk through fragments, one per frame."""
        offsets, counts = array("q"), array("q")
        while len(offsets) < frames:
            tag, length = struct.unpack("<4sI", self._file.read(at, 8))
            if tag != ITEM or length == UNDEFINED:
                break
            offsets.append(at)
            counts.append(8 + length)
            at += 8 + length
        if len(offsets) < frames:
            msg = f"it has {len(offsets)} of {frames} frames"
            raise ValueError(msg)
        return np.frombuffer(offsets, np.int64), np.frombuffer(counts, np.int64)


def value_errors() -> tuple[type[Exception], ...]:
    """Return what pydicom raises where a value is missing, or not what its type says.

    Values are parsed on first access, so any of them may raise, at any depth.
    """
    from pydicom.errors import BytesLengthException

    return (*DECODE_ERRORS, BytesLengthException, OSError, EOFError)


def read_header(path: Path) -> tuple[Any, int]:
    """Return everything before the pixels, and the offset at which these begin.

    Raises
    ------
    SlideError
        If the file is not a DICOM whole-slide image.
    """
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_partial

    try:
        # pydicom warns of every odd value; those that matter are checked here.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = read_partial(file, stop_when=lambda tag, *_: tag == PIXEL_DATA)
            start = file.tell()
            for _ in header:  # values are parsed, and warned about, on first access
                pass
    except (*value_errors(), InvalidDicomError) as error:
        msg = f"{path.name}: this DICOM file is damaged ({reason(error)})."
        raise SlideError(msg) from error
    from pydicom.uid import VLWholeSlideMicroscopyImageStorage

    kind = header.get("SOPClassUID", "")
    if kind != VLWholeSlideMicroscopyImageStorage:
        what = getattr(kind, "name", "") or "unknown kind"
        msg = (
            f"{path.name}: this DICOM file is not a whole-slide image but of the kind "
            f"“{what}”."
        )
        raise SlideError(msg)
    return header, start


def _single(data: bytes) -> bytes:
    """Return a frame without the headers of its fragments."""
    parts, at = [], 0
    while data[at : at + 4] == ITEM:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _pixel_type(header: Any) -> np.dtype[Any]:
    bits, signed = int(header.BitsAllocated), int(header.get("PixelRepresentation", 0))
    if bits not in {8, 16}:
        msg = f"pixels of {bits} bits"
        raise ValueError(msg)
    return np.dtype(f"{'i' if signed else 'u'}{bits // 8}")


def _frame_numbers(header: Any, tiles: int, frames: int) -> npt.NDArray[np.int32]:
    """Return the frame of each tile; of several planes or optical paths, the first."""
    from pydicom.sequence import Sequence

    groups = header.get("PerFrameFunctionalGroupsSequence")
    full = header.get("DimensionOrganizationType") == "TILED_FULL"
    found = np.full(tiles, MISSING, np.int32)
    if full or not groups or not isinstance(groups, Sequence):
        stored = min(tiles, frames)
        found[:stored] = np.arange(stored)
        return found
    th, tw = int(header.Rows), int(header.Columns)
    columns = math.ceil(int(header.TotalPixelMatrixColumns) / tw)
    for frame, group in enumerate(groups[:frames]):
        try:
            place = group.PlanePositionSlideSequence[0]
            y = int(place.RowPositionInTotalImagePixelMatrix) - 1
            x = int(place.ColumnPositionInTotalImagePixelMatrix) - 1
        except value_errors() as error:
            msg = f"{frame + 1}. frame without a place in the DICOM header"
            raise SlideError(msg) from error
        if y % th or x % tw:
            msg = "DICOM tiles that do not lie in one grid are not read here."
            raise SlideError(msg)
        tile = y // th * columns + x // tw
        if min(y, x) >= 0 and x // tw < columns and tile < tiles:
            found[tile] = frame if found[tile] == MISSING else found[tile]
    return found
