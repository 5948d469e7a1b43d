"""From the click on Run to the first coloured cells

A slide of 100,000 px in *Explore slide*: from the click on Run until the first coloured
cells are drawn, and the longest time from then on in which the window did not react.
Run by itself: ``python -m tests.bench.first_cells``.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench.figures import Figure
from tests.bench.large_slide import tissue_places, write_large_slide
from tests.bench.viewing import Window

ROUNDS = 3


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
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        path = write_large_slide(Path(folder) / "large.svs")
        for seed in range(ROUNDS):
            os.environ["HISTODISTILL_CACHE"] = str(Path(folder) / f"cache {seed}")
            cells.append(first_cell(path, seed))
    share = statistics.fmean(cell.share_in_view for cell in cells)
    return [
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
    ]


if __name__ == "__main__":
    from tests.bench.measure import on_a_screen

    on_a_screen()
    for figure in measure():
        sys.stdout.write(f"{figure.row()}\n")
