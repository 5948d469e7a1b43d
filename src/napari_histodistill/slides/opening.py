"""One door for all slides: look at the content, choose the reader, or say why not."""

from __future__ import annotations

import stat
from errno import ENOENT, ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import SlideError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import openslide_backend
from napari_histodistill.slides.arrays import slide_from_arrays
from napari_histodistill.slides.decoding import reason
from napari_histodistill.slides.omezarr import is_zarr_folder, open_omezarr
from napari_histodistill.slides.openslide_backend import open_with_openslide
from napari_histodistill.slides.plain import open_plain
from napari_histodistill.slides.tiff import open_tiff, parse_tiff

if TYPE_CHECKING:
    import os

    from napari_histodistill.slides.slide import Slide

__all__ = ["open_slide", "slide_from_arrays"]

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DICOM_MAGIC = b"DICM"  # at byte 128
ZIP_MAGIC = b"PK\x03\x04"

TIFF_NAMES = (".svs", ".tif", ".tiff", ".qptiff", ".ndpi", ".scn", ".bif")
OPENSLIDE_NAMES = {
    ".mrxs": "a 3DHISTECH MRXS slide",
    ".vms": "a Hamamatsu VMS slide",
    ".vmu": "a Hamamatsu VMU slide",
    ".svslide": "a Sakura slide",
    ".czi": "a Zeiss CZI slide",
}
OTHER_NAMES = {
    ".vsi": "an Olympus VSI slide",
    ".isyntax": "a Philips iSyntax slide",
    ".mcd": "an imaging mass cytometry file",
    ".lif": "a Leica LIF file",
    ".nd2": "a Nikon ND2 file",
}


def open_slide(
    path: str | os.PathLike[str], *, mpp: float | Mpp | None = None
) -> Slide:
    """Open a slide or any plain image.

    TIFF in all its dialects, OME-Zarr and plain images are read by this package; NDPI,
    MRXS, BIF, SCN, Philips TIFF and DICOM through OpenSlide, if it is installed.

    Parameters
    ----------
    path : path-like
        A file, or the folder of an OME-Zarr image.
    mpp : float or Mpp, optional
        µm per level-0 pixel, where the file is silent or wrong.

    Returns
    -------
    Slide
        Close it after use, or use it as a context manager.

    Raises
    ------
    SlideError
        If the file cannot be read; one sentence says why and what to do.
    InputError
        If ``mpp`` is not a positive number.
    """
    path = Path(path)
    if mpp is not None and not isinstance(mpp, Mpp):
        mpp = Mpp(float(mpp), float(mpp), "typed by the user")
    slide = _open(path)
    return slide if mpp is None else slide.with_mpp(mpp)


def _refuse_no_file(path: Path) -> None:
    """Refuse what cannot be opened, and what would be read for ever."""
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        if isinstance(error, OSError) and error.errno not in {ENOENT, ENOTDIR}:
            msg = f"{path}: the file cannot be opened ({error.strerror})."
        else:
            msg = f"{path}: there is no such file."
        raise SlideError(msg) from error
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        msg = f"{path}: this is a device or a pipe, not a file; copy it to a file."
        raise SlideError(msg)


def _open(path: Path) -> Slide:
    _refuse_no_file(path)
    if path.is_dir():
        if is_zarr_folder(path):
            return open_omezarr(path)
        msg = (
            f"{path.name}: this folder is not an OME-Zarr image; open a file in it "
            "instead."
        )
        raise SlideError(msg)
    start = _first_bytes(path)
    if start.startswith(TIFF_MAGIC):
        return _open_tiff(path)
    if start[128:132] == DICOM_MAGIC:
        return _open_dicom(path)
    if start.startswith(ZIP_MAGIC) and path.suffix.lower() in {".zip", ".ozx"}:
        return open_omezarr(path)
    if path.suffix.lower() in OPENSLIDE_NAMES:
        return open_with_openslide(path, what=OPENSLIDE_NAMES[path.suffix.lower()])
    return open_plain(path) or _open_unknown(path, start)


def _open_tiff(path: Path) -> Slide:
    with parse_tiff(path) as tif:
        vendor = _foreign_vendor(tif)
        if vendor is None:
            return open_tiff(path, tif=tif)
    return open_with_openslide(path, what=vendor)


def _foreign_vendor(tif: Any) -> str | None:
    """Return what a TIFF is if its dialect is OpenSlide's to read."""
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
    try:
        return open_with_openslide(path, what="a DICOM file")
    except SlideError as error:
        if not openslide_backend.is_installed():
            raise
        msg = (
            f"{path.name}: this DICOM file is not a whole-slide image that OpenSlide "
            f"reads ({_reason(error)}); convert it to TIFF."
        )
        raise SlideError(msg) from error


def _open_unknown(path: Path, start: bytes) -> Slide:
    suffix = path.suffix.lower()
    if openslide_backend.knows(path):
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
            "TIFF (SVS, OME-TIFF, QPTIFF), OME-Zarr, PNG and JPEG always can be, "
            "others with the extra [openslide]."
        )
    raise SlideError(msg)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)
    except OSError as error:
        msg = f"{path.name}: the file cannot be opened ({error.strerror})."
        raise SlideError(msg) from error


def _reason(error: SlideError) -> str:
    """Return the bare reason of a message of the OpenSlide backend."""
    text = reason(error.__cause__ or error)
    if text.startswith("Unsupported or missing"):
        return "it is of another kind"
    return text.rsplit(": ", 1)[-1]
