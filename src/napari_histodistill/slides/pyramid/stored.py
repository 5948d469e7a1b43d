"""What stored pixels show that a file does not say: no opacity at all, their range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

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


_BRIGHT_SHARE = 0.999


class StoredReader(Protocol):
    """A source that can return what is stored."""

    levels: Sequence[LevelInfo]

    def read_stored(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, samples)``, before any conversion."""
        ...


def is_clear(source: StoredReader, alpha: int = -1) -> bool:
    """Return whether the opacity is zero and the others are not, everywhere.

    The smallest level is looked at, then the largest: whole if they are small, else in
    parts from the centre outwards, until one is not zero. An image that is black as
    well is as it was meant: empty.

    Parameters
    ----------
    source : StoredReader
        Its pixels have an opacity among their samples.
    alpha : int
        Which sample that is.
    """
    coloured = False
    try:
        for level in dict.fromkeys((len(source.levels) - 1, 0)):
            for rect in _parts(source.levels[level]):
                pixels = source.read_stored(level, rect)
                if pixels[..., alpha].any():
                    return False
                coloured = coloured or bool(np.delete(pixels, alpha, axis=2).any())
    except SlideError:
        return False  # what is damaged proves nothing, and is reported when it is read
    return coloured


def brightest(source: StoredReader, samples: Sequence[int]) -> float:
    """Return how bright these samples get in the smallest level; 0 if it is damaged.

    That is the value which one in a thousand exceeds at most: single pixels may be
    defects. Of a large level only parts are looked at.
    """
    level, found = len(source.levels) - 1, 0.0
    try:
        for rect in _parts(source.levels[level]):
            pixels = source.read_stored(level, rect)[..., list(samples)]
            whole = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
            if whole.size:
                top = np.quantile(whole, _BRIGHT_SHARE, method="higher")
                found = max(found, float(top))
    except SlideError:
        return 0.0  # reported when it is read
    return found


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
