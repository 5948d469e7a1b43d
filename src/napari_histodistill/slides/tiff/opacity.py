"""Whether an image's opacity is zero everywhere, which its writer cannot have meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from napari_histodistill.errors import SlideError
from napari_histodistill.slides.pyramid.levels import Rect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.levels import LevelInfo

WHOLE_PX = 4 * 10**6
"""A level of at most this many pixels is read whole."""

SIDE_PX = 512
"""Edge of the parts of a larger level that are looked at."""

PARTS = 7
"""Parts along each side of a larger level. Nearly every image is done at the first."""


class StoredReader(Protocol):
    """A source that can return what is stored."""

    levels: Sequence[LevelInfo]

    def read_stored(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, samples)``, before any conversion."""
        ...


def is_clear(source: StoredReader) -> bool:
    """Return whether the last sample is zero and the others are not, everywhere.

    The smallest level is looked at, then the largest: whole if they are small, else in
    parts from the centre outwards, until one is not zero. An image that is black as
    well is as it was meant: empty.

    Parameters
    ----------
    source : StoredReader
        Its pixels have an opacity as their last sample.
    """
    coloured = False
    try:
        for level in dict.fromkeys((len(source.levels) - 1, 0)):
            for rect in _parts(source.levels[level]):
                pixels = source.read_stored(level, rect)
                if pixels[..., -1].any():
                    return False
                coloured = coloured or bool(pixels[..., :-1].any())
    except SlideError:
        return False  # what is damaged proves nothing, and is reported when it is read
    return coloured


def _parts(level: LevelInfo) -> Iterator[Rect]:
    if level.height * level.width <= WHOLE_PX:
        yield Rect(0, 0, level.height, level.width)
        return
    height, width = min(SIDE_PX, level.height), min(SIDE_PX, level.width)
    places = sorted(
        ((k, j) for k in range(PARTS) for j in range(PARTS)),
        key=lambda at: max(abs(at[0] - PARTS // 2), abs(at[1] - PARTS // 2)),
    )
    for k, j in places:
        y = (level.height - height) * k // (PARTS - 1)
        x = (level.width - width) * j // (PARTS - 1)
        yield Rect(y, x, height, width)
