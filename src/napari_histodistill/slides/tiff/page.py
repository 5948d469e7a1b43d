"""One page of a TIFF, tiled or in strips, read by rectangles from any thread."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tifffile

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.codecs.decoding import for_each, lent_pixels, reason
from napari_histodistill.slides.codecs.jpeg import HEADER_BYTES, JPEG, JpegTiles
from napari_histodistill.slides.tiff.limits import (
    check_encoded,
    check_page,
    check_segment_size,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy.typing as npt

    from napari_histodistill.slides.codecs.decoding import SegmentCache
    from napari_histodistill.slides.codecs.filebytes import FileBytes
    from napari_histodistill.slides.pyramid.damage import Damage
    from napari_histodistill.slides.pyramid.levels import Rect

# Errors that tifffile and imagecodecs raise for damaged files, as fuzzing showed.
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
"""Last bytes of a JPEG in which its end marker is searched; some writers pad."""

RAW_STRIP_BYTES = 512 * 1024
"""Uncompressed strips are read in pieces of about this size."""

MAX_PIECES = 2**22

APERIO_YCBCR_JPEG2000 = 33003


class _Wanted(NamedTuple):
    """One tile of a read: which tile, where it goes, and which part of it."""

    plane: int
    row: int
    column: int
    rows: slice
    columns: slice
    own_rows: slice
    own_columns: slice


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
    level : int
        The page's level in the slide, for reporting damage.

    Raises
    ------
    SlideError
        If the page cannot be decoded at all (unknown compression, no pixels).
    """

    def __init__(
        self, page: Any, file: FileBytes, cache: SegmentCache, *, level: int = 0
    ) -> None:
        self.level = level
        self._file, self._cache = file, cache
        self._where = f"{file.path.name}, page {page.index}"
        self.height, self.width = int(page.imagelength), int(page.imagewidth)
        self.samples = int(page.samplesperpixel)
        self._key = id(file), page.offset
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
        self._jpeg = self._ordinary_jpeg(page)

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Factors by which this page can be shrunk while decoding; often none."""
        return () if self._jpeg is None else self._jpeg.shrinks

    def read(
        self,
        rect: Rect,
        *,
        background: float,
        shrink: int = 1,
        damage: Damage | None = None,
    ) -> npt.NDArray[Any]:
        """Return ``(height, width, samples)``; missing tiles are background.

        Parameters
        ----------
        rect : Rect
            In pixels of the page, or of the page shrunk by ``shrink``.
        background : float
            Value of tiles that the file leaves out.
        shrink : int
            1, or one of :attr:`shrinks`.
        damage : Damage, optional
            Takes note of tiles that cannot be decoded, whose pixels are then arbitrary;
            without it the first such tile is an error.

        Raises
        ------
        SlideError
            If a tile is damaged or the file truncated; the message names the tile.
        """
        out = np.empty((rect.height, rect.width, self.samples), self.dtype)
        th, tw = self.tile_height // shrink, self.tile_width // shrink
        bottom, right = rect.bottom, rect.right
        wanted = [
            _Wanted(plane, row, column, *rect.overlap(row * th, column * tw, th, tw))
            for plane in range(self._planes)
            for row in range(rect.y // th, (bottom - 1) // th + 1)
            for column in range(rect.x // tw, (right - 1) // tw + 1)
        ]
        # Whether to keep the decoded tiles: a rectangle cut along tile borders shares
        # no tile with its neighbours, and one larger than the cache would evict itself.
        aligned = (
            rect.y % th == rect.x % tw == 0
            and (bottom % th == 0 or bottom * shrink >= self.height)
            and (right % tw == 0 or right * shrink >= self.width)
        )
        remember = not aligned and out.nbytes <= self._cache.max_bytes // 2

        def paste(tile: _Wanted) -> None:
            channel = slice(None)
            if self._planes > 1:
                channel = slice(tile.plane, tile.plane + 1)
            into = out[tile.rows, tile.columns, channel]
            try:
                self._paste(tile, into, shrink, remember=remember, fill=background)
            except ClosedSlideError:
                raise
            except SlideError as error:
                if damage is None:
                    raise
                place = (self.level, tile.row * th * shrink, tile.column * tw * shrink)
                damage.add(tile.rows, tile.columns, str(error), place)

        def is_decoded(tile: _Wanted) -> bool:
            return self._key_of(tile, shrink) in self._cache

        for_each(paste, wanted, is_quick=is_decoded)
        return out

    def _index(self, tile: _Wanted) -> int:
        row = tile.plane * self._rows + tile.row
        return int(row * self._columns + tile.column)

    def _key_of(self, tile: _Wanted, shrink: int) -> Hashable:
        """Return what the tile is called in the cache."""
        return self._key, self._index(tile), shrink

    def _paste(
        self,
        tile: _Wanted,
        into: npt.NDArray[Any],
        shrink: int,
        *,
        remember: bool,
        fill: float,
    ) -> None:
        index = self._index(tile)
        count = int(self._counts[index])
        if count == 0:
            into[...] = fill
            return

        def decode(out: npt.NDArray[np.uint8] | None) -> npt.NDArray[Any]:
            data = self._file.read(int(self._offsets[index]), count)
            try:
                return self.decode_segment(data, index, out, shrink)
            except DECODE_ERRORS as error:
                msg = (
                    f"{self._where}: the tile in row {tile.row}, column {tile.column} "
                    f"is damaged and cannot be decoded ({reason(error)})."
                )
                raise SlideError(msg) from error

        key = self._key_of(tile, shrink)
        shape = None if self._jpeg is None else self._jpeg.shape(shrink)
        if shape is not None and shape == into.shape and into.flags.c_contiguous:
            decode(into)  # exactly one tile was asked for: decode it into its place
        elif shape is not None and not remember and key not in self._cache:
            with lent_pixels(shape) as pixels:
                _copy(decode(pixels), tile, into, fill)
        else:
            with self._cache.using(key, decode, shape) as pixels:
                _copy(pixels, tile, into, fill)

    def decode_segment(
        self,
        data: bytes,
        index: int,
        out: npt.NDArray[np.uint8] | None = None,
        shrink: int = 1,
    ) -> npt.NDArray[Any]:
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
        if self._jpeg is not None and out is not None:
            return self._jpeg.decode(data, out, shrink=shrink)
        segment, _, _ = self._decode(data, index, jpegtables=self._tables)
        pixels: npt.NDArray[Any] = segment[0]
        if self._compression == APERIO_YCBCR_JPEG2000:
            pixels = ycbcr_to_rgb(pixels)
        return pixels

    def _ordinary_jpeg(self, page: Any) -> JpegTiles | None:
        if self._compression != JPEG or not self._counts.any():
            return None
        first = int(np.argmax(self._counts > 0))
        count = min(HEADER_BYTES, int(self._counts[first]))
        return JpegTiles.of_page(
            page, self._file.read(int(self._offsets[first]), count)
        )

    def _first_ends_well(self) -> bool:
        """Whether this file's JPEGs carry an end marker, as the standard demands.

        libjpeg silently fills the missing part of a truncated JPEG with grey, so the
        marker is checked, unless the writer of this file never writes it.
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
        """Cut uncompressed strips into shorter ones, so that a read fetches few rows.

        Many plain TIFFs are a single strip as high as the image.
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


def _copy(
    pixels: npt.NDArray[Any], tile: _Wanted, into: npt.NDArray[Any], fill: float
) -> None:
    part = pixels[tile.own_rows, tile.own_columns]
    if part.shape != into.shape:  # a segment smaller than it should be
        into[...] = fill
    into[: part.shape[0], : part.shape[1]] = part


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
