"""JPEG tiles through libjpeg-turbo: whole or shrunk, and never silently wrong.

simplejpeg is used here instead of imagecodecs for two features of libjpeg that it
passes on: warnings (imagecodecs silently fills what it cannot decode with grey) and
scaled decoding. A JPEG is a mosaic of 8 × 8 blocks of frequencies; from the lower half
of them alone, a block decodes directly to 4 × 4 pixels, whose centres lie exactly where
those of 2 × 2 averaged pixels would.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import simplejpeg

if TYPE_CHECKING:
    import numpy.typing as npt

JPEG = 7
"""Number of this compression in TIFF."""

SHRINKS = (2, 4, 8)
"""Factors by which libjpeg can shrink while decoding, at full speed."""

EVEN = {"444", "420", "Gray"}
"""Colour samplings that are the same in both directions. Where colour is sampled more
finely down than across (4:2:2), libjpeg shrinks it across twice: shrunk by 2, a pixel
of tissue is 0.8 grey levels off the mean; by 4 it would be 1.7."""

HEADER_BYTES = 64 * 1024
"""Enough of a tile to find its size."""

# "Adobe" segment, transform 0: the three channels are red, green, blue as they are.
# Aperio states this only in the TIFF, and libjpeg would take them for YCbCr.
_STORED_AS_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"

# Some scanners pad their tiles; libjpeg warns of it, but the picture is whole.
_PADDING = re.compile(r"(\d+) extraneous bytes? before marker")
_MAX_PADDING = 16


@dataclass(frozen=True, slots=True)
class JpegTiles:
    """The way the tiles of one TIFF page are decoded; made by :meth:`of_page`.

    Attributes
    ----------
    height, width, samples : int
        Size of every tile in pixels, and samples per pixel.
    prefix : bytes
        Replaces a tile's first two bytes: the start marker, and the tables that all
        tiles share.
    sampling : str
        Colour sampling: ``"444"``, ``"420"``, ``"422"``…
    """

    height: int
    width: int
    samples: int
    prefix: bytes
    sampling: str = "444"

    @classmethod
    def of_page(cls, page: Any, first: bytes) -> JpegTiles | None:
        """Return how to decode a page, or None if it is not an ordinary JPEG page.

        Parameters
        ----------
        page : tifffile.TiffPage
            A page of an open file.
        first : bytes
            The beginning of its first tile.
        """
        samples = int(page.samplesperpixel)
        ordinary = (
            page.is_tiled
            and page.compression == JPEG
            and page.dtype == np.uint8
            and page.bitspersample == 8
            and page.planarconfig == 1
            and not page.extrasamples
            and (samples, int(page.photometric)) in {(3, 2), (3, 6), (1, 0), (1, 1)}
        )
        if not ordinary:
            return None
        tables = page.jpegtables or b""
        # The tables are a JPEG of their own; its start and end markers are cut off.
        middle = tables[2:-2] if tables.endswith(b"\xff\xd9") else tables[2:]
        if page.photometric == 2 and not page.is_jfif:
            if b"Adobe" in middle or b"Adobe" in first[:1024]:
                return None
            middle = _STORED_AS_RGB + middle
        tiles = cls(
            height=int(page.tilelength),
            width=int(page.tilewidth),
            samples=samples,
            prefix=b"\xff\xd8" + middle,
        )
        return tiles._like(first)

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Factors by which tiles can be shrunk while decoding, smallest first."""
        factors = SHRINKS if self.sampling in EVEN else SHRINKS[:1]
        return tuple(f for f in factors if not self.height % f and not self.width % f)

    def shape(self, shrink: int = 1) -> tuple[int, int, int]:
        """Return the shape of a decoded tile."""
        return self.height // shrink, self.width // shrink, self.samples

    def decode(
        self, data: bytes, out: npt.NDArray[np.uint8], *, shrink: int = 1
    ) -> npt.NDArray[np.uint8]:
        """Decode one tile into ``out``, of :meth:`shape`.

        Raises
        ------
        ValueError
            If libjpeg finds anything wrong with it.
        """
        whole = self._whole(data)
        try:
            pixels = self._decoded(whole, out, shrink, strict=True)
        except ValueError as error:
            padding = _PADDING.search(str(error))
            if padding is None or int(padding[1]) > _MAX_PADDING:
                raise
            pixels = self._decoded(whole, out, shrink, strict=False)
        if pixels.shape != out.shape:
            msg = f"it is {pixels.shape[0]} × {pixels.shape[1]} px"
            raise ValueError(msg)
        return out

    def _decoded(
        self, whole: bytes, out: npt.NDArray[np.uint8], shrink: int, *, strict: bool
    ) -> npt.NDArray[np.uint8]:
        height, width, samples = out.shape
        colours: Literal["GRAY", "RGB"] = "GRAY" if samples == 1 else "RGB"
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            whole,
            colours,
            min_height=height if shrink > 1 else 0,
            min_width=width if shrink > 1 else 0,
            min_factor=shrink,
            buffer=out,
            strict=strict,
        )
        return pixels

    def _whole(self, data: bytes) -> bytes:
        return data if len(self.prefix) == 2 else self.prefix + data[2:]

    def _like(self, first: bytes) -> JpegTiles | None:
        """Return this with the sampling of a tile; None if the tile's size differs."""
        try:
            height, width, colours, sampling = simplejpeg.decode_jpeg_header(
                self._whole(first), strict=False
            )
        except ValueError:
            return None
        grey = colours.upper() in {"GRAY", "GREY"}
        wanted = self.height, self.width, self.samples == 1
        if (height, width, grey) != wanted:
            return None
        return replace(self, sampling="Gray" if grey else sampling)
