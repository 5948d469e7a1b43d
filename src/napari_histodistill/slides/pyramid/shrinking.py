"""Levels decoded at a fraction of their size, where compression allows it.

A student wants 1.0 µm per pixel and the next level has 0.25: sixteen pixels are decoded
for one that is used. JPEG can leave out the finer frequencies while decoding
(:mod:`slides.jpeg`). A shrunk pixel covers exactly ``shrink × shrink`` pixels of its
level, so places stay exact; its value is close to their mean and not equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.levels import PixelSource, Rect


def shrinks_of(source: PixelSource, level: int) -> tuple[int, ...]:
    """Return by what a level can be shrunk while decoding, smallest first."""
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
