"""A label, macro or thumbnail opened as a slide, because it was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_histodistill.slides.formats.arrays import ArraySource
from napari_histodistill.slides.pyramid.colours import RGB, Colours
from napari_histodistill.slides.pyramid.images import (
    ImageChoice,
    ImageRole,
    digest_of_image,
    name_of_image,
    role_of_name,
)
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_histodistill.geometry import Mpp


def with_associated(
    name: str,
    shape: tuple[int, int],
    mpp: Mpp | None,
    sizes: Mapping[str, tuple[int, int]],
) -> tuple[ImageChoice, ...]:
    """Return the images of a file that holds one slide and associated images.

    Parameters
    ----------
    name : str
        Name of the slide.
    shape : tuple of int
        Its height and width in pixels.
    mpp : Mpp or None
        Its µm per pixel.
    sizes : mapping of str to tuple of int
        Height and width of each associated image by its name.
    """
    slide = ImageChoice(name=name, index=0, height=shape[0], width=shape[1], mpp=mpp)
    return slide, *(
        ImageChoice(
            name=label, index=k, height=height, width=width, role=_never_slide(label)
        )
        for k, (label, (height, width)) in enumerate(sizes.items(), start=1)
    )


def associated_slide(slide: Slide, index: int) -> Slide:
    """Return an associated image as a slide of its own; closes the slide.

    Raises
    ------
    SlideError
        If it cannot be read; the slide is then left open.
    """
    choice = slide.info.images[index]
    pixels = slide.read_associated(choice.name)
    slide.close()
    info = replace(
        slide.info,
        name=name_of_image(slide.name, choice),
        mpp=choice.mpp,
        channels=RGB,
        digest=digest_of_image(slide.info.digest, choice),
        notes=(),
        icc_profile=None,
        bounds_origin=None,
        image=index,
    )
    source = ArraySource([pixels], Colours(RGB, background=255), name=info.name)
    return Slide(with_overviews(source), info)


def _never_slide(name: str) -> ImageRole:
    role = role_of_name(name)
    return "other" if role is None else role
