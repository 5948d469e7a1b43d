"""The slide: a pyramid of lazily read levels with a physical size.

A backend opens a file and provides a :class:`PixelSource`: its levels, and one
thread-safe method that reads a rectangle of a level. Everything else (arrays for dask
and napari, reading past the border) is built here, once, for all formats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_histodistill.errors import InputError, MissingMppError, SlideError
from napari_histodistill.geometry import Mpp, Region, WorldTransform
from napari_histodistill.slides.pyramid.damage import StripedSource, probe
from napari_histodistill.slides.pyramid.images import ImageChoice
from napari_histodistill.slides.pyramid.level_array import lazy_levels
from napari_histodistill.slides.pyramid.levels import Rect
from napari_histodistill.slides.pyramid.limits import extent_problem
from napari_histodistill.slides.pyramid.optics import Optics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import dask.array as da
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.damage import Marked, TileCorner
    from napari_histodistill.slides.pyramid.levels import LevelInfo, PixelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideInfo:
    """Facts about a slide other than its pixels.

    Attributes
    ----------
    name : str
        Name on screen and in messages.
    path : Path or None
        File or folder it was opened from; None for arrays.
    backend : str
        Reader that opened it, for example ``"tiff"``.
    vendor : str
        Vendor and format, for example ``"Aperio SVS"``; empty if unknown.
    mpp : Mpp or None
        µm per pixel with provenance; None if the file does not state it.
    channels : tuple of str
        ``("R", "G", "B")`` for a brightfield image, otherwise the channels' names.
    digest : str
        Fingerprint of the content, hex; equal files give equal digests.
    notes : tuple of str
        Remarks for the user: "2 focal planes: the first is shown".
    icc_profile : bytes or None
        ICC profile of the stored colours, if the file carries one
        (``slides/tissue/icc.py``).
    stored_digest : str
        Digest of the slide as stored, if its colours were converted; else empty.
    bounds_origin : tuple of int or None
        Corner ``(y, x)``, in level-0 pixels, of the part that was scanned according to
        the file (OpenSlide's bounds, MRXS); None if it is the slide's own corner.
        Coordinates in this package never start there, but those of programs that crop
        to the scanned part do (QuPath).
    address : str
        The http(s) address of a slide on a server; else empty.
    origin_um : tuple of float
        World position ``(y, x)`` of the centre of the first pixel in µm, where the file
        states one (OME-Zarr's translation); coordinates in pixels never contain it.
    colour_ranges : tuple of tuple of float
        Only where three channels may be a colour image and the file does not say so:
        for each, the stored values that would be shown as 0 and as 255. See
        :func:`~napari_histodistill.slides.formats.zarr_colours.taken_for_colour`.
    images : tuple of ImageChoice
        All images inside the file or folder, this one included.
    image : int
        Index in ``images`` of the one that is open.
    optics : Optics
        What the file says it was scanned with.
    """

    name: str
    path: Path | None = None
    backend: str = "array"
    vendor: str = ""
    mpp: Mpp | None = None
    channels: tuple[str, ...] = ("R", "G", "B")
    digest: str = ""
    notes: tuple[str, ...] = field(default=())
    icc_profile: bytes | None = field(default=None, repr=False)
    stored_digest: str = ""
    bounds_origin: tuple[int, int] | None = None
    address: str = ""
    images: tuple[ImageChoice, ...] = ()
    image: int = 0
    origin_um: tuple[float, float] = (0.0, 0.0)
    colour_ranges: tuple[tuple[float, float], ...] = ()
    optics: Optics = field(default_factory=Optics)

    @property
    def section(self) -> str:
        """Digest of the stored pixels: the same for every colour conversion of them."""
        return self.stored_digest or self.digest

    @property
    def needs_rgb(self) -> bool:
        """Whether a person must say if the three channels are red, green and blue."""
        return bool(self.colour_ranges)

    @property
    def is_rgb(self) -> bool:
        """Whether this is a brightfield colour image, which a student can process."""
        return self.channels == ("R", "G", "B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a slide was opened from a file, for another process to do the same.

    Attributes
    ----------
    path : Path
        Absolute path of the file or folder.
    image : str or int or None
        As in ``open_slide``.
    icc, rgb : bool
        As in ``open_slide``.
    """

    path: Path
    image: str | int | None = None
    icc: bool = False
    rgb: bool = False


class Slide:
    """A pyramid with a physical size; open one with :func:`open_slide`.

    Reading is thread-safe. Use it as a context manager, or call :meth:`close`.

    Parameters
    ----------
    source : PixelSource
        The backend's levels and their thread-safe reading.
    info : SlideInfo
        Name, µm per pixel and so on.
    associated : mapping of str to callable
        Label, macro, thumbnail…: name → function returning ``(height, width, 3)``
        uint8. Called only on request: a label may show a patient's name.

    Attributes
    ----------
    opened : Opening or None
        How the same pixels can be opened again; None if they come from an array or a
        server, or were changed since.
    """

    def __init__(
        self,
        source: PixelSource,
        info: SlideInfo,
        associated: Mapping[str, Any] | None = None,
    ) -> None:
        self._source = source
        self.info = info if info.images else _alone(info, source)
        self._associated = dict(associated or {})
        self.opened: Opening | None = None
        first = source.levels[0]
        for level in source.levels:
            problem = extent_problem(level.height, level.width)
            if problem:
                msg = f"{info.name}: {problem}; the file is damaged or made up."
                raise SlideError(msg)
        self._probe = probe(source)
        self._striped = StripedSource(source, self._probe)
        self.scales: tuple[tuple[float, float], ...] = tuple(
            level.scale or (first.height / level.height, first.width / level.width)
            for level in source.levels
        )
        self._levels: tuple[da.Array, ...] | None = None

    @property
    def name(self) -> str:
        """Name on screen and in messages."""
        return self.info.name

    @property
    def path(self) -> Path | None:
        """File or folder it was opened from; None for arrays."""
        return self.info.path

    @property
    def home(self) -> Path | None:
        """Path or address that ``open_slide`` opens again; None for arrays."""
        address = self.info.address
        return Path(address) if address else self.info.path

    @property
    def mpp(self) -> Mpp | None:
        """µm per level-0 pixel with provenance; None if the file does not state it."""
        return self.info.mpp

    @property
    def level_infos(self) -> tuple[LevelInfo, ...]:
        """Size and tile size of every level, finest first."""
        return tuple(self._source.levels)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of level 0 in pixels."""
        first = self._source.levels[0]
        return first.height, first.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self._probe.dtype

    @property
    def downsamples(self) -> tuple[float, ...]:
        """Real-valued downsample of every level (geometric mean of both axes)."""
        return tuple(math.sqrt(sy * sx) for sy, sx in self.scales)

    @property
    def levels(self) -> tuple[da.Array, ...]:
        """Dask arrays ``(height, width, channels)``, finest first, one per level.

        For viewers and for all that compute with dask: damage is striped, as in
        :meth:`read_marked`. They keep the files open while they are referred to.
        """
        if self._levels is None:
            self._levels = lazy_levels(self._striped)
        return self._levels

    @property
    def associated_images(self) -> tuple[str, ...]:
        """Names of label, macro and thumbnail images that the file carries."""
        return tuple(self._associated)

    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        """Return an associated image, ``(height, width, 3)`` uint8.

        Raises
        ------
        InputError
            If the slide has no image of that name.
        """
        if name not in self._associated:
            have = ", ".join(self._associated) or "none"
            msg = (
                f"{self.name}: there is no associated image {name!r} (it has: {have})."
            )
            raise InputError(msg)
        image: npt.NDArray[np.uint8] = self._associated[name]()
        return image

    def with_mpp(self, mpp: Mpp) -> Slide:
        """Return the same slide (same open files) with another µm per pixel.

        A note that what it had cannot be right goes with what it had.
        """
        known = self.mpp
        problem = "" if known is None else known.problem
        notes = tuple(note for note in self.info.notes if note != problem)
        return self.with_info(replace(self.info, mpp=mpp, notes=notes))

    def with_info(self, info: SlideInfo, source: PixelSource | None = None) -> Slide:
        """Return the slide (same open files) with other facts or another source."""
        other = Slide(source or self._source, info, self._associated)
        other.opened = self.opened if source is None else None
        return other

    def seen_through(self, wrap: Callable[[PixelSource], PixelSource]) -> Slide:
        """Return the same slide (same open files) with its pixels changed on reading.

        Parameters
        ----------
        wrap : callable
            Takes the source and returns another with the same levels.
        """
        return Slide(wrap(self._source), self.info, self._associated)

    @property
    def source(self) -> PixelSource:
        """The backend's levels, for code that wraps them or reads them differently."""
        return self._source

    @property
    def usable_mpp(self) -> Mpp | None:
        """µm per pixel, if it is plausible or was typed by the user; else None."""
        return self.mpp if self.mpp is not None and self.mpp.is_usable else None

    def require_mpp(self) -> Mpp:
        """Return the µm per pixel, if there is a usable one.

        Raises
        ------
        MissingMppError
            If it is missing or implausible; the message says how to supply it.
        """
        if self.usable_mpp is not None:
            return self.usable_mpp
        if self.mpp is None:
            msg = (
                f"{self.name}: the file does not state its µm per pixel; give it with "
                "--mpp or in the field µm/px (0.25 for 40×, 0.5 for 20×)."
            )
            raise MissingMppError(msg)
        msg = (
            f"{self.name}: {self.mpp.problem}; give the true value with --mpp or in "
            "the field µm/px."
        )
        raise MissingMppError(msg)

    def world(self, level: int = 0) -> WorldTransform:
        """Return scale and translate (µm) that place a level's pixels in the world.

        Without a usable µm per pixel (:attr:`usable_mpp`), the unit is the level-0
        pixel. Pixel *edges* of all levels coincide at the upper left corner of the
        slide.
        """
        mpp = self.usable_mpp
        my, mx = (mpp.y, mpp.x) if mpp else (1.0, 1.0)
        sy, sx = self.scales[level]
        return WorldTransform(
            scale=(my * sy, mx * sx), translate=(my * (sy - 1) / 2, mx * (sx - 1) / 2)
        )

    def read(self, region: Region, level: int = 0) -> npt.NDArray[Any]:
        """Return the pixels of a rectangle.

        Parameters
        ----------
        region : Region
            ``y`` and ``x`` in level-0 pixels; ``height`` and ``width`` in whole pixels
            *of the level that is read* (OpenSlide's convention).
        level : int
            0 is the finest.

        Returns
        -------
        ndarray
            ``(height, width, channels)``. Pixels outside the slide are background: 255
            in colour images, 0 in others.

        Raises
        ------
        InputError
            If the level does not exist or the size is not in whole pixels.
        SlideError
            If the file cannot be read there.
        """
        infos = self._source.levels
        if not 0 <= level < len(infos):
            msg = f"{self.name}: level {level} is not one of 0 to {len(infos) - 1}."
            raise InputError(msg)
        if region.height != int(region.height) or region.width != int(region.width):
            msg = f"{self.name}: read needs a whole number of pixels, got {region}."
            raise InputError(msg)
        height, width = int(region.height), int(region.width)
        sy, sx = self.scales[level]
        # Half up, not to even: neighbouring reads must not overlap or leave a gap.
        y, x = math.floor(region.y / sy + 0.5), math.floor(region.x / sx + 0.5)
        y0, x0 = max(0, y), max(0, x)
        y1 = min(infos[level].height, y + height)
        x1 = min(infos[level].width, x + width)
        if (y0, x0, y1, x1) == (y, x, y + height, x + width):
            return self._source.read_level(level, Rect(y, x, height, width))
        fill = 255 if self.info.is_rgb else 0
        out = np.full((height, width, self._probe.shape[2]), fill, self.dtype)
        if y1 > y0 and x1 > x0:
            rect = Rect(y0, x0, y1 - y0, x1 - x0)
            inside = self._source.read_level(level, rect)
            out[y0 - y : y1 - y, x0 - x : x1 - x] = inside
        return out

    def read_pixels(
        self, level: int, y: int, x: int, height: int, width: int
    ) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)`` at whole pixels of a level.

        For code that does its own arithmetic: the rectangle, in pixels of the level,
        must lie inside it. Other callers use :meth:`read`.
        """
        return self._source.read_level(level, Rect(y, x, height, width))

    def read_marked(
        self, level: int, y: int, x: int, height: int, width: int
    ) -> Marked:
        """Return the pixels of a rectangle, with damage marked.

        As :meth:`read_pixels`, for code that shows or skips damage instead of failing.
        Missing pixels are striped yellow and blue, which no tissue is;
        :attr:`unreadable` collects their tiles.

        Raises
        ------
        ClosedSlideError
            If the slide was closed.
        """
        return self._striped.read(level, Rect(y, x, height, width))

    @property
    def unreadable(self) -> tuple[TileCorner, ...]:
        """Tiles found to be damaged so far: level, y and x of their corners."""
        return tuple(sorted(self._striped.unreadable))

    def note_unreadable(self, corners: Iterable[TileCorner]) -> None:
        """Add tiles to :attr:`unreadable` that another process found to be damaged."""
        self._striped.unreadable.update(corners)

    def close(self) -> None:
        """Close the files. Reading afterwards raises a :class:`SlideError`."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        h, w = self.shape
        mpp = f"{self.mpp.mean:.4g} µm/px" if self.mpp else "µm/px unknown"
        return f"<Slide {self.name!r} {h} × {w} px, {len(self.scales)} levels, {mpp}>"


def _alone(info: SlideInfo, source: PixelSource) -> SlideInfo:
    """Return the facts about a file that holds no other image."""
    first = source.levels[0]
    alone = ImageChoice(
        name=info.name,
        index=0,
        height=first.height,
        width=first.width,
        mpp=info.mpp,
    )
    return replace(info, images=(alone,), image=0)
