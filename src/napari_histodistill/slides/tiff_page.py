"""One page of a TIFF as rectangles of pixels, tiled or stripped, from any thread."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.decoding import SegmentCache, for_each, reason
from napari_histodistill.slides.tiff_limits import (
    check_encoded,
    check_page,
    check_segment_size,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.filebytes import FileBytes

# What tifffile and imagecodecs raise over damaged files, as fuzzing showed.
DECODE_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    ImportError,
    MemoryError,
    struct.error,
    tifffile.TiffFileError,
)

TRAILER = 16
"""Bytes at the end of a JPEG among which its end marker is; some writers pad."""

RAW_STRIP_BYTES = 512 * 1024
"""Uncompressed strips are read in pieces of about this size."""

MAX_PIECES = 2**22

JPEG = 7
APERIO_YCBCR_JPEG2000 = 33003


class TiffPageReader:
    """The pixels of one page; decodes each compressed segment once per read.

    Everything that needs tifffile's open file is copied out at construction, so the
    ``TiffFile`` may be closed afterwards.

    Parameters
    ----------
    page : tifffile.TiffPage
        The page, of an open file.
    file : FileBytes
        The same file for reading segments.
    cache : SegmentCache
        Shared by the pages of a file.

    Raises
    ------
    SlideError
        If the page cannot be decoded at all (unknown compression, no pixels).
    """

    def __init__(self, page: Any, file: FileBytes, cache: SegmentCache) -> None:
        self._file, self._cache = file, cache
        self._where = f"{file.path.name}, page {page.index}"
        self.height, self.width = int(page.imagelength), int(page.imagewidth)
        self.samples = int(page.samplesperpixel)
        self._key = page.offset
        self._refuse_unreadable(page)
        self.dtype = np.dtype(page.dtype)
        self._planes = self.samples if page.planarconfig == 2 else 1
        self._compression = int(page.compression)
        self._decode, self._tables = page.decode, page.jpegtables
        self._offsets = np.asarray(page.dataoffsets, np.int64)
        self._counts = np.asarray(page.databytecounts, np.int64)
        self._raw: np.dtype[Any] | None = None
        if page.is_tiled:
            self.tile_height, self.tile_width = page.tilelength, page.tilewidth
        else:
            self.tile_height = max(1, min(int(page.rowsperstrip), self.height))
            self.tile_width = self.width
            self._cut_raw_strips(page)
        self._rows = math.ceil(self.height / self.tile_height)
        self._columns = math.ceil(self.width / self.tile_width)
        check_segment_size(page, self.tile_height, self.tile_width, self._where)
        needed = self._rows * self._columns * self._planes
        listed = min(len(self._offsets), len(self._counts))
        if listed < needed:
            msg = (
                f"{self._where}: the file is damaged, it lists {listed} tiles and "
                f"needs {needed}."
            )
            raise SlideError(msg)
        self._whole_jpegs = self._compression == JPEG and self._first_ends_well()

    def read(
        self, y: int, x: int, height: int, width: int, *, background: float
    ) -> npt.NDArray[Any]:
        """Return ``(height, width, samples)``; tiles the file left out are background.

        Raises
        ------
        SlideError
            If a segment is damaged or the file truncated; names the tile.
        """
        out = np.full((height, width, self.samples), background, self.dtype)
        r0, r1 = y // self.tile_height, (y + height - 1) // self.tile_height
        c0, c1 = x // self.tile_width, (x + width - 1) // self.tile_width
        wanted = [
            (plane, row, column)
            for plane in range(self._planes)
            for row in range(r0, r1 + 1)
            for column in range(c0, c1 + 1)
        ]

        def paste(place: tuple[int, int, int]) -> None:
            plane, row, column = place
            segment = self._segment(plane, row, column)
            if segment is None:
                return
            top, left = row * self.tile_height, column * self.tile_width
            y0, x0 = max(y, top), max(x, left)
            y1 = min(y + height, top + segment.shape[0])
            x1 = min(x + width, left + segment.shape[1])
            channel = slice(None) if self._planes == 1 else slice(plane, plane + 1)
            out[y0 - y : y1 - y, x0 - x : x1 - x, channel] = segment[
                y0 - top : y1 - top, x0 - left : x1 - left
            ]

        for_each(paste, wanted)
        return out

    def _segment(self, plane: int, row: int, column: int) -> npt.NDArray[Any] | None:
        index = (plane * self._rows + row) * self._columns + column
        count = int(self._counts[index])
        if count == 0:
            return None
        key = (self._key, index)
        segment = self._cache.get(key)
        if segment is None:
            data = self._file.read(int(self._offsets[index]), count)
            segment = self._decoded(data, index, row, column)
            self._cache.put(key, segment)
        return segment

    def _decoded(
        self, data: bytes, index: int, row: int, column: int
    ) -> npt.NDArray[Any]:
        try:
            return self.decode_segment(data, index)
        except DECODE_ERRORS as error:
            msg = (
                f"{self._where}: the tile in row {row}, column {column} is damaged and "
                f"cannot be decoded ({reason(error)})."
            )
            raise SlideError(msg) from error

    def decode_segment(self, data: bytes, index: int) -> npt.NDArray[Any]:
        """Return the pixels of one compressed segment, ``(height, width, samples)``."""
        if self._raw is not None:
            rows = np.frombuffer(data, self._raw).astype(self.dtype)
            return rows.reshape(-1, self.width, self.samples // self._planes)
        if self._whole_jpegs and not _ends_well(data[-TRAILER:]):
            msg = "its JPEG data end too early"
            raise ValueError(msg)
        check_encoded(
            self._compression, data, self.tile_height, self.tile_width, self.samples
        )
        segment, _, _ = self._decode(data, index, jpegtables=self._tables)
        pixels: npt.NDArray[Any] = segment[0]
        if self._compression == APERIO_YCBCR_JPEG2000:
            pixels = ycbcr_to_rgb(pixels)
        # A segment that is a view of something larger would keep all of it in memory.
        return pixels if pixels.base is None else pixels.copy()

    def _first_ends_well(self) -> bool:
        """Whether this file's JPEGs carry an end marker, as they must.

        libjpeg fills what is missing of a truncated JPEG with grey and says nothing, so
        the marker is looked for; unless the writer of this file never wrote it.
        """
        first = int(np.argmax(self._counts > 0))
        count = min(TRAILER, int(self._counts[first]))
        end = int(self._offsets[first] + self._counts[first])
        return count > 0 and _ends_well(self._file.read(end - count, count))

    def _refuse_unreadable(self, page: Any) -> None:
        check_page(page, self._where)
        if page.imagedepth != 1 or page.dtype is None:
            what = "volumetric tiles" if page.imagedepth != 1 else "this type of pixel"
            msg = f"{self._where}: {what} cannot be read; convert it to 8-bit RGB."
            raise SlideError(msg)

    def _cut_raw_strips(self, page: Any) -> None:
        """Cut uncompressed strips into shorter ones, so that a window reads its rows.

        Many plain TIFFs are one strip as high as the image.
        """
        bits = {page.bitspersample} if page.compression == 1 else set()
        row_bytes = self.width * (self.samples // self._planes) * self.dtype.itemsize
        rows = max(1, RAW_STRIP_BYTES // row_bytes)
        if not bits <= {8, 16, 32, 64} or not bits or page.predictor != 1:
            return
        if page.fillorder != 1 or rows >= self.tile_height:
            return
        strips = math.ceil(self.height / self.tile_height)
        if self._planes * strips != len(self._offsets) or (
            strips > 1 and self.tile_height % rows
        ):
            return
        if len(self._offsets) * math.ceil(self.tile_height / rows) > MAX_PIECES:
            return
        # The first row of every piece inside its strip, and how many rows it has.
        first = np.arange(0, self.tile_height, rows)
        strip_rows = np.full(strips, self.tile_height)
        strip_rows[-1] = self.height - (strips - 1) * self.tile_height
        piece_rows = np.minimum(
            rows, np.tile(strip_rows, self._planes)[:, None] - first
        )
        real = piece_rows > 0
        offsets = self._offsets[:, None] + first * row_bytes
        counts = piece_rows * row_bytes * (self._counts != 0)[:, None]
        self._offsets, self._counts = offsets[real], counts[real]
        self.tile_height = rows
        self._raw = self.dtype.newbyteorder(page.parent.byteorder)


def ycbcr_to_rgb(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Convert full-range BT.601 YCbCr (what JPEG uses) to RGB, ``(h, w, 3)`` uint8."""
    y, cb, cr = (pixels[..., k].astype(np.float32) for k in range(3))
    cb -= 128
    cr -= 128
    rgb = np.stack(
        [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1
    )
    eight_bit: npt.NDArray[np.uint8] = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return eight_bit


def _ends_well(trailer: bytes) -> bool:
    return b"\xff\xd9" in trailer
