"""One door for all slides: look at the content, choose the reader, or say why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.errors import SlideError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides.arrays import slide_from_arrays
from napari_histodistill.slides.tiff import open_tiff

if TYPE_CHECKING:
    import os

    from napari_histodistill.slides.slide import Slide

__all__ = ["open_slide", "slide_from_arrays"]


def open_slide(
    path: str | os.PathLike[str], *, mpp: float | Mpp | None = None
) -> Slide:
    """Open a slide or any plain image.

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
    if not path.exists():
        msg = f"{path}: there is no such file."
        raise SlideError(msg)
    slide = open_tiff(path)
    if mpp is None:
        return slide
    if not isinstance(mpp, Mpp):
        mpp = Mpp(float(mpp), float(mpp), "typed by the user")
    return slide.with_mpp(mpp)
