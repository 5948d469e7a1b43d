"""Plain images (PNG, JPEG, BMP, WebP, JPEG 2000…): decoded whole, used as slides."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.codecs.filebytes import digest_path
from napari_histodistill.slides.formats.arrays import ArraySource
from napari_histodistill.slides.pyramid.colours import Colours, colours_of_samples
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo
from napari_histodistill.slides.tiff.metadata import PRINT_DPI, physical_size

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slides.tiff.metadata import PhysicalSize

MAX_MEGAPIXELS = 400
"""Largest plain image that is opened: without tiles, it must be decoded whole."""

TO_GREY = {"1", "L"}
TO_RAW = {"I;16", "I;16B", "I;16L", "I", "F"}


def open_plain(path: Path) -> Slide | None:
    """Open an image through Pillow; return None if Pillow does not know its format.

    Raises
    ------
    SlideError
        If it is damaged or too large to be decoded whole.
    """
    opened = _decoded(path)
    if opened is None:
        return None
    pixels, kind, about, notes = opened
    size = _size(about.get("dpi"))
    colours = _colours(pixels)
    if colours.opaque is not None and not pixels[..., 3].any() and pixels.any():
        colours = replace(
            colours.opaque, notes=("its opacity is zero everywhere and is ignored",)
        )
    info = SlideInfo(
        name=path.name,
        path=path,
        backend="plain image",
        vendor=kind,
        mpp=size.mpp if size else None,
        channels=colours.channels,
        digest=digest_path(path),
        notes=(*(size.notes if size else ()), *colours.notes, *notes),
        icc_profile=about.get("icc_profile") or None,
    )
    return Slide(with_overviews(ArraySource([pixels], colours, name=path.name)), info)


def _decoded(
    path: Path,
) -> tuple[npt.NDArray[Any], str, dict[Any, Any], tuple[str, ...]] | None:
    try:
        with warnings.catch_warnings():
            # Our own limit, checked below, replaces Pillow's warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            _refuse_huge(path, image.size)
            kind, about = image.format or "", dict(image.info)
            pixels, notes = _pixels(ImageOps.exif_transpose(image))
            return pixels, kind, about, notes
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise SlideError(_too_large(path, str(error))) from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        why = reason(error)
        msg = f"{path.name}: the image is damaged and cannot be decoded ({why})."
        raise SlideError(msg) from error


def _refuse_huge(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_MEGAPIXELS * 1e6:
        raise SlideError(_too_large(path, f"{size[0]} × {size[1]} px"))


def _too_large(path: Path, what: str) -> str:
    return (
        f"{path.name}: a plain image must be decoded whole and this one is too large "
        f"({what}; the limit is {MAX_MEGAPIXELS} megapixels); convert it to a tiled "
        "pyramidal TIFF."
    )


def _pixels(image: Image.Image) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if getattr(image, "n_frames", 1) > 1:
        notes = ("an animation: the first picture is shown",)
    mode = image.mode
    if mode in TO_RAW:
        return np.asarray(image), notes
    if mode in TO_GREY:
        return np.asarray(image.convert("L")), notes
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA")), notes
    if mode not in {"RGB", "P"}:
        notes = (*notes, f"converted from {mode} to RGB without a colour profile")
    return np.asarray(image.convert("RGB")), notes


def _colours(pixels: npt.NDArray[Any]) -> Colours:
    if pixels.ndim == 2:
        return Colours(("grey",))
    return colours_of_samples(pixels.shape[2], pixels.dtype)


def _size(dpi: Any) -> PhysicalSize | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2 or not all(dpi):
        return None
    x, y = float(dpi[0]), float(dpi[1])
    # PNG counts pixels per metre, so 72 dpi comes back as 71.9836.
    default = any(abs(x - d) < 1e-3 * d for d in PRINT_DPI)
    if (default and math.isclose(y, x, rel_tol=1e-3)) or min(y, x) <= 1:
        return None
    return physical_size(25400 / y, 25400 / x, f"{x:.6g} dpi")
