"""The README's sixty seconds, walked with real clicks and a stopwatch

Each time counts from the click, stroke or command to what follows from it on screen.
The demo is a process of its own, started by its command and ended by its screenshot;
the steps after it are walked in one window on the painted slide with the default
student, each window with an empty cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.bench.figures import Figure
from tests.bench.stalls import turning

if TYPE_CHECKING:
    from collections.abc import Callable

WALKS = 3
STUDENT = "colon-he"


def measure() -> list[Figure]:
    """Return the figures of this section."""
    from napari_histodistill.samples import synthetic_slide

    taken: dict[str, list[float]] = {}
    slide = synthetic_slide()
    for _ in range(WALKS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for key, seconds in {**_demo(folder), **_walk(slide, folder)}.items():
                taken.setdefault(key, []).append(seconds)
    return [Figure(what, tuple(runs), "s") for what, runs in taken.items()]


def _demo(folder: Path) -> dict[str, float]:
    """Return when the demo first spoke, and when its taught map was a picture."""
    command = [sys.executable, "-m", "napari_histodistill.cli", "demo", "--screenshot"]
    begun = time.perf_counter()
    with subprocess.Popen(
        [*command, str(folder / "demo.png")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        spoke = time.perf_counter() - begun
        process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "1. `histodistill demo`: its first word": spoke,
        "1. the map that four strokes taught, as a picture": (
            time.perf_counter() - begun
        ),
    }


class _Walk:
    """A window, hands and a stopwatch."""

    def __init__(self) -> None:
        import napari

        from napari_histodistill.controllers.shared.student_list import bundled_students
        from napari_histodistill.widgets.explore.dock import ExploreWidget

        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1300, 850)
        known = [x for x in bundled_students() if x.name == STUDENT]
        self.panel = ExploreWidget(self.viewer, students=known)
        self.viewer.window.add_dock_widget(self.panel, area="right")
        self.until = turning(self.panel.run_panel.message.text)
        self.times: dict[str, float] = {}
        self._pump: Any = self.panel.bench.pump
        self.until(lambda: not self._pump.busy)

    def timed(self, what: str, act: Callable[[], object], done: Any) -> None:
        """Act, and note how long it takes until something is true and drawn."""
        begun = time.perf_counter()
        act()
        self.until(done)
        self.until(lambda: True)
        self.times[what] = time.perf_counter() - begun
        self.until(lambda: not self._pump.busy)


def _walk(slide: Path, folder: Path) -> dict[str, float]:
    """Return how long each step took."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    from tests.widgets.explore.test_flow import click

    os.environ["HISTODISTILL_CACHE"] = str(folder / "cache")
    os.environ["HISTODISTILL_DRAFTS"] = str(folder / "drafts")
    walk = _Walk()
    panel, session, viewer = walk.panel, walk.panel.session, walk.viewer

    def press(button: Any) -> None:
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def has(layer: str) -> Callable[[], bool]:
        return lambda: layer in viewer.layers

    walk.timed(
        "2. a slide opened: Run can be pressed",
        lambda: panel.choosing.open_path(slide),
        lambda: not session.why_not_start,
    )
    live: Any = None
    begun = time.perf_counter()
    walk.timed(
        "2. Run: the first squares of the map",
        lambda: press(panel.run_panel.button),
        lambda: session.live is not None and session.live.cells_done > 0,
    )
    walk.times["2. Run: the whole map"] = time.perf_counter() - begun
    live = session.live
    layer = panel.bench.slide_layer
    tissue = np.argwhere(live.labels > 0)
    first, other = (tissue[len(tissue) * k // 3] for k in (1, 2))

    def at(cell: Any) -> tuple[float, float]:
        return live.grid.cell_region(*cell).center

    walk.timed(
        "3. a click: the heatmap and its places",
        lambda: click(viewer, layer, at(first)),
        lambda: session.similar is not None and panel.similar_panel.places.count() > 0,
    )
    walk.timed(
        "3. Shift-click, not like this",
        lambda: click(viewer, layer, at(other), Qt.KeyboardModifier.ShiftModifier),
        lambda: len(session.similar.prompts.items) == 2,
    )
    strip = panel.showing_panel
    walk.timed(
        "3. *What is shown*: one class's probability",
        lambda: press(next(b for k, b in strip.kinds.items() if k.name == "ONE_CLASS")),
        lambda: any(x.visible and x.name.startswith("Prob") for x in viewer.layers),
    )
    _teach(walk, press, at, tissue)
    walk.timed(
        "4. *Ask me*: the first question",
        lambda: press(panel.teach_panel.ask_button),
        has("Which class is this?"),
    )
    press(panel.teach_panel.ask_button)
    path = folder / "a.geojson"
    _write_annotations(path, live, tissue)
    before = session.taught
    walk.timed(
        "4. *From annotations…*: learned",
        lambda: panel.annotating.read(path),
        lambda: session.taught is not before,
    )
    panel.shut_down()
    viewer.close()
    return walk.times


def _teach(walk: _Walk, press: Any, at: Any, tissue: Any) -> None:
    from tests.widgets.explore.test_teach_flow import stroke

    panel, session = walk.panel, walk.panel.session
    layer = panel.bench.slide_layer
    press(panel.teach_panel.paint_button)
    stroke(walk.viewer, layer, at(tissue[len(tissue) // 4]), 300)
    press(panel.teach_panel.chips[1].name)
    walk.timed(
        "4. the second stroke: one's own map",
        lambda: stroke(walk.viewer, layer, at(tissue[3 * len(tissue) // 4]), 300),
        lambda: session.taught is not None,
    )
    press(panel.teach_panel.paint_button)


def _write_annotations(path: Path, live: Any, tissue: Any) -> None:
    features = []
    for k, name in ((1, "A"), (3, "B"), (4, "A")):
        box = live.grid.cell_region(*tissue[len(tissue) * k // 5])
        y, x, bottom, right = box.y, box.x, box.bottom, box.right
        ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"classification": {"name": name, "color": [1, 2, 3]}},
            }
        )
    path.write_text(json.dumps(features), "utf-8")
