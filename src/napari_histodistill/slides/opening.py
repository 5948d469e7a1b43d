"""The one way to open a slide: inspect the content, choose a reader, or say why not."""

from __future__ import annotations

import stat
from dataclasses import replace
from errno import ENOENT, ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.addresses import shown, url_of
from napari_histodistill.errors import InputError, SlideError
from napari_histodistill.geometry import Mpp, MppOrigin
from napari_histodistill.slides.formats import czi, dicom, openslide
from napari_histodistill.slides.formats.arrays import slide_from_arrays
from napari_histodistill.slides.formats.associated import associated_slide
from napari_histodistill.slides.formats.dicom_limits import MAGIC, MAGIC_AT
from napari_histodistill.slides.formats.omezarr import is_zarr_folder, open_omezarr
from napari_histodistill.slides.formats.openslide import open_with_openslide
from napari_histodistill.slides.formats.plain import open_plain
from napari_histodistill.slides.formats.remote import open_remote
from napari_histodistill.slides.formats.zarr_colours import taken_for_colour
from napari_histodistill.slides.pyramid.images import choose_image
from napari_histodistill.slides.pyramid.slide import Opening
from napari_histodistill.slides.tiff.siblings import parse_tiff
from napari_histodistill.slides.tiff.source import open_tiff
from napari_histodistill.slides.tiff.tables import TIFF_MAGIC
from napari_histodistill.slides.tissue.icc import in_srgb

if TYPE_CHECKING:
    import os

    from napari_histodistill.slides.pyramid.slide import Slide

__all__ = ["open_slide", "slide_from_arrays"]

ZIP_MAGIC = b"PK\x03\x04"

TIFF_NAMES = (".svs", ".tif", ".tiff", ".qptiff", ".ndpi", ".scn", ".bif")
OPENSLIDE_NAMES = {
    ".mrxs": "a 3DHISTECH MRXS slide",
    ".vms": "a Hamamatsu VMS slide",
    ".vmu": "a Hamamatsu VMU slide",
    ".svslide": "a Sakura slide",
}
OTHER_NAMES = {
    ".vsi": "an Olympus VSI slide",
    ".isyntax": "a Philips iSyntax slide",
    ".mcd": "an imaging mass cytometry file",
    ".lif": "a Leica LIF file",
    ".nd2": "a Nikon ND2 file",
}


def open_slide(
    path: str | os.PathLike[str],
    *,
    mpp: float | Mpp | None = None,
    icc: bool = False,
    image: str | int | None = None,
    rgb: bool = False,
) -> Slide:
    """Open a slide or any plain image.

    TIFF in all its dialects, OME-Zarr and plain images are read by this package; NDPI,
    MRXS, BIF, SCN and Philips TIFF through OpenSlide, if it is installed; DICOM and CZI
    through OpenSlide or, where that refuses, through pydicom and pylibCZIrw.

    Parameters
    ----------
    path : path-like
        A file, the folder of an OME-Zarr image, or such a folder's http(s) address.
    mpp : float or Mpp, optional
        µm per level-0 pixel, if the file does not state it or is wrong. A number must
        be plausible for a light microscope (0.05 to 20).
    icc : bool
        Whether to convert colours to sRGB with the file's ICC profile.
    image : str or int, optional
        Name or index of one of the images inside (``slide.info.images``); by default
        the largest that is no label, macro or thumbnail.
    rgb : bool
        Whether three channels that the file does not name are red, green and blue.

    Returns
    -------
    Slide
        Close it after use, or use it as a context manager.

    Raises
    ------
    SlideError
        If the file cannot be read; one sentence says why and what to do.
    InputError
        If ``mpp`` is not a positive number, or one that no light microscope has; if
        there is no such image in it; if ``rgb`` is said of channels that have names.

    Examples
    --------
    >>> from napari_histodistill import Region, open_slide
    >>> from napari_histodistill.samples import ihc_sample
    >>> with open_slide(ihc_sample()) as slide:
    ...     pixels = slide.read(Region(y=0, x=0, height=100, width=200), level=0)
    ...     print(slide.shape, slide.mpp.mean, pixels.shape, pixels.dtype)
    (512, 512) 0.5 (100, 200, 3) uint8
    """
    if mpp is not None:
        mpp = _answered(mpp) if isinstance(mpp, Mpp) else _typed(float(mpp))
    url = url_of(path)
    slide = _open(Path(path), image) if url is None else open_remote(url, image=image)
    try:
        slide = _image_of(slide, image)
        slide = taken_for_colour(slide) if rgb else slide
        slide = in_srgb(slide) if icc else slide
    except InputError:
        slide.close()
        raise
    if url is None:
        here = Path(path).absolute()
        slide.opened = Opening(path=here, image=image, icc=icc, rgb=rgb)
    return slide if mpp is None else slide.with_mpp(mpp)


def open_again(opening: Opening) -> Slide:
    """Open a slide as it was opened before; µm per pixel are those of the file.

    Raises
    ------
    SlideError, InputError
        As :func:`open_slide`.
    """
    return open_slide(
        opening.path, icc=opening.icc, image=opening.image, rgb=opening.rgb
    )


def _answered(mpp: Mpp) -> Mpp:
    """Return what a caller gave for both axes: believed, also where they differ."""
    in_range = all(Mpp(v, v, "").is_plausible for v in (mpp.y, mpp.x))
    return replace(mpp, origin=MppOrigin.USER) if in_range else mpp


