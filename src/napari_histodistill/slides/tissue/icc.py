"""Colours as the scanner meant them: conversion to sRGB by the file's ICC profile.

Off unless requested: students are trained on pixels as scanners store them, and most
files carry no profile.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.pyramid.damage import read_part
from napari_histodistill.slides.pyramid.shrinking import read_shrunk, shrinks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.damage import Damage
    from napari_histodistill.slides.pyramid.levels import LevelInfo, PixelSource, Rect
    from napari_histodistill.slides.pyramid.slide import Slide


class SrgbSource:
    """A colour source whose pixels are converted from a profile to sRGB when read.

    Parameters
    ----------
    source : PixelSource
        Source of 8-bit RGB pixels.
    transform : ImageCms.ImageCmsTransform
        Conversion from its colours to sRGB.
    """

    def __init__(
        self, source: PixelSource, transform: ImageCms.ImageCmsTransform
    ) -> None:
        self._source, self._transform = source, transform
        self.levels: Sequence[LevelInfo] = source.levels

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, 3)``; see :class:`PixelSource`."""
        return self._carried(self._source.read_level(level, rect))

    def read_damaged(self, level: int, rect: Rect, damage: Damage) -> npt.NDArray[Any]:
        """Read what can be read and note the rest; see :func:`read_part`."""
        return self._carried(read_part(self._source, level, rect, damage))

    def shrinks(self, level: int) -> tuple[int, ...]:
        """Return the factors by which a level can be shrunk while decoding."""
        return shrinks_of(self._source, level)

    def read_shrunk(self, level: int, shrink: int, rect: Rect) -> npt.NDArray[Any]:
        """Return a rectangle given in pixels of the shrunk level."""
        return self._carried(read_shrunk(self._source, level, shrink, rect))

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _carried(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        ImageCms.applyTransform(image, self._transform, inPlace=True)
        return np.array(image)


def in_srgb(slide: Slide) -> Slide:
    """Return a slide (same open files) converted to sRGB by its ICC profile.

    Parameters
    ----------
    slide : Slide
        Any slide; one without a profile, or not in 8-bit colour, is returned unchanged
        but for a note.

    Returns
    -------
    Slide
        With a digest of its own: its embeddings are not those of the original.

    Raises
    ------
    SlideError
        If the profile is damaged or not for RGB.
    """
    profile = slide.info.icc_profile
    if not slide.info.is_rgb or slide.dtype != np.uint8 or profile is None:
        why = "carries no ICC profile" if profile is None else "is not 8-bit colour"
        notes = (*slide.info.notes, f"the file {why}: colours are shown as stored")
        return slide.with_info(replace(slide.info, notes=notes))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip() or "without a name"
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        msg = (
            f"{slide.name}: the file's ICC profile cannot be used ({reason(error)}); "
            "open the slide without it."
        )
        raise SlideError(msg) from error
    sha = hashlib.sha256(f"{slide.info.digest} in sRGB from ".encode() + profile)
    info = replace(
        slide.info,
        digest=sha.hexdigest(),
        stored_digest=slide.info.section,
        icc_profile=None,
        notes=(*slide.info.notes, f"carried to sRGB from the ICC profile “{name}”"),
    )
    return slide.with_info(info, SrgbSource(slide.source, transform))
