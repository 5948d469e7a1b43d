"""Writing an image as a pyramidal, tiled OME-TIFF that every reader understands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tifffile

from napari_histodistill.errors import InputError
from napari_histodistill.slides.pyramid.overview import shrink

if TYPE_CHECKING:
    import numpy.typing as npt

JPEG_QUALITY = 92


def write_pyramid(  # noqa: PLR0913 - all keywords with defaults, one file format
    path: str | os.PathLike[str],
    image: npt.NDArray[Any],
    *,
    mpp: float,
    name: str = "",
    tile_px: int = 256,
    compression: Literal["jpeg", "zlib"] = "jpeg",
    note: str = "",
) -> Path:
    """Write a pyramidal OME-TIFF.

    Parameters
    ----------
    path : path-like
        File to write; replaced in one step if it exists.
    image : ndarray
        ``(height, width, 3)`` uint8, or ``(height, width)`` of any whole-number type.
    mpp : float
        µm per pixel, written as PhysicalSize.
    name : str
        Name of the image; the file's name by default.
    tile_px : int
        Edge of the compressed tiles, a multiple of 16.
    compression : {"jpeg", "zlib"}
        ``"zlib"`` is lossless; JPEG is for 8-bit images.
    note : str
        Origin of the image, for the file's description.

    Returns
    -------
    Path
        The written file.

    Raises
    ------
    InputError
        If image, mpp or tile size are not valid.
    """
    path = Path(path)
    _check(image, mpp, tile_px, compression)
    levels = _levels(image, tile_px)
    colour = image.ndim == 3
    options: dict[str, Any] = {
        "tile": (tile_px, tile_px),
        "photometric": "rgb" if colour else "minisblack",
        "compression": compression,
        "predictor": compression == "zlib",
    }
    if compression == "jpeg":
        options["compressionargs"] = {"level": JPEG_QUALITY}
        if colour:
            # Full colour resolution: stains differ in their colour.
            options["subsampling"] = (1, 1)
    metadata = {
        "axes": "YXS" if colour else "YX",
        "Name": name or path.name,
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm",
    }
    if note:
        metadata["Description"] = note
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name: a half-written file would be taken for a good one
    # the next time.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with tifffile.TiffWriter(part, ome=True, bigtiff=image.nbytes > 2**31) as tif:
            tif.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
            for level in levels[1:]:
                tif.write(level, subfiletype=1, **options)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _check(image: npt.NDArray[Any], mpp: float, tile_px: int, compression: str) -> None:
    colour = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    grey = image.ndim == 2 and image.dtype.kind == "u"
    if not (colour or grey) or image.size == 0:
        msg = (
            "write_pyramid takes (height, width, 3) uint8 or (height, width) of an "
            f"unsigned type, not {image.shape} {image.dtype}."
        )
        raise InputError(msg)
    if compression == "jpeg" and image.dtype != np.uint8:
        msg = f"JPEG holds 8 bits; use compression='zlib' for {image.dtype} pixels."
        raise InputError(msg)
    if not (np.isfinite(mpp) and mpp > 0):
        msg = f"mpp must be a positive number of µm per pixel, got {mpp}."
        raise InputError(msg)
    if tile_px < 16 or tile_px % 16:
        msg = f"TIFF tiles have an edge of a multiple of 16 px, got {tile_px}."
        raise InputError(msg)


def _levels(image: npt.NDArray[Any], tile_px: int) -> list[npt.NDArray[Any]]:
    """Halve the image until it fits two tiles."""
    levels = [np.ascontiguousarray(image)]
    while max(levels[-1].shape[:2]) > 2 * tile_px:
        last = levels[-1] if image.ndim == 3 else levels[-1][..., np.newaxis]
        height, width = (max(1, round(n / 2)) for n in last.shape[:2])
        small = shrink(last, (0, 0, last.shape[1], last.shape[0]), height, width)
        levels.append(small if image.ndim == 3 else small[..., 0])
    return levels
