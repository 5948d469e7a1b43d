"""Slides of 100,000 and of 200,000 px a side in the viewer

Opened, then 200 frames of panning and zooming by moves of the camera. Under Xvfb the
canvas is drawn by the processor (Mesa), which also decodes and computes; on a screen
with a graphics card frames cost less. Colour slides are dask arrays over this package's
reader; two baselines show the same file in the same window: that reader without dask,
which napari slices itself (what the package gave it before), and dask arrays over
tifffile's zarr store, the usual way into napari (at 100,000 px only: it is slow).

*Answered* is the time until anything is drawn after a move, with the pixels at hand.
*Asynchronous* is napari's experimental slicing in a thread, off by default. The
processor's time for a frame, of all cores together, depends less on what else the
machine does. Run by itself: ``python -m tests.bench.viewing [SIDE]``.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from napari_histodistill.slides.pyramid.damage import StripedSource
from napari_histodistill.slides.pyramid.level_array import LevelArray
from tests.bench.figures import Figure
from tests.bench.large_slide import MPP, SIDE_PX, tissue_places, write_large_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Move = tuple[float, float, float]
    """Camera: y and x of the centre in level-0 px, screen pixels per level-0 pixel."""

ROUNDS = 2
SIDES_PX = (SIDE_PX, 2 * SIDE_PX)
WINDOW_PX = (1300, 850)


def moves(seed: int, side_px: int = SIDE_PX) -> Iterator[Move]:
    """Yield a walk of 200 frames: pan, zoom in, jump elsewhere, pan, and so on."""
    rng = np.random.default_rng(seed)
    places = tissue_places(side_px=side_px)
    for zoom in (1 / 64, 1 / 16, 1 / 4, 1.0, 1 / 8):
        y, x = places[rng.integers(len(places))]
        heading = rng.uniform(0, 2 * np.pi)
        step = 100 / zoom * np.array([np.sin(heading), np.cos(heading)])
        for _ in range(32):  # a drag: an eighth of the canvas per frame
            there = np.array([y, x]) + step
            step = np.where((there < 0) | (there > side_px), -step, step)  # turn back
            y, x = (float(v) for v in np.array([y, x]) + step)
            yield y, x, zoom
        for turn in range(8):  # of the wheel
            yield y, x, zoom * 1.25 ** (turn + 1)


@dataclass
class Window:
    """A napari window that tells when something was drawn."""

    viewer: Any
    app: Any
    drawn: int = 0
    answered: list[float] = field(default_factory=list)
    worked: list[float] = field(default_factory=list)

    @classmethod
    def open(cls) -> Window:
        import napari
        from qtpy.QtWidgets import QApplication

        viewer = napari.Viewer(show=True)
        viewer.window.resize(*WINDOW_PX)
        window = cls(viewer, QApplication.instance())
        window.canvas.events.draw.connect(window._count, position="last")
        window.rest(0.5)
        return window

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas._scene_canvas

    def _count(self, _event: Any) -> None:
        self.drawn += 1

    def until(self, done: Callable[[], bool], limit_s: float = 120) -> None:
        stop = time.monotonic() + limit_s
        while not done():
            self.app.processEvents()
            if time.monotonic() > stop:
                raise TimeoutError

    def rest(self, seconds: float) -> None:
        stop = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > stop)

    def idle(self) -> None:
        """Let everything that is under way come to its end."""
        self.until(lambda: not self.slicing)
        seen = -1
        while seen != self.drawn:
            seen = self.drawn
            self.rest(0.05)

    @property
    def slicing(self) -> bool:
        return bool(self.viewer._layer_slicer._layers_to_task)

    def move(self, layer: Any, move: Move) -> float:
        """Move the camera; return seconds until the pixels of the view are drawn.

        napari draws, learns which pixels are missing, fetches them and draws again: a
        frame has ended when what lies in view was drawn at its resolution. How long it
        takes until anything is drawn is kept in ``answered``, the time of all cores in
        ``worked``.
        """
        y, x, zoom = move
        scale = float(layer.scale[-1])
        camera = self.viewer.scene.camera
        start, seen = time.perf_counter(), self.drawn
        work = time.process_time()
        camera.center = y * scale, x * scale
        camera.zoom = zoom / scale
        self.until(lambda: self.drawn > seen)
        self.answered.append(time.perf_counter() - start)
        while True:
            seen = self.drawn
            fetched = getattr(layer, "_slice", None)
            self.until(lambda: not self.slicing)
            self.app.processEvents()
            if self.drawn == seen and fetched is getattr(layer, "_slice", None):
                self.worked.append(time.process_time() - work)
                return time.perf_counter() - start

    def close(self) -> None:
        self.viewer.close()
        self.rest(0.2)


def add_ours(window: Window, path: Path) -> Any:
    """Open the slide with this package; return its layer."""
    from napari_histodistill.layers.slide_layer import slide_layer
    from napari_histodistill.slides import open_slide

    data, kwargs, _ = slide_layer(open_slide(path))
    return window.viewer.add_image(data, **kwargs)


class _Bare(LevelArray):
    """A level without dask, with the chunks that napari shall read."""

    EDGE_PX = 512

    def __init__(self, source: StripedSource, level: int) -> None:
        super().__init__(source, level)
        self.chunks = (self.EDGE_PX, self.EDGE_PX, self.shape[2])
        self.size = math.prod(self.shape)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self[:, :, :]


def add_bare(window: Window, path: Path) -> Any:
    """Open it with this package's reader; no dask between it and napari."""
    from napari_histodistill.layers.slide_layer import slide_layer
    from napari_histodistill.slides import open_slide

    slide = open_slide(path)
    source = StripedSource(slide.source, slide.read_pixels(0, 0, 0, 1, 1))
    data, kwargs, _ = slide_layer(slide)
    data = [_Bare(source, level) for level in range(len(data))]
    return window.viewer.add_image(data, **kwargs)


