"""A picture that is looked for: its embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Region
from napari_histodistill.slides.pyramid.resample import TOLERANCE, read_resampled

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.slides import Slide
    from napari_histodistill.students.student import Student


def embed_picture(picture: Slide, student: Student) -> npt.NDArray[np.float32]:
    """Return the embedding of the tile in the middle of a picture.

    Parameters
    ----------
    picture : Slide
        Any image that opens as one, with known µm per pixel.
    student : Student
        Embeds it as it does tiles of a slide.

    Returns
    -------
    ndarray
        ``(1, embedding_dim)`` float32.

    Raises
    ------
    InputError
        If µm per pixel are not known, or the picture is smaller than a tile.
    SlideError
        If its pixels cannot be read.
    """
    mpp, spec = picture.usable_mpp, student.spec
    if mpp is None:
        msg = f"{picture.name}: it does not say its µm per pixel; give them with --mpp."
        raise InputError(msg)
    side_um = spec.tile_px * spec.mpp
    tile = side_um / mpp.y, side_um / mpp.x
    height, width = picture.levels[0].shape[:2]
    if height * TOLERANCE < tile[0] or width * TOLERANCE < tile[1]:
        msg = (
            f"{picture.name}: it shows {height * mpp.y:.0f} × {width * mpp.x:.0f} µm, "
            f"and {spec.name} looks at {side_um:.0f} × {side_um:.0f} µm; give a larger "
            "picture."
        )
        raise InputError(msg)
    middle = Region(
        y=(height - tile[0]) / 2,
        x=(width - tile[1]) / 2,
        height=tile[0],
        width=tile[1],
    )
    pixels = read_resampled(picture, middle, height=spec.tile_px, width=spec.tile_px)
    return student.embed(pixels[None])
