"""One stored resolution, and what a backend must be able to do with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelInfo:
    """One stored resolution.

    Attributes
    ----------
    height, width : int
        Size in pixels of this level.
    tile_height, tile_width : int
        Size of the compressed tiles; dask chunks are multiples of it.
    """

    height: int
    width: int
    tile_height: int = 256
    tile_width: int = 256


class PixelSource(Protocol):
    """What a backend provides; see ``slides/tiff/source.py`` for the reference one.

    Two abilities are optional and looked for by name. ``read_damaged(level, y, x,
    height, width, damage)`` reads what can be read and notes the rest exactly
    (``read_part`` in ``slides/pyramid/damage.py`` does it tile by tile where it is
    absent). ``shrinks(level)`` and ``read_shrunk(level, shrink, y, x, height, width)``
    decode a level at a fraction of its size (see ``slides/pyramid/shrinking.py``).
    """

    levels: Sequence[LevelInfo]
    """Finest first, at least one, each smaller than the one before."""

    def read_level(
        self, level: int, y: int, x: int, height: int, width: int
    ) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)`` of one level; may be called by threads.

        The rectangle is in pixels of the level and lies inside it.
        """
        ...

    def close(self) -> None:
        """Release every file handle of every thread."""
        ...