def add_zarr(window: Window, path: Path) -> Any:
    """Open it as dask arrays over tifffile's zarr store, one chunk per tile."""
    import dask.array as da
    import tifffile
    import zarr

    with tifffile.TiffFile(path) as tif:
        store = tif.series[0].aszarr()
        count = len(tif.series[0].levels)
    group = zarr.open(store, mode="r")
    levels = [da.from_zarr(group[str(k)]) for k in range(count)]
    return window.viewer.add_image(
        levels, rgb=True, multiscale=True, contrast_limits=(0, 255),
        scale=(MPP, MPP), units=("um", "um"),
    )  # fmt: skip


@dataclass(frozen=True)
class Viewed:
    """Seconds of one opening and of every frame of one walk."""

    opened: float
    frames: tuple[float, ...]
    answered: tuple[float, ...]
    worked: tuple[float, ...]
    gained_mb: float

    @staticmethod
    def slow(seconds: Sequence[float]) -> float:
        return float(np.percentile(seconds, 95))


@dataclass(frozen=True)
class Way:
    """A way of showing a slide, and what its rows are called."""

    add: Callable[[Window, Path], Any]
    title: str
    asynchronous: bool = False
    rounds: int = ROUNDS


DASK = Way(add_ours, "dask arrays over our reader")
BARE = Way(add_bare, "our reader without dask")
ZARR = Way(add_zarr, "dask over tifffile's zarr store", rounds=1)
ASYNC = Way(add_ours, "asynchronous", asynchronous=True, rounds=1)


def view(way: Way, path: Path, walk: Iterable[Move]) -> Viewed:
    """Open the slide in a new window and walk over it."""
    from napari.settings import get_settings

    get_settings().experimental.async_ = way.asynchronous
    window = Window.open()
    start = time.perf_counter()
    layer = way.add(window, path)
    window.app.processEvents()
    opened = time.perf_counter() - start
    window.idle()
    memory = psutil.Process().memory_info
    before = memory().rss
    frames = tuple(window.move(layer, move) for move in walk)
    gained = (memory().rss - before) / 1e6
    window.close()
    get_settings().experimental.async_ = False
    del layer
    gc.collect()
    return Viewed(opened, frames, tuple(window.answered), tuple(window.worked), gained)


QUANTITIES: tuple[tuple[str, str, Callable[[Viewed], float]], ...] = (
    ("opened and added to the viewer", "s", lambda v: v.opened),
    ("frame, median", "s", lambda v: statistics.median(v.frames)),
    ("frame, 95th percentile", "s", lambda v: Viewed.slow(v.frames)),
    ("answered, median", "s", lambda v: statistics.median(v.answered)),
    ("processor time of a frame, median", "s", lambda v: statistics.median(v.worked)),
    ("processor time of a frame, mean", "s", lambda v: statistics.fmean(v.worked)),
    (
        "processor time of a frame, 95th percentile",
        "s",
        lambda v: Viewed.slow(v.worked),
    ),
    ("memory gained in the walk", "MB", lambda v: v.gained_mb),
)


def walked(path: Path, side_px: int, ways: Sequence[Way]) -> dict[Way, list[Viewed]]:
    """Take the same walks in every way, in turns; each round begins with another."""
    # The first layer of a process compiles napari's shaders, and fills caches.
    view(ways[0], path, moves(ROUNDS, side_px))
    found: dict[Way, list[Viewed]] = {way: [] for way in ways}
    for seed in range(ROUNDS):
        first = seed % len(ways)
        for way in (*ways[first:], *ways[:first]):
            if seed < way.rounds:
                found[way].append(view(way, path, moves(seed, side_px)))
    return found


def measure(sides_px: Sequence[int] = SIDES_PX) -> list[Figure]:
    """Return the figures of this section."""
    rows = []
    for side_px in sides_px:
        small = side_px == SIDE_PX
        with tempfile.TemporaryDirectory() as folder:
            path = write_large_slide(Path(folder) / "large.svs", side_px=side_px)
            ways = (DASK, BARE, ZARR, ASYNC) if small else (DASK, BARE)
            found = walked(path, side_px, ways)
        for base in (BARE, ZARR) if small else (BARE,):
            rows += _rows(side_px, found, DASK, base)
        if small:
            rows += _rows(side_px, found, ASYNC, BARE)[1:4]
    return rows


def _rows(
    side_px: int, found: dict[Way, list[Viewed]], way: Way, base: Way
) -> list[Figure]:
    prefix = f"{way.title}: " if way is ASYNC else ""
    return [
        Figure(
            f"{side_px:,} px: {prefix}{what}",
            tuple(of(v) for v in found[way]),
            unit,
            base.title,
            tuple(of(v) for v in found[base]),
        )
        for what, unit, of in QUANTITIES
    ]


if __name__ == "__main__":
    from tests.bench.measure import on_a_screen

    on_a_screen()
    for figure in measure([int(side) for side in sys.argv[1:]] or SIDES_PX):
        sys.stdout.write(f"{figure.row()}\n")