def _typed(value: float) -> Mpp:
    mpp = Mpp.given(value)
    if not mpp.is_plausible:
        # Otherwise a tile would be a fraction of a pixel, or too large for the memory.
        msg = (
            f"{value:g} µm per pixel cannot be a light microscope's (0.05 to 20): 0.25 "
            "is a 40× scan, 0.5 a 20× scan, 1.0 a 10× scan."
        )
        raise InputError(msg)
    return mpp


def _refuse_no_file(path: Path) -> None:
    """Refuse paths that cannot be opened, and devices and pipes, which have no end."""
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        if isinstance(error, OSError) and error.errno not in {ENOENT, ENOTDIR}:
            msg = f"{shown(path)}: the file cannot be opened ({error.strerror})."
        else:
            msg = f"{shown(path)}: there is no such file."
        raise SlideError(msg) from error
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        msg = f"{path}: this is a device or a pipe, not a file; copy it to a file."
        raise SlideError(msg)


def _image_of(slide: Slide, image: str | int | None) -> Slide:
    """Return the image that was asked for, where the reader opened the main one.

    Readers that know other images than associated ones open the right one themselves.
    """
    if image is None or slide.info.backend == "zarr":
        return slide
    index = choose_image(slide.info.images, image, slide.name)
    return slide if index == slide.info.image else associated_slide(slide, index)


def _open(path: Path, image: str | int | None) -> Slide:
    _refuse_no_file(path)
    if path.is_dir():
        if is_zarr_folder(path):
            return open_omezarr(path, image=image)
        msg = (
            f"{path.name}: this folder is not an OME-Zarr image; open a file in it "
            "instead."
        )
        raise SlideError(msg)
    start, suffix = _first_bytes(path), path.suffix.lower()
    if start.startswith(TIFF_MAGIC):
        return _open_tiff(path, image)
    if start[MAGIC_AT:] == MAGIC:
        return _open_dicom(path)
    if start.startswith(ZIP_MAGIC) and suffix in {".zip", ".ozx"}:
        return open_omezarr(path, image=image)
    return (
        _open_by_name(path, suffix, image)
        or open_plain(path)
        or _open_unknown(path, start)
    )


def _open_by_name(path: Path, suffix: str, image: str | int | None) -> Slide | None:
    """Open a file whose format shows in its name; return None for any other."""
    if suffix == ".czi":
        return _open_czi(path, image)
    if suffix in OPENSLIDE_NAMES:
        return open_with_openslide(path, what=OPENSLIDE_NAMES[suffix], image=image)
    return None


def _open_tiff(path: Path, image: str | int | None) -> Slide:
    with parse_tiff(path) as tif:
        vendor = _foreign_vendor(tif)
        if vendor is None:
            return open_tiff(path, tif=tif, image=image)
    return open_with_openslide(path, what=vendor, image=image)


def _foreign_vendor(tif: Any) -> str | None:
    """Return the kind of a TIFF that only OpenSlide reads; None for any other."""
    if tif.is_ndpi:
        return "a Hamamatsu NDPI slide"
    if tif.is_scn:
        return "a Leica SCN slide"
    if tif.is_bif:
        return "a Ventana BIF slide"
    if tif.is_philips:
        return "a Philips TIFF slide"
    return None


def _open_dicom(path: Path) -> Slide:
    if openslide.is_installed():
        try:
            return open_with_openslide(path, what="a DICOM file")
        except SlideError as error:
            if dicom.is_installed():
                return dicom.open_dicom(path)
            msg = (
                f"{path.name} is a DICOM file of a kind that OpenSlide does not read; "
                'pydicom may: pip install "napari-histodistill[dicom]".'
            )
            raise SlideError(msg) from error
    if dicom.is_installed():
        return dicom.open_dicom(path)
    msg = (
        f"{path.name} is a DICOM file, which is read through pydicom or OpenSlide: "
        'pip install "napari-histodistill[dicom]" or "napari-histodistill[openslide]".'
    )
    raise SlideError(msg)


def _open_czi(path: Path, image: str | int | None) -> Slide:
    if openslide.is_installed():
        try:
            return open_with_openslide(path, what="a Zeiss CZI slide", image=image)
        except SlideError as error:
            if not czi.is_installed():
                msg = (
                    f"{path.name} is a Zeiss CZI slide of a kind that OpenSlide does "
                    "not read; pylibCZIrw does: "
                    'pip install "napari-histodistill[czi]".'
                )
                raise SlideError(msg) from error
    if czi.is_installed():
        return czi.open_czi(path, image=image)
    msg = (
        f"{path.name} is a Zeiss CZI slide, which is read through pylibCZIrw or "
        'OpenSlide: pip install "napari-histodistill[czi]" or '
        '"napari-histodistill[openslide]".'
    )
    raise SlideError(msg)


def _open_unknown(path: Path, start: bytes) -> Slide:
    suffix = path.suffix.lower()
    if openslide.knows(path):
        return open_with_openslide(path)
    if suffix in OTHER_NAMES:
        msg = (
            f"{path.name} looks like {OTHER_NAMES[suffix]}, which is not read here; "
            "convert it to OME-TIFF or OME-Zarr (QuPath and Bio-Formats do)."
        )
    elif suffix in TIFF_NAMES:
        msg = (
            f"{path.name} is named like a TIFF slide but does not start like one "
            f"({start[:4]!r}); it is damaged or was downloaded incompletely."
        )
    else:
        msg = (
            f"{path.name} is neither a slide nor an image that can be read here; "
            "TIFF (SVS, OME-TIFF, QPTIFF), OME-Zarr, PNG and JPEG are always read, "
            "other formats with the extra [openslide]."
        )
    raise SlideError(msg)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAGIC_AT + len(MAGIC))
    except OSError as error:
        msg = f"{path.name}: the file cannot be opened ({error.strerror})."
        raise SlideError(msg) from error
