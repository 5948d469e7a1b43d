"""Levels decoded at a fraction of their size, where the compression allows it.

If a student needs 1.0 µm per pixel and the next finer level has 0.25, sixteen pixels
are decoded for each one that is used. JPEG can leave out the finer frequencies while
decoding (``slides/codecs/jpeg.py``). A shrunk pixel covers exactly ``shrink × shrink``
pixels of its level, so positions stay exact; its value is close to their mean, but not
equal to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.levels import PixelSource, Rect


def shrinks_of(source: PixelSource, level: int) -> tuple[int, ...]:
    """Return the factors by which decoding can shrink a level, smallest first."""
    ask = getattr(source, "shrinks", None)
    if ask is None:
        return ()
    factors: tuple[int, ...] = ask(level)
    return factors


def read_shrunk(
    source: PixelSource, level: int, shrink: int, rect: Rect
) -> npt.NDArray[Any]:
    """Return a rectangle of a level shrunk by one of its factors, in shrunk pixels.

    Raises
    ------
    SlideError
        If the file cannot be read there.
    """
    read = source.read_shrunk  # type: ignore[attr-defined]
    pixels: npt.NDArray[Any] = read(level, shrink, rect)
    return pixels
