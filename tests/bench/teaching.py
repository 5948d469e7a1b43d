"""Learning a stroke

A map of 20,000 squares with embeddings of 1,280 numbers is taught in the window, stroke
by stroke with real mouse events, three classes in turn. Measured from the release of
the brush until the class layer holds the new labels and every panel is redrawn; the
score, which comes later, is not in it. The baseline reads the map from the disk for the
same strokes, as is done where it is too large to hold, without a window. Stalls are
gaps of a 10 ms timer of the event loop.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import numpy as np

from napari_histodistill.controllers.explore.teach import held
from napari_histodistill.controllers.explore.teach.teaching import Taught
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import slide_from_arrays
from tests.bench.figures import Figure
from tests.bench.stalls import Gaps, turning
from tests.fakes import ColourBackend, colour_student

ROWS, COLUMNS, TILE_PX, DIM = 125, 160, 16, 1280
STROKES, WARM_UP = 38, 4
CLASSES = 3


class WideBackend(ColourBackend):
    """Mean colours, mixed into as many numbers as a real network gives."""

    def __init__(self) -> None:
        super().__init__()
        self._mix = np.random.default_rng(0).standard_normal((6, DIM), np.float32)

    def embed(self, tiles: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(len(self.batches))
        noise = rng.standard_normal((len(tiles), DIM), np.float32)
        return super().embed(tiles) @ self._mix + 0.1 * noise


def wide_student() -> Any:
    student = colour_student(tile_px=TILE_PX)
    student.backend = WideBackend()
    student.spec = student.spec.model_copy(update={"embedding_dim": DIM, "classes": ()})
    student.head = None
    return student


def stripes() -> Any:
    """A slide of broad stripes in three colours."""
    colours = np.array([(230, 150, 190), (110, 70, 150), (190, 90, 120)], np.uint8)
    across = np.arange(COLUMNS * TILE_PX) // 160 % CLASSES
    pixels = np.broadcast_to(
        colours[across], (ROWS * TILE_PX, COLUMNS * TILE_PX, 3)
    ).copy()
    return slide_from_arrays(pixels, name="stripes", mpp=Mpp(1.0, 1.0, "bench"))


def measure() -> list[Figure]:
    """Return the figures of this section."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HISTODISTILL_CACHE"] = cache
        os.environ["HISTODISTILL_DRAFTS"] = f"{cache}/drafts"
        times, gaps, disk = _in_a_window()
    quiet, teach = gaps.longest("idle"), sorted(gaps.gaps["teach"])
    high = float(np.percentile(times, 95))
    what = f"a stroke on {ROWS * COLUMNS:,} squares"
    return [
        Figure(what, tuple(times), "s", "read from the disk", tuple(disk),
               f"95th percentile {high:.3g} s"),
        Figure("longest stall while strokes are painted and learned",
               (teach[-1] / 1000,), "s", "the same window idle", (quiet / 1000,)),
    ]  # fmt: skip


def _in_a_window() -> tuple[list[float], Gaps, list[float]]:
    import napari

    from napari_histodistill.controllers.shared.map_choice import RegionChoice
    from napari_histodistill.layers.slide_layer import slide_layer
    from napari_histodistill.widgets.explore.dock import ExploreWidget

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    widget = ExploreWidget(viewer, load=lambda *_, **__: wide_student())
    viewer.window.add_dock_widget(widget, area="right")
    until = turning(widget.run_panel.message.text)

    def rest(seconds: float) -> None:
        stop = time.monotonic() + seconds
        until(lambda: time.monotonic() > stop)

    data, kwargs, _ = slide_layer(stripes())
    layer = viewer.add_image(data, **kwargs)
    until(lambda: not widget.session.why_not_run and not widget.bench.pump.busy)
    widget.mapping.choose_every_square(True)
    widget.mapping.choose_step(0)
    assert widget.session.region is RegionChoice.WHOLE
    widget.mapping.run()
    until(lambda: not widget.bench.pump.busy)
    assert widget.session.live.cells_done == ROWS * COLUMNS
    viewer.reset_view()
    rest(0.5)
    widget.teaching.add_class()
    widget.teach_panel.paint_button.setChecked(True)
    rest(1.0)
    done: list[float] = []
    # Connected last: the map and all panels are drawn before.
    widget.teaching.taught.connect(lambda: done.append(time.perf_counter()))
    gaps, times = Gaps(), []
    rest(1.0)
    for k in range(WARM_UP + STROKES):
        kind = k % CLASSES
        widget.teaching.choose_class(kind)
        rest(0.3)
        until(lambda: not widget.bench.pump.busy)
        done.clear()
        gaps.phase = "teach" if k >= WARM_UP else "warm-up"
        lifted = _stroke(viewer, layer, k, kind)
        if k + 1 < CLASSES:
            rest(1.0)
            continue
        until(lambda: bool(done))
        if k >= WARM_UP:
            times.append(done[0] - lifted)
        until(lambda: not widget.bench.pump.busy)
    gaps.phase = "after"
    gaps.stop()
    disk = _from_the_disk(widget)
    widget.shut_down()
    viewer.close()
    rest(0.2)
    return times, gaps, disk


def _stroke(viewer: Any, layer: Any, number: int, kind: int) -> float:
    """Drag the brush along a stripe; return when it was lifted."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    from tests.widgets.explore.test_flow import canvas_point

    # No two at one place: a stroke that changes nothing is not learned.
    level, stripe = divmod(number // CLASSES, 5)
    x = 160 * (kind + CLASSES * stripe) + 80
    y = 150.0 + 550 * level
    native = viewer.window._qt_viewer.canvas.native
    a, b = (canvas_point(viewer, layer, y + d, x) for d in (0, 150))
    QTest.mouseMove(native, a)
    QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=a)
    for step in range(1, 11):
        QTest.mouseMove(native, a + (b - a) * step / 10)
        QTest.qWait(8)
    lifted = time.perf_counter()
    QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=b)
    return lifted


def _from_the_disk(widget: Any, rounds: int = 5) -> list[float]:
    strokes = widget.teaching.strokes()
    widget.session.teach_memory.forget()
    most, held.MOST_BYTES = held.MOST_BYTES, 0
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for report in widget.session.teach_work(strokes)(CancelToken()):
            if isinstance(report, Taught):
                break
        found.append(time.perf_counter() - start)
    held.MOST_BYTES = most
    return found
