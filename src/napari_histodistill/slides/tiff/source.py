"""TIFF slides: Aperio SVS, OME-TIFF, QPTIFF, plain pyramids and plain images.

On opening, tifffile parses the page table once and is closed again; the pages are
sorted into levels and associated images. On reading, ``read_level`` asks the page
reader for a rectangle, which reads the bytes of each compressed tile with one
``pread``, decodes it with imagecodecs in the shared threads, and pastes it. No zarr,
dask or lock is involved: the general path through them is five to ten times slower.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.codecs.decoding import SegmentCache, reason
from napari_histodistill.slides.codecs.filebytes import FileBytes, digest_file
from napari_histodistill.slides.pyramid.colours import top_of
from napari_histodistill.slides.pyramid.images import (
    choose_image,
    digest_of_image,
    name_of_image,
)
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo
from napari_histodistill.slides.pyramid.stored import brightest, is_clear
from napari_histodistill.slides.tiff.layout import TiffLayout, layout_of
from napari_histodistill.slides.tiff.orientation import OrientedSource, describe
from napari_histodistill.slides.tiff.page import DECODE_ERRORS, TiffPageReader
from napari_histodistill.slides.tiff.siblings import FileSet, parse_tiff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import tifffile

    from napari_histodistill.geometry import Mpp
    from napari_histodistill.slides.pyramid.colours import Colours, Ranges
    from napari_histodistill.slides.pyramid.damage import Damage
    from napari_histodistill.slides.pyramid.levels import PixelSource


MAX_ASSOCIATED_PX = 100 * 10**6
"""Largest label or macro image that is read; these are always read whole."""

ICC_PROFILE = 34675
"""Number of the TIFF tag."""

# tifffile's warnings about damaged tags are for its own users; ours get one sentence.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffSource:
    """Levels of a TIFF; the reference :class:`PixelSource`.

    Parameters
    ----------
    files : sequence of FileBytes
        The open files; closed with the source.
    cache : SegmentCache
        Decoded tiles; emptied with the source.
    levels : sequence of sequence of TiffPageReader
        Finest first; the pages of a level are its channels.
    colours : Colours
        How stored samples become channels.
    """

    def __init__(
        self,
        files: Sequence[FileBytes],
        cache: SegmentCache,
        levels: Sequence[Sequence[TiffPageReader]],
        colours: Colours,
    ) -> None:
        self._files, self._cache = files, cache
        self._pages, self._colours = levels, colours
        self.levels: Sequence[LevelInfo] = tuple(
            LevelInfo(
                height=pages[0].height,
                width=pages[0].width,
                tile_height=pages[0].tile_height,
                tile_width=pages[0].tile_width,
            )
            for pages in levels
        )

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        return self._read(level, rect)

    def read_damaged(self, level: int, rect: Rect, damage: Damage) -> npt.NDArray[Any]:
        """Read what can be read and note the rest; see :func:`read_part`."""
        return self._read(level, rect, damage=damage)

    def shrinks(self, level: int) -> tuple[int, ...]:
        """Return factors by which a level can be shrunk while decoding; often none."""
        pages = self._pages[level]
        return pages[0].shrinks if len(pages) == 1 else ()

    def read_shrunk(self, level: int, shrink: int, rect: Rect) -> npt.NDArray[Any]:
        """Return a rectangle given in pixels of the shrunk level."""
        return self._read(level, rect, shrink=shrink)

    def take(self, colours: Colours) -> None:
        """Read with other colours from now on."""
        self._colours = colours

    def read_stored(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return stored samples ``(height, width, samples)``, before any conversion."""
        return self._stored(level, rect)

    def _read(
        self,
        level: int,
        rect: Rect,
        *,
        shrink: int = 1,
        damage: Damage | None = None,
    ) -> npt.NDArray[Any]:
        return self._colours.apply(
            self._stored(level, rect, shrink=shrink, damage=damage)
        )

    def _stored(
        self,
        level: int,
        rect: Rect,
        *,
        shrink: int = 1,
        damage: Damage | None = None,
    ) -> npt.NDArray[Any]:
        fill = self._colours.background
        parts = [
            page.read(rect, background=fill, shrink=shrink, damage=damage)
            for page in self._pages[level]
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._cache.clear()


def open_tiff(
    path: Path,
    *,
    tif: tifffile.TiffFile | None = None,
    image: str | int | None = None,
) -> Slide:
    """Open a TIFF with this package's own reader.

    Parameters
    ----------
    path : Path
        The file.
    tif : tifffile.TiffFile, optional
        The same file, if it was already parsed; the caller closes it.
    image : str or int, optional
        Name or index of the image inside; by default the main one.

    Raises
    ------
    SlideError
        If the file cannot be read; the message names the reason.
    InputError
        If there is no such image in it.
    """
    file = FileBytes(path)
    try:
        if tif is None:
            with parse_tiff(path) as parsed:
                return _opened(parsed, file, image)
        return _opened(tif, file, image)
    except BaseException:
        file.close()
        raise


def _opened(tif: tifffile.TiffFile, file: FileBytes, image: str | int | None) -> Slide:
    try:
        files = FileSet(tif, file)
        try:
            return _slide(files, file, image)
        except BaseException:
            files.close()
            raise
        finally:
            files.close_tables()
    except (*DECODE_ERRORS, OSError) as error:
        msg = f"{file.path.name}: the table of pages is damaged ({reason(error)})."
        raise SlideError(msg) from error


def _slide(files: FileSet, file: FileBytes, image: str | int | None) -> Slide:
    name = file.path.name
    layout = layout_of(files, name, image)
    cache = SegmentCache()
    levels = [
        [TiffPageReader(p, files.bytes_of(p), cache, level=k) for p in pages]
        for k, pages in enumerate(layout.levels)
    ]
    associated = {
        title: _associated_reader(page, colours, files.bytes_of(page))
        for title, (page, colours) in layout.associated.items()
    }
    opened = TiffSource(files.files, cache, levels, layout.colours)
    layout = _judged(layout, opened)
    ranges = _ranges_if_asked(layout, opened)
    source: PixelSource = opened
    if layout.orientation != 1:
        source = OrientedSource(source, layout.orientation)
        note = f"stored {describe(layout.orientation)}; shown upright"
        layout = replace(layout, notes=(*layout.notes, note))
    tag = layout.levels[0][0].tags.get(ICC_PROFILE)
    profile = tag.value if tag is not None and isinstance(tag.value, bytes) else None
    choice = layout.images[layout.image]
    is_main = layout.image == choose_image(layout.images, None, name)
    digest = digest_file(file)
    if len(files.files) > 1:
        # In any order: whichever of them is opened, it is the same slide.
        digests = sorted(digest_file(f) for f in files.files)
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    info = SlideInfo(
        name=name if is_main else name_of_image(name, choice),
        path=file.path,
        backend="tiff",
        vendor=layout.vendor,
        optics=layout.optics,
        mpp=_oriented(layout.size.mpp, layout.orientation),
        channels=layout.colours.channels,
        digest=digest if is_main else digest_of_image(digest, choice),
        notes=layout.notes,
        icc_profile=profile,
        colour_ranges=ranges,
        images=layout.images,
        image=layout.image,
    )
    return Slide(with_overviews(source), info, associated)


def _judged(layout: TiffLayout, source: TiffSource) -> TiffLayout:
    """Settle what only pixels show: how bright they are, and an opacity of nothing.

    An opacity that is zero everywhere is left out: it would hide the whole slide.
    """
    colours = layout.colours
    if colours.by_brightest is not None:
        colours = colours.by_brightest(brightest(source, colours.order))
    if colours.opaque is not None and is_clear(source, colours.alpha):
        note = "its opacity is zero everywhere and is ignored"
        colours = replace(colours.opaque, notes=(*colours.opaque.notes, note))
    if colours is layout.colours:
        return layout
    old = set(layout.colours.notes)
    notes = (*(n for n in layout.notes if n not in old), *colours.notes)
    source.take(colours)
    return replace(layout, colours=colours, notes=notes)


def _ranges_if_asked(layout: TiffLayout, source: TiffSource) -> Ranges:
    """Return how channels would become colour, if a person says that they are."""
    if not layout.asks_rgb:
        return ()
    dtype = np.dtype(layout.levels[0][0].dtype)
    if dtype == np.uint8:
        return ((0.0, 255.0),) * 3
    return ((0.0, top_of(dtype, brightest(source, range(3)))),) * 3


def _associated_reader(
    page: Any, colours: Colours, file: FileBytes
) -> Callable[[], npt.NDArray[np.uint8]]:
    # Built now, while tifffile's file is open. But a slide with a broken label is still
    # a good slide, so the error waits until the label is requested.
    try:
        reader = TiffPageReader(page, file, SegmentCache())
    except (SlideError, *DECODE_ERRORS) as error:
        msg = f"{file.path.name}: this associated image is damaged ({reason(error)})."
        broken = SlideError(msg)

        def refuse() -> npt.NDArray[np.uint8]:
            raise broken

        return refuse

    def read() -> npt.NDArray[np.uint8]:
        if reader.height * reader.width > MAX_ASSOCIATED_PX:
            msg = (
                f"{file.path.name}: an associated image of {reader.height} × "
                f"{reader.width} px is too large to be read whole."
            )
            raise SlideError(msg)
        whole = Rect(0, 0, reader.height, reader.width)
        pixels = reader.read(whole, background=colours.background)
        pixels = colours.apply(pixels)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
            msg = f"{file.path.name}: this associated image is not an 8-bit picture."
            raise SlideError(msg)
        return pixels

    return read


def _oriented(mpp: Mpp | None, orientation: int) -> Mpp | None:
    if mpp is None or orientation < 5:
        return mpp
    return replace(mpp, y=mpp.x, x=mpp.y)
