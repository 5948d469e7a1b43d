"""Slides through OpenSlide: NDPI, MRXS, BIF, SCN, DICOM and others.

OpenSlide is an extra (``pip install "napari-histodistill[openslide]"``), imported only
when a file needs it.
"""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.codecs.filebytes import digest_path
from napari_histodistill.slides.formats.associated import with_associated
from napari_histodistill.slides.formats.dicom_limits import (
    MAGIC,
    MAGIC_AT,
    check_dicom,
    outlines_beside,
)
from napari_histodistill.slides.formats.mrxs_limits import check_slidedat
from napari_histodistill.slides.formats.scenes import (
    MOST_SCENES,
    SceneSource,
    with_scenes,
)
from napari_histodistill.slides.pyramid.colours import over_white
from napari_histodistill.slides.pyramid.images import (
    choose_image,
    digest_of_image,
    name_of_image,
)
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect
from napari_histodistill.slides.pyramid.limits import extent_problem
from napari_histodistill.slides.pyramid.optics import Optics, stated_optics
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo
from napari_histodistill.slides.tiff.metadata import PhysicalSize, physical_size
from napari_histodistill.slides.tiff.tables import (
    MAX_TILE_PX,
    TIFF_MAGIC,
    check_for_openslide,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

MAX_READ_PX = 4096
"""Largest edge of one request to OpenSlide, whose answer takes four bytes a pixel."""


class OpenSlideSource:
    """Levels of a slide that OpenSlide reads.

    OpenSlide may be called from many threads, but after an error an open slide only
    repeats that error. It is then opened again, so that one damaged tile does not spoil
    the rest of the slide.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        self._slide = _opened(path)
        sizes = self._slide.level_dimensions
        self.downsamples: tuple[float, ...] = tuple(self._slide.level_downsamples)
        properties = self._slide.properties
        # For Leica's SCN it cuts the quotient to a whole pixel instead of shifting.
        self._cuts = properties.get("openslide.vendor") == "leica"
        tile = [
            (
                int(properties.get(f"openslide.level[{k}].tile-height", 256)),
                int(properties.get(f"openslide.level[{k}].tile-width", 256)),
            )
            for k in range(len(sizes))
        ]
        self.levels: Sequence[LevelInfo] = tuple(
            LevelInfo(height=h, width=w, tile_height=th, tile_width=tw, scale=(d, d))
            for (w, h), (th, tw), d in zip(sizes, tile, self.downsamples, strict=True)
        )
        try:
            self._refuse_impossible()
        except SlideError:
            self._slide.close()
            raise

    def _refuse_impossible(self) -> None:
        """Refuse levels and tiles for which OpenSlide would take all memory."""
        for level in self.levels:
            problem = extent_problem(level.height, level.width)
            if level.tile_height * level.tile_width > MAX_TILE_PX:
                problem = f"tiles of {level.tile_height} × {level.tile_width} px"
            if problem:
                msg = f"{self._path.name}: {problem}; the slide is damaged or made up."
                raise SlideError(msg)

    @property
    def properties(self) -> dict[str, str]:
        """All properties of the file."""
        return dict(self._slide.properties)

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, 3)`` uint8; see :class:`PixelSource`."""
        out = np.empty((rect.height, rect.width, 3), np.uint8)
        for y in range(rect.y, rect.bottom, MAX_READ_PX):
            for x in range(rect.x, rect.right, MAX_READ_PX):
                part = Rect(y, x, MAX_READ_PX, MAX_READ_PX).intersection(rect)
                out[part.slices_in(rect)] = self._read(level, part)
        return out

    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        """Return a label, macro or thumbnail, ``(h, w, 3)`` uint8."""
        height, width = self.associated.get(name, (0, 0))
        if height * width > MAX_TILE_PX:
            msg = (
                f"{self._path.name}: its {name} of {height} × {width} px is too large "
                "to be decoded whole."
            )
            raise SlideError(msg)
        return over_white(
            self._ask(lambda slide: np.asarray(slide.associated_images[name]))
        )

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile of the stored pixels, if the file carries one."""
        profile = getattr(self._slide, "color_profile", None)
        return None if profile is None else bytes(profile.tobytes())

    @property
    def associated(self) -> dict[str, tuple[int, int]]:
        """Height and width of label, macro and the like, by name; none is decoded."""
        properties = self._slide.properties
        sizes = {}
        for name in self._slide.associated_images:
            sides = [
                str(properties.get(f"openslide.associated.{name}.{side}", ""))
                for side in ("height", "width")
            ]
            # OpenSlide before 4.0 does not say.
            h, w = (int(side) if side.isdecimal() else 0 for side in sides)
            sizes[name] = (h, w)
        return sizes

    def close(self) -> None:
        """Close the file; may be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._slide.close()

    def _read(self, level: int, rect: Rect) -> npt.NDArray[np.uint8]:
        # OpenSlide takes x before y, and the corner in pixels of level 0.
        corner = self._corner(rect.x, level), self._corner(rect.y, level)
        size = rect.width, rect.height
        rgba = self._ask(
            lambda slide: np.asarray(slide.read_region(corner, level, size))
        )
        return over_white(rgba)

    def _corner(self, pixel: int, level: int) -> int:
        """Return the level-0 pixel at which OpenSlide finds a pixel of a level.

        OpenSlide divides it by the level's downsample, which is not the ratio of the
        sizes if the last row or column was cut off: with that ratio, parts of a level
        would be shifted, more so the farther they are from the slide's corner. Where a
        downsample is not a whole number, up to half a level-0 pixel remains.
        """
        downsample = self.downsamples[level]
        if not self._cuts:
            return round(pixel * downsample)
        corner = math.ceil(pixel * downsample)
        return corner if corner / downsample >= pixel else corner + 1

    def _ask(self, question: Callable[[Any], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        import openslide

        if self._closed:
            msg = f"{self._path.name}: the slide was closed; open it again."
            raise ClosedSlideError(msg)
        slide = self._slide
        try:
            return question(slide)
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            with self._lock:
                # The broken handle is left to the garbage collector: other threads
                # may still be reading with it.
                if self._slide is slide and not self._closed:
                    self._slide = _opened(self._path)
            msg = (
                f"{self._path.name}: OpenSlide cannot read this part ({reason(error)})."
            )
            raise SlideError(msg) from error


def open_with_openslide(
    path: Path, *, what: str = "this file", image: str | int | None = None
) -> Slide:
    """Open a slide through OpenSlide.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        Kind of the file, for messages: ``"a Hamamatsu NDPI slide"``.
    image : str or int, optional
        Name or index of a scene; what is beside the slide is opened by the caller.

    Raises
    ------
    SlideError
        If OpenSlide is not installed, does not know the file or cannot read it.
    """
    if not is_installed():
        msg = (
            f"{path.name} is {what}, which is read through OpenSlide: "
            'pip install "napari-histodistill[openslide]".'
        )
        raise SlideError(msg)
    check_before_openslide(path)
    source = OpenSlideSource(path)
    try:
        properties = source.properties
        size = _size(properties)
        first = source.levels[0]
        scenes = _scenes(properties, first.height, first.width)
        beside = with_associated(
            path.name, (first.height, first.width), size.mpp, source.associated
        )
        images = with_scenes(beside, scenes, size.mpp)
        index = choose_image(images, image, path.name)
        info = SlideInfo(
            name=path.name,
            path=path,
            backend="openslide",
            vendor=properties.get("openslide.vendor", ""),
            optics=_optics(properties),
            mpp=size.mpp,
            digest=_digest(path),
            notes=size.notes,
            icc_profile=source.icc_profile,
            bounds_origin=_bounds_origin(properties, first.height, first.width),
            images=images,
        )
        associated = {
            name: lambda name=name: source.read_associated(name)
            for name in source.associated
        }
        if index < len(beside):
            return Slide(with_overviews(source), info, associated)
        chosen = images[index]
        info = replace(
            info,
            name=name_of_image(path.name, chosen),
            digest=digest_of_image(info.digest, chosen),
            bounds_origin=None,
            image=index,
        )
        part = SceneSource(source, scenes[index - len(beside)])
        return Slide(with_overviews(part), info, associated)
    except BaseException:
        source.close()
        raise


def check_before_openslide(path: Path) -> None:
    """Refuse what would end the process or take all memory inside OpenSlide.

    It goes by the content: OpenSlide tries every format on every file.

    Raises
    ------
    SlideError
        If so; the message says why.
    """
    try:
        with path.open("rb") as file:
            start = file.read(MAGIC_AT + len(MAGIC))
    except OSError as error:
        msg = f"{path.name}: the file cannot be opened ({error.strerror})."
        raise SlideError(msg) from error
    if path.suffix.lower() == ".mrxs":
        check_slidedat(path)
    if start[MAGIC_AT:] == MAGIC:
        for found in (check_dicom(path), *outlines_beside(path)):
            if isinstance(found, SlideError):
                raise found
            if not found.frames_are_sound:
                msg = f"{found.path.name}: its table of frames is damaged."
                raise SlideError(msg)
    if start.startswith(TIFF_MAGIC):
        check_for_openslide(path)


def is_installed() -> bool:
    """Return whether OpenSlide and its library can be imported."""
    try:
        import openslide  # noqa: F401
    except (ImportError, OSError):  # OSError: the binding is there, the library not
        return False
    return True


def knows(path: Path) -> bool:
    """Return whether OpenSlide is installed and recognises the format of a file."""
    if not is_installed():
        return False
    import openslide

    try:
        check_before_openslide(path)
        return openslide.OpenSlide.detect_format(str(path)) is not None
    except (openslide.OpenSlideError, OSError):
        return False


def _opened(path: Path) -> Any:
    import openslide

    try:
        return openslide.OpenSlide(str(path))
    except openslide.OpenSlideUnsupportedFormatError as error:
        msg = f"{path.name}: OpenSlide does not read this kind of file."
        raise SlideError(msg) from error
    except (openslide.OpenSlideError, OSError) as error:
        msg = f"{path.name}: OpenSlide cannot open it ({reason(error)})."
        raise SlideError(msg) from error


def _digest(path: Path) -> str:
    """Return the fingerprint of a slide and of the folder that MRXS keeps beside it."""
    companion = path.with_suffix("")
    own = digest_path(path)
    if path.suffix.lower() != ".mrxs" or not companion.is_dir():
        return own
    return hashlib.sha256((own + digest_path(companion)).encode()).hexdigest()


def _optics(properties: Mapping[str, str]) -> Optics:
    """Return the objective, and the scanner as each vendor calls it."""
    makers = ("tiff.Make", "dicom.Manufacturer", "philips.DICOM_MANUFACTURER")
    models = (
        *("tiff.Model", "leica.device-model", "dicom.ManufacturerModelName"),
        "aperio.ScanScope ID",
    )
    stated = [properties.get(name) for name in (*makers, *models)]
    return stated_optics(properties.get("openslide.objective-power"), *stated)


def _size(properties: dict[str, str]) -> PhysicalSize:
    try:
        y = float(properties["openslide.mpp-y"])
        x = float(properties["openslide.mpp-x"])
    except (KeyError, ValueError):
        return PhysicalSize(None, ("the file does not state µm per pixel",))
    return physical_size(y, x, "openslide.mpp-x, openslide.mpp-y")


def _scenes(properties: dict[str, str], height: int, width: int) -> tuple[Rect, ...]:
    """Return the regions that OpenSlide lists and that lie on the slide."""
    found = []
    for k in range(MOST_SCENES):
        try:
            y, x, h, w = (
                int(properties[f"openslide.region[{k}].{side}"])
                for side in ("y", "x", "height", "width")
            )
        except (KeyError, ValueError):
            break
        if y < 0 or x < 0 or min(h, w) < 1 or y + h > height or x + w > width:
            return ()
        found.append(Rect(y, x, h, w))
    return tuple(found)


def _bounds_origin(
    properties: dict[str, str], height: int, width: int
) -> tuple[int, int] | None:
    """Return the corner ``(y, x)`` of the bounds in the file, if they are possible.

    All four numbers are required, as in QuPath, which does not crop if one is missing.
    """
    sides = ("y", "x", "height", "width")
    try:
        y, x, h, w = (int(properties[f"openslide.bounds-{side}"]) for side in sides)
    except (KeyError, ValueError):
        return None
    can_be = 0 <= y < height and 0 <= x < width and min(h, w) > 0
    return (y, x) if can_be and (y, x) != (0, 0) else None
