"""Damage in an otherwise good slide: pixels that cannot be decoded, and how they look.

There are two ways to read. Code that computes gets an error: a student must never see
made-up pixels. Code that displays gets a picture: everything that can be read, and
stripes, which no tissue has, where the file is broken. Black or white would be taken
for glass.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.pyramid.levels import Rect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.levels import LevelInfo, PixelSource

STRIPE_PX = 8
"""Width of the diagonal stripes, in pixels of the level that is read."""

YELLOW, BLUE = (255, 208, 0), (0, 72, 255)
"""Colours that no pixel of tissue, of glass or of a gap between scans has."""

SPOTS = (0.0, 0.5, 0.1, 0.9, 0.3, 0.7, 0.999)
"""Positions, as fractions of height and width, that are tried before a slide counts as
unreadable."""

TileCorner = tuple[int, int, int]
"""Upper left corner of a compressed tile: level, y and x in pixels of that level."""


class Damage:
    """The damage that one read met, collected from several threads.

    Attributes
    ----------
    like : ndarray or None
        ``(…, channels)``: gives type and channels where nothing can be read.
    bad : ndarray or None
        ``(height, width)`` bool, True where pixels are missing; None if none are.
    problem : str
        Message of the first error.
    corners : set of TileCorner
        Tiles that could not be decoded.
    """

    def __init__(
        self, height: int, width: int, like: npt.NDArray[Any] | None = None
    ) -> None:
        self.like = like
        self._shape = height, width
        self._lock = threading.Lock()
        self.bad: npt.NDArray[np.bool_] | None = None
        self.problem = ""
        self.corners: set[TileCorner] = set()

    def add(
        self, rows: slice, columns: slice, problem: str, *corners: TileCorner
    ) -> None:
        """Mark a rectangle (pixels of the read) as missing."""
        with self._lock:
            if self.bad is None:
                self.bad = np.zeros(self._shape, bool)
            self.bad[rows, columns] = True
            self.problem = self.problem or problem
            self.corners.update(corners)

    def add_part(self, part: Damage, y: int, x: int) -> None:
        """Add the damage of a part of this read, whose corner lies at ``(y, x)``."""
        if part.bad is None:
            return
        height, width = part.bad.shape
        with self._lock:
            if self.bad is None:
                self.bad = np.zeros(self._shape, bool)
            self.bad[y : y + height, x : x + width] |= part.bad
            self.problem = self.problem or part.problem
            self.corners |= part.corners


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """The pixels of a rectangle, with damage marked.

    Attributes
    ----------
    pixels : ndarray
        ``(height, width, channels)``; striped where pixels are missing.
    bad : ndarray or None
        ``(height, width)`` bool, True where pixels are missing; None if none are.
    problem : str
        Message of the first error; empty if everything could be read.
    corners : frozenset of TileCorner
        Tiles that could not be decoded.
    """

    pixels: npt.NDArray[Any]
    bad: npt.NDArray[np.bool_] | None = None
    problem: str = ""
    corners: frozenset[TileCorner] = frozenset()


class StripedSource:
    """A source as it is looked at: damage is striped, and its tiles are remembered.

    A slide and its lazy arrays share one. So the arrays keep the files open and not the
    slide, and there is no circle: what is let go of closes at once.

    Parameters
    ----------
    source : PixelSource
        The pixels; any thread may read them.
    like : ndarray
        ``(1, 1, channels)``: gives type and channels where nothing can be read.

    Attributes
    ----------
    unreadable : set of TileCorner
        Tiles found to be damaged so far.
    """

    def __init__(self, source: PixelSource, like: npt.NDArray[Any]) -> None:
        self._source, self.like = source, like
        self.unreadable: set[TileCorner] = set()

    @property
    def levels(self) -> Sequence[LevelInfo]:
        """Size and tile size of every level, finest first."""
        return self._source.levels

    def read(self, level: int, rect: Rect) -> Marked:
        """Return the pixels of a rectangle of a level; see :func:`read_marked`."""
        marked = read_marked(self._source, level, rect, like=self.like)
        self.unreadable.update(marked.corners)
        return marked


def read_marked(
    source: PixelSource, level: int, rect: Rect, *, like: npt.NDArray[Any]
) -> Marked:
    """Read a rectangle of a level and stripe what is broken in it.

    Parameters
    ----------
    source : PixelSource
        Read tile by tile if it does not report damage itself.
    level : int
        0 is the finest.
    rect : Rect
        In pixels of the level, inside it.
    like : ndarray
        ``(…, channels)``: gives type and channels where nothing can be read.

    Raises
    ------
    ClosedSlideError
        If the slide was closed. Any other failure to read counts as damage.
    """
    damage = Damage(rect.height, rect.width, like)
    pixels = read_part(source, level, rect, damage)
    if damage.bad is not None:
        pixels = np.require(pixels, requirements="W")
        pixels[damage.bad] = stripes(rect.y, rect.x, damage.bad, like)[damage.bad]
    return Marked(pixels, damage.bad, damage.problem, frozenset(damage.corners))


def read_part(
    source: PixelSource, level: int, rect: Rect, damage: Damage
) -> npt.NDArray[Any]:
    """Read a rectangle and note its damage; pixels missing there are arbitrary."""
    own = getattr(source, "read_damaged", None)
    read = own or partial(read_by_tiles, source)
    pixels: npt.NDArray[Any] = read(level, rect, damage)
    return pixels


def read_by_tiles(
    source: PixelSource, level: int, rect: Rect, damage: Damage
) -> npt.NDArray[Any]:
    """Read a rectangle at once or, if that fails, one compressed tile at a time."""
    try:
        return source.read_level(level, rect)
    except ClosedSlideError:
        raise
    except SlideError:
        like = probe(source) if damage.like is None else damage.like
        out = np.zeros((rect.height, rect.width, like.shape[-1]), like.dtype)
    for tile in _tiles(source.levels[level], rect):
        part = tile.intersection(rect)
        rows, columns = part.slices_in(rect)
        try:
            out[rows, columns] = source.read_level(level, part)
        except ClosedSlideError:
            raise
        except SlideError as error:
            damage.add(rows, columns, str(error), (level, tile.y, tile.x))
    return out


def probe(source: PixelSource) -> npt.NDArray[Any]:
    """Return a pixel ``(1, 1, channels)`` of level 0: the first that can be read.

    Raises
    ------
    SlideError
        If none of 49 positions can be read: that is damage of the whole file.
    """
    first = source.levels[0]
    problem: SlideError | None = None
    for down in SPOTS:
        for right in SPOTS:
            y, x = int(down * first.height), int(right * first.width)
            try:
                return source.read_level(0, Rect(y, x, 1, 1))
            except ClosedSlideError:
                raise
            except SlideError as error:
                problem = problem or error
    assert problem is not None
    raise problem


def stripes(
    y: int, x: int, bad: npt.NDArray[np.bool_], like: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return the stripes for a rectangle at ``(y, x)``; neighbours continue them."""
    height, width = bad.shape
    rows, columns = np.arange(y, y + height), np.arange(x, x + width)
    light = (rows[:, None] + columns[None, :]) // STRIPE_PX % 2 == 0
    channels, dtype = like.shape[-1], like.dtype
    if channels == 3 and dtype == np.uint8:
        colours = np.array([BLUE, YELLOW], np.uint8)
        striped: npt.NDArray[Any] = colours[light.astype(np.intp)]
        return striped
    top = np.iinfo(dtype).max if dtype.kind in "ui" else 1
    dark = {"u": top // 2, "i": top // 2, "b": 0}.get(dtype.kind, 0.5)
    grey = np.where(light, top, dark).astype(dtype)
    return np.repeat(grey[..., None], channels, axis=2)


def _tiles(info: LevelInfo, rect: Rect) -> Iterator[Rect]:
    """Yield the compressed tiles that a rectangle touches, whole."""
    height, width = info.tile_height, info.tile_width
    for y in range(rect.y - rect.y % height, rect.bottom, height):
        for x in range(rect.x - rect.x % width, rect.right, width):
            yield Rect(y, x, height, width)
