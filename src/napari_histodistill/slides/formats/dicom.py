"""DICOM whole-slide images through pydicom: one file or the files of a series.

pydicom is an extra (``pip install "napari-histodistill[dicom]"``). It is used where
OpenSlide is missing or refuses a file: incomplete headers, JPEG-LS, 16 bits.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.codecs.decoding import SegmentCache
from napari_histodistill.slides.codecs.filebytes import digest_path
from napari_histodistill.slides.formats.associated import with_associated
from napari_histodistill.slides.formats.dicom_image import (
    DicomImage,
    read_header,
    value_errors,
)
from napari_histodistill.slides.formats.dicom_limits import (
    DicomOutline,
    check_dicom,
    outlines_beside,
)
from napari_histodistill.slides.pyramid.colours import Colours, colours_of_samples
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect
from napari_histodistill.slides.pyramid.optics import Optics, stated_optics
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo
from napari_histodistill.slides.tiff.metadata import PhysicalSize, physical_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.damage import Damage

ASSOCIATED = {"LABEL": "label", "OVERVIEW": "macro", "THUMBNAIL": "thumbnail"}


class DicomSource:
    """The levels of a DICOM slide, each a file.

    Parameters
    ----------
    images : sequence of DicomImage
        Levels, finest first; closed with the source.
    colours : Colours
        How samples become channels.
    cache : SegmentCache
        Decoded tiles; emptied with the source.
    """

    def __init__(
        self, images: Sequence[DicomImage], colours: Colours, cache: SegmentCache
    ) -> None:
        self._images, self._colours, self._cache = images, colours, cache
        self.levels: Sequence[LevelInfo] = tuple(
            LevelInfo(
                height=image.height,
                width=image.width,
                tile_height=image.tile_height,
                tile_width=image.tile_width,
            )
            for image in images
        )

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        fill = self._colours.background
        pixels = self._images[level].read(rect, background=fill)
        return self._colours.apply(pixels)

    def read_damaged(self, level: int, rect: Rect, damage: Damage) -> npt.NDArray[Any]:
        """Read what can be read and note the rest; see :func:`read_part`."""
        pixels = self._images[level].read(
            rect, background=self._colours.background, damage=damage
        )
        return self._colours.apply(pixels)

    def close(self) -> None:
        """Close the files."""
        for image in self._images:
            image.close()
        self._cache.clear()


def is_installed() -> bool:
    """Return whether pydicom is installed."""
    return importlib.util.find_spec("pydicom") is not None


def open_dicom(path: Path) -> Slide:
    """Open a DICOM whole-slide image, with its levels in the same folder.

    Parameters
    ----------
    path : Path
        Any one of the slide's files.

    Raises
    ------
    SlideError
        If it is not a whole-slide image, is damaged, or has an unknown compression.
    """
    check_dicom(path)
    header, _ = read_header(path)
    volumes, others = _siblings(path, header)
    images: list[DicomImage] = []
    cache = SegmentCache()
    broken: tuple[str, ...] = ()
    try:
        for file in volumes:
            try:
                image = DicomImage(file, cache)
            except SlideError:
                if file == path:
                    raise
                # A broken level beside a good file only means one level fewer.
                broken += (f"{file.name}: a level that cannot be read",)
            else:
                images.append(image)
        images = _descending(images)
        first = images[0]
        colours = _colours(first.header, first)
        size = _size(first.header, first)
        planes = _focal_planes(first.header)
        notes = (*first.notes, *broken)
        if planes > 1:
            notes = (*notes, f"{planes} focal planes: the first is shown")
        info = SlideInfo(
            name=path.name,
            path=path,
            backend="pydicom",
            vendor=f"DICOM {first.header.get('Manufacturer', '')}".strip(),
            optics=_optics(first.header),
            mpp=size.mpp,
            channels=colours.channels,
            digest=_digest([image.path for image in images]),
            notes=(*size.notes, *colours.notes, *notes),
            icc_profile=_icc_profile(first.header),
            images=with_associated(
                path.name,
                (first.height, first.width),
                size.mpp,
                {name: _stated_size(file) for name, file in others.items()},
            ),
        )
        source = DicomSource(images, colours, cache)
        associated = {name: _reader(file) for name, file in others.items()}
        return Slide(with_overviews(source), info, associated)
    except BaseException:
        for image in images:
            image.close()
        raise


def _siblings(path: Path, header: Any) -> tuple[list[Path], dict[str, Path]]:
    """Return the files of a slide: its levels, and its associated images by name."""
    series = header.get("SeriesInstanceUID")
    volumes, others = [], {}
    for file in _of_series(path, series):
        try:
            other, _ = read_header(file)
        except SlideError:
            continue
        kinds = _kinds(other)
        name = next((ASSOCIATED[k] for k in ASSOCIATED if k in kinds), None)
        if name is not None:
            others[name] = file
        elif _same_paths(other, header):
            volumes.append(file)
    own = _kinds(header) & set(ASSOCIATED)
    # A label that the user opened is shown by itself, without the slide.
    return ([path], {}) if own else ([path, *volumes], others)


def _kinds(header: Any) -> set[str]:
    """Return what a file says that its picture is; a number says nothing."""
    found = header.get("ImageType")
    if isinstance(found, str):
        return {found}
    return set(map(str, found)) if isinstance(found, Collection) else set()


def _focal_planes(header: Any) -> int:
    try:
        return int(header.get("TotalPixelMatrixFocalPlanes", 1) or 1)
    except value_errors():
        return 1


def _of_series(path: Path, series: str | None) -> list[Path]:
    """Return the other files of a series in a folder, of those that are no trap."""
    return [
        beside.path
        for beside in outlines_beside(path)
        if isinstance(beside, DicomOutline)
        and beside.path.suffix == ".dcm"
        and beside.series == series
    ]


def _same_paths(other: Any, header: Any) -> bool:
    """Return whether two files can be levels of one image: the same kind of pixels."""
    wanted = ("SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation")
    return all(other.get(key) == header.get(key) for key in wanted)


def _descending(images: list[DicomImage]) -> list[DicomImage]:
    """Sort levels, finest first; close duplicates and those of other proportions."""
    images = sorted(images, key=lambda image: -image.height * image.width)
    kept = [images[0]]
    for image in images[1:]:
        expected = images[0].height * image.width / images[0].width
        smaller = image.width < kept[-1].width
        if smaller and abs(expected - image.height) <= max(2.0, 0.01 * expected):
            image.level = len(kept)
            kept.append(image)
        else:
            image.close()
    return kept


def _colours(header: Any, image: DicomImage) -> Colours:
    if image.samples >= 3:
        return colours_of_samples(image.samples, image.dtype)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        top = np.iinfo(image.dtype).max
        return Colours(("grey",), lambda pixels: top - pixels)
    return Colours(("grey",))


def _size(header: Any, image: DicomImage) -> PhysicalSize:
    try:
        shared = header.SharedFunctionalGroupsSequence[0]
        spacing = shared.PixelMeasuresSequence[0].PixelSpacing
        return physical_size(
            float(spacing[0]) * 1000, float(spacing[1]) * 1000, "DICOM PixelSpacing"
        )
    except value_errors():
        pass
    sides = [header.get(f"ImagedVolume{a}") for a in ("Height", "Width")]
    try:
        height, width = (float(side or 0) for side in sides)
    except value_errors():
        height = width = 0.0
    if not height or not width:
        return PhysicalSize(None, ("the file does not state µm per pixel",))
    y, x = height * 1000 / image.height, width * 1000 / image.width
    if not math.isclose(y, x, rel_tol=0.05):
        note = f"an imaged volume of {height:g} × {width:g} mm does not fit the pixels"
        return PhysicalSize(None, ("the file does not state µm per pixel", note))
    return physical_size(y, x, "DICOM ImagedVolumeWidth")


def _stated_size(path: Path) -> tuple[int, int]:
    """Return height and width by a file's header; zero where it does not say."""
    header, _ = read_header(path)
    try:
        sides = (
            header.get(f"TotalPixelMatrix{side}") or header.get(side) or 0
            for side in ("Rows", "Columns")
        )
        height, width = map(int, sides)
    except (TypeError, ValueError):
        return 0, 0
    return height, width


def _optics(header: Any) -> Optics:
    power = None
    with suppress(AttributeError, IndexError, TypeError):
        power = header.OpticalPathSequence[0].get("ObjectiveLensPower")
    names = ("Manufacturer", "ManufacturerModelName")
    return stated_optics(power, *(header.get(name) for name in names))


def _icc_profile(header: Any) -> bytes | None:
    try:
        return header.OpticalPathSequence[0].ICCProfile or None
    except value_errors():
        return None


def _digest(files: list[Path]) -> str:
    digests = sorted(digest_path(file) for file in files)
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _reader(path: Path) -> Callable[[], npt.NDArray[np.uint8]]:
    def read() -> npt.NDArray[np.uint8]:
        image = DicomImage(path, SegmentCache())
        try:
            whole = Rect(0, 0, image.height, image.width)
            pixels = image.read(whole, background=255)
        finally:
            image.close()
        if pixels.dtype != np.uint8 or pixels.shape[2] not in {1, 3}:
            msg = f"{path.name}: this associated image is not an 8-bit picture."
            raise SlideError(msg)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    return read
