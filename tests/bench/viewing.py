"""A slide of 100,000 × 100,000 px in the viewer

Opened, panned and zoomed by moves of the camera, then explored: from the click on Run
until the first coloured cell is drawn. Under Xvfb the canvas is drawn by the processor
(Mesa), which also decodes and computes; on a screen with a graphics card frames cost
less. The baseline is the same file in the same window as a dask array over tifffile's
zarr store, the usual way into napari.

*Answered* is the time until anything is drawn after a move, with the pixels at hand.
The last rows are napari's experimental asynchronous slicing, off by default. Run by
itself: ``python -m tests.bench.viewing``.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.bench.figures import Figure
from tests.bench.large_slide import MPP, SIDE_PX, tissue_places, write_large_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Move = tuple[float, float, float]
    """Camera: y and x of the centre in level-0 px, screen pixels per level-0 pixel."""

ROUNDS = 3
NAPARI = "napari, dask over tifffile's zarr store"
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
        takes until anything is drawn is kept in ``answered``.
        """
        y, x, zoom = move
        scale = float(layer.scale[-1])
        camera = self.viewer.scene.camera
        start, seen = time.perf_counter(), self.drawn
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


def add_baseline(window: Window, path: Path) -> Any:
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

    @property
    def median(self) -> float:
        return statistics.median(self.frames)

    @property
    def slow(self) -> float:
        return float(np.percentile(self.frames, 95))


def view(
    add: Callable[[Window, Path], Any],
    path: Path,
    seed: int,
    *,
    asynchronous: bool = False,
) -> Viewed:
    """Open the slide in a new window and walk over it."""
    from napari.settings import get_settings

    get_settings().experimental.async_ = asynchronous
    window = Window.open()
    start = time.perf_counter()
    layer = add(window, path)
    window.app.processEvents()
    opened = time.perf_counter() - start
    window.idle()
    frames = tuple(window.move(layer, move) for move in moves(seed))
    window.close()
    get_settings().experimental.async_ = False
    del layer
    gc.collect()
    return Viewed(opened, frames, tuple(window.answered))


@dataclass(frozen=True)
class FirstCell:
    """From the click on Run to the first coloured cell on the canvas."""

    seconds: float
    share_in_view: float
    longest_stall: float


def first_cell(path: Path, seed: int, student: str = "colon-he") -> FirstCell:
    """Open the slide in the panel, look at some tissue, press Run, wait for colour."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    from napari_histodistill.widgets.explore.dock import ExploreWidget
    from napari_histodistill.widgets.shared.slide_layers import pixels_to_world
    from tests.bench.stalls import Gaps

    window = Window.open()
    widget = ExploreWidget(window.viewer)
    window.viewer.window.add_dock_widget(widget, area="right")
    widget.choosing.open_path(path)
    session, busy = widget.session, widget.bench.pump
    window.until(lambda: not session.why_not_run and not busy.busy)
    assert session.student.name == student
    rng = np.random.default_rng(seed)
    places = tissue_places()
    place = places[rng.integers(len(places))]
    layer = widget.bench.slide_layer
    camera = window.viewer.scene.camera
    camera.center = pixels_to_world(layer, *place)
    camera.zoom = 1 / (8 * float(layer.scale[-1]))  # the canvas shows about 2 mm
    window.idle()
    window.rest(0.5)
    gaps = Gaps()
    start = time.perf_counter()
    QTest.mouseClick(widget.run_panel.button, Qt.MouseButton.LeftButton)

    def coloured() -> bool:
        shown = widget.bench.overlays.get("classes")
        return shown is not None and bool(np.any(shown.data))

    window.until(coloured)
    seen = window.drawn
    window.until(lambda: window.drawn > seen)
    seconds = time.perf_counter() - start
    shown = np.argwhere(widget.bench.overlays.get("classes").data)
    rows, columns = session.live.grid.cells_in(session.view)
    inside = [
        rows.start <= r < rows.stop and columns.start <= c < columns.stop
        for r, c in shown
    ]
    window.rest(3.0)
    widget.mapping.cancel()
    window.until(lambda: not busy.busy)
    gaps.stop()
    widget.shut_down()
    window.close()
    return FirstCell(seconds, statistics.fmean(inside), gaps.longest("idle") / 1000)


def measure() -> list[Figure]:
    """Return the figures of this section."""
    ways = (
        ("ours", add_ours, False),
        ("baseline", add_baseline, False),
        ("ours asynchronous", add_ours, True),
    )
    found: dict[str, list[Viewed]] = {name: [] for name, _, _ in ways}
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        path = write_large_slide(Path(folder) / "large.svs")
        view(
            add_ours, path, 0
        )  # the first layer of a process compiles napari's shaders
        for seed in range(ROUNDS):
            for name, add, asynchronous in ways:
                found[name].append(view(add, path, seed, asynchronous=asynchronous))
        for seed in range(ROUNDS):
            os.environ["HISTODISTILL_CACHE"] = str(Path(folder) / f"cache {seed}")
            cells.append(first_cell(path, seed))

    def rows(name: str, what: str, of: Callable[[Viewed], float]) -> Figure:
        ours, base = ([of(v) for v in found[k]] for k in (name, "baseline"))
        return Figure(what, tuple(ours), "s", NAPARI, tuple(base))

    share = statistics.fmean(cell.share_in_view for cell in cells)
    return [
        rows("ours", "opened and added to the viewer", lambda v: v.opened),
        rows("ours", "frame, median", lambda v: v.median),
        rows("ours", "frame, 95th percentile", lambda v: v.slow),
        rows("ours", "answered, median", lambda v: statistics.median(v.answered)),
        Figure(
            "click on Run until the first coloured cells are drawn",
            tuple(cell.seconds for cell in cells),
            "s",
            note=f"{share:.0%} of these cells in view",
        ),
        Figure(
            "longest stall from that click on",
            tuple(cell.longest_stall for cell in cells),
            "s",
        ),
        rows("ours asynchronous", "asynchronous: frame, median", lambda v: v.median),
        rows("ours asynchronous", "asynchronous: frame, 95th perc.", lambda v: v.slow),
        rows(
            "ours asynchronous",
            "asynchronous: answered, median",
            lambda v: statistics.median(v.answered),
        ),
    ]


if __name__ == "__main__":
    from tests.bench.measure import on_a_screen

    on_a_screen()
    for figure in measure():
        sys.stdout.write(f"{figure.row()}\n")
