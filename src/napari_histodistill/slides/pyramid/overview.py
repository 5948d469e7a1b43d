"""Coarser levels for slides that lack them, generated when first needed.

napari fetches the coarsest level for every thumbnail and for the view of the whole
slide. Without a small one, a plain 40,000 px image would be read entirely to show a
postage stamp.
"""

from __future__ import annotations

import math
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.pyramid.damage import Damage, read_part
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect
from napari_histodistill.slides.pyramid.shrinking import read_shrunk, shrinks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.damage import TileCorner
    from napari_histodistill.slides.pyramid.levels import PixelSource

COARSEST_PX = 1024
"""Levels are added until the longer side is at most this."""

TILE_PX = 512
"""Edge of the squares by which generated levels are computed."""

IN_MEMORY_BYTES = 256 * 1024**2
"""Larger generated levels go to a temporary file, which deletes itself."""


def with_overviews(source: PixelSource) -> PixelSource:
    """Return the source with generated levels; unchanged if it is coarse enough."""
    last = source.levels[-1]
    if max(last.height, last.width) <= COARSEST_PX:
        return source
    return OverviewSource(source)


class OverviewSource:
    """A source followed by generated levels: exact area means, computed once.

    Each generated level is half the size of the one before, or a quarter if the one
    before is larger than 8192 px. Sizes are rounded and the averaged areas cut to
    match, so the ratios of sizes, which place a level in the world, are exact.
    """

    def __init__(self, source: PixelSource) -> None:
        self._source = source
        self._stored = len(source.levels)
        self._generated: list[_Generated] = []
        levels = list(source.levels)
        while max(levels[-1].height, levels[-1].width) > COARSEST_PX:
            levels.append(_shrunk(levels[-1]))
        self.levels: Sequence[LevelInfo] = tuple(levels)
        for k in range(self._stored, len(levels)):
            self._generated.append(_Generated(levels[k]))

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        if level < self._stored:
            return self._source.read_level(level, rect)
        damage = Damage(rect.height, rect.width)
        pixels = self.read_damaged(level, rect, damage)
        if damage.bad is not None:
            raise SlideError(damage.problem)
        return pixels

    def read_damaged(self, level: int, rect: Rect, damage: Damage) -> npt.NDArray[Any]:
        """Read what can be read and note the rest; see :func:`read_part`."""
        if level < self._stored:
            return read_part(self._source, level, rect, damage)
        generated = self._generated[level - self._stored]
        for row in range(rect.y // TILE_PX, (rect.bottom - 1) // TILE_PX + 1):
            for column in range(rect.x // TILE_PX, (rect.right - 1) // TILE_PX + 1):
                with generated.lock(row, column):
                    if (row, column) not in generated.done:
                        self._compute(level, row, column, damage.like)
        window = slice(rect.y, rect.bottom), slice(rect.x, rect.right)
        pixels, bad = generated.pixels, generated.bad
        assert pixels is not None  # the loop above computed at least one tile
        if bad is not None and bad[window].any():
            part = Damage(rect.height, rect.width)
            part.bad, part.problem = bad[window].copy(), generated.problem
            part.corners = set(generated.corners)
            damage.add_part(part, 0, 0)
        return np.array(pixels[window])

    def shrinks(self, level: int) -> tuple[int, ...]:
        """Return the factors by which a level can be shrunk while decoding."""
        return shrinks_of(self._source, level) if level < self._stored else ()

    def read_shrunk(self, level: int, shrink: int, rect: Rect) -> npt.NDArray[Any]:
        """Return a rectangle given in pixels of the shrunk level."""
        return read_shrunk(self._source, level, shrink, rect)

    def close(self) -> None:
        """Close the source; generated levels are freed with this object."""
        self._source.close()

    def _compute(
        self, level: int, row: int, column: int, like: npt.NDArray[Any] | None
    ) -> None:
        info, finer = self.levels[level], self.levels[level - 1]
        y0, x0 = row * TILE_PX, column * TILE_PX
        y1 = min(y0 + TILE_PX, info.height)
        x1 = min(x0 + TILE_PX, info.width)
        fy, fx = finer.height / info.height, finer.width / info.width
        area = (x0 * fx, y0 * fy, x1 * fx, y1 * fy)
        shape = y1 - y0, x1 - x0
        whole = (finer.height, finer.width)
        generated = self._generated[level - self._stored]
        try:
            factor = self._factor(level - 1, area, min(fy, fx))
            rect, box = _around(area, factor, whole)
            source = (
                self.read_level(level - 1, rect)
                if factor == 1
                else self.read_shrunk(level - 1, factor, rect)
            )
        except ClosedSlideError:
            raise
        except SlideError:
            rect, box = _around(area, 1, whole)
            damage = Damage(rect.height, rect.width, like)
            source = self.read_damaged(level - 1, rect, damage)
            if damage.bad is not None:
                bad = damage.bad[..., None].astype(np.float32)
                generated.mark(
                    row, column, shrink(bad, box, *shape)[..., 0] > 0, damage
                )
        generated.put(row, column, shrink(source, box, *shape))

    def _factor(
        self, level: int, area: tuple[float, float, float, float], most: float
    ) -> int:
        """Return the factor by which to shrink a level while decoding an area."""
        info = self.levels[level]
        fitting = [
            f
            for f in self.shrinks(level)
            if f <= most + 1e-3
            and math.ceil(area[3] / f - 1e-9) * f <= info.height
            and math.ceil(area[2] / f - 1e-9) * f <= info.width
        ]
        return max(fitting, default=1)


def _around(
    area: tuple[float, float, float, float], factor: int, whole: tuple[int, int]
) -> tuple[Rect, tuple[float, float, float, float]]:
    """Return the whole pixels around an area of a shrunk level, and the area in those.

    Parameters
    ----------
    area : tuple of float
        ``left, top, right, bottom`` in pixels of the level.
    factor : int
        Factor by which the level is shrunk.
    whole : tuple of int
        Height and width of the level.
    """
    left, top, right, bottom = (side / factor for side in area)
    y, x = math.floor(top), math.floor(left)
    height = min(whole[0] // factor, math.ceil(bottom - 1e-9)) - y
    width = min(whole[1] // factor, math.ceil(right - 1e-9)) - x
    return Rect(y, x, height, width), (left - x, top - y, right - x, bottom - y)


class _Generated:
    """Pixels of one generated level, and which of its squares are computed."""

    def __init__(self, info: LevelInfo) -> None:
        self._info = info
        self.done: set[tuple[int, int]] = set()
        self.pixels: npt.NDArray[Any] | None = None
        self._locks: dict[tuple[int, int], threading.Lock] = {}
        self.bad: npt.NDArray[np.bool_] | None = None
        self.problem = ""
        self.corners: set[TileCorner] = set()
        self._making = threading.Lock()

    def lock(self, row: int, column: int) -> threading.Lock:
        """Return the lock of one square; created on first use."""
        with self._making:
            return self._locks.setdefault((row, column), threading.Lock())

    def put(self, row: int, column: int, tile: npt.NDArray[Any]) -> None:
        with self._making:
            if self.pixels is None:
                self.pixels = _storage(self._info, tile)
        y, x = row * TILE_PX, column * TILE_PX
        self.pixels[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        self.done.add((row, column))

    def mark(
        self, row: int, column: int, bad: npt.NDArray[np.bool_], damage: Damage
    ) -> None:
        """Note which pixels of a square average over some that cannot be read."""
        with self._making:
            if self.bad is None:
                self.bad = np.zeros((self._info.height, self._info.width), bool)
            self.problem = self.problem or damage.problem
            self.corners |= damage.corners
        y, x = row * TILE_PX, column * TILE_PX
        self.bad[y : y + bad.shape[0], x : x + bad.shape[1]] = bad


def shrink(
    pixels: npt.NDArray[Any],
    box: tuple[float, float, float, float],
    height: int,
    width: int,
) -> npt.NDArray[Any]:
    """Shrink a box of ``(h, w, channels)`` pixels of any type by area means.

    Parameters
    ----------
    pixels : ndarray
        ``(h, w, channels)``.
    box : tuple of float
        ``left, top, right, bottom`` in pixels of ``pixels``, edge convention.
    height, width : int
        Size of the result.
    """
    left, top, right, bottom = _inside(box, pixels.shape)
    step = (bottom - top) / height
    whole = step == round(step) == (right - left) / width and top == left == 0
    if whole and pixels.dtype == np.uint8 and step <= 16:
        return _whole_means(pixels[: round(bottom), : round(right)], int(step))
    kind = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
    rows = _means(pixels, top, bottom, height, kind)
    means = _means(rows.swapaxes(0, 1), left, right, width, kind).swapaxes(0, 1)
    if pixels.dtype.kind in "bui":
        means = np.rint(means)
    out: npt.NDArray[Any] = np.ascontiguousarray(means.astype(pixels.dtype))
    return out


def _whole_means(pixels: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    """Return means of ``step × step`` pixels, halves rounded to even: the fast case."""
    if step == 1:
        return np.ascontiguousarray(pixels)
    total = pixels[::step, ::step].astype(np.uint16)
    for k in range(1, step * step):
        total += pixels[k // step :: step, k % step :: step]
    area = step * step
    # Rounding all halves up would brighten the slide by 1/8 of a grey level per level.
    total += (total // area) % 2 if area % 2 == 0 else 0
    total += (area - 1) // 2
    means: npt.NDArray[np.uint8] = (total // area).astype(np.uint8)
    return means


def _means(
    pixels: npt.NDArray[Any], start: float, stop: float, size: int, kind: type
) -> npt.NDArray[Any]:
    """Return means of ``size`` equal parts of ``start`` to ``stop`` on the first axis.

    Pillow's box filter takes whole pixels, which is off by up to half a pixel.
    """
    from scipy.sparse import csr_array

    edges = np.linspace(start, stop, size + 1)
    low, high = edges[:-1], edges[1:]
    first = np.floor(low + 1e-9).astype(np.int64)
    taps = int((np.ceil(high - 1e-9) - first).max())
    at = first[:, np.newaxis] + np.arange(taps)
    inside = np.minimum(at + 1, high[:, np.newaxis]) - np.maximum(at, low[:, None])
    weight = (np.clip(inside, 0, None) / (high - low)[:, np.newaxis]).astype(kind)
    # Each row of the result uses few rows, so a sparse matrix makes it one pass over
    # memory instead of one per row used.
    columns = np.minimum(at, len(pixels) - 1).ravel()
    row_ends = np.arange(0, size * taps + 1, taps)
    mixing = csr_array((weight.ravel(), columns, row_ends), (size, len(pixels)))
    flat: npt.NDArray[Any] = pixels.reshape(len(pixels), -1).astype(kind, copy=False)
    means: npt.NDArray[Any] = mixing @ flat
    return means.reshape(size, *pixels.shape[1:])


def _inside(
    box: tuple[float, float, float, float], shape: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """Clip a box to the pixels: rounding can put it outside by 1e-12."""
    left, top, right, bottom = box
    return max(0.0, left), max(0.0, top), min(shape[1], right), min(shape[0], bottom)


def _shrunk(info: LevelInfo) -> LevelInfo:
    factor = 4 if max(info.height, info.width) > 8192 else 2
    height = max(1, round(info.height / factor))
    width = max(1, round(info.width / factor))
    scale = info.scale
    if scale is not None:
        scale = scale[0] * info.height / height, scale[1] * info.width / width
    return LevelInfo(
        height=height,
        width=width,
        tile_height=TILE_PX,
        tile_width=TILE_PX,
        scale=scale,
    )


def _storage(info: LevelInfo, tile: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shape = (info.height, info.width, tile.shape[2])
    if math.prod(shape) * tile.dtype.itemsize <= IN_MEMORY_BYTES:
        return np.zeros(shape, tile.dtype)
    with tempfile.TemporaryFile(prefix="histodistill-") as file:
        return np.memmap(file, tile.dtype, "w+", shape=shape)
